//! What a client of a stream hears while nothing comes.

use loom_testkit::{
    Setup, TestApp, User,
    llm::{Head, MockLlm, Reply, Script},
};
use serde_json::{Value, json};

use super::{Op, begin, receive, stream};

const OTHER_KEY: &str = "sk-other-77aa01";

async fn impatient(setup: Setup) -> (TestApp, User) {
    let app = setup.set("LOOM_SERVER_LLM_KEEP_ALIVE_SECS", "1").start().await;
    let user = app.user("a@example.com").await;
    (app, user)
}

fn sign(op: Op) -> &'static str {
    if op == Op::Messages {
        "event: ping\ndata: {\"type\": \"ping\"}\n\n"
    } else {
        ": keep-alive\n\n"
    }
}

/// On its own wire, and in other words.
fn models(op: Op, name: &str) -> [String; 2] {
    let other = if op == Op::Messages { "openai" } else { "anthropic" };
    [name.to_owned(), format!("{other}/{name}")]
}

fn after(pause_ms: u64, reply: Reply) -> Reply {
    reply.head(Head::After(std::time::Duration::from_millis(pause_ms)))
}

#[tokio::test]
async fn a_client_hears_signs_of_life_before_the_first_byte_and_then_the_reply() {
    let (_app, user) = impatient(Setup::default()).await;
    for op in Op::ALL {
        for model in models(op, "mock-slow-first-2300") {
            let received = stream(&user, op, &model).await;
            assert_eq!(received.status, 200);
            assert_eq!(received.headers["content-type"], "text/event-stream; charset=utf-8");
            let text = received.text();
            let two = sign(op).repeat(2);
            assert!(text.starts_with(&two), "{op:?} {model}: {text}");
            assert!(text.contains("Hello") && !text.contains("upstream_"), "{text}");
        }
        // Who did not ask for a stream gets none.
        let body = op.body("mock-slow-first-1300").to_string();
        let received = receive(begin(&user, op.path(), body).await).await;
        assert_eq!(received.headers["content-type"], "application/json");
    }
    let body =
        json!({"model": "mock-slow-first-1300", "messages": [{"role": "user", "content": "Hi"}]});
    let text = user.post("/proxy/openai/stream", &body).await.expect(200).text;
    assert!(text.starts_with(": keep-alive\n\nevent: llm\n"), "{text}");
    assert!(text.contains("\"completed\""), "{text}");
}

#[tokio::test]
async fn a_client_hears_signs_of_life_in_the_middle_of_a_reply_and_only_between_events() {
    let (app, user) =
        impatient(Setup::default().set("LOOM_SERVER_LLM_IDLE_TIMEOUT_SECS", "3")).await;
    for op in Op::ALL {
        for model in models(op, "mock-stall") {
            let text = stream(&user, op, &model).await.text().to_owned();
            let (before, behind) =
                text.split_once(sign(op)).unwrap_or_else(|| panic!("{op:?}: {text}"));
            assert!(before.contains("Hello") && before.ends_with("\n\n"), "{text}");
            assert!(behind.starts_with(sign(op)) && behind.contains("silent"), "{op:?}: {text}");
        }
    }
    // Inside of an event nothing can be said.
    let half = json!({"choices": [{"delta": {"content": "x"}}]});
    let wait = std::time::Duration::from_millis(2300);
    let reply =
        Reply::sse().event(&half).bytes("data: {\"choices\"").pause(wait).bytes(":[]}\n\n").done();
    app.mock.enqueue(reply);
    let text = stream(&user, Op::Chat, "gpt-4o").await.text().to_owned();
    assert!(text.contains("data: {\"choices\":[]}\n\n") && !text.contains("keep-alive"), "{text}");
}

#[tokio::test]
async fn a_failure_behind_a_sign_of_life_is_an_event_of_the_surface() {
    let (app, user) = impatient(Setup::default()).await;
    for op in Op::ALL {
        for model in models(op, "m") {
            app.mock.enqueue(after(
                1300,
                Reply::json(
                    529,
                    &json!({"error": {"type": "overloaded_error", "message": "Too much"}}),
                ),
            ));
            let received = stream(&user, op, &model).await;
            assert_eq!(received.status, 200);
            assert!(!received.broke_off);
            let text = received.text();
            assert!(text.starts_with(sign(op)), "{text}");
            let last: Value = serde_json::from_str(received.data().last().unwrap()).unwrap();
            match op {
                Op::Messages => {
                    assert!(text.contains("event: error\n"), "{text}");
                    assert_eq!(last["error"]["type"], "overloaded_error");
                    assert_eq!(last["error"]["message"], "Too much");
                }
                Op::Chat => assert_eq!(last["error"]["message"], "Too much"),
                Op::Responses => assert_eq!(
                    (&last["type"], &last["message"]),
                    (&json!("error"), &json!("Too much"))
                ),
            }
        }
    }
    app.mock.enqueue(after(1300, Reply::json(503, &json!({}))));
    let body = json!({"model": "m", "messages": [{"role": "user", "content": "Hi"}]});
    let text = user.post("/proxy/anthropic/stream", &body).await.expect(200).text;
    let last = text.lines().rfind(|line| line.starts_with("data: ")).unwrap();
    let last: Value = serde_json::from_str(&last[6..]).unwrap();
    assert_eq!((&last["type"], &last["error"]), (&json!("error"), &json!("unavailable")));
    for row in app.llm_requests(7).await {
        assert_eq!(row["outcome"], "failed", "{row}");
    }
}

