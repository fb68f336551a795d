//! The native LLM routes over HTTP: one form of request and reply, whichever provider is behind.

mod attribution;
mod broken;
mod demo;
mod odd;
mod refused;
mod replies;
mod streams;
mod upstream;

use http::{HeaderMap, Method, StatusCode};
use loom_testkit::{Answer, Caller, TestApp, User, llm::usage};
use reqwest::Response;
use serde_json::{Value, json};

/// A provider, by the wire that it speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wire {
    Anthropic,
    OpenAi,
}

use Wire::{Anthropic, OpenAi};

impl Wire {
    const ALL: [Self; 2] = [Anthropic, OpenAi];

    fn provider(self) -> &'static str {
        match self {
            Anthropic => "anthropic",
            OpenAi => "openai",
        }
    }

    fn complete(self) -> String {
        format!("/proxy/{}/complete", self.provider())
    }

    fn stream(self) -> String {
        format!("/proxy/{}/stream", self.provider())
    }

    fn both(self) -> [String; 2] {
        [self.complete(), self.stream()]
    }

    /// Where it is asked by us.
    fn upstream_path(self) -> &'static str {
        match self {
            Anthropic => "/v1/messages",
            OpenAi => "/v1/chat/completions",
        }
    }

    /// One whose price is known.
    fn model(self) -> &'static str {
        match self {
            Anthropic => "claude-sonnet-4-5-20250929",
            OpenAi => "gpt-4o",
        }
    }

    /// What the mock counts, in the reply's form.
    fn usage(self, calls: u64, thinking: bool) -> Value {
        let output = usage::output(calls, thinking);
        let reasoning = if thinking { usage::OUTPUT_THINKING } else { 0 };
        match self {
            Anthropic => json!({
                "input_tokens": usage::anthropic::INPUT,
                "output_tokens": output,
                "cache_read_tokens": usage::anthropic::CACHE_READ,
                "cache_write_tokens": usage::anthropic::CACHE_CREATION,
                "reasoning_tokens": reasoning,
            }),
            OpenAi => json!({
                "input_tokens":
                    usage::openai::PROMPT - usage::openai::CACHED - usage::openai::CACHE_WRITE,
                "output_tokens": output,
                "cache_read_tokens": usage::openai::CACHED,
                "cache_write_tokens": usage::openai::CACHE_WRITE,
                "reasoning_tokens": reasoning,
            }),
        }
    }
}

/// A request that says "Hi" and nothing else.
fn hi(model: &str) -> Value {
    json!({"model": model, "messages": [{"role": "user", "content": "Hi"}]})
}

/// A request with further members.
fn with(mut request: Value, more: Value) -> Value {
    let Value::Object(more) = more else { panic!("{more}") };
    request.as_object_mut().unwrap().extend(more);
    request
}

fn weather() -> Value {
    json!({
        "name": "weather",
        "description": "The weather somewhere",
        "input_schema": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
            "required": ["city"],
        },
    })
}

async fn with_user() -> (TestApp, User) {
    let app = TestApp::start().await;
    let user = app.user("a@example.com").await;
    (app, user)
}

/// The same with a clock that [`rest`] moves.
async fn with_patient_user() -> (TestApp, User) {
    let app = loom_testkit::Setup::default().manual_clock().start().await;
    let user = app.user("a@example.com").await;
    (app, user)
}

/// As if hours had gone by: what errors did to a credential is over.
fn rest(app: &TestApp) {
    app.clock.advance(std::time::Duration::from_secs(2 * 3600));
}

async fn complete(caller: &Caller, wire: Wire, request: &Value) -> Value {
    let answer = caller.post(&wire.complete(), request).await.expect(200);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert!(answer.header("x-request-id").is_some());
    answer.json()
}

/// A whole stream.
#[derive(Debug)]
struct Streamed {
    headers: HeaderMap,
    events: Vec<Value>,
}

impl Streamed {
    /// Checks what holds of every stream, whatever the provider did.
    #[track_caller]
    fn of(answer: Answer) -> Self {
        let answer = answer.expect(200);
        for (name, value) in [
            ("content-type", "text/event-stream"),
            ("cache-control", "no-store"),
            ("x-accel-buffering", "no"),
        ] {
            assert_eq!(answer.header(name), Some(value), "{name}");
        }
        assert!(answer.header("x-request-id").is_some());
        assert!(answer.text.ends_with("\n\n"), "an event is cut off");
        let frames = answer.text.split("\n\n").filter(|f| !f.is_empty() && !f.starts_with(':'));
        let events: Vec<Value> = frames
            .map(|frame| {
                let data = frame.strip_prefix("event: llm\ndata: ");
                let data = data.unwrap_or_else(|| panic!("{:?}", loom_core::text::cut(frame, 500)));
                serde_json::from_str(data).unwrap()
            })
            .collect();
        let ends: Vec<usize> = (0..events.len())
            .filter(|at| ["completed", "error"].iter().any(|end| events[*at]["type"] == *end))
            .collect();
        assert_eq!(ends, [events.len() - 1], "one end, and at the end");
        let streamed = Self { headers: answer.headers, events };
        if streamed.last()["type"] == "completed" {
            streamed.deltas_are_the_response();
        }
        streamed
    }

