//! The mock LLM upstream: what it answers, how it breaks, what it records.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::time::{Duration, Instant};

use futures::StreamExt;
use loom_testkit::llm::{
    Ended, Head, MockLlm, REPLY_PIECES, Reply, Script, Step, THINKING_SIGNATURE, reply_text,
    trigger,
    usage::{self, anthropic, openai},
};
use reqwest::{Client, Response};
use serde_json::{Value, json};

const KEY: &str = "sk-test-upstream";
const STREAMS: [&str; 3] = ["/v1/messages", "/v1/chat/completions", "/v1/responses"];

fn client() -> Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder().no_proxy().build().unwrap()
}

async fn post(mock: &MockLlm, path: &str, body: &Value) -> Response {
    client().post(mock.url() + path).bearer_auth(KEY).json(body).send().await.unwrap()
}

async fn get(mock: &MockLlm, path: &str) -> Response {
    client().get(mock.url() + path).bearer_auth(KEY).send().await.unwrap()
}

fn prompt(path: &str, model: &str) -> Value {
    let messages = json!([{"role": "user", "content": "Hi"}]);
    let field = if path == "/v1/responses" { "input" } else { "messages" };
    json!({"model": model, field: messages, "max_tokens": 100})
}

fn streaming(path: &str, model: &str) -> Value {
    let mut body = prompt(path, model);
    body["stream"] = json!(true);
    body
}

/// The data of each event; `[DONE]` as a string.
fn events(text: &str) -> Vec<Value> {
    let data = text.split("\n\n").filter_map(|event| event.split("data: ").nth(1));
    data.map(|data| serde_json::from_str(data).unwrap_or_else(|_| json!(data))).collect()
}

/// Everything that arrives until the end, and whether that end was a proper one.
async fn drain(response: Response) -> (Vec<u8>, bool) {
    let mut all = Vec::new();
    let mut chunks = response.bytes_stream();
    while let Some(chunk) = chunks.next().await {
        let Ok(chunk) = chunk else { return (all, false) };
        all.extend_from_slice(&chunk);
    }
    (all, true)
}

fn said(event: &Value) -> Option<&str> {
    event["delta"]["text"]
        .as_str()
        .or(event["choices"][0]["delta"]["content"].as_str())
        .or(event["delta"].as_str())
        .filter(|text| !text.is_empty())
}

#[tokio::test]
async fn every_wire_streams_the_same_text_and_ends_its_own_way() {
    let mock = MockLlm::start(KEY);
    for path in STREAMS {
        let response = post(&mock, path, &streaming(path, "m")).await;
        assert_eq!(response.headers()["content-type"], "text/event-stream; charset=utf-8");
        assert_eq!(response.headers()["x-vendor-new"], "1");
        let events = events(&response.text().await.unwrap());
        let text: String = events.iter().filter_map(said).collect();
        assert_eq!(text, reply_text(), "{path}");
        let last = events.last().unwrap();
        match path {
            "/v1/messages" => assert_eq!(last["type"], "message_stop"),
            "/v1/responses" => {
                assert_eq!(last["type"], "response.completed");
                for (at, event) in events.iter().enumerate() {
                    assert_eq!(event["sequence_number"], at);
                }
            }
            _ => assert_eq!(last, "[DONE]"),
        }
    }
    let recorded = mock.wait_for_end(3).await;
    assert_eq!(recorded.ended(), Some(Ended::Finished));
    assert_eq!(recorded.json(), streaming("/v1/responses", "m"));
}

#[tokio::test]
async fn usage_is_as_documented() {
    let mock = MockLlm::start(KEY);
    let mut body = prompt("/v1/messages", "claude");
    body["thinking"] = json!({"type": "enabled", "budget_tokens": 1024});
    let whole: Value = post(&mock, "/v1/messages", &body).await.json().await.unwrap();
    assert_eq!(whole["usage"]["output_tokens"], usage::output(0, true));
    assert_eq!(whole["content"][0]["signature"], THINKING_SIGNATURE);
    body["stream"] = json!(true);
    let events = events(&post(&mock, "/v1/messages", &body).await.text().await.unwrap());
    let first = &events[0]["message"]["usage"];
    assert_eq!(first["output_tokens"], anthropic::OUTPUT_AT_START);
    assert_eq!(first["cache_creation"]["ephemeral_1h_input_tokens"], anthropic::CACHE_CREATION_1H);
    let last = &events[events.len() - 2]["usage"];
    assert_eq!(last["output_tokens"], usage::output(0, true));
    assert_eq!(last["cache_read_input_tokens"], anthropic::CACHE_READ);
    let whole: Value =
        post(&mock, "/v1/responses", &json!({"model": "m", "input": "Hi", "reasoning": {}}))
            .await
            .json()
            .await
            .unwrap();
    assert_eq!(whole["usage"]["total_tokens"], openai::PROMPT + usage::output(0, true));
    let counted: Value = post(&mock, "/v1/messages/count_tokens", &prompt("/v1/messages", "m"))
        .await
        .json()
        .await
        .unwrap();
    assert_eq!(counted["input_tokens"], anthropic::TOTAL_INPUT);
}

