//! Providers that break off, fall silent, or cannot be reached.

use loom_testkit::{
    Setup, TestApp,
    chaos::TcpProxy,
    llm::{Ended, Reply, Script, Step},
};
use serde_json::{Value, json};

use super::{Op, Received, SONNET, ask, begin, receive, stream};

/// The last event is an error in the wire's own shape, the body ends properly, nothing is invented.
#[track_caller]
fn ends_with_an_error(op: Op, received: &Received, code: &str) {
    assert_eq!(received.status, 200);
    assert!(!received.broke_off, "{op:?}: {}", received.text());
    let text = received.text();
    assert!(
        text.contains("Hello") && text.contains(" the"),
        "{op:?}: what came is passed on: {text}"
    );
    assert!(text.ends_with("\n\n"));
    let last: Value = serde_json::from_str(received.data().last().unwrap()).unwrap();
    match op {
        Op::Messages => {
            assert!(text.contains("\n\nevent: error\ndata: "), "{text}");
            assert_eq!(last["type"], "error");
            assert_eq!(last["error"]["type"], "api_error");
            assert!(last["error"]["message"].is_string());
        }
        Op::Chat => {
            assert_eq!(last["error"]["code"], code);
            assert!(last["error"]["message"].is_string() && last["error"]["type"].is_string());
        }
        Op::Responses => {
            assert!(text.contains("\n\nevent: error\ndata: "), "{text}");
            assert_eq!(last["type"], "error");
            assert_eq!(last["code"], code);
            assert!(last["sequence_number"].is_number());
        }
    }
    for invented in ["[DONE]", "message_stop", "\"finish_reason\":\"stop\"", "response.completed"] {
        assert!(!text.contains(invented), "{op:?} {invented}");
    }
}

#[track_caller]
fn failed(row: &Value, code: &str) {
    assert_eq!(row["outcome"], "failed", "{row}");
    assert_eq!(row["status"], 200);
    assert_eq!(row["error_code"], code);
    assert_eq!(row["cost_nanousd"], Value::Null);
}

#[tokio::test]
async fn a_provider_that_falls_silent_in_mid_stream_ends_it_with_an_error_event() {
    let app = Setup::default().set("LOOM_SERVER_LLM_IDLE_TIMEOUT_SECS", "1").start().await;
    let user = app.user("a@example.com").await;
    for (at, op) in Op::ALL.into_iter().enumerate() {
        ends_with_an_error(op, &stream(&user, op, "mock-stall").await, "upstream_timeout");
        assert_eq!(app.mock.wait_for_end(at + 1).await.ended(), Some(Ended::ClientGone));
    }
    for row in app.llm_requests(3).await {
        failed(&row, "upstream_timeout");
    }
}

#[tokio::test]
async fn pieces_that_come_within_the_idle_limit_keep_a_long_stream_alive() {
    let app = Setup::default().set("LOOM_SERVER_LLM_IDLE_TIMEOUT_SECS", "1").start().await;
    let user = app.user("a@example.com").await;
    // 50 pieces, 1.5 s in all.
    let received = stream(&user, Op::Chat, "mock-paced-30").await;
    assert!(received.text().ends_with("data: [DONE]\n\n"));
    assert!(!received.text().contains("error"));
}

#[tokio::test]
async fn a_reset_a_close_and_a_silent_end_in_mid_stream_become_an_error_event() {
    let app = TestApp::start().await;
    let user = app.user("a@example.com").await;
    for op in Op::ALL {
        for model in ["mock-reset", "mock-close", "mock-cut"] {
            ends_with_an_error(op, &stream(&user, op, model).await, "upstream_error");
        }
    }
    for row in app.llm_requests(9).await {
        failed(&row, "upstream_error");
    }
}

