//! Every request leaves one row, with its tokens by class and what they cost to the nano-dollar.

use loom_testkit::{TestApp, llm::Reply};
use serde_json::{Value, json};

use super::{GPT, Op, SONNET, ask, begin_stream, let_rest, post, start_patient, stream};

/// The tokens of a row in the order input, output, cache read, 5 min write, 1 h write, reasoning.
fn tokens(row: &Value) -> [Option<u64>; 6] {
    [
        "input_tokens",
        "output_tokens",
        "cache_read_tokens",
        "cache_write_5m_tokens",
        "cache_write_1h_tokens",
        "reasoning_tokens",
    ]
    .map(|name| row[name].as_u64())
}

const UNKNOWN: [Option<u64>; 6] = [None; 6];
/// 1200 × 3 + 40 × 15 + 4000 × 0.3 + 300 × 3.75 + 200 × 6 millionths of a dollar.
const SONNET_TEXT: ([Option<u64>; 6], i64) =
    ([Some(1200), Some(40), Some(4000), Some(300), Some(200), None], 7_725_000);
/// 500 × 2.5 + 40 × 10 + 400 × 1.25 + 100 × 2.5
const GPT_TEXT: ([Option<u64>; 6], i64) =
    ([Some(500), Some(40), Some(400), Some(100), None, Some(0)], 2_400_000);

fn usual(op: Op) -> ([Option<u64>; 6], i64) {
    if op == Op::Messages { SONNET_TEXT } else { GPT_TEXT }
}

#[track_caller]
fn succeeded(row: &Value, streamed: bool) {
    assert_eq!(row["outcome"], "succeeded", "{row}");
    assert_eq!(row["status"], 200);
    assert_eq!(row["error_code"], Value::Null);
    assert_eq!(row["streamed"], streamed);
    assert!(row["latency_ms"].as_f64().unwrap() > 0.0);
    assert!(row["request_bytes"].as_u64().unwrap() > 0);
    assert!(row["response_bytes"].as_u64().unwrap() > 0);
    if streamed {
        let first = row["first_token_ms"].as_f64().unwrap();
        assert!(first > 0.0 && first <= row["latency_ms"].as_f64().unwrap(), "{row}");
    } else {
        assert_eq!(row["first_token_ms"], Value::Null);
    }
}

#[tokio::test]
async fn tokens_by_class_and_cost_are_exact_plain_and_streaming() {
    let app = TestApp::start().await;
    let user = app.user("a@example.com").await;
    for op in Op::ALL {
        ask(&user, op, op.priced_model()).await.expect(200);
        stream(&user, op, op.priced_model()).await;
    }
    let rows = app.llm_requests(6).await;
    for (at, op) in Op::ALL.into_iter().enumerate() {
        for (row, streamed) in [(&rows[2 * at], false), (&rows[2 * at + 1], true)] {
            succeeded(row, streamed);
            let (expected, cost) = usual(op);
            assert_eq!(tokens(row), expected, "{op:?} {streamed}");
            assert_eq!(row["cost_nanousd"], cost, "{op:?} {streamed}");
            assert_eq!(row["model"], op.priced_model());
            assert_eq!(row["response_model"], op.priced_model());
            assert_eq!(row["operation"], ["messages", "chat", "responses"][at]);
            assert_eq!(row["provider"], if op == Op::Messages { "anthropic" } else { "openai" });
            assert!(row["upstream_request_id"].as_str().unwrap().starts_with("req_mock"));
        }
    }
}

#[tokio::test]
async fn the_size_of_what_passed_is_in_the_row() {
    let app = TestApp::start().await;
    let user = app.user("a@example.com").await;
    let body = Op::Messages.stream_body(SONNET).to_string();
    let reply = post(&user, Op::Messages.path(), body.clone()).await;
    let row = &app.llm_requests(1).await[0];
    assert_eq!(row["request_bytes"], body.len());
    assert_eq!(row["response_bytes"], reply.body.len());
}

