//! What was said stays with those who said it, unless their organisation wants it kept.

use std::time::Duration;

use loom_core::principal::OrgRole;
use loom_testkit::{Answer, Setup, TestApp, User, eventually};
use reqwest::Method;
use serde_json::{Value, json};

use super::{GPT, Op, SONNET, begin_stream, post};
use crate::sign_in::dump::dump;

/// Nothing else holds this.
const SAID: &str = "zebra-crossing-at-midnight-4711";
/// Of the mock's usual reply.
const ANSWERED: &str = "Hello";

fn body(op: Op, streamed: bool) -> Value {
    let model = op.priced_model();
    let body = if streamed { op.stream_body(model) } else { op.body(model) };
    serde_json::from_str(&body.to_string().replace("\"Hi\"", &format!("\"{SAID}\""))).unwrap()
}

async fn change(user: &User, capture: Value) -> Answer {
    let path = format!("/api/orgs/{}/llm/settings", user.org);
    user.patch(&path, &json!({"capture": capture})).await.expect(200)
}

/// The capture of the newest request, once there are so many.
async fn newest(app: &TestApp, user: &User, count: usize) -> Value {
    app.llm_requests(count).await;
    eventually(async || {
        let rows =
            app.rows("SELECT id FROM llm_requests ORDER BY started_at DESC, id DESC LIMIT 1").await;
        let path = format!("/api/llm/requests/{}/capture", rows.first()?["id"].as_str()?);
        let answer = user.get(&path).await;
        (answer.status == 200).then(|| answer.json())
    })
    .await
}

