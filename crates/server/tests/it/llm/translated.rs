//! A model is asked on a wire that its provider does not speak.

use loom_testkit::{
    Caller, Setup, TestApp,
    llm::{MockLlm, Reply, Script, THINKING_SIGNATURE, reply_text},
};
use serde_json::{Value, json};

use super::{GPT, Op, SONNET, ask, begin_stream, let_rest, post, stream};

const KEY: &str = "sk-compatible-4f1d";

/// With a provider `other` that only knows chat.
async fn with_other() -> (TestApp, MockLlm) {
    set_up_with_other(Setup::default()).await
}

async fn set_up_with_other(setup: Setup) -> (TestApp, MockLlm) {
    let mock = MockLlm::start(KEY);
    let app = setup
        .set("LOOM_SERVER_LLM_PROVIDERS", "other")
        .set("LOOM_SERVER_LLM_OTHER_BASE_URL", format!("{}/openai/v1", mock.url()))
        .set("LOOM_SERVER_LLM_OTHER_API_KEY", KEY)
        .start()
        .await;
    (app, mock)
}

/// Each wire with a model whose provider does not speak it, and by what that one is asked.
const CROSSED: [(Op, &str, &str); 5] = [
    (Op::Chat, SONNET, "/v1/messages"),
    (Op::Responses, SONNET, "/v1/messages"),
    (Op::Messages, GPT, "/v1/responses"),
    (Op::Messages, "other/m", "/openai/v1/chat/completions"),
    (Op::Responses, "other/m", "/openai/v1/chat/completions"),
];

fn text_of(op: Op, reply: &Value) -> &Value {
    match op {
        Op::Messages => &reply["content"][0]["text"],
        Op::Chat => &reply["choices"][0]["message"]["content"],
        Op::Responses => &reply["output"][0]["content"][0]["text"],
    }
}

/// The text of a stream, by the wire's own deltas.
fn streamed_text(op: Op, data: &[&str]) -> String {
    let values = data.iter().filter_map(|data| serde_json::from_str::<Value>(data).ok());
    let texts = values.filter_map(|value| {
        let text = match op {
            Op::Messages => &value["delta"]["text"],
            Op::Chat => &value["choices"][0]["delta"]["content"],
            Op::Responses if value["type"] == "response.output_text.delta" => &value["delta"],
            Op::Responses => return None,
        };
        text.as_str().map(str::to_owned)
    });
    texts.collect()
}

#[tokio::test]
async fn every_wire_reaches_every_provider_whole_and_streamed_and_the_account_is_the_providers() {
    let (app, other) = with_other().await;
    let user = app.user("a@example.com").await;
    let mut rows = 0;
    for (op, model, path) in CROSSED {
        let upstream = if model.starts_with("other/") { &other } else { &app.mock };
        let reply = ask(&user, op, model).await.expect(200);
        assert_eq!(text_of(op, &reply.json()), &json!(reply_text()), "{}", reply.text);
        assert_eq!(upstream.requests().last().unwrap().path, path);
        let streamed = stream(&user, op, model).await;
        assert_eq!(streamed.status, 200);
        assert_eq!(streamed_text(op, &streamed.data()), reply_text(), "{}", streamed.text());
        assert!(!streamed.broke_off);
        rows += 2;
        let rows = app.llm_requests(rows).await;
        for row in &rows[rows.len() - 2..] {
            let (input, read, output) =
                if model == SONNET { (1200, 4000, 40) } else { (500, 400, 40) };
            assert_eq!(row["outcome"], "succeeded", "{op:?} {model}: {row}");
            assert_eq!(
                (&row["input_tokens"], &row["cache_read_tokens"], &row["output_tokens"]),
                (&json!(input), &json!(read), &json!(output)),
                "{op:?} {model}"
            );
            assert_eq!(row["model"], model);
        }
        let priced = rows.last().unwrap()["cost_nanousd"].is_null();
        assert_eq!(priced, model.starts_with("other/"), "{model}");
    }
}