#[tokio::test]
async fn thinking_is_part_of_the_output_and_told_apart() {
    let app = TestApp::start().await;
    let user = app.user("a@example.com").await;
    // 1200 × 3 + 120 × 15 + 4000 × 0.3 + 300 × 3.75 + 200 × 6; 500 × 1.1 + 120 × 4.4 + 400 × 0.275 + 100 × 1.1
    let anthropic =
        ([Some(1200), Some(120), Some(4000), Some(300), Some(200), Some(80)], 8_925_000);
    let openai = ([Some(500), Some(120), Some(400), Some(100), None, Some(80)], 1_298_000);
    let mut expected = Vec::new();
    for (op, model, field, value, counts) in [
        (
            Op::Messages,
            SONNET,
            "thinking",
            json!({"type": "enabled", "budget_tokens": 1024}),
            anthropic,
        ),
        (Op::Chat, "o4-mini", "reasoning_effort", json!("low"), openai),
        (Op::Responses, "o4-mini", "reasoning", json!({"effort": "low"}), openai),
    ] {
        for mut body in [op.body(model), op.stream_body(model)] {
            body[field] = value.clone();
            user.post(op.path(), &body).await.expect(200);
            expected.push((op, counts));
        }
    }
    for (row, (op, (counts, cost))) in app.llm_requests(6).await.iter().zip(expected) {
        assert_eq!(tokens(row), counts, "{op:?} {row}");
        assert_eq!(row["cost_nanousd"], cost, "{op:?}");
    }
}

#[tokio::test]
async fn embeddings_have_input_alone_and_token_counts_have_nothing() {
    let app = TestApp::start().await;
    let user = app.user("a@example.com").await;
    let inputs =
        json!({"model": "text-embedding-3-small", "input": ["a", "b", "c"], "dimensions": 2});
    user.post("/v1/embeddings", &inputs).await.expect(200);
    user.post("/v1/messages/count_tokens", &Op::Messages.body(SONNET)).await.expect(200);
    let rows = app.llm_requests(2).await;
    succeeded(&rows[0], false);
    assert_eq!(rows[0]["operation"], "embeddings");
    assert_eq!(tokens(&rows[0]), [Some(24), None, None, None, None, None]);
    assert_eq!(rows[0]["cost_nanousd"], 480);
    succeeded(&rows[1], false);
    assert_eq!(rows[1]["operation"], "count_tokens");
    assert_eq!(tokens(&rows[1]), UNKNOWN);
    assert_eq!(rows[1]["cost_nanousd"], Value::Null);
}

#[tokio::test]
async fn a_model_that_has_no_price_has_tokens_and_no_cost() {
    let app = TestApp::start().await;
    let user = app.user("a@example.com").await;
    for op in Op::ALL {
        ask(&user, op, "model-of-tomorrow").await.expect(200);
        stream(&user, op, "model-of-tomorrow").await;
    }
    for row in app.llm_requests(6).await {
        let op = if row["operation"] == "messages" { Op::Messages } else { Op::Chat };
        assert_eq!(tokens(&row), usual(op).0);
        assert_eq!(row["cost_nanousd"], Value::Null);
    }
}

#[tokio::test]
async fn the_usage_chunk_is_withheld_from_those_who_did_not_ask_and_counted_all_the_same() {
    let app = TestApp::start().await;
    let user = app.user("a@example.com").await;
    let mut body = Op::Chat.stream_body(GPT);
    for options in
        [json!(null), json!({"include_usage": false}), json!({"include_obfuscation": false})]
    {
        body["stream_options"] = options;
        let reply = post(&user, Op::Chat.path(), body.to_string()).await;
        assert!(!reply.text().contains("prompt_tokens"), "{}", reply.text());
        assert!(!reply.text().contains("\"choices\":[]"), "{}", reply.text());
        assert!(reply.text().ends_with("data: [DONE]\n\n"));
    }
    body["stream_options"] = json!({"include_usage": true});
    let reply = post(&user, Op::Chat.path(), body.to_string()).await;
    assert_eq!(reply.text().matches("\"prompt_tokens\":1000").count(), 1, "{}", reply.text());
    for row in app.llm_requests(4).await {
        succeeded(&row, true);
        assert_eq!((tokens(&row), row["cost_nanousd"].as_i64().unwrap()), GPT_TEXT);
    }
}

