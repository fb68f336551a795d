//! The LLM proxy, through both wires, with a mock of the providers behind it.

mod accounting;
mod attribution;
mod bad_input;
mod behaviours;
mod broken;
mod cache;
mod capture;
mod chaos;
mod conversation;
mod costs;
mod credentials;
mod failover;
mod idempotency;
mod left;
mod limits;
mod limits_along;
mod limits_replicas;
mod org_routes;
mod passthrough;
mod pool;
mod pool_admin;
mod pool_tokens;
mod prices;
mod request_log;
mod rig;
mod routing;
mod sdk;
mod silence;
mod translated;
mod usage;
mod usage_stream;
mod vertex;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, StatusCode};
use loom_testkit::{Answer, Caller, TestApp, app::UPSTREAM_KEY};
use reqwest::Response;
use serde_json::{Value, json};

const SONNET: &str = "claude-sonnet-4-5-20250929";
const GPT: &str = "gpt-4o";

/// What is asked of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Op {
    Messages,
    Chat,
    Responses,
}

impl Op {
    const ALL: [Self; 3] = [Self::Messages, Self::Chat, Self::Responses];

    fn path(self) -> &'static str {
        match self {
            Self::Messages => "/v1/messages",
            Self::Chat => "/v1/chat/completions",
            Self::Responses => "/v1/responses",
        }
    }

    fn body(self, model: &str) -> Value {
        let messages = json!([{"role": "user", "content": "Hi"}]);
        match self {
            Self::Messages => json!({"model": model, "max_tokens": 1024, "messages": messages}),
            Self::Chat => json!({"model": model, "messages": messages}),
            Self::Responses => json!({"model": model, "input": "Hi"}),
        }
    }

    /// The same as a stream; of chat, with usage, so that nothing is changed on the way.
    fn stream_body(self, model: &str) -> Value {
        let mut body = self.body(model);
        body["stream"] = json!(true);
        if self == Self::Chat {
            body["stream_options"] = json!({"include_usage": true});
        }
        body
    }

    fn priced_model(self) -> &'static str {
        if self == Self::Messages { SONNET } else { GPT }
    }

    /// Checks that an error has this wire's shape, and gives its message and its type or code.
    #[track_caller]
    fn error_of(self, body: &Value) -> (String, String) {
        let error = &body["error"];
        let kind = if self == Self::Messages {
            assert_eq!(body["type"], "error", "{body}");
            &error["type"]
        } else {
            assert!(error["type"].is_string(), "{body}");
            &error["code"]
        };
        let text = |value: &Value| {
            value.as_str().unwrap_or_else(|| panic!("no error of {self:?}: {body}")).to_owned()
        };
        (text(&error["message"]), text(kind))
    }
}

/// A body as it came, and whether it broke off.
struct Received {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
    broke_off: bool,
}

impl Received {
    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// The payloads of all events.
    fn data(&self) -> Vec<&str> {
        self.text().lines().filter_map(|line| line.strip_prefix("data: ")).collect()
    }
}

async fn receive(mut response: Response) -> Received {
    let (status, headers) = (response.status(), response.headers().clone());
    let mut body = BytesMut::new();
    let broke_off = loop {
        match response.chunk().await {
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Ok(None) => break false,
            Err(_) => break true,
        }
    };
    Received { status, headers, body: body.freeze(), broke_off }
}

/// Exactly these bytes through the server.
async fn post(caller: &Caller, path: &str, body: impl Into<reqwest::Body>) -> Received {
    receive(begin(caller, path, body).await).await
}

/// The same, as soon as the response begins.
async fn begin(caller: &Caller, path: &str, body: impl Into<reqwest::Body>) -> Response {
    caller
        .request(Method::POST, path)
        .header("content-type", "application/json")
        .body(body)
        .send()
        .await
        .unwrap()
}

/// Exactly these bytes to the mock, as the first request that it sees.
async fn post_directly(app: &TestApp, path: &str, body: impl Into<reqwest::Body>) -> Received {
    app.mock.clear();
    let request = app.http.post(format!("{}{path}", app.mock.url())).bearer_auth(UPSTREAM_KEY);
    let request = request.header("content-type", "application/json").body(body);
    let received = receive(request.send().await.unwrap()).await;
    app.mock.wait_for_end(1).await;
    app.mock.clear();
    received
}

/// A server on which what an error did to a credential is over as soon as [`let_rest`] says so.
async fn start_patient() -> TestApp {
    loom_testkit::Setup::default().manual_clock().start().await
}

/// As if hours had gone by.
fn let_rest(app: &TestApp) {
    app.clock.advance(std::time::Duration::from_secs(2 * 3600));
}

async fn ask(caller: &Caller, op: Op, model: &str) -> Answer {
    caller.post(op.path(), &op.body(model)).await
}

async fn stream(caller: &Caller, op: Op, model: &str) -> Received {
    post(caller, op.path(), op.stream_body(model).to_string()).await
}

/// Begins a stream and reads it up to its first piece of content.
async fn begin_stream(caller: &Caller, op: Op, model: &str) -> Response {
    let mut response = begin(caller, op.path(), op.stream_body(model).to_string()).await;
    let mut seen = String::new();
    while !["tick1", "Hello"].iter().any(|content| seen.contains(content)) {
        let chunk = response.chunk().await.unwrap().unwrap();
        seen.push_str(&String::from_utf8_lossy(&chunk));
    }
    response
}