#[tokio::test]
async fn what_cannot_be_told_is_a_400_that_names_the_field_and_asks_nobody() {
    let (app, other) = with_other().await;
    let user = app.user("a@example.com").await;
    let image =
        json!({"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}});
    let result = json!([{"role": "user", "content": [
        {"type": "tool_result", "tool_use_id": "t", "content": [image]}]}]);
    let cases = [
        (Op::Chat, SONNET, json!({"n": 2}), "n"),
        (Op::Chat, SONNET, json!({"logprobs": true}), "logprobs"),
        (Op::Chat, SONNET, json!({"seed": 7}), "seed"),
        (Op::Chat, SONNET, json!({"response_format": {"type": "json_object"}}), "response_format"),
        (Op::Chat, SONNET, json!({"of_tomorrow": 1}), "of_tomorrow"),
        (Op::Chat, SONNET, json!({"tools": [{"type": "custom"}]}), "tools[0].type"),
        (Op::Responses, SONNET, json!({"previous_response_id": "r"}), "previous_response_id"),
        (Op::Responses, SONNET, json!({"background": true}), "background"),
        (Op::Responses, SONNET, json!({"tools": [{"type": "file_search"}]}), "tools[0].type"),
        (Op::Responses, "other/m", json!({"conversation": "c"}), "conversation"),
        (Op::Messages, GPT, json!({"top_k": 5}), "top_k"),
        (
            Op::Messages,
            "other/m",
            json!({"messages": result}),
            "messages[0].content[0].content[0].type",
        ),
        (Op::Messages, GPT, json!({"mcp_servers": []}), "mcp_servers"),
    ];
    for (op, model, more, field) in cases {
        let mut body = op.body(model);
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let answer = user.post(op.path(), &body).await.expect(400);
        let (message, _) = op.error_of(&answer.json());
        assert!(message.starts_with(&format!("{field}: ")), "{op:?}: {message}");
        if op != Op::Messages {
            assert_eq!(answer.json()["error"]["param"], field);
        }
    }
    assert!(app.mock.requests().is_empty() && other.requests().is_empty());
    assert!(app.rows("SELECT 1 FROM llm_requests").await.is_empty());
}

#[tokio::test]
async fn a_refusal_keeps_its_status_and_its_wait_in_the_form_of_the_wire() {
    let (app, _other) = set_up_with_other(Setup::default().manual_clock()).await;
    let user = app.user("a@example.com").await;
    let mut rows = 0;
    for (op, model, _) in CROSSED.into_iter().take(3) {
        for status in [400, 404, 429, 500, 529] {
            app.mock.enqueue(Script::error(status));
            let answer = ask(&user, op, model).await.expect(status);
            op.error_of(&answer.json());
            assert_eq!(answer.header("retry-after"), (status == 429).then_some("17"));
            rows += 1;
            let row = app.llm_requests(rows).await.pop().unwrap();
            assert_eq!((&row["outcome"], &row["status"]), (&json!("failed"), &json!(status)));
            let_rest(&app);
        }
    }
    // A key that is refused is told in our words.
    app.mock.enqueue(Script::error(401));
    let answer = ask(&user, Op::Chat, SONNET).await.expect(401);
    assert!(answer.text.contains("refuses the credential"), "{}", answer.text);
}

#[tokio::test]
async fn a_stream_that_breaks_ends_with_the_error_of_the_wire_and_a_failed_row() {
    let (app, _other) = with_other().await;
    let user = app.user("a@example.com").await;
    let mut rows = 0;
    for (op, model, _) in CROSSED.into_iter().take(3) {
        for broken in ["mock-midstream-error", "mock-reset", "mock-cut"] {
            app.mock.enqueue(Script::model(broken));
            let told = stream(&user, op, model).await;
            assert_eq!(told.status, 200);
            let last: Value = serde_json::from_str(told.data().last().unwrap()).unwrap();
            match op {
                Op::Responses => assert_eq!(last["type"], "error", "{broken}: {last}"),
                _ => drop(op.error_of(&last)),
            }
            rows += 1;
            let row = app.llm_requests(rows).await.pop().unwrap();
            assert_eq!(row["outcome"], "failed", "{op:?} {broken}");
        }
    }
}

#[tokio::test]
async fn a_client_that_leaves_ends_the_request_at_the_provider() {
    let (app, _other) = with_other().await;
    let user = app.user("a@example.com").await;
    app.mock.enqueue(Script::model("mock-paced-50"));
    drop(begin_stream(&user, Op::Chat, SONNET).await);
    let ended = app.mock.wait_for_end(1).await;
    assert_eq!(ended.ended(), Some(loom_testkit::llm::Ended::ClientGone));
    assert_eq!(app.llm_requests(1).await[0]["outcome"], "cancelled");
}

/// Thinking, tools and images, there and back again.
async fn whole_turn(user: &Caller, app: &TestApp, op: Op, model: &str) -> Value {
    app.mock.clear();
    let schema = json!({"type": "object", "properties": {"city": {"type": "string"}}});
    let mut body = op.body(model);
    match op {
        Op::Chat => {
            body["reasoning_effort"] = json!("low");
            body["tools"] = json!([{"type": "function", "function": {"name": "weather", "parameters": schema}}]);
        }
        Op::Responses => {
            body["reasoning"] = json!({"effort": "low"});
            body["input"] = json!([{"role": "user", "content": "Hi"}]);
            body["tools"] = json!([{"type": "function", "name": "weather", "parameters": schema}]);
        }
        Op::Messages => {
            body["max_tokens"] = json!(8000);
            body["thinking"] = json!({"type": "enabled", "budget_tokens": 2000});
            body["tools"] = json!([{"name": "weather", "input_schema": schema}]);
        }
    }
    let first = user.post(op.path(), &body).await.expect(200).json();
    match op {
        Op::Chat => {
            let message = first["choices"][0]["message"].clone();
            let id = message["tool_calls"][0]["id"].clone();
            let list = body["messages"].as_array_mut().unwrap();
            list.push(message);
            list.push(json!({"role": "tool", "tool_call_id": id, "content": "rain"}));
        }
        Op::Responses => {
            let list = body["input"].as_array_mut().unwrap();
            let output = first["output"].as_array().unwrap();
            list.extend(output.iter().cloned());
            let id = output.last().unwrap()["call_id"].clone();
            list.push(json!({"type": "function_call_output", "call_id": id, "output": "rain"}));
        }
        Op::Messages => {
            let content = first["content"].clone();
            let id = content.as_array().unwrap().last().unwrap()["id"].clone();
            let list = body["messages"].as_array_mut().unwrap();
            list.push(json!({"role": "assistant", "content": content}));
            list.push(json!({"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": id, "content": "rain"}]}));
        }
    }
    user.post(op.path(), &body).await.expect(200);
    app.mock.requests().pop().unwrap().json()
}