#[tokio::test]
async fn the_same_holds_where_the_usage_chunk_is_withheld() {
    let app = TestApp::start().await;
    let user = app.user("a@example.com").await;
    let mut body = Op::Chat.stream_body("mock-close");
    body.as_object_mut().unwrap().remove("stream_options");
    for model in ["mock-close", "mock-cut", "mock-reset"] {
        body["model"] = json!(model);
        let received = receive(begin(&user, Op::Chat.path(), body.to_string()).await).await;
        ends_with_an_error(Op::Chat, &received, "upstream_error");
    }
    // Half an event that was held back is not passed on before the error.
    app.mock.enqueue(Reply::sse().bytes("data: {\"choices\":[{\"delta\":{\"content\":\"Hello from the\"}}]}\n\ndata: {\"cho").step(Step::Close));
    let received = receive(begin(&user, Op::Chat.path(), body.to_string()).await).await;
    ends_with_an_error(Op::Chat, &received, "upstream_error");
}

#[tokio::test]
async fn a_break_inside_of_an_event_breaks_the_connection_so_that_no_half_passes_for_a_whole() {
    let app = TestApp::start().await;
    let user = app.user("a@example.com").await;
    for op in Op::ALL {
        let content = match op {
            Op::Messages => json!({"type": "content_block_delta", "delta": {"text": "x"}}),
            Op::Chat => json!({"choices": [{"delta": {"content": "x"}}]}),
            Op::Responses => json!({"type": "response.output_text.delta", "delta": "x"}),
        };
        app.mock.enqueue(Reply::sse().event(&content).bytes("data: {\"hal").step(Step::Close));
        let received = stream(&user, op, op.priced_model()).await;
        assert!(received.broke_off, "{op:?}");
        assert!(!received.text().contains("error"), "{}", received.text());
    }
    for row in app.llm_requests(3).await {
        assert_eq!(
            (&row["outcome"], &row["error_code"]),
            (&json!("failed"), &json!("upstream_error"))
        );
        // One piece was seen, and costs what it costs at least.
        assert_eq!(row["usage_complete"], false);
        assert!(row["cost_nanousd"].as_i64() > Some(0), "{row}");
    }
}

#[tokio::test]
async fn a_reply_that_was_whole_is_so_however_its_connection_ends() {
    let app = Setup::default().set("LOOM_SERVER_LLM_IDLE_TIMEOUT_SECS", "1").start().await;
    let user = app.user("a@example.com").await;
    for op in Op::ALL {
        for end in [Step::Close, Step::Stall] {
            let reply = match op {
                Op::Messages => Reply::sse().event(&json!({"type": "message_stop"})),
                Op::Chat => Reply::sse().event(&json!({"choices": []})).done(),
                Op::Responses => {
                    Reply::sse().event(&json!({"type": "response.completed", "response": {}}))
                }
            };
            app.mock.enqueue(reply.step(end));
            let received = stream(&user, op, op.priced_model()).await;
            assert!(!received.broke_off && !received.text().contains("error"), "{op:?}");
        }
    }
    for row in app.llm_requests(6).await {
        assert_eq!(row["outcome"], "succeeded", "{row}");
        assert_eq!(row["error_code"], Value::Null);
    }
}

#[tokio::test]
async fn a_json_reply_that_breaks_off_is_not_taken_for_a_whole_one() {
    let app = Setup::default().set("LOOM_SERVER_LLM_IDLE_TIMEOUT_SECS", "1").start().await;
    let user = app.user("a@example.com").await;
    for op in Op::ALL {
        for model in ["mock-reset", "mock-close", "mock-stall"] {
            let body = op.body(model).to_string();
            assert!(receive(begin(&user, op.path(), body).await).await.broke_off, "{op:?} {model}");
        }
    }
    for row in app.llm_requests(9).await {
        assert_eq!(row["outcome"], "failed", "{row}");
        assert!(
            ["upstream_error", "upstream_timeout"].contains(&row["error_code"].as_str().unwrap())
        );
    }
}

#[tokio::test]
async fn a_client_that_leaves_at_the_providers_error_does_not_make_it_a_cancellation() {
    let app = TestApp::start().await;
    let user = app.user("a@example.com").await;
    let error =
        json!({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}});
    app.mock.enqueue(Reply::sse().event(&error).step(Step::Stall));
    let mut response =
        begin(&user, Op::Messages.path(), Op::Messages.stream_body(SONNET).to_string()).await;
    assert!(response.chunk().await.unwrap().is_some());
    drop(response);
    failed(&app.llm_requests(1).await[0], "overloaded_error");
}