#[tokio::test]
async fn a_provider_that_refuses_stream_options_is_asked_without_them_from_then_on() {
    let app = TestApp::start().await;
    let user = app.user("a@example.com").await;
    let mut body = Op::Chat.body("mock-refuse-stream-options");
    body["stream"] = json!(true);
    for _ in 0..2 {
        let reply = post(&user, Op::Chat.path(), body.to_string()).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        assert!(reply.text().ends_with("data: [DONE]\n\n"));
    }
    let asked: Vec<_> =
        app.mock.requests().iter().map(|r| r.json().get("stream_options").is_some()).collect();
    assert_eq!(asked, [true, false, false]);
    let rows = app.llm_requests(2).await;
    assert_eq!(rows.len(), 2);
    for row in rows {
        succeeded(&row, true);
        assert_eq!(tokens(&row), UNKNOWN);
        assert_eq!(row["cost_nanousd"], Value::Null);
    }
    // A client's own wish is not taken back: it hears what the provider says.
    let reply = stream(&user, Op::Chat, "mock-refuse-stream-options").await;
    assert_eq!(reply.status, 400);
    assert!(reply.text().contains("stream_options"));
}

#[tokio::test]
async fn no_request_can_pass_for_a_provider_that_refuses_stream_options() {
    let app = TestApp::start().await;
    let user = app.user("a@example.com").await;
    let refusal =
        || Reply::json(400, &json!({"error": {"message": "no stream_options.x", "type": "x"}}));
    let mut body = Op::Chat.stream_body(GPT);
    // Something is wrong with the client's own options: whatever comes of it without ours.
    body["stream_options"] = json!({"include_usage": false, "x": 1});
    app.mock.enqueue(refusal());
    post(&user, Op::Chat.path(), body.to_string()).await;
    // The provider repeats what the client wrote, with our options and without.
    body.as_object_mut().unwrap().remove("stream_options");
    app.mock.enqueue(refusal());
    app.mock.enqueue(refusal());
    assert_eq!(post(&user, Op::Chat.path(), body.to_string()).await.status, 400);
    let native = json!({"model": GPT, "messages": [{"role": "user", "content": "Hi"}]}).to_string();
    app.mock.enqueue(refusal());
    app.mock.enqueue(refusal());
    assert_eq!(post(&user, "/proxy/openai/stream", native).await.status, 400);
    // And the next is counted as ever.
    app.mock.clear();
    post(&user, Op::Chat.path(), body.to_string()).await;
    assert_eq!(app.mock.requests()[0].json()["stream_options"], json!({"include_usage": true}));
}

#[tokio::test]
async fn a_stream_that_its_client_leaves_keeps_what_was_seen() {
    let app = TestApp::start().await;
    let user = app.user("a@example.com").await;
    for op in Op::ALL {
        drop(begin_stream(&user, op, "mock-paced-20").await);
    }
    for row in app.llm_requests(3).await {
        assert_eq!(row["outcome"], "cancelled", "{row}");
        assert_eq!(row["status"], 200);
        assert!(row["response_bytes"].as_u64().unwrap() > 0);
        assert!(row["first_token_ms"].is_number());
        assert_eq!(row["usage_complete"], false);
        // Of the output each piece that came was a token at the least.
        let output = tokens(&row)[1];
        assert!(output.is_some_and(|seen| (1..50).contains(&seen)), "{row}");
        if row["operation"] == "messages" {
            // As message_start had it.
            assert_eq!(tokens(&row), [Some(1200), output, Some(4000), Some(300), Some(200), None]);
        } else {
            assert_eq!(tokens(&row), [None, output, None, None, None, None]);
        }
    }
}

#[tokio::test]
async fn a_left_stream_of_a_priced_model_costs_what_was_seen() {
    let app = TestApp::start().await;
    let user = app.user("a@example.com").await;
    app.mock.enqueue(loom_testkit::llm::Script::model("mock-stall"));
    // The script decides what happens; the model that is asked for, what it costs.
    drop(begin_stream(&user, Op::Messages, SONNET).await);
    let row = &app.llm_requests(1).await[0];
    assert_eq!(row["outcome"], "cancelled");
    // Up to three pieces, whose number the provider had not told yet.
    let output = row["output_tokens"].as_i64().unwrap();
    assert!((1..=3).contains(&output));
    // 1200 × 3 + output × 15 + 4000 × 0.3 + 300 × 3.75 + 200 × 6
    assert_eq!(row["cost_nanousd"], 7_125_000 + output * 15_000);
}

