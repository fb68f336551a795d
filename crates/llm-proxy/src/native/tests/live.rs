//! Streams as a client gets them, whatever the provider does, and what the account has of them.

use std::{
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::http::{HeaderMap, StatusCode};
use futures::{Stream, StreamExt, stream};
use http_body_util::BodyExt;
use loom_core::{
    Clock, Principal,
    id::{OrgId, UserId},
    principal::{Actor, OrgRole, RequestInfo, Scopes, Via},
};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    demo,
    dialect::Operation,
    ledger::{Ledger, Opening, Row},
    limits::{Need, Surface},
    live::{Account, Live},
    native::stream::events,
    observe::Observer,
    provider::Providers,
    translate::stream::Decoder,
};

type Rows = Arc<Mutex<Vec<Row>>>;

struct Rig {
    ledger: Ledger,
    rows: Rows,
    stop: CancellationToken,
}

impl Rig {
    fn new() -> Self {
        let (ledger, rows) = Ledger::keep(Clock::system());
        Self { ledger, rows, stop: CancellationToken::new() }
    }

    fn live(&self, chunks: impl Stream<Item = io::Result<&'static str>> + Send + 'static) -> Live {
        let mut config = crate::Config::load(&mut loom_core::config::Env::new([]));
        config.demo = true;
        let providers = Providers::new(&config, &Clock::system(), None);
        let provider = providers.named(demo::PROVIDER).unwrap();
        let principal = Principal {
            actor: Actor::User(UserId(Uuid::nil())),
            via: Via::DevMode,
            org: OrgId(Uuid::nil()),
            role: OrgRole::Member,
            scopes: Scopes::all(),
            system_admin: false,
            auditor: false,
            name: "me".into(),
        };
        let info = RequestInfo { id: "r".into(), ip: [127, 0, 0, 1].into() };
        let mut meter = self
            .ledger
            .open(&Opening {
                principal: &principal,
                info: &info,
                headers: &HeaderMap::new(),
                provider,
                model: "m",
                streamed: true,
                request_bytes: 1,
                need: Need {
                    operation: Operation::Chat,
                    surface: Surface::Native,
                    max_output: None,
                    input_estimate: 1,
                },
            })
            .unwrap();
        meter.answered(StatusCode::OK, None);
        Live {
            upstream: Some(reqwest::Body::wrap_stream(chunks)),
            decoder: Decoder::new(Operation::Chat),
            account: Account::new(meter, "m".to_owned(), Observer::stream(Operation::Chat)),
            held: std::collections::VecDeque::new(),
            lease: None,
            idle: Duration::from_millis(100),
            since: None,
            deadline: tokio::time::Instant::now() + Duration::from_secs(60),
            stop: self.stop.clone(),
            waiting: std::collections::VecDeque::new(),
            received: 0,
        }
    }

    async fn row(self) -> Row {
        self.ledger.close().await;
        let rows = self.rows.lock().unwrap();
        assert_eq!(rows.len(), 1, "{rows:?}");
        rows[0].clone()
    }
}

/// The data of all events.
async fn heard(live: Live) -> Vec<Value> {
    let body = loom_core::sse::response(events(live)).into_body().collect().await.unwrap();
    let text = String::from_utf8(body.to_bytes().to_vec()).unwrap();
    let frames = text.split_terminator("\n\n").map(|frame| {
        let data = frame.strip_prefix("event: llm\ndata: ").expect(frame);
        serde_json::from_str(data).unwrap()
    });
    frames.collect()
}

const HELLO: &str = "data: {\"model\":\"x\",\"choices\":[{\"delta\":{\"content\":\"Hello\"}}]}\n\n";
const STOP: &str = "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";
const USAGE: &str =
    "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":7}}\n\n";
const DONE: &str = "data: [DONE]\n\n";

fn chunks(
    chunks: impl IntoIterator<Item = &'static str, IntoIter: Send + 'static>,
) -> impl Stream<Item = io::Result<&'static str>> + Send {
    stream::iter(chunks.into_iter().map(Ok))
}