#[tokio::test]
async fn no_text_of_a_request_or_a_reply_is_kept_anywhere_by_default() {
    let app = Setup::default().set("LOOM_SERVER_LOG_LEVEL", "debug").logs().start().await;
    let admin = app.admin("ada@example.com").await;
    let mut said_by_model = Vec::new();
    for op in Op::ALL {
        for streamed in [false, true] {
            let received = post(&admin, op.path(), body(op, streamed).to_string()).await;
            assert_eq!(received.status, 200);
            said_by_model.push(received.text().to_owned());
        }
        // Also where something goes wrong.
        for model in [
            "openai/mock-error-500",
            "openai/mock-cut",
            "openai/mock-midstream-error",
            "nobody/knows",
        ] {
            let mut wrong = body(op, true);
            wrong["model"] = json!(model);
            post(&admin, op.path(), wrong.to_string()).await;
        }
    }
    let native = json!({"model": GPT, "messages": [{"role": "user", "content": SAID}]});
    admin.post("/proxy/openai/complete", &native).await.expect(200);
    admin.post("/proxy/openai/stream", &native).await.expect(200);
    // A repeat can only be answered from what is kept: sealed.
    let keyed = admin.with("idempotency-key", "k");
    for _ in 0..2 {
        post(&keyed, Op::Chat.path(), body(Op::Chat, true).to_string()).await;
    }
    assert!(said_by_model.iter().all(|text| text.contains(ANSWERED)), "{said_by_model:?}");
    app.llm_requests(20).await;
    let dump = dump(&app).await;
    assert!(dump.contains(SONNET), "the dump shows what is stored");
    let hidden = hex(SAID.as_bytes());
    assert!(!dump.contains(SAID) && !dump.contains(&hidden));
    assert!(!dump.contains(&hex(ANSWERED.as_bytes())) && !dump.contains(ANSWERED));
    assert!(app.rows("SELECT 1 FROM llm_captures").await.is_empty());
    let logs = admin.get("/api/admin/logs?limit=1000").await.expect(200);
    assert!(logs.json()["entries"].as_array().is_some_and(|all| !all.is_empty()), "{}", logs.text);
    assert!(!logs.text.contains(SAID));
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn what_is_captured_is_sealed_and_there_for_admins() {
    let app = TestApp::start().await;
    let user = app.user("ada@example.com").await;
    let other = app.replica().await;
    change(&user, json!({"enabled": true})).await;
    let mut count = 0;
    for op in Op::ALL {
        for streamed in [false, true] {
            let body = body(op, streamed).to_string();
            let received = post(&user, op.path(), body.clone()).await;
            count += 1;
            let capture = newest(&app, &user, count).await;
            assert_eq!(capture["request"], json!({"body": body, "truncated": false}));
            assert_eq!(capture["reply"]["body"].as_str(), Some(received.text()), "{op:?}");
            let kind = received.headers["content-type"].to_str().unwrap();
            assert_eq!(capture["reply"]["content_type"], kind);
            assert_eq!(
                (&capture["reply"]["status"], &capture["reply"]["is_whole"]),
                (&json!(200), &json!(true))
            );
        }
    }
    // What failed, too; on every replica.
    let mut wrong = body(Op::Chat, false);
    wrong["model"] = json!("mock-error-500");
    let rows = app.rows("SELECT 1 FROM llm_captures").await.len();
    eventually(async || {
        user.at(&other).post(Op::Chat.path(), &wrong).await.expect(500);
        (app.rows("SELECT 1 FROM llm_captures").await.len() > rows).then_some(())
    })
    .await;
    assert_eq!(newest(&app, &user, count + 1).await["reply"]["status"], 500);
    let dump = dump(&app).await;
    assert!(!dump.contains(SAID) && !dump.contains(&hex(SAID.as_bytes())));
    other.shut_down().await;
}

#[tokio::test]
async fn a_capture_says_when_the_client_left_and_when_there_was_more() {
    let app = TestApp::start().await;
    let user = app.user("ada@example.com").await;
    change(&user, json!({"enabled": true, "redact": false})).await;
    drop(begin_stream(&user, Op::Chat, "mock-stall").await);
    let capture = newest(&app, &user, 1).await;
    assert_eq!(capture["reply"]["is_whole"], false);
    assert!(capture["reply"]["body"].as_str().unwrap().contains("Hello"), "{capture}");

    let mut long = Op::Chat.stream_body("mock-huge-line");
    long["messages"][0]["content"] = json!("x".repeat(5 << 20));
    post(&user, Op::Chat.path(), long.to_string()).await;
    let capture = newest(&app, &user, 2).await;
    assert_eq!(capture["reply"]["truncated"], true);
    assert_eq!(capture["request"]["truncated"], true);
    for part in ["request", "reply"] {
        assert_eq!(capture[part]["body"].as_str().unwrap().len(), 4 << 20, "{part}");
    }
}

#[tokio::test]
async fn secrets_in_what_is_captured_are_masked() {
    let app = TestApp::start().await;
    let user = app.user("ada@example.com").await;
    let secret = "ghp_016C7e4d1A9fB2c8D5e3F6a7B8c9D0e1F2a3";
    let mut said = body(Op::Chat, false);
    said["messages"][0]["content"] = json!(format!("my token is {secret}"));
    for (count, redact, there) in [(1, true, false), (2, false, true)] {
        change(&user, json!({"enabled": true, "redact": redact})).await;
        user.post(Op::Chat.path(), &said).await.expect(200);
        let capture = newest(&app, &user, count).await;
        assert_eq!(capture["is_redacted"], redact);
        let text = capture["request"]["body"].as_str().unwrap();
        assert_eq!(text.contains(secret), there, "{text}");
        assert!(text.contains("my token is"), "{text}");
    }
}

#[tokio::test]
async fn only_admins_read_and_turn_and_each_time_is_written_down() {
    let app = TestApp::start().await;
    let ada = app.user("ada@example.com").await;
    let bob = app.user("bob@example.com").await;
    app.join(bob.id, ada.org, OrgRole::Member).await;
    let org = ada.org.to_string();
    let bob_here = bob.with("x-loom-org", &org);
    change(&ada, json!({"enabled": true})).await;
    bob_here.post(Op::Chat.path(), &body(Op::Chat, false)).await.expect(200);
    let capture = newest(&app, &ada, 1).await;
    let id = capture["request_id"].as_str().unwrap();
    let path = format!("/api/llm/requests/{id}/capture");
    bob_here.get(&path).await.expect(403);
    bob.get(&path).await.expect(404);
    let settings = format!("/api/orgs/{org}/llm/settings");
    bob_here.patch(&settings, &json!({"capture": {"enabled": false}})).await.expect(403);
    bob_here.delete(&format!("/api/orgs/{org}/llm/captures")).await.expect(403);
    let acts = app.rows("SELECT * FROM audit_log WHERE action = 'llm_capture.read'").await;
    assert_eq!(acts.len(), 1);
    assert_eq!(acts[0]["target"], id);
    // Off: nothing more; what is there goes when it is told to.
    change(&ada, json!({"enabled": false})).await;
    bob_here.post(Op::Chat.path(), &body(Op::Chat, false)).await.expect(200);
    app.llm_requests(2).await;
    ada.get(&path).await.expect(200);
    let gone = ada.delete(&format!("/api/orgs/{org}/llm/captures")).await.expect(200);
    assert_eq!(gone.json()["deleted_count"], 1);
    ada.get(&path).await.expect(404);
    assert!(app.rows("SELECT 1 FROM llm_captures").await.is_empty());
}

#[tokio::test]
async fn captures_are_kept_for_their_days() {
    let app = Setup::default().manual_clock().start().await;
    let user = app.user("ada@example.com").await;
    change(&user, json!({"enabled": true, "retention_days": 2})).await;
    user.post(Op::Chat.path(), &body(Op::Chat, false)).await.expect(200);
    let id = newest(&app, &user, 1).await["request_id"].as_str().unwrap().to_owned();
    let path = format!("/api/llm/requests/{id}/capture");
    let clean = async || app.running.features.jobs.run_now("llm-record-cleanup").await.unwrap();
    app.clock.advance(Duration::from_secs(47 * 3600));
    clean().await;
    user.get(&path).await.expect(200);
    app.clock.advance(Duration::from_secs(2 * 3600));
    user.get(&path).await.expect(404);
    clean().await;
    assert!(app.rows("SELECT 1 FROM llm_captures").await.is_empty());
    // A key of the wrong kind tells nothing.
    let anonymous = app.anonymous();
    anonymous.send(anonymous.request(Method::GET, &path)).await.expect(401);
}