    fn last(&self) -> &Value {
        self.events.last().unwrap()
    }

    /// The texts in one member of the deltas of one type.
    fn joined(&self, kind: &str, member: &str) -> String {
        let deltas = self.events.iter().filter(|event| event["type"] == kind);
        deltas.map(|event| event[member].as_str().unwrap()).collect()
    }

    fn text(&self) -> String {
        self.joined("text_delta", "content")
    }

    /// The whole reply at the end of a stream that went well.
    #[track_caller]
    fn response(&self) -> &Value {
        assert_eq!(self.last()["type"], "completed", "{}", self.last());
        &self.last()["response"]
    }

    /// The code of the error at the end of one that did not.
    #[track_caller]
    fn error(&self) -> &str {
        let last = self.last();
        assert_eq!(last["type"], "error", "{last}");
        assert!(!last["message"].as_str().unwrap().is_empty());
        last["error"].as_str().unwrap()
    }

    #[track_caller]
    fn deltas_are_the_response(&self) {
        let response = self.response();
        assert!(self.text() == response["message"]["content"].as_str().unwrap());
        let thinking = response["message"]["thinking"].as_str().unwrap_or_default();
        assert_eq!(self.joined("thinking_delta", "content"), thinking);
        let mut calls: Vec<(String, String, String)> = Vec::new();
        for event in self.events.iter().filter(|event| event["type"] == "tool_call_delta") {
            let text = |member: &str| event[member].as_str().unwrap().to_owned();
            let (id, name, fragment) =
                (text("call_id"), text("tool_name"), text("arguments_fragment"));
            match calls.iter_mut().find(|call| call.0 == id) {
                Some(call) => {
                    assert_eq!(call.1, name);
                    call.2.push_str(&fragment);
                }
                None => calls.push((id, name, fragment)),
            }
        }
        let calls: Vec<Value> = calls
            .into_iter()
            .map(|(id, name, arguments)| {
                let arguments: Value = serde_json::from_str(&arguments).unwrap_or_else(|_| {
                    if arguments.is_empty() { json!({}) } else { json!(arguments) }
                });
                json!({"id": id, "tool_name": name, "arguments_json": arguments})
            })
            .collect();
        assert_eq!(response["tool_calls"], json!(calls));
    }
}

async fn stream(caller: &Caller, wire: Wire, request: &Value) -> Streamed {
    Streamed::of(caller.post(&wire.stream(), request).await)
}

/// A stream up to its first piece of text.
async fn begin_stream(caller: &Caller, wire: Wire, request: &Value) -> Response {
    let request = caller.request(Method::POST, &wire.stream()).json(request);
    let mut response = request.send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let mut seen = String::new();
    while !seen.contains("text_delta") {
        seen.push_str(&String::from_utf8_lossy(&response.chunk().await.unwrap().unwrap()));
    }
    response
}

/// The reply to a request, asked for whole and as a stream; both are the same but for their ids.
async fn both_ways(caller: &Caller, wire: Wire, request: &Value) -> [Value; 2] {
    let whole = complete(caller, wire, request).await;
    let streamed = stream(caller, wire, request).await.response().clone();
    assert_ne!(whole["id"], streamed["id"]);
    [whole, streamed]
}

/// The row that a reply names, and that it says the same.
#[track_caller]
fn accounted(rows: &[Value], reply: &Value, streamed: bool) {
    let row = rows.iter().find(|row| row["id"] == reply["id"]).unwrap();
    assert_eq!(row["outcome"], "succeeded", "{row}");
    assert_eq!(row["status"], 200);
    assert_eq!(row["streamed"], streamed);
    assert_eq!(row["response_model"], reply["model"]);
    let usage = &reply["usage"];
    for name in ["input_tokens", "output_tokens", "cache_read_tokens"] {
        assert_eq!(row[name], usage[name], "{name}");
    }
    let writes: u64 = ["cache_write_5m_tokens", "cache_write_1h_tokens"]
        .iter()
        .filter_map(|name| row[*name].as_u64())
        .sum();
    assert_eq!(usage["cache_write_tokens"], writes);
    match row["cost_nanousd"].as_i64() {
        #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
        Some(nano) => assert_eq!(reply["cost_usd"], nano as f64 / 1e9),
        None => assert_eq!(reply["cost_usd"], Value::Null),
    }
    assert!(row["response_bytes"].as_u64().unwrap() > 0);
    assert_eq!(row["first_token_ms"].is_number(), streamed, "{row}");
}