#[tokio::test]
async fn thinking_comes_back_to_its_provider_with_its_signature_by_every_wire() {
    let (app, _other) = with_other().await;
    let user = app.user("a@example.com").await;
    for op in [Op::Chat, Op::Responses] {
        let second = whole_turn(&user, &app, op, SONNET).await;
        let thought = &second["messages"][1]["content"][0];
        assert_eq!(thought["type"], "thinking", "{op:?}: {second}");
        assert_eq!(thought["signature"], THINKING_SIGNATURE);
        assert_eq!(thought["thinking"], "Let me think about it.");
        assert_eq!(second["messages"][2]["content"][0]["type"], "tool_result");
    }
    let reasoning = json!({"id": "rs_1", "type": "reasoning", "summary":
        [{"type": "summary_text", "text": "Hm."}], "encrypted_content": "sealed.by.openai"});
    let call = json!({"id": "fc_1", "type": "function_call", "call_id": "call_1",
        "name": "weather", "arguments": "{\"city\":\"Köln\"}", "status": "completed"});
    app.mock.enqueue(Reply::json(
        200,
        &json!({"id": "resp_1", "object": "response",
        "model": GPT, "status": "completed", "output": [reasoning, call], "usage":
        {"input_tokens": 5, "output_tokens": 7}}),
    ));
    let second = whole_turn(&user, &app, Op::Messages, GPT).await;
    assert_eq!(second["input"][1], reasoning);
    assert_eq!(second["input"][2]["call_id"], "call_1");
    assert_eq!(second["input"][3]["output"], "rain");
    assert_eq!(
        (&second["store"], &second["include"]),
        (&json!(false), &json!(["reasoning.encrypted_content"]))
    );
}