#[tokio::test]
async fn chat_usage_is_streamed_only_when_asked_for() {
    let mock = MockLlm::start(KEY);
    let path = "/v1/chat/completions";
    let mut body = streaming(path, "m");
    let without = post(&mock, path, &body).await.text().await.unwrap();
    assert!(!without.contains("\"usage\""));
    body["stream_options"] = json!({"include_usage": true});
    let with = events(&post(&mock, path, &body).await.text().await.unwrap());
    let (usage, others): (Vec<_>, Vec<_>) =
        with[..with.len() - 1].iter().partition(|chunk| chunk["choices"] == json!([]));
    assert_eq!(usage.len(), 1);
    assert_eq!(usage[0]["usage"]["prompt_tokens_details"]["cached_tokens"], openai::CACHED);
    assert!(others.iter().all(|chunk| chunk["usage"].is_null() && chunk.get("usage").is_some()));
}

#[tokio::test]
async fn tools_are_called_once_or_in_parallel_and_their_results_answered() {
    let mock = MockLlm::start(KEY);
    let schema = json!({"type": "object", "properties": {"city": {"type": "string"}}});
    let tool = json!({"name": "weather", "input_schema": schema});
    let mut body = prompt("/v1/messages", "m");
    body["tools"] = json!([tool]);
    for (text, calls) in [("Weather?", 1), ("Weather, in parallel?", 2)] {
        body["messages"][0]["content"] = json!(text);
        body["stream"] = json!(false);
        let whole: Value = post(&mock, "/v1/messages", &body).await.json().await.unwrap();
        let blocks = whole["content"].as_array().unwrap();
        let uses: Vec<_> = blocks.iter().filter(|block| block["type"] == "tool_use").collect();
        assert_eq!(uses.len(), calls);
        assert_eq!(uses[0]["input"], json!({"city": "Zürich"}));
        assert_eq!(whole["stop_reason"], "tool_use");
        assert_eq!(whole["usage"]["output_tokens"], usage::output(calls as u64, false));
        body["stream"] = json!(true);
        let streamed = post(&mock, "/v1/messages", &body).await.text().await.unwrap();
        let json: String = events(&streamed)
            .iter()
            .filter(|event| event["index"] == 1)
            .filter_map(|event| event["delta"]["partial_json"].as_str().map(str::to_owned))
            .collect();
        assert_eq!(json, r#"{"city":"Zürich"}"#);
    }
    let result = json!({"role": "user", "content": [{"type": "tool_result", "content": "rain"}]});
    body["messages"] = json!([{"role": "user", "content": "Weather?"}, result]);
    body["stream"] = json!(false);
    let whole: Value = post(&mock, "/v1/messages", &body).await.json().await.unwrap();
    assert_eq!(whole["stop_reason"], "end_turn");
    let tool = json!({"type": "function", "name": "weather", "parameters": schema});
    let body = json!({"model": "m", "input": "parallel", "tools": [tool], "stream": true});
    let streamed = events(&post(&mock, "/v1/responses", &body).await.text().await.unwrap());
    let output = &streamed.last().unwrap()["response"]["output"];
    assert_eq!(output.as_array().unwrap().len(), 2);
    assert_eq!(output[1]["arguments"], r#"{"city":"東京"}"#);
}

#[tokio::test]
async fn models_and_embeddings() {
    let mock = MockLlm::start(KEY);
    let list: Value = get(&mock, "/v1/models").await.json().await.unwrap();
    assert_eq!(list["object"], "list");
    let list: Value = get(&mock, "/anthropic/v1/models").await.json().await.unwrap();
    let id = list["first_id"].as_str().unwrap();
    let one: Value = get(&mock, &format!("/anthropic/v1/models/{id}")).await.json().await.unwrap();
    assert_eq!(one, list["data"][0]);
    assert_eq!(get(&mock, "/v1/models/no-such-model").await.status(), 404);
    let body = json!({"model": "e", "input": ["a", "b"], "dimensions": 3});
    let made: Value = post(&mock, "/v1/embeddings", &body).await.json().await.unwrap();
    assert_eq!(made["data"][1]["embedding"][0], 2.0);
    assert_eq!(made["usage"]["prompt_tokens"], 2 * openai::EMBEDDING_PER_INPUT);
}

#[tokio::test]
async fn errors_are_the_vendors_own() {
    let mock = MockLlm::start(KEY);
    for status in [400, 401, 403, 404, 413, 422, 429, 500, 503, 529] {
        for path in STREAMS {
            let model = format!("openai/mock-error-{status}");
            let response = post(&mock, path, &streaming(path, &model)).await;
            assert_eq!(response.status(), status);
            let after = response.headers().get("retry-after").cloned();
            assert_eq!(after.is_some_and(|after| after == "17"), status == 429);
            let body: Value = response.json().await.unwrap();
            assert!(body["error"]["message"].is_string());
            assert_eq!(body["type"] == "error", path == "/v1/messages");
        }
    }
    let (right, wrong) = (client().get(mock.url() + "/v1/models"), "x".repeat(10));
    let refused = right.header("x-api-key", wrong).send().await.unwrap();
    assert_eq!(refused.status(), 401);
    let refused: Value = refused.json().await.unwrap();
    assert_eq!(refused["error"]["type"], "authentication_error");
    let refused = client().get(mock.url() + "/v1/models").send().await.unwrap();
    let refused: Value = refused.json().await.unwrap();
    assert_eq!(refused["error"]["code"], "invalid_api_key");
    let path = "/v1/chat/completions";
    let mut body = streaming(path, "mock-refuse-stream-options");
    assert_eq!(post(&mock, path, &body).await.status(), 200);
    body["stream_options"] = json!({"include_usage": true});
    let refused: Value = post(&mock, path, &body).await.json().await.unwrap();
    assert_eq!(refused["error"]["param"], "stream_options");
}

#[tokio::test]
async fn streams_break_after_three_deltas() {
    let mock = MockLlm::start(KEY);
    let before = REPLY_PIECES[..trigger::DELTAS_BEFORE].concat();
    for path in STREAMS {
        for (model, proper) in
            [("midstream-error", true), ("cut", true), ("close", false), ("reset", false)]
        {
            let response = post(&mock, path, &streaming(path, &format!("mock-{model}"))).await;
            let (bytes, ended_properly) = drain(response).await;
            assert_eq!(ended_properly, proper, "{path} {model}");
            let events = events(std::str::from_utf8(&bytes).unwrap());
            assert_eq!(events.iter().filter_map(said).collect::<String>(), before);
            let last = events.last().unwrap();
            let is_error = last["type"] == "error" || last["error"].is_object();
            assert_eq!(is_error, model == "midstream-error");
        }
    }
}

#[tokio::test]
async fn a_reset_is_a_reset_and_a_close_is_none() {
    use tokio::{io::AsyncReadExt, io::AsyncWriteExt, net::TcpStream};
    let mock = MockLlm::start(KEY);
    for (step, is_reset) in [(Step::Reset, true), (Step::Close, false)] {
        mock.enqueue(Reply::sse().bytes("data: 1\n\n").step(step));
        let mut tcp = TcpStream::connect(mock.addr()).await.unwrap();
        let request = format!(
            "POST /v1/responses HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\n\
             content-length: 2\r\n\r\n{{}}"
        );
        tcp.write_all(request.as_bytes()).await.unwrap();
        let mut all = Vec::new();
        let end = tcp.read_to_end(&mut all).await;
        assert_eq!(end.is_err(), is_reset);
        assert!(String::from_utf8_lossy(&all).contains("data: 1"));
        assert!(!all.ends_with(b"0\r\n\r\n"));
    }
    assert_eq!(mock.requests()[0].ended(), Some(Ended::Broken));
}

#[tokio::test]
async fn a_client_that_goes_is_noticed_at_once() {
    let mock = MockLlm::start(KEY);
    for (at, model) in ["mock-stall", "mock-paced-20", "mock-hang"].into_iter().enumerate() {
        let body = streaming("/v1/messages", model);
        let request =
            client().post(mock.url() + "/v1/messages").bearer_auth(KEY).json(&body).send();
        let left = if model == "mock-hang" {
            let task = tokio::spawn(request);
            mock.wait_for_request(at + 1).await;
            task.abort();
            let _ = task.await;
            Instant::now()
        } else {
            let mut chunks = request.await.unwrap().bytes_stream();
            chunks.next().await.unwrap().unwrap();
            assert_eq!(mock.wait_for_request(at + 1).await.ended(), None);
            drop(chunks);
            Instant::now()
        };
        let end = mock.wait_for_end(at + 1).await.end.unwrap();
        assert_eq!(end.how, Ended::ClientGone, "{model}");
        assert!(end.at.saturating_duration_since(left) < Duration::from_secs(1), "{model}");
    }
}

#[tokio::test]
async fn characters_are_split_and_lines_are_huge() {
    let mock = MockLlm::start(KEY);
    for path in STREAMS {
        let response = post(&mock, path, &streaming(path, "mock-split-utf8")).await;
        let mut chunks = response.bytes_stream();
        let (mut all, mut broken) = (Vec::new(), 0);
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk.unwrap();
            broken += usize::from(std::str::from_utf8(&chunk).is_err());
            all.extend_from_slice(&chunk);
        }
        assert!(broken > 10, "{broken}");
        let events = events(&String::from_utf8(all).unwrap());
        let text: String = events.iter().filter_map(said).collect();
        assert_eq!(text, trigger::SPLIT_PIECES.concat());
        let huge = post(&mock, path, &streaming(path, "mock-huge-line")).await;
        let huge = huge.text().await.unwrap();
        assert!(huge.lines().any(|line| line.len() > trigger::HUGE));
    }
}

#[tokio::test]
async fn time_passes_where_it_should() {
    let mock = MockLlm::start(KEY);
    let start = Instant::now();
    let body = streaming("/v1/messages", "mock-slow-first-120");
    let response = post(&mock, "/v1/messages", &body).await;
    assert!(start.elapsed() >= Duration::from_millis(120));
    drop(response);
    let body = streaming("/v1/chat/completions", "mock-paced-4");
    let response = post(&mock, "/v1/chat/completions", &body).await;
    let start = Instant::now();
    let text = response.text().await.unwrap();
    assert!(start.elapsed() >= Duration::from_millis(4 * (trigger::PACED_DELTAS as u64 - 1)));
    assert_eq!(events(&text).iter().filter_map(said).count(), trigger::PACED_DELTAS);
}

#[tokio::test]
async fn scripts_are_taken_in_order_and_by_path() {
    let mock = MockLlm::start(KEY);
    mock.enqueue_for("/v1/models", Script::error(503));
    mock.enqueue(Reply::json(418, &json!({"tea": true})).header("request-id", "mine"));
    mock.enqueue(Script::model("mock-error-529"));
    mock.enqueue(Reply::sse().head(Head::After(Duration::from_millis(5))).done());
    let body = prompt("/v1/messages", "m");
    let first = post(&mock, "/v1/messages?beta=true", &body).await;
    assert_eq!(
        (first.status().as_u16(), &first.headers()["request-id"]),
        (418, &"mine".parse().unwrap())
    );
    assert_eq!(first.headers()["content-length"], "12");
    assert_eq!(post(&mock, "/v1/messages", &body).await.status(), 529);
    let done = post(&mock, "/v1/chat/completions", &body).await.text().await.unwrap();
    assert_eq!(done, "data: [DONE]\n\n");
    assert_eq!(mock.queued(), 1);
    assert_eq!(get(&mock, "/v1/models").await.status(), 503);
    assert_eq!(get(&mock, "/v1/models").await.status(), 200);
    assert_eq!(mock.requests()[0].path, "/v1/messages?beta=true");
    let url = mock.url();
    drop(mock);
    let gone = async { while client().get(&url).send().await.is_ok() {} };
    tokio::time::timeout(Duration::from_secs(5), gone).await.unwrap();
}