#[tokio::test]
async fn a_request_whose_client_leaves_before_the_answer_has_a_row_without_a_status() {
    let app = TestApp::start().await;
    let user = app.user("a@example.com").await;
    let caller = user.caller.clone();
    let waiting = tokio::spawn(async move { ask(&caller, Op::Messages, "mock-hang").await });
    app.mock.wait_for_request(1).await;
    waiting.abort();
    let row = &app.llm_requests(1).await[0];
    assert_eq!(row["outcome"], "cancelled");
    assert_eq!(row["status"], Value::Null);
    assert_eq!(tokens(row), UNKNOWN);
    assert_eq!(row["cost_nanousd"], Value::Null);
}

#[tokio::test]
async fn failed_requests_have_rows_with_status_and_code() {
    let app = start_patient().await;
    let user = app.user("a@example.com").await;
    let mut expected = Vec::new();
    for op in Op::ALL {
        for status in [400_u16, 401, 403, 429, 500, 503, 529] {
            for body in [
                op.body(&format!("mock-error-{status}")),
                op.stream_body(&format!("mock-error-{status}")),
            ] {
                user.post(op.path(), &body).await.expect(status);
                expected.push(status);
                let_rest(&app);
            }
        }
    }
    let rows = app.llm_requests(expected.len()).await;
    assert_eq!(rows.len(), expected.len());
    for (row, status) in rows.iter().zip(expected) {
        assert_eq!(row["outcome"], "failed", "{row}");
        assert_eq!(row["status"], status);
        assert!(row["error_code"].is_string(), "{row}");
        assert_eq!(tokens(row), UNKNOWN);
        assert_eq!(row["cost_nanousd"], Value::Null);
        assert_eq!(row["first_token_ms"], Value::Null);
    }
}

#[tokio::test]
async fn a_stream_that_fails_in_the_middle_has_the_code_of_its_error_and_what_was_seen() {
    let app = TestApp::start().await;
    let user = app.user("a@example.com").await;
    for op in Op::ALL {
        stream(&user, op, "mock-midstream-error").await;
    }
    let rows = app.llm_requests(3).await;
    for (row, code) in rows.iter().zip(["overloaded_error", "server_error", "server_error"]) {
        assert_eq!(row["outcome"], "failed", "{row}");
        assert_eq!(row["status"], 200);
        assert_eq!(row["error_code"], code);
    }
    assert_eq!(tokens(&rows[0])[0], Some(1200));
}

#[tokio::test]
async fn usage_that_comes_late_and_restated_replaces_what_was_said_before() {
    let app = TestApp::start().await;
    let user = app.user("a@example.com").await;
    let reply = Reply::sse()
        .event(&json!({"type": "message_start", "message": {"model": SONNET, "usage": {"input_tokens": 10, "output_tokens": 1}}}))
        .event(&json!({"type": "message_delta", "delta": {}, "usage": {"output_tokens": 5}}))
        .event(&json!({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"input_tokens": 7, "cache_read_input_tokens": 3, "cache_creation_input_tokens": 2, "output_tokens": 9}}))
        .event(&json!({"type": "message_stop"}));
    app.mock.enqueue(reply);
    stream(&user, Op::Messages, SONNET).await;
    let row = &app.llm_requests(1).await[0];
    assert_eq!(tokens(row), [Some(7), Some(9), Some(3), Some(2), None, None]);
    // 7 × 3 + 9 × 15 + 3 × 0.3 + 2 × 3.75
    assert_eq!(row["cost_nanousd"], 164_400);
}

#[tokio::test]
async fn a_model_whose_name_cannot_be_stored_is_accounted_all_the_same() {
    let app = TestApp::start().await;
    let user = app.user("a@example.com").await;
    for op in Op::ALL {
        ask(&user, op, "gpt\0four").await.expect(200);
        stream(&user, op, "gpt\0four").await;
    }
    for row in app.llm_requests(6).await {
        assert_eq!(row["model"], "gpt\u{fffd}four");
        assert_eq!(row["response_model"], "gpt\u{fffd}four");
        assert_eq!(row["output_tokens"], 40);
    }
}
