//! A mock LLM upstream that speaks the wires of Anthropic, OpenAI and Vertex on a real socket.
//!
//! What it answers is decided, in this order, by the script at the head of its queue, by the name
//! of the model (see [`trigger`] for the names, `mock-stall` for one), and else by the request:
//! text, tool calls, thinking, embeddings. [`usage`] says what it claims to have counted.

mod anthropic;
mod errors;
mod gemini;
mod headers;
mod openai_chat;
mod openai_misc;
mod openai_responses;
mod plan;
mod record;
mod route;
mod script;
mod serve;
pub mod trigger;
pub mod usage;

use std::{
    net::{SocketAddr, TcpListener},
    sync::Arc,
    time::Duration,
};

pub use plan::{REPLY_PIECES, THINKING_PIECES, THINKING_SIGNATURE, reply_text};
pub use record::{End, Ended, Recorded};
pub use script::{Head, Reply, Script, Step};

use crate::background::Background;
use serve::Shared;

/// A running mock upstream; it stops, and drops its connections, when this is dropped.
pub struct MockLlm {
    addr: SocketAddr,
    shared: Arc<Shared>,
    _background: Background,
}

impl MockLlm {
    /// Starts one on a free port of 127.0.0.1 that accepts this provider key only.
    pub fn start(key: &str) -> Self {
        Self::start_on(([127, 0, 0, 1], 0).into(), key)
    }

    /// The same at a given address, as for an upstream that comes back.
    pub fn start_on(addr: SocketAddr, key: &str) -> Self {
        let listener = TcpListener::bind(addr).expect("the address is free");
        let addr = listener.local_addr().expect("a bound socket has an address");
        let shared = Arc::new(Shared::new(key));
        let background = Background::start("mock-llm");
        background.spawn(serve::run(listener, shared.clone()));
        Self { addr, shared, _background: background }
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// `http://127.0.0.1:<port>`; the wires are below `/v1`, `/openai/v1` and
    /// `/anthropic/v1`, those of Vertex below `/v1/projects`.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// The next POST that is not scripted yet is answered by this.
    pub fn enqueue(&self, script: impl Into<Script>) {
        self.shared.enqueue(None, script.into());
    }

    /// The same for the next request, of any method, whose path ends with `path`.
    pub fn enqueue_for(&self, path: &str, script: impl Into<Script>) {
        self.shared.enqueue(Some(path.to_owned()), script.into());
    }

    /// Scripts that no request has taken yet.
    pub fn queued(&self) -> usize {
        self.shared.queued()
    }

    /// Everything that arrived, in this order, with how it ended so far.
    pub fn requests(&self) -> Vec<Recorded> {
        self.shared.log.all()
    }

    /// Forgets what arrived; the next request is number 1 again. Not while one is being answered.
    pub fn clear(&self) {
        self.shared.log.clear();
    }

    /// The `n`th request (from 1), as soon as all of it has arrived.
    pub async fn wait_for_request(&self, n: usize) -> Recorded {
        self.shared.log.wait(n, "arrive", |_| true).await
    }

    /// The `n`th request (from 1), as soon as it has ended, by whomever.
    pub async fn wait_for_end(&self, n: usize) -> Recorded {
        self.shared.log.wait(n, "end", |request| request.end.is_some()).await
    }
}

/// How long the waiting functions wait before they fail the test.
pub const PATIENCE: Duration = Duration::from_secs(30);
