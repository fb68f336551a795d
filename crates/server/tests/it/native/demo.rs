//! `--demo`: a model that needs no key, on every surface, marked as what it is.

use loom_testkit::{Answer, Caller, Setup, TestApp};
use serde_json::{Value, json};

use super::{Streamed, accounted, hi, weather, with};

const MODEL: &str = "loom-demo";
const CHAT: &str = "/v1/chat/completions";
const MESSAGES: &str = "/v1/messages";
const RESPONSES: &str = "/v1/responses";

/// As `make run` starts it: no provider, nobody signed in.
async fn demo() -> (TestApp, Caller) {
    let app = Setup::default()
        .set("LOOM_SERVER_ANTHROPIC_API_KEY", "")
        .set("LOOM_SERVER_OPENAI_API_KEY", "")
        .demo()
        .start()
        .await;
    let caller = app.anonymous();
    (app, caller)
}

async fn ask(caller: &Caller, path: &str, body: &Value) -> Answer {
    let answer = caller.post(path, body).await.expect(200);
    assert_eq!(answer.header("x-loom-demo"), Some("true"), "{path}");
    answer
}

/// The payloads of a stream's events.
fn data(answer: &Answer) -> Vec<Value> {
    assert!(answer.header("content-type").unwrap().starts_with("text/event-stream"));
    let lines = answer.text.lines().filter_map(|line| line.strip_prefix("data: "));
    lines.filter(|line| *line != "[DONE]").map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn messages_body() -> Value {
    with(hi(MODEL), json!({"max_tokens": 100}))
}

fn chat_tools() -> Value {
    let parameters = weather()["input_schema"].clone();
    json!({"tools": [{"type": "function", "function": {"name": "weather", "parameters": parameters}}]})
}

#[track_caller]
fn is_an_answer(text: &str) {
    assert!(text.contains("demo") && text.contains("“Hi”"), "{text}");
}

#[tokio::test]
async fn it_answers_on_both_wires_without_a_key() {
    let (app, caller) = demo().await;
    let chat = ask(&caller, CHAT, &hi(MODEL)).await.json();
    let text = chat["choices"][0]["message"]["content"].as_str().unwrap();
    is_an_answer(text);
    assert_eq!(chat["choices"][0]["finish_reason"], "stop");
    assert_eq!(ask(&caller, CHAT, &hi(MODEL)).await.json(), chat, "always the same");
    let message = ask(&caller, MESSAGES, &messages_body()).await.json();
    assert_eq!(message["content"][0]["text"], text);
    assert_eq!(message["stop_reason"], "end_turn");
    let response = ask(&caller, RESPONSES, &json!({"model": MODEL, "input": "Hi"})).await.json();
    assert_eq!(response["output"][0]["content"][0]["text"], text);
    assert_eq!(response["metadata"], json!({"loom_demo": "true"}));
    for (row, operation) in
        app.llm_requests(4).await.iter().zip(["chat", "chat", "messages", "responses"])
    {
        assert_eq!(row["provider"], "demo");
        assert_eq!(row["operation"], operation);
        assert_eq!(row["outcome"], "succeeded");
        assert_eq!(row["model"], MODEL);
        assert!(row["input_tokens"].as_u64().unwrap() > 0);
        assert!(row["output_tokens"].as_u64().unwrap() > 0);
    }
    assert!(app.mock.requests().is_empty());
}

#[tokio::test]
async fn it_streams_what_it_says_whole_on_each_wire() {
    let (app, caller) = demo().await;
    let streaming = json!({"stream": true, "stream_options": {"include_usage": true}});
    let chat = ask(&caller, CHAT, &hi(MODEL)).await.json();
    let answer = ask(&caller, CHAT, &with(hi(MODEL), streaming)).await;
    assert!(answer.text.ends_with("data: [DONE]\n\n"));
    let chunks = data(&answer);
    assert!(chunks.len() > 10, "word by word");
    let text: String =
        chunks.iter().filter_map(|c| c["choices"][0]["delta"]["content"].as_str()).collect();
    assert_eq!(text, chat["choices"][0]["message"]["content"]);
    assert_eq!(
        chunks.last().unwrap()["usage"]["completion_tokens"],
        chat["usage"]["completion_tokens"]
    );

    let answer = ask(&caller, MESSAGES, &with(messages_body(), json!({"stream": true}))).await;
    let events = data(&answer);
    let said: String = events.iter().filter_map(|e| e["delta"]["text"].as_str()).collect();
    assert_eq!(said, text);
    assert_eq!(events[0]["type"], "message_start");
    assert_eq!(events.last().unwrap()["type"], "message_stop");

    let body = json!({"model": MODEL, "input": "Hi", "stream": true});
    let events = data(&ask(&caller, RESPONSES, &body).await);
    let said: String = events.iter().filter_map(|e| e["delta"].as_str()).collect();
    assert_eq!(said, text);
    assert_eq!(events.last().unwrap()["type"], "response.completed");
    for row in app.llm_requests(4).await.iter().skip(1) {
        assert_eq!(row["outcome"], "succeeded", "{row}");
        assert_eq!(row["streamed"], true);
        assert!(row["output_tokens"].as_u64().unwrap() > 0);
    }
}

#[tokio::test]
async fn it_calls_a_tool_and_takes_its_result_on_each_wire() {
    let (_app, caller) = demo().await;
    let request = with(hi(MODEL), chat_tools());
    let message = ask(&caller, CHAT, &request).await.json()["choices"][0]["message"].clone();
    let call = &message["tool_calls"][0];
    assert_eq!(call["function"]["name"], "weather");
    let arguments: Value =
        serde_json::from_str(call["function"]["arguments"].as_str().unwrap()).unwrap();
    assert!(arguments["city"].is_string(), "{arguments}");
    let streamed = data(&ask(&caller, CHAT, &with(request.clone(), json!({"stream": true}))).await);
    let fragments: String = streamed
        .iter()
        .filter_map(|c| c["choices"][0]["delta"]["tool_calls"][0]["function"]["arguments"].as_str())
        .collect();
    assert_eq!(fragments, call["function"]["arguments"]);
    let mut next = request;
    let result = json!({"role": "tool", "tool_call_id": call["id"], "content": "it rains"});
    next["messages"].as_array_mut().unwrap().extend([message, result]);
    let answer = ask(&caller, CHAT, &next).await.json();
    assert!(answer["choices"][0]["message"]["content"].as_str().unwrap().contains("it rains"));

    let mut request = with(messages_body(), json!({"tools": [weather()]}));
    let message = ask(&caller, MESSAGES, &request).await.json();
    assert_eq!(message["stop_reason"], "tool_use");
    let call = &message["content"][0];
    assert_eq!(call["input"], arguments);
    let streamed = with(request.clone(), json!({"stream": true}));
    let events = data(&ask(&caller, MESSAGES, &streamed).await);
    let parts: String = events.iter().filter_map(|e| e["delta"]["partial_json"].as_str()).collect();
    assert_eq!(serde_json::from_str::<Value>(&parts).unwrap(), arguments);
    let result = json!({"type": "tool_result", "tool_use_id": call["id"], "content": "it rains"});
    request["messages"].as_array_mut().unwrap().extend([
        json!({"role": "assistant", "content": message["content"]}),
        json!({"role": "user", "content": [result]}),
    ]);
    let answer = ask(&caller, MESSAGES, &request).await.json();
    assert!(answer["content"][0]["text"].as_str().unwrap().contains("it rains"));
    assert_eq!(answer["stop_reason"], "end_turn");
}

#[tokio::test]
async fn the_native_routes_have_it_under_its_name() {
    let (app, caller) = demo().await;
    let whole = ask(&caller, "/proxy/demo/complete", &hi(MODEL)).await.json();
    is_an_answer(whole["message"]["content"].as_str().unwrap());
    assert_eq!(whole["model"], MODEL);
    assert_eq!(whole["finish_reason"], "end_turn");
    let streamed = Streamed::of(ask(&caller, "/proxy/demo/stream", &hi(MODEL)).await);
    assert_eq!(streamed.headers["x-loom-demo"], "true");
    for member in ["message", "usage", "tool_calls", "finish_reason", "cost_usd"] {
        assert_eq!(streamed.response()[member], whole[member], "{member}");
    }
    assert!(streamed.events.len() > 10);

    let mut request = with(hi(MODEL), json!({"tools": [weather()]}));
    let reply = ask(&caller, "/proxy/demo/complete", &request).await.json();
    assert_eq!(reply["finish_reason"], "tool_use");
    let call = reply["tool_calls"][0].clone();
    assert_eq!(call["tool_name"], "weather");
    assert!(call["arguments_json"]["city"].is_string());
    let streamed = Streamed::of(ask(&caller, "/proxy/demo/stream", &request).await);
    let again = &streamed.response()["tool_calls"][0];
    assert_eq!(again["arguments_json"], call["arguments_json"]);
    let mut turn = reply["message"].clone();
    turn["tool_calls"] = reply["tool_calls"].clone();
    let result = json!({"role": "tool", "tool_call_id": call["id"], "content": "it rains"});
    request["messages"].as_array_mut().unwrap().extend([turn, result]);
    let answer = Streamed::of(ask(&caller, "/proxy/demo/stream", &request).await);
    assert!(answer.text().contains("it rains"));

    let rows = app.llm_requests(5).await;
    assert_eq!(rows.len(), 5);
    accounted(&rows, &whole, false);
    accounted(&rows, answer.response(), true);
    assert!(rows.iter().all(|row| row["provider"] == "demo" && row["operation"] == "chat"));
    for path in ["/proxy/demo/complete", "/proxy/demo/stream"] {
        let answer = caller.post(path, &hi("gpt-4o")).await.expect(404);
        assert_eq!(answer.code(), "model_not_found");
        assert!(answer.text.contains(MODEL), "{}", answer.text);
    }
}

#[tokio::test]
async fn embeddings_and_token_counts_are_there_too() {
    let (app, caller) = demo().await;
    let body = json!({"model": MODEL, "input": ["a", "b", "a"], "dimensions": 16});
    let made = ask(&caller, "/v1/embeddings", &body).await.json();
    let vectors: Vec<&Value> = (0..3).map(|at| &made["data"][at]["embedding"]).collect();
    assert_eq!(vectors[0].as_array().unwrap().len(), 16);
    assert_eq!(vectors[0], vectors[2]);
    assert_ne!(vectors[0], vectors[1]);
    let length: f64 =
        vectors[0].as_array().unwrap().iter().map(|v| v.as_f64().unwrap().powi(2)).sum();
    assert!((length - 1.0).abs() < 1e-3, "{length}");
    let count = ask(&caller, "/v1/messages/count_tokens", &hi(MODEL)).await.json();
    let message = ask(&caller, MESSAGES, &messages_body()).await.json();
    assert_eq!(count["input_tokens"], message["usage"]["input_tokens"]);
    let rows = app.llm_requests(3).await;
    assert_eq!(rows[0]["input_tokens"], made["usage"]["prompt_tokens"]);
}

#[tokio::test]
async fn the_list_of_models_says_that_it_is_a_demo() {
    let (_app, caller) = demo().await;
    let list = caller.get("/v1/models").await.expect(200).json();
    assert_eq!(list["data"].as_array().unwrap().len(), 1);
    assert_eq!((&list["data"][0]["id"], &list["data"][0]["demo"]), (&json!(MODEL), &json!(true)));
    let one = caller.get("/v1/models/loom-demo").await.expect(200).json();
    assert_eq!(one, list["data"][0]);
    let anthropic = caller.with("anthropic-version", "2023-06-01");
    let list = anthropic.get("/v1/models").await.expect(200).json();
    assert_eq!((&list["data"][0]["id"], &list["data"][0]["demo"]), (&json!(MODEL), &json!(true)));
    assert_eq!(list["first_id"], MODEL);
    let one = anthropic.get("/v1/models/loom-demo").await.expect(200).json();
    assert_eq!(one, list["data"][0]);
}

#[tokio::test]
async fn beside_real_providers_it_has_its_own_model_and_nothing_else() {
    let app = Setup::default().demo().start().await;
    let user = app.user("a@example.com").await;
    ask(&user, CHAT, &hi(MODEL)).await;
    ask(&user, MESSAGES, &messages_body()).await;
    assert!(app.mock.requests().is_empty());
    for (path, body) in [(CHAT, hi("gpt-4o")), ("/proxy/openai/complete", hi("gpt-4o"))] {
        let answer = user.post(path, &body).await.expect(200);
        assert!(answer.header("x-loom-demo").is_none());
    }
    assert_eq!(app.mock.requests().len(), 2);
    let list = user.get("/v1/models").await.expect(200).json();
    let models = list["data"].as_array().unwrap();
    let demos: Vec<_> = models.iter().filter(|model| model["demo"] == true).collect();
    assert_eq!(demos.len(), 1);
    assert!(models.len() > 1 && models.iter().any(|model| model["id"] == "gpt-4o"));
}

#[tokio::test]
async fn a_wrong_key_and_a_page_from_elsewhere_are_refused_also_there() {
    let (app, caller) = demo().await;
    for caller in [
        caller.with_key("sk-anything"),
        caller.with("x-api-key", "sk-anything"),
        caller.with("origin", "https://attacker.example"),
        caller.with("x-forwarded-for", "203.0.113.9"),
    ] {
        for (path, body) in
            [(CHAT, hi(MODEL)), (MESSAGES, messages_body()), ("/proxy/demo/stream", hi(MODEL))]
        {
            caller.post(path, &body).await.expect(401);
        }
    }
    assert!(app.rows("SELECT 1 FROM llm_requests").await.is_empty());
    // With a Loom key it is that user who asks.
    let user = app.user("a@example.com").await;
    ask(&user, CHAT, &hi(MODEL)).await;
    assert_eq!(app.llm_requests(1).await[0]["user_id"], json!(user.id.0));
}

#[tokio::test]
async fn a_client_that_leaves_it_is_cancelled_too() {
    let (app, caller) = demo().await;
    let request = caller.request(http::Method::POST, "/proxy/demo/stream").json(&hi(MODEL));
    let mut response = request.send().await.unwrap();
    assert!(response.chunk().await.unwrap().is_some());
    drop(response);
    assert_eq!(app.llm_requests(1).await[0]["outcome"], "cancelled");
}

#[tokio::test]
async fn without_the_switch_there_is_no_such_model() {
    let app = Setup::default()
        .set("LOOM_SERVER_ANTHROPIC_API_KEY", "")
        .set("LOOM_SERVER_OPENAI_API_KEY", "")
        .start()
        .await;
    let user = app.user("a@example.com").await;
    app.anonymous().post(CHAT, &hi(MODEL)).await.expect(401);
    for (path, body) in [
        (CHAT, hi(MODEL)),
        (MESSAGES, messages_body()),
        (RESPONSES, json!({"model": MODEL, "input": "Hi"})),
        ("/v1/embeddings", json!({"model": MODEL, "input": "Hi"})),
    ] {
        let answer = user.post(path, &body).await.expect(503);
        assert!(answer.header("x-loom-demo").is_none());
    }
    for path in ["/proxy/demo/complete", "/proxy/demo/stream"] {
        assert_eq!(user.post(path, &hi(MODEL)).await.expect(404).code(), "not_found");
    }
    user.get("/v1/models/loom-demo").await.expect(503);
    // Where there are providers, they are asked, and say so themselves.
    let app = TestApp::start().await;
    let user = app.user("a@example.com").await;
    let list = user.get("/v1/models").await.expect(200);
    assert!(!list.text.contains(MODEL));
    user.get("/v1/models/loom-demo").await.expect(404);
    user.post(CHAT, &hi(MODEL)).await.expect(200);
    assert_eq!(app.mock.wait_for_request(4).await.json()["model"], MODEL);
}
