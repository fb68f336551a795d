//! What those who follow threads are told.

use loom_core::{
    id::{ThreadId, new_uuid},
    principal::OrgRole,
};
use loom_testkit::{
    TestApp,
    app::{Caller, User},
};
use serde_json::{Value, json};

use crate::follow::{Follower, Told};

const ALL: &str = "/api/threads/events";

fn new_path(app: &TestApp) -> String {
    format!("/api/threads/{}", ThreadId(new_uuid(app.clock.now())))
}

async fn new_thread(app: &TestApp, ann: &Caller, visibility: &str) -> String {
    let path = new_path(app);
    let document = json!({ "messages": [], "visibility": visibility });
    ann.put(&path, &document).await.expect(201);
    path
}

async fn rename(ann: &Caller, path: &str, title: &str) {
    ann.patch(path, &json!({ "title": title })).await.expect(200);
}

fn id_of(path: &str) -> &str {
    path.rsplit('/').next().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_change_of_a_thread_is_told_in_order_and_after_a_break_from_there() {
    let app = TestApp::start().await;
    let other = app.replica().await;
    let ann = app.user("ann@example.com").await;
    let path = new_thread(&app, &ann, "private").await;
    let events = format!("{path}/events");
    let (mut follower, _) = Follower::start(&ann, &events, None).await;
    let append = json!({
        "messages": [{ "id": "m1", "role": "user", "content": "hi" }],
        "agent_state": { "kind": "calling_llm" }, "title": "named",
    });
    ann.at(&other).post(&format!("{path}/messages"), &append).await.expect(200);
    ann.patch(&path, &json!({ "visibility": "organization" })).await.expect(200);
    let mut told: Vec<Told> = Vec::new();
    for _ in 0..4 {
        told.push(follower.next().await.unwrap());
    }
    let kinds: Vec<_> = told
        .iter()
        .map(|told| (told.kind.as_str(), told.data["version"].as_i64().unwrap()))
        .collect();
    assert_eq!(kinds, [("updated", 2), ("message", 2), ("state", 2), ("visibility", 3)]);
    assert_eq!(told[0].data["changed"], json!(["title"]));
    assert_eq!(told[1].data["messages"], json!([{ "seq": 1, "id": "m1", "role": "user" }]));
    assert_eq!((&told[1].data["from_seq"], &told[1].data["to_seq"]), (&json!(1), &json!(1)));
    assert_eq!(told[2].data["agent_state"]["kind"], "calling_llm");
    assert_eq!(told[3].data["visibility"], "organization");
    assert_eq!(told[3].data["thread_id"], id_of(&path));
    drop(follower);

    // On another server, from the second event on; what happened in between is there too.
    rename(&ann, &path, "again").await;
    let seen = told[1].id.as_deref();
    let (mut follower, ready) = Follower::start(&ann.at(&other), &events, seen).await;
    assert_eq!((ready.kind.as_str(), ready.id.as_deref()), ("ready", seen));
    for expected in [&told[2], &told[3]] {
        assert_eq!(follower.next().await.unwrap().id, expected.id);
    }
    assert_eq!(follower.next().await.unwrap().data["title"], "again");
    ann.delete(&path).await.expect(204);
    let rest = follower.rest().await;
    let kinds: Vec<_> = rest.iter().map(|told| told.kind.as_str()).collect();
    assert_eq!(kinds, ["deleted", "bye"]);
    assert_eq!(rest[1].data["reason"], "not_found");
    other.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_place_that_is_not_known_begins_anew() {
    let app = TestApp::start().await;
    let ann = app.user("ann@example.com").await;
    let path = new_thread(&app, &ann, "private").await;
    let (mut follower, ready) = Follower::start(&ann, ALL, None).await;
    rename(&ann, &path, "one").await;
    let old = follower.next().await.unwrap().id.unwrap();
    rename(&ann, &path, "two").await;
    let kept = follower.next().await.unwrap().id.unwrap();
    let far = format!("{}-1", u32::MAX as i64 * 1000);
    for forged in
        [far.as_str(), "", "x", "1", "1-2-3", "-1--1", "99999999999999999999-1", "1-1' OR"]
    {
        let (_, first) = Follower::start(&ann, ALL, Some(forged)).await;
        assert_eq!(first.kind, "reset", "{forged}");
    }
    // By the query, too.
    let (mut again, first) = Follower::start(&ann, &format!("{ALL}?after={old}"), None).await;
    assert_eq!(
        (first.kind.as_str(), again.next().await.unwrap().id),
        ("ready", Some(kept.clone()))
    );

    // A week later.
    let aged =
        "UPDATE thread_events SET at = at - interval '8 days' WHERE (xid::text || '-' || id) <= $1";
    sqlx::query(aged).bind(&old).execute(app.database.pool()).await.unwrap();
    let jobs = &app.running.features.jobs;
    assert!(jobs.run_now("thread-event-cleanup").await.unwrap().items_handled > 0);
    for (after, kind) in [(&ready.id.unwrap(), "reset"), (&old, "ready"), (&kept, "ready")] {
        let (_, first) = Follower::start(&ann, ALL, Some(after)).await;
        assert_eq!(first.kind, kind, "{after}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_told_of_what_they_may_not_see() {
    let app = TestApp::start().await;
    let ann = app.user("ann@example.com").await;
    let (bob, eve) = (app.user("bob@example.com").await, app.user("eve@example.com").await);
    app.join(bob.id, ann.org, OrgRole::Member).await;
    let at_ann = |user: &User| user.caller.with("x-loom-org", &ann.org.to_string());
    let (bob, eve_there) = (at_ann(&bob), at_ann(&eve));
    assert_eq!(eve_there.get(ALL).await.status, 404);
    let (mut bobs, _) = Follower::start(&bob, ALL, None).await;
    let (mut eves, start) = Follower::start(&eve, ALL, None).await;
    let private = new_thread(&app, &ann, "private").await;
    let shared = new_thread(&app, &ann, "organization").await;
    let public = new_thread(&app, &ann, "public").await;
    for stranger in [&bob, &*eve] {
        stranger.get(&format!("{private}/events")).await.expect(404);
    }
    eve.get(&format!("{shared}/events")).await.expect(404);
    let (mut eves_public, _) = Follower::start(&eve, &format!("{public}/events"), None).await;
    for path in [&private, &shared, &public] {
        rename(&ann, path, "secret plans").await;
    }
    let own = new_thread(&app, &eve, "private").await;
    rename(&bob, &new_thread(&app, &bob, "private").await, "last").await;

    // Eve is told of her own alone, live and from the outbox.
    let told = eves.next().await.unwrap();
    assert_eq!(told.data["thread_id"], id_of(&own));
    let (mut again, _) = Follower::start(&eve, ALL, start.id.as_deref()).await;
    assert_eq!(again.next().await.unwrap().data["thread_id"], id_of(&own));
    assert_eq!(eves_public.next().await.unwrap().data["title"], "secret plans");
    let mut seen = Vec::new();
    loop {
        let told = bobs.next().await.unwrap();
        seen.push(told.data["thread_id"].clone());
        if told.data["title"] == "last" {
            break;
        }
    }
    assert!(!seen.contains(&json!(id_of(&private))));
    assert!(seen.contains(&json!(id_of(&shared))) && seen.contains(&json!(id_of(&public))));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_see_a_thread_any_more_is_told_that_and_nothing_else() {
    let app = TestApp::start().await;
    let ann = app.user("ann@example.com").await;
    let bob = app.user("bob@example.com").await;
    app.join(bob.id, ann.org, OrgRole::Member).await;
    let bob = bob.caller.with("x-loom-org", &ann.org.to_string());
    let path = new_thread(&app, &ann, "organization").await;
    let (mut all, _) = Follower::start(&bob, ALL, None).await;
    let (one, _) = Follower::start(&bob, &format!("{path}/events"), None).await;
    ann.patch(&path, &json!({ "visibility": "private", "title": "secret" })).await.expect(200);
    rename(&ann, &path, "more secret").await;
    let marker = new_thread(&app, &ann, "organization").await;

    let hidden = json!({ "thread_id": id_of(&path), "reason": "hidden" });
    let told = all.next().await.unwrap();
    assert_eq!((told.kind.as_str(), &told.data), ("deleted", &hidden));
    assert_eq!(all.next().await.unwrap().data["thread_id"], id_of(&marker));
    let rest = one.rest().await;
    assert_eq!(rest[0].data, hidden);
    assert_eq!((rest[1].kind.as_str(), rest.len()), ("bye", 2));
    ann.patch(&path, &json!({ "visibility": "organization" })).await.expect(200);
    let told = all.next_of(&["visibility"]).await;
    assert_eq!(told.data["thread_id"], id_of(&path));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_thread_was_told_of_before_is_not_told_after_it_was_hidden() {
    let app = TestApp::start().await;
    let ann = app.user("ann@example.com").await;
    let bob = app.user("bob@example.com").await;
    app.join(bob.id, ann.org, OrgRole::Member).await;
    let bob = bob.caller.with("x-loom-org", &ann.org.to_string());
    let (_, start) = Follower::start(&bob, ALL, None).await;
    let path = new_thread(&app, &ann, "organization").await;
    rename(&ann, &path, "plans").await;
    ann.patch(&path, &json!({ "visibility": "private" })).await.expect(200);
    new_thread(&app, &ann, "organization").await;
    let (mut all, _) = Follower::start(&bob, ALL, start.id.as_deref()).await;
    let told = all.next().await.unwrap();
    assert_eq!((told.kind.as_str(), &told.data["reason"]), ("deleted", &json!("hidden")));
    assert_ne!(all.next().await.unwrap().data["thread_id"], id_of(&path));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_ends_with_its_credential() {
    let app = TestApp::start().await;
    let ann = app.user("ann@example.com").await;
    let new = json!({ "name": "viewer", "kind": "personal", "scopes": ["threads:read"] });
    let keys = format!("/api/orgs/{}/api-keys", ann.org);
    let key: Value = ann.post(&keys, &new).await.expect(201).json();
    let viewer = app.anonymous().with_key(key["secret"].as_str().unwrap());
    let path = new_thread(&app, &ann, "private").await;
    let (mut follower, _) = Follower::start(&viewer, ALL, None).await;
    rename(&ann, &path, "seen").await;
    assert_eq!(follower.next().await.unwrap().data["title"], "seen");
    ann.delete(&format!("{keys}/{}", key["id"].as_str().unwrap())).await.expect(204);
    let stop = tokio::spawn(async move {
        let mut n = 0;
        loop {
            rename(&ann.caller, &path, &format!("secret {n}")).await;
            n += 1;
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    });
    let rest = follower.rest().await;
    stop.abort();
    let bye = rest.last().unwrap();
    assert_eq!((bye.kind.as_str(), &bye.data["reason"]), ("bye", &json!("revoked")));
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_are_bounded_and_end_with_the_server() {
    let app = TestApp::start().await;
    let ann = app.user("ann@example.com").await;
    let mut followers = Vec::new();
    for _ in 0..50 {
        followers.push(Follower::start(&ann, ALL, None).await.0);
    }
    let refused = ann.get(ALL).await.expect(429);
    assert_eq!(refused.code(), "too_many_watchers");
    assert!(refused.header("retry-after").is_some());
    let last = followers.pop().unwrap();
    drop(followers);
    let stopped = tokio::spawn(app.stop());
    let rest = last.rest().await;
    assert_eq!(rest.last().unwrap().data["reason"], "shutdown");
    stopped.await.unwrap();
}