#[tokio::test]
async fn a_stream_of_announced_length_that_is_not_complete_gets_its_error_too() {
    let app = TestApp::start().await;
    let user = app.user("a@example.com").await;
    let text = "data: {\"choices\":[{\"delta\":{\"content\":\"Hello from the\"}}]}\n\n";
    let length = text.len().to_string();
    app.mock.enqueue(Reply::sse().header("content-length", &length).bytes(text));
    ends_with_an_error(Op::Chat, &stream(&user, Op::Chat, "gpt-4o").await, "upstream_error");
}

#[tokio::test]
async fn a_provider_that_does_not_begin_to_answer_is_a_504() {
    let app = Setup::default().set("LOOM_SERVER_LLM_FIRST_BYTE_TIMEOUT_SECS", "1").start().await;
    let user = app.user("a@example.com").await;
    for (at, op) in Op::ALL.into_iter().enumerate() {
        let answer = ask(&user, op, "mock-hang").await.expect(504);
        let (message, code) = op.error_of(&answer.json());
        assert_eq!(code, if op == Op::Messages { "timeout_error" } else { "upstream_timeout" });
        assert!(message.contains("did not begin to answer within 1 s"), "{message}");
        assert_eq!(app.mock.wait_for_end(at + 1).await.ended(), Some(Ended::ClientGone));
    }
    for row in app.llm_requests(3).await {
        assert_eq!(row["outcome"], "failed");
        assert_eq!(row["status"], 504);
        assert_eq!(row["error_code"], "upstream_timeout");
    }
}

#[tokio::test]
async fn a_provider_that_refuses_the_connection_is_a_502_and_degrades_the_health() {
    let closed = TcpProxy::start(std::net::SocketAddr::from(([127, 0, 0, 1], 9))).unwrap();
    closed.refuse().await;
    let url = format!("http://{}", closed.addr());
    let app = Setup::default()
        .set("LOOM_SERVER_ANTHROPIC_BASE_URL", url.clone())
        .set("LOOM_SERVER_OPENAI_BASE_URL", format!("{url}/v1"))
        .start()
        .await;
    let user = app.user("a@example.com").await;
    for op in Op::ALL {
        let answer = ask(&user, op, op.priced_model()).await.expect(502);
        let (message, code) = op.error_of(&answer.json());
        assert_eq!(code, if op == Op::Messages { "api_error" } else { "upstream_error" });
        assert!(message.contains("could not be connected"), "{message}");
        assert!(!answer.text.contains(&closed.port().to_string()), "{}", answer.text);
    }
    for row in app.llm_requests(3).await {
        assert_eq!(row["outcome"], "failed");
        assert_eq!(row["status"], 502);
        assert_eq!(row["error_code"], "upstream_error");
    }
    let health = user.get("/health").await.expect(200).json();
    assert_eq!(health["components"]["llm_providers"]["status"], "degraded");
    assert_eq!(health["status"], "degraded");
}

#[tokio::test]
async fn a_provider_that_breaks_off_before_its_answer_is_a_502() {
    // Closes each connection once the request is in.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let closing = tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut buffer = [0; 1024];
            let _ = tokio::io::AsyncReadExt::read(&mut socket, &mut buffer).await;
        }
    });
    let app = Setup::default().set("LOOM_SERVER_ANTHROPIC_BASE_URL", url).start().await;
    let user = app.user("a@example.com").await;
    let answer = ask(&user, Op::Messages, SONNET).await.expect(502);
    assert!(Op::Messages.error_of(&answer.json()).0.contains("broke off before it answered"));
    closing.abort();
}

#[tokio::test]
async fn the_server_is_sound_again_with_the_first_sound_answer() {
    let app = TestApp::start().await;
    let user = app.user("a@example.com").await;
    app.mock.enqueue(Script::error(500));
    ask(&user, Op::Chat, "gpt-4o").await.expect(500);
    let status = async || {
        // What the health probe said is kept for a second.
        user.get("/health").await.json()["components"]["llm_providers"]["status"].clone()
    };
    loom_testkit::eventually(async || (status().await == "degraded").then_some(())).await;
    ask(&user, Op::Chat, "gpt-4o").await.expect(200);
    loom_testkit::eventually(async || (status().await == "healthy").then_some(())).await;
}