fn hello() -> Value {
    json!({"type": "text_delta", "content": "Hello"})
}

#[tokio::test]
async fn a_good_stream_is_completed_and_counted() {
    let rig = Rig::new();
    // A provider that keeps the connection open after its end does not keep the client waiting.
    let live = rig.live(chunks([HELLO, STOP, USAGE, DONE]).chain(stream::pending()));
    let heard = heard(live).await;
    assert_eq!(heard.len(), 2);
    assert_eq!(heard[0], hello());
    assert_eq!(heard[1]["type"], "completed");
    let response = &heard[1]["response"];
    assert_eq!(
        (&response["model"], &response["message"]["content"]),
        (&json!("x"), &json!("Hello"))
    );
    assert_eq!(
        (&response["usage"]["input_tokens"], &response["usage"]["output_tokens"]),
        (&json!(5), &json!(7))
    );
    assert_eq!(response["cost_usd"], Value::Null);
    let id = response["id"].as_str().unwrap().to_owned();
    let row = rig.row().await;
    assert_eq!((row.id.to_string(), row.outcome, row.status), (id, "succeeded", Some(200)));
    assert_eq!((row.usage.input, row.usage.output), (Some(5), Some(7)));
    assert!(row.first_token_ms.is_some() && row.response_bytes > 0);
}

#[tokio::test]
async fn a_stream_that_breaks_off_ends_with_one_error() {
    let broken = || stream::iter([Err(io::Error::other("reset"))]);
    let told = "data: {\"error\":{\"message\":\"boom\",\"type\":\"server_error\"}}\n\n";
    let cases: Vec<(stream::BoxStream<'static, io::Result<&'static str>>, &str)> = vec![
        (chunks([HELLO]).boxed(), "upstream_error"),
        (chunks([HELLO]).chain(broken()).boxed(), "upstream_error"),
        (chunks([HELLO]).chain(stream::pending()).boxed(), "upstream_timeout"),
        (chunks([HELLO, told, HELLO, DONE]).boxed(), "upstream_error"),
    ];
    for (upstream, code) in cases {
        let rig = Rig::new();
        let heard = heard(rig.live(upstream)).await;
        assert_eq!(heard.len(), 2, "{heard:?}");
        assert_eq!(heard[0], hello());
        assert_eq!((&heard[1]["type"], &heard[1]["error"]), (&json!("error"), &json!(code)));
        assert_eq!(rig.row().await.outcome, "failed");
    }
}

#[tokio::test]
async fn a_server_that_goes_down_says_so() {
    let rig = Rig::new();
    let stop = rig.stop.clone();
    // Asked for more than the first chunk, the provider is silent: then the server goes down.
    let silent = stream::once(async move {
        stop.cancel();
        std::future::pending().await
    });
    let heard = heard(rig.live(chunks([HELLO]).chain(silent))).await;
    let last = heard.last().unwrap();
    assert_eq!((&last["error"], &last["retry_after_secs"]), (&json!("unavailable"), &json!(5)));
    assert_eq!(rig.row().await.outcome, "failed");
}

#[tokio::test]
async fn a_client_that_leaves_ends_the_request_and_what_came_counts() {
    struct Told(Arc<std::sync::atomic::AtomicBool>);
    impl Drop for Told {
        fn drop(&mut self) {
            self.0.store(true, std::sync::atomic::Ordering::SeqCst);
        }
    }
    let rig = Rig::new();
    let dropped = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let held = Told(Arc::clone(&dropped));
    let upstream = chunks([HELLO]).chain(stream::pending()).map(move |chunk| {
        let _ = &held;
        chunk
    });
    let mut events = Box::pin(events(rig.live(upstream)));
    assert!(events.next().await.is_some());
    drop(events);
    assert!(dropped.load(std::sync::atomic::Ordering::SeqCst));
    let row = rig.row().await;
    assert_eq!((row.outcome, row.response_model.as_deref()), ("cancelled", Some("x")));
}