#[tokio::test]
async fn others_are_asked_behind_a_sign_of_life_as_long_as_nothing_was_said() {
    let other = MockLlm::start(OTHER_KEY);
    let setup = Setup::default()
        .set("LOOM_SERVER_LLM_PROVIDERS", "other")
        .set("LOOM_SERVER_LLM_OTHER_BASE_URL", format!("{}/v1", other.url()))
        .set("LOOM_SERVER_LLM_OTHER_API_KEY", OTHER_KEY);
    let (app, user) = impatient(setup).await;
    let route = json!({"targets": [
        {"provider": "openai", "model": "gpt-4o"}, {"provider": "other", "model": "llama", "priority": 1},
    ]});
    user.put(&format!("/api/orgs/{}/llm/routes/fast", user.org), &route).await.expect(201);
    for op in [Op::Chat, Op::Responses] {
        app.mock.enqueue(after(1300, Reply::json(500, &json!({}))));
        let text = stream(&user, op, "fast").await.text().to_owned();
        assert!(
            text.starts_with(sign(op)) && text.contains("Hello") && !text.contains("\"error\":{"),
            "{text}"
        );
    }
    let rows = app.llm_requests(2).await;
    assert!(rows.iter().all(|row| row["provider"] == "other" && row["outcome"] == "succeeded"));
}

#[tokio::test]
async fn a_client_that_leaves_behind_a_sign_of_life_ends_the_request() {
    let (app, user) = impatient(Setup::default()).await;
    for op in Op::ALL {
        app.mock.clear();
        app.mock.enqueue(Script::from(Reply::sse().head(Head::Never)));
        let body = op.stream_body(op.priced_model()).to_string();
        let mut response = begin(&user, op.path(), body).await;
        assert_eq!(response.chunk().await.unwrap().unwrap(), sign(op));
        drop(response);
        assert_eq!(
            app.mock.wait_for_end(1).await.ended(),
            Some(loom_testkit::llm::Ended::ClientGone)
        );
    }
    for row in app.llm_requests(3).await {
        assert_eq!(row["outcome"], "cancelled", "{row}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_takes_a_byte_at_a_time_is_not_taken_for_a_silent_provider() {
    use std::io::{Read, Write};
    let (app, user) =
        impatient(Setup::default().set("LOOM_SERVER_LLM_IDLE_TIMEOUT_SECS", "1")).await;
    let (address, key) = (app.running.address, user.key.clone().unwrap());
    let seen = tokio::task::spawn_blocking(move || {
        let body = Op::Chat.stream_body("mock-huge-line").to_string();
        let mut socket = std::net::TcpStream::connect(address).unwrap();
        write!(
            socket,
            "POST {} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
            Op::Chat.path(),
            body.len()
        )
        .unwrap();
        let mut seen = Vec::new();
        for _ in 0..3 {
            let mut byte = [0];
            socket.read_exact(&mut byte).unwrap();
            seen.extend(byte);
            // This is the client's slowness itself.
            std::thread::sleep(std::time::Duration::from_secs(1));
        }
        socket.read_to_end(&mut seen).unwrap();
        seen
    })
    .await
    .unwrap();
    let text = String::from_utf8_lossy(&seen);
    assert!(text.contains("data: [DONE]") && !text.contains("upstream_timeout"));
    assert_eq!(app.llm_requests(1).await[0]["outcome"], "succeeded");
}

/// What a client of the vendors does with all of this.
#[tokio::test(flavor = "multi_thread")]
async fn the_vendors_sdks_take_signs_of_life_and_late_errors() {
    let setup = Setup::default().set("LOOM_SERVER_LLM_FIRST_BYTE_TIMEOUT_SECS", "3");
    let (app, _) = impatient(setup).await;
    super::sdk::run(app, "test_silence").await;
}

#[tokio::test]
async fn a_stall_at_the_first_byte_of_a_body_is_waited_for() {
    let (app, user) = impatient(Setup::default()).await;
    for op in Op::ALL {
        app.mock.enqueue(Script::Model("mock-slow-body-1300".to_owned()));
        let text = stream(&user, op, op.priced_model()).await.text().to_owned();
        assert!(text.starts_with(sign(op)) && text.contains("Hello"), "{text}");
    }
}
