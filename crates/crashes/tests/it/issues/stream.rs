//! Issues, followed live.

use std::time::Duration;

use futures::StreamExt;
use loom_core::principal::OrgRole;
use loom_testkit::app::Caller;
use serde_json::{Value, json};

use super::{New, World};

/// A stream that is read event by event.
struct Follower {
    body: futures::stream::BoxStream<'static, Vec<u8>>,
    read: String,
}

impl Follower {
    async fn start(caller: &Caller, path: &str) -> Self {
        let answer = caller.request(reqwest::Method::GET, path).send().await.unwrap();
        assert_eq!(answer.status().as_u16(), 200);
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        let body = answer.bytes_stream().filter_map(async |piece| Some(piece.ok()?.to_vec()));
        Self { body: body.boxed(), read: String::new() }
    }

    /// The next event; none at the end.
    async fn next(&mut self) -> Option<(String, Value)> {
        tokio::time::timeout(Duration::from_secs(60), self.read()).await.unwrap()
    }

    async fn read(&mut self) -> Option<(String, Value)> {
        loop {
            if let Some((event, rest)) = self.read.split_once("\n\n") {
                let event = event.to_owned();
                self.read = rest.to_owned();
                let Some(event) = event.strip_prefix("event: ") else { continue };
                let (name, data) = event.split_once("\ndata: ").unwrap();
                return Some((name.to_owned(), serde_json::from_str(data).unwrap()));
            }
            let piece = self.body.next().await?;
            self.read.push_str(&String::from_utf8(piece).unwrap());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn watchers_of_every_server_are_told_what_happens_to_issues() {
    let world = World::new().await;
    let other = world.app.replica().await;
    let made = world.issue(New::default()).await;
    let second = world.issue(New { title: "second", ..New::default() }).await;
    let bob = world.app.user("bob@example.com").await;
    let path = format!("{}/stream", world.path);
    let mut here = Follower::start(&world.ada, &path).await;
    let mut there = Follower::start(&world.ada.at(&other), "/api/crash/stream").await;
    let some = format!("{path}?event=issue.new,issue.merged");
    let mut some = Follower::start(&world.ada, &some).await;
    world.ada.get("/api/crash/stream?event=issue.exploded").await.expect(422);
    let mut foreign = Follower::start(&bob, "/api/crash/stream").await;
    let (name, init) = here.next().await.unwrap();
    assert_eq!((name.as_str(), &init["issue_count"]), ("init", &json!(2)));
    assert_eq!(init["project_id"], json!(world.project));
    assert_eq!(there.next().await.unwrap().1, json!({ "project_id": null, "issue_count": 2 }));
    assert_eq!(foreign.next().await.unwrap().1["issue_count"], 0);
    world.act(&made, "resolve", &json!({})).await;
    world.act(&made, "assign", &json!({ "assigned_to": "me" })).await;
    world.act(&made, "ignore", &json!({})).await;
    world.act(&made, "merge", &json!({ "issues": [second.id] })).await;
    for follower in [&mut here, &mut there] {
        for expected in ["issue.resolved", "issue.assigned", "issue.ignored", "issue.merged"] {
            let (name, data) = follower.next().await.unwrap();
            assert_eq!(name, expected);
            assert_eq!(data["issue_id"], json!(made.id));
            assert_eq!(data["short_id"], "WEB-1");
            assert_eq!(data["project_id"], json!(world.project));
        }
    }
    assert_eq!(some.next().await.unwrap().0, "init");
    assert_eq!(some.next().await.unwrap().0, "issue.merged");
    // Nobody else heard of it: the next thing that others hear is their own.
    let new = json!({ "name": "Bobs" });
    let bobs = bob.post("/api/crash/projects", &new).await.expect(201).json();
    let word = json!({
        "org_id": bob.org, "project_id": bobs["id"], "event": "issue.new", "title": "his",
    });
    sqlx::query("SELECT pg_notify('loom_crashes', $1)")
        .bind(format!("stream {word}"))
        .execute(world.app.database.pool())
        .await
        .unwrap();
    let (name, data) = foreign.next().await.unwrap();
    assert_eq!((name.as_str(), &data["title"]), ("issue.new", &json!("his")));
    // Words that were lost.
    sqlx::query("SELECT pg_notify('loom_crashes', 'read-again')")
        .execute(world.app.database.pool())
        .await
        .unwrap();
    for follower in [&mut here, &mut there] {
        assert_eq!(follower.next().await.unwrap().0, "reset");
    }
    other.shut_down().await;
    assert_eq!(there.next().await, Some(("bye".to_owned(), json!({ "reason": "shutdown" }))));
    assert_eq!(there.next().await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_no_more_is_told_nothing_more() {
    let world = World::new().await;
    let made = world.issue(New::default()).await;
    let bob = world.app.user("bob@example.com").await;
    world.app.join(bob.id, world.ada.org, OrgRole::Member).await;
    let there = bob.with("x-loom-org", &world.ada.org.to_string());
    let mut follower = Follower::start(&there, &format!("{}/stream", world.path)).await;
    assert_eq!(follower.next().await.unwrap().0, "init");
    let keys = format!("/api/orgs/{}/api-keys", bob.org);
    let all = bob.get(&keys).await.expect(200).json();
    let key = all["api_keys"][0]["id"].as_str().unwrap().to_owned();
    bob.delete(&format!("{keys}/{key}")).await.expect(204);
    // The first event after the authorisation is no more fresh ends it.
    let (end, _) = loop {
        world.act(&made, "resolve", &json!({})).await;
        let (name, data) = follower.next().await.unwrap();
        if name != "issue.resolved" {
            break (name, data);
        }
    };
    assert_eq!(end, "bye");
    assert_eq!(follower.next().await, None);
}

#[tokio::test]
async fn one_who_watches_too_much_is_told_so() {
    let world = World::new().await;
    let mut open = Vec::new();
    for _ in 0..50 {
        open.push(Follower::start(&world.ada, "/api/crash/stream").await);
    }
    let refused = world.ada.get("/api/crash/stream").await.expect(429);
    assert_eq!(refused.code(), "too_many_watchers");
    drop(open);
    // Places are given back.
    loom_testkit::eventually(async || {
        let answer =
            world.ada.request(reqwest::Method::GET, "/api/crash/stream").send().await.unwrap();
        (answer.status().as_u16() == 200).then_some(())
    })
    .await;
}
