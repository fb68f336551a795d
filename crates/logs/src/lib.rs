//! The log: a tracing layer that masks secrets, standard output, a buffer of the newest lines, a live
//! stream of them for admins, and the servers whose lines there are.

mod config;
mod filter;
mod http;
mod layer;
pub mod model;
mod pipe;
mod read;
mod render;
mod replicas;
mod report;
mod ring;
mod values;
mod watch;

use std::{
    net::SocketAddr,
    ops::Deref,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use loom_common_secret::SecretString;
use loom_core::{
    Clock, Error, Result,
    health::{Check, Component, Status},
    id::new_uuid,
    sse::Seats,
    telemetry::Metric,
};
use sqlx::PgPool;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use uuid::Uuid;

pub use config::Config;
pub use filter::MinLevel;
pub use layer::LogLayer;
pub use pipe::{Flusher, Out};
pub use render::Form;
pub use report::Reporting;
pub use ring::Buffer;

/// The metrics of this crate, and of the masking in it.
pub const METRICS: &[Metric] = &[
    Metric::counter(
        "loom_log_lines_dropped_total",
        "Lines of the log that were dropped because nobody took them fast enough.",
        &["at"],
    ),
    Metric::counter(
        "loom_self_monitoring_dropped_total",
        "Errors of the server that did not become events: more came than the limit, or they could not be stored.",
        &["reason"],
    ),
    Metric::gauge("loom_log_watchers", "Streams of the log that are open.", &[]),
    Metric::counter(
        "loom_redactions_total",
        "Secrets that were masked, by what they looked like.",
        &["kind"],
    ),
];

/// Another server that does not take a connection within this is out of reach.
const CONNECT_WITHIN: Duration = Duration::from_secs(3);
/// So long lost lines count in the health.
const LATELY: Duration = Duration::from_secs(10 * 60);
const CLOSE_WITHIN: Duration = Duration::from_secs(2);

/// The handle of this feature; cheap to clone.
#[derive(Clone)]
pub struct Logs(Arc<Inner>);

/// What the handle holds.
#[doc(hidden)]
pub struct Inner {
    pool: PgPool,
    clock: Clock,
    buffer: Buffer,
    watchers: Seats,
    /// This server among its replicas; anew at each start.
    id: Uuid,
    peer_key: SecretString,
    peer_url: Option<String>,
    client: reqwest::Client,
    /// Where others reach this one; known once it listens.
    address: Mutex<Option<String>>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Deref for Logs {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl Logs {
    /// `peer_key` is what all servers of the installation share.
    pub fn new(
        pool: PgPool,
        clock: Clock,
        buffer: Buffer,
        config: &Config,
        peer_key: SecretString,
    ) -> Result<Self> {
        buffer.set_capacity(config.buffer_bytes);
        let client = reqwest::Client::builder()
            .connect_timeout(CONNECT_WITHIN)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()
            .map_err(Error::internal)?;
        Ok(Self(Arc::new(Inner {
            id: new_uuid(clock.now()),
            pool,
            clock,
            buffer,
            watchers: Seats::new(watch::PLACES),
            peer_key,
            peer_url: config.peer_url.clone(),
            client,
            address: Mutex::default(),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        })))
    }

    /// This server listens here: tells the others so, now and every half minute.
    pub async fn serve(&self, listening: SocketAddr) {
        let address = match &self.peer_url {
            Some(url) => Some(url.clone()),
            None => replicas::address_of(listening).await,
        };
        *self.address.lock().unwrap_or_else(PoisonError::into_inner) = address;
        replicas::beat(self).await;
        let logs = self.clone();
        self.tasks.spawn(async move { replicas::keep_beating(&logs).await });
    }

    /// Were lines dropped lately?
    pub fn health(&self) -> Check {
        let logs = self.clone();
        Check::new("logs", move || std::future::ready(logs.component()))
    }

    fn component(&self) -> Component {
        let (dropped, lately) = self.buffer.dropped(LATELY);
        let component = if lately {
            Component::new(Status::Degraded)
                .error("more was logged than could be written: lines were dropped")
                .code(
                    "LOG_LINES_DROPPED",
                    "Whoever reads standard output is too slow, or LOOM_SERVER_LOG_LEVEL lets too much \
                     through; loom_log_lines_dropped_total tells which.",
                )
        } else {
            Component::new(Status::Healthy)
        };
        component.with("dropped_lines", dropped).with("watchers", *self.watchers.count().borrow())
    }

    /// Says good-bye to all who watch. They would hold up the end of the server.
    pub fn end_streams(&self) {
        self.stop.cancel();
    }

    /// Takes this server off the list.
    pub async fn close(&self) {
        self.stop.cancel();
        self.tasks.close();
        let _ = tokio::time::timeout(CLOSE_WITHIN, self.tasks.wait()).await;
    }
}

/// What this process calls itself in its lines and in the list of servers: host and process.
pub fn replica_name() -> String {
    let host = nix::unistd::gethostname()
        .ok()
        .and_then(|name| name.into_string().ok())
        .unwrap_or_default();
    format!("{host}:{}", std::process::id())
}