#[tokio::test]
async fn a_provider_that_does_not_stream_is_told_as_a_stream() {
    let (app, _other) = with_other().await;
    let user = app.user("a@example.com").await;
    let whole = json!({"id": "msg_1", "type": "message", "role": "assistant", "model": SONNET,
        "content": [{"type": "text", "text": "all at once"}], "stop_reason": "end_turn",
        "usage": {"input_tokens": 3, "output_tokens": 4}});
    app.mock.enqueue(Reply::json(200, &whole));
    let told = stream(&user, Op::Chat, SONNET).await;
    assert_eq!(streamed_text(Op::Chat, &told.data()), "all at once");
    assert_eq!(told.data().last(), Some(&"[DONE]"));
    assert_eq!(app.llm_requests(1).await[0]["output_tokens"], 4);
}

#[tokio::test]
async fn stop_sequences_and_small_limits_reach_openai_as_a_chat_and_others_are_asked_without_what_they_refuse()
 {
    let (app, other) = with_other().await;
    let user = app.user("a@example.com").await;
    let mut body = Op::Messages.body(GPT);
    body["stop_sequences"] = json!(["END"]);
    user.post("/v1/messages", &body).await.expect(200);
    let sent = app.mock.requests().pop().unwrap();
    assert_eq!(
        (sent.path.as_str(), &sent.json()["stop"]),
        ("/v1/chat/completions", &json!(["END"]))
    );
    // Its responses take no limit under 16.
    for (limit, path) in [(1, "/v1/chat/completions"), (16, "/v1/responses")] {
        let mut body = Op::Messages.body(GPT);
        body["max_tokens"] = json!(limit);
        user.post("/v1/messages", &body).await.expect(200);
        assert_eq!(app.mock.requests().pop().unwrap().path, path);
    }
    let told = stream(&user, Op::Messages, "other/mock-refuse-stream-options").await;
    assert_eq!(streamed_text(Op::Messages, &told.data()), reply_text());
    assert_eq!(other.requests().len(), 2);
    assert!(other.requests()[1].json().get("stream_options").is_none());
}

#[tokio::test]
async fn a_provider_with_responses_of_its_own_gets_them_as_they_are() {
    let mock = MockLlm::start(KEY);
    let app = Setup::default()
        .set("LOOM_SERVER_LLM_PROVIDERS", "other")
        .set("LOOM_SERVER_LLM_OTHER_BASE_URL", format!("{}/openai/v1", mock.url()))
        .set("LOOM_SERVER_LLM_OTHER_API_KEY", KEY)
        .set("LOOM_SERVER_LLM_OTHER_RESPONSES", "true")
        .start()
        .await;
    let user = app.user("a@example.com").await;
    let sent = r#"{ "model":"other/m","input" :"Hi", "what":1 }"#;
    assert_eq!(post(&user, "/v1/responses", sent).await.status, 200);
    assert_eq!(mock.requests()[0].body, sent.replace("other/m", "m"));
    // There is no way to count or embed in other words.
    let count = json!({"model": GPT, "messages": []});
    let answer = user.post("/v1/messages/count_tokens", &count).await;
    assert_eq!(answer.status, 200, "the wire's own vendor is asked");
}

#[tokio::test]
async fn an_error_with_the_status_of_a_success_is_told_as_one() {
    let (app, _other) = with_other().await;
    let user = app.user("a@example.com").await;
    let failed = json!({"id": "resp_1", "object": "response", "status": "failed", "output": [],
        "error": {"code": "server_error", "message": "It went wrong."}});
    for (reply, said) in [
        (Reply::json(200, &failed), "It went wrong."),
        (Reply::new(200, "text/html").bytes("<html>"), "cannot be read"),
    ] {
        app.mock.enqueue(reply);
        let answer = ask(&user, Op::Messages, GPT).await.expect(502);
        let (message, kind) = Op::Messages.error_of(&answer.json());
        assert!(message.contains(said), "{message}");
        assert_eq!(kind, "api_error");
    }
    for row in app.llm_requests(2).await {
        assert_eq!((&row["outcome"], &row["status"]), (&json!("failed"), &json!(502)));
    }
}
