//! Sessions followed live.

use loom_testkit::app::Caller;
use reqwest::{Method, Response};

use crate::harness::Rig;

struct Follower(Response, String);

impl Follower {
    async fn start(caller: &Caller) -> Self {
        let request = caller.request(Method::GET, "/api/app-sessions/stream?project=shop");
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let mut follower = Self(response, String::new());
        assert_eq!(follower.next().await.as_deref(), Some("event: ready\ndata: {}"));
        follower
    }

    async fn next(&mut self) -> Option<String> {
        loop {
            if let Some((event, rest)) = self.1.split_once("\n\n") {
                let (event, rest) = (event.to_owned(), rest.to_owned());
                self.1 = rest;
                if !event.starts_with(':') {
                    return Some(event);
                }
                continue;
            }
            let piece = self.0.chunk().await.unwrap()?;
            self.1.push_str(std::str::from_utf8(&piece).unwrap());
        }
    }

    /// Adds up what is told until it is so much.
    async fn count(&mut self, kind: &str, until: i64) {
        let mut sum = 0;
        while sum < until {
            let event = self.next().await.unwrap();
            let head = format!("event: {kind}\ndata: {{\"count\":");
            if let Some(rest) = event.strip_prefix(&head) {
                sum += rest.strip_suffix('}').unwrap().parse::<i64>().unwrap();
            }
        }
        assert_eq!(sum, until);
    }
}

#[tokio::test]
async fn who_follows_is_told_what_happens_on_any_server_and_on_no_other_project() {
    let rig = Rig::start().await;
    let other = rig.app.replica().await;
    let mut here = Follower::start(&rig.ada).await;
    let mut there = Follower::start(&rig.ada.at(&other)).await;
    for _ in 0..20 {
        rig.one("1.0", "ok").await;
    }
    here.count("session.started", 20).await;
    there.count("session.started", 20).await;
    rig.one("1.0", "crashed").await;
    here.count("session.crashed", 1).await;
    there.count("session.crashed", 1).await;
    other.shut_down().await;
    assert_eq!(there.next().await.as_deref(), Some("retry: 1000"));
    assert_eq!(there.next().await.as_deref(), Some("event: bye\ndata: {\"reason\":\"shutdown\"}"));
    assert_eq!(there.next().await, None);
}

#[tokio::test]
async fn who_may_no_more_is_told_nothing_more() {
    let rig = Rig::start().await;
    let mut follower = Follower::start(&rig.ada).await;
    sqlx::query("UPDATE api_keys SET revoked_at = now()")
        .execute(rig.app.database.pool())
        .await
        .unwrap();
    sqlx::query("SELECT pg_notify('loom_auth_revoked', 'all')")
        .execute(rig.app.database.pool())
        .await
        .unwrap();
    // The check that comes before what is told, or the one each ten seconds, whichever is first.
    rig.app.clock.advance(std::time::Duration::from_secs(60));
    rig.one("1.0", "ok").await;
    let last = loop {
        let event = follower.next().await.unwrap();
        if event.starts_with("event: bye") {
            break event;
        }
    };
    assert_eq!(last, "event: bye\ndata: {\"reason\":\"revoked\"}");
}
