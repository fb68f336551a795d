//! Limits and memory hold for all ways in together: Sentry's protocol, capture, native sessions.

use loom_testkit::{Answer, Caller, Setup, TestApp, User};
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::EVENT;

struct World {
    app: TestApp,
    ada: User,
    number: i64,
    key: String,
    key_id: String,
}

impl World {
    async fn start(setup: Setup) -> Self {
        let app = setup.manual_clock().start().await;
        let ada = app.user("ada@example.com").await;
        let new = json!({"name": "Shop"});
        let made = ada.post("/api/crash/projects", &new).await.expect(201).json();
        let keys = ada.get("/api/crash/projects/shop/keys").await.expect(200).json();
        let key_id = keys["keys"][0]["id"].as_str().unwrap().to_owned();
        let key = made["dsn"].as_str().unwrap().split_once("://").unwrap().1[..32].to_owned();
        Self { app, ada, number: made["number"].as_i64().unwrap(), key, key_id }
    }

    async fn limit_key(&self, count: u32) {
        let patch = json!({"limit": {"count": count, "window_secs": 60}});
        let path = format!("/api/crash/projects/shop/keys/{}", self.key_id);
        self.ada.patch(&path, &patch).await.expect(200);
    }

    async fn send(&self, path: &str, body: &Value) -> Answer {
        let anonymous: Caller = self.app.anonymous();
        let request = anonymous.request(Method::POST, path).header("x-crash-api-key", &self.key);
        anonymous.send(request.json(body)).await
    }

    async fn envelope(&self, items: &str) -> Answer {
        let anonymous = self.app.anonymous();
        let path = format!("/api/{}/envelope/?sentry_key={}", self.number, self.key);
        let body = format!("{{\"event_id\":\"{EVENT}\"}}\n{items}\n");
        anonymous.send(anonymous.request(Method::POST, &path).body(body)).await
    }
}

fn fault() -> Value {
    json!({"exception_type": "E", "exception_value": "x"})
}

#[track_caller]
fn limited(answer: Answer) {
    let answer = answer.expect(429);
    assert_eq!(answer.code(), "rate_limited");
    assert_eq!(answer.header("retry-after"), Some("60"));
}

#[tokio::test]
async fn the_limit_of_a_key_counts_envelopes_capture_and_batches_together() {
    let world = World::start(Setup::default()).await;
    world.limit_key(3).await;
    world.envelope("{\"type\":\"event\"}\n{\"message\":\"x\"}").await.expect(200);
    world.send("/api/crash/capture", &fault()).await;
    let batch = json!({"events": [fault(), fault(), fault()]});
    let results = world.send("/api/crash/batch", &batch).await.expect(200).json();
    let codes: Vec<_> = (0..3)
        .map(|n| results["results"][n]["error"]["code"].as_str().unwrap_or("taken"))
        .collect();
    assert_eq!(codes, ["taken", "rate_limited", "rate_limited"]);
    limited(world.send("/api/crash/capture", &fault()).await);
    world.envelope("{\"type\":\"event\"}\n{\"message\":\"x\"}").await.expect(429);
    // A credential is not the key.
    let mut event = fault();
    event["project_id"] = "shop".into();
    let answer = world.ada.post("/api/crash/capture", &event).await;
    assert!(answer.status.is_success(), "{}", answer.status);
    assert_eq!(world.app.rows("SELECT event_id FROM crash_raw").await.len(), 4);
}

#[tokio::test]
async fn the_limit_of_a_key_counts_native_sessions_with_those_of_sdks() {
    let world = World::start(Setup::default()).await;
    world.limit_key(2).await;
    let start = |id: &str| json!({"session_id": id, "release": "1.0"});
    world.send("/api/app-sessions/start", &start("a")).await.expect(200);
    let session = "{\"type\":\"session\"}\n{\"sid\":\"00000000-0000-4000-8000-000000000001\",\"init\":true,\"status\":\"ok\",\"attrs\":{\"release\":\"1.0\"}}";
    world.envelope(session).await.expect(200);
    for verb in ["start", "update", "end"] {
        limited(world.send(&format!("/api/app-sessions/{verb}"), &start("a")).await);
    }
    limited(world.send("/api/sessions/end", &start("a")).await);
    world.envelope(session).await.expect(429);
    // Events are counted by themselves.
    let answer = world.send("/api/crash/capture", &fault()).await;
    assert!(answer.status.is_success(), "{}", answer.status);
}

#[tokio::test]
async fn the_limit_of_an_organisation_also_counts_what_comes_with_a_credential() {
    let limit = Setup::default().set("LOOM_SERVER_INGEST_ORG_ITEMS_PER_MINUTE", "2");
    let world = World::start(limit).await;
    let start = json!({"project_id": "shop", "session_id": "a", "release": "1.0"});
    world.ada.post("/api/app-sessions/start", &start).await.expect(200);
    world.send("/api/app-sessions/start", &start).await.expect(200);
    limited(world.ada.post("/api/app-sessions/end", &start).await);
    // Another organisation has its own.
    let eve = world.app.user("eve@example.com").await;
    eve.post("/api/crash/projects", &json!({"name": "Eve", "slug": "eve"})).await.expect(201);
    let start = json!({"project_id": "eve", "session_id": "a", "release": "1.0"});
    eve.post("/api/app-sessions/start", &start).await.expect(200);
}

#[tokio::test]
async fn bodies_of_our_own_api_have_their_limits_and_encodings_too() {
    let world = World::start(Setup::default()).await;
    let big = json!({"session_id": "a", "release": "1.0", "distinct_id": "x".repeat(200_000)});
    let answer = world.send("/api/app-sessions/start", &big).await.expect(413);
    assert_eq!(answer.code(), "payload_too_large");
    let anonymous = world.app.anonymous();
    let packed = crate::harness::encoded("gzip", br#"{"session_id":"a","release":"1.0"}"#).await;
    let request = |encoding: &str| {
        anonymous
            .request(Method::POST, "/api/app-sessions/start")
            .header("x-crash-api-key", &world.key)
            .header("content-type", "application/json")
            .header("content-encoding", encoding)
            .body(packed.clone())
    };
    anonymous.send(request("gzip")).await.expect(200);
    assert_eq!(anonymous.send(request("lzma")).await.expect(415).code(), "unsupported_media_type");
    assert_eq!(anonymous.send(request("br")).await.expect(400).code(), "incomplete_body");
}

#[tokio::test]
async fn an_event_that_is_sent_again_has_not_made_its_issue_again() {
    let world = World::start(Setup::default()).await;
    let mut event = fault();
    event["event_id"] = EVENT.into();
    let first = world.send("/api/crash/capture", &event).await.expect(200).json();
    assert_eq!(first["is_new_issue"], true);
    world.app.clock.advance(std::time::Duration::from_secs(1));
    let again = world.send("/api/crash/capture", &event).await.expect(200).json();
    assert_eq!(again["issue_id"], first["issue_id"]);
    assert_eq!((&again["is_new_issue"], &again["is_regression"]), (&json!(false), &json!(false)));
}
