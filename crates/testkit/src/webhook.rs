//! A receiver of webhooks on loopback that keeps what came and answers by script.

use std::{
    collections::VecDeque,
    net::{SocketAddr, TcpListener},
    sync::{Arc, Mutex},
};

use axum::{Router, body::Bytes, extract::State, response::IntoResponse};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri};
use serde_json::Value;

use crate::{background::Background, eventually};

/// What came.
#[derive(Clone, Debug)]
pub struct Call {
    pub path: String,
    pub headers: HeaderMap,
    pub body: String,
}

impl Call {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).expect("the body is JSON")
    }

    #[track_caller]
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).unwrap_or_else(|| panic!("there is no {name}")).to_str().unwrap()
    }
}

/// An answer: status, one more header, body.
type Answer = (StatusCode, Option<(HeaderName, HeaderValue)>, String);

#[derive(Default)]
struct Shared {
    script: Mutex<VecDeque<Answer>>,
    calls: Mutex<Vec<Call>>,
}

/// A running receiver; it stops when this is dropped.
pub struct WebhookReceiver {
    addr: SocketAddr,
    shared: Arc<Shared>,
    _background: Background,
}

impl WebhookReceiver {
    /// One on a free port of 127.0.0.1 that answers 204 to whatever comes.
    pub fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("there is a free port");
        let addr = listener.local_addr().expect("a bound socket has an address");
        let shared = Arc::new(Shared::default());
        let router = Router::new().fallback(receive).with_state(Arc::clone(&shared));
        let background = Background::start("webhook");
        background.spawn(async move {
            listener.set_nonblocking(true).unwrap();
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            let _ = axum::serve(listener, router).await;
        });
        Self { addr, shared, _background: background }
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.addr)
    }

    /// The next call that has none yet gets this answer.
    pub fn enqueue(&self, status: u16, header: Option<(&'static str, &str)>, body: &str) {
        let status = StatusCode::from_u16(status).unwrap();
        let header =
            header.map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()));
        self.shared.script.lock().unwrap().push_back((status, header, body.to_owned()));
    }

    /// Everything that came, in this order.
    pub fn calls(&self) -> Vec<Call> {
        self.shared.calls.lock().unwrap().clone()
    }

    /// The `n`th call (from 1), as soon as it is there.
    pub async fn call(&self, n: usize) -> Call {
        eventually(async || self.calls().into_iter().nth(n - 1)).await
    }
}

async fn receive(
    State(shared): State<Arc<Shared>>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> impl IntoResponse {
    let body = String::from_utf8_lossy(&body).into_owned();
    let path = uri.path().to_owned();
    shared.calls.lock().unwrap().push(Call { path, headers, body });
    let answer = shared.script.lock().unwrap().pop_front();
    let (status, header, body) = answer.unwrap_or((StatusCode::NO_CONTENT, None, String::new()));
    let headers: HeaderMap = header.into_iter().collect();
    (status, headers, body)
}
