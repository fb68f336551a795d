//! What happens to threads, told to those who follow them: an outbox in the database, one reader of it
//! on each server, a ring of the newest events in memory, and the streams.

mod change;
pub(crate) mod delta;
mod event;
mod health;
mod reader;
mod ring;
mod tell;
pub(crate) mod watch;

use std::sync::{
    Arc, Mutex, PoisonError, RwLock,
    atomic::{AtomicBool, Ordering},
};

use loom_core::{id::ThreadId, sse::Seats};
use loom_db::Hub;
use sqlx::PgPool;
use tokio::{
    sync::{Notify, broadcast, watch as tokio_watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

pub(crate) use change::events_of;
pub(crate) use event::{Cursor, Event, Kind, NewEvent, Shown};
pub use health::METRICS;

use delta::Delta;
use ring::Ring;

/// Deltas that a slow stream may fall behind before it is told that it missed some.
const DELTA_BACKLOG: usize = 1024;

/// The feed of one server. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Feed(Arc<Inner>);

pub(crate) struct Inner {
    pool: PgPool,
    hub: Hub,
    stop: CancellationToken,
    /// Ends the streams, which would hold up the end of the server; before the rest.
    pub(crate) leaving: CancellationToken,
    /// None while nobody watches: nothing is read then.
    ring: RwLock<Option<Ring>>,
    /// Counts up whenever the ring has changed.
    changed: tokio_watch::Sender<u64>,
    /// The reader is to look.
    look: Notify,
    /// The teller has something to say.
    tell: Notify,
    written: AtomicBool,
    to_tell: Mutex<delta::Queue>,
    deltas: broadcast::Sender<Arc<Delta>>,
    pub(crate) watchers: Seats,
    /// Since when events are known to be there that cannot be given out yet, or nothing can be read.
    behind: Mutex<Option<Instant>>,
}

impl std::ops::Deref for Feed {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl Feed {
    pub(crate) fn new(pool: PgPool, hub: Hub, stop: CancellationToken) -> Self {
        Self(Arc::new(Inner {
            pool,
            hub,
            leaving: stop.child_token(),
            stop,
            ring: RwLock::default(),
            changed: tokio_watch::Sender::new(0),
            look: Notify::new(),
            tell: Notify::new(),
            written: AtomicBool::new(false),
            to_tell: Mutex::default(),
            deltas: broadcast::Sender::new(DELTA_BACKLOG),
            watchers: Seats::new(watch::PLACES),
            behind: Mutex::default(),
        }))
    }

    /// Begins to read and to tell.
    pub(crate) fn start(&self) {
        let stop = self.stop.clone();
        let feed = self.clone();
        tokio::spawn(
            stop.clone().run_until_cancelled_owned(async move { reader::run(&feed).await }),
        );
        let feed = self.clone();
        tokio::spawn(
            stop.clone().run_until_cancelled_owned(async move { tell::listen(&feed).await }),
        );
        let feed = self.clone();
        tokio::spawn(stop.run_until_cancelled_owned(async move { tell::run(&feed).await }));
    }

    /// Events have been committed: our reader looks at once, the others are told soon.
    pub(crate) fn wrote(&self) {
        self.look.notify_one();
        self.written.store(true, Ordering::Release);
        self.tell.notify_one();
    }

    /// A text has grown: all who watch the thread are told soon, on all servers.
    pub(crate) fn grew(&self, thread: ThreadId, id: &str, seq: i64, offset: usize, text: &str) {
        self.to_tell
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(thread, id, seq, offset, text);
        self.tell.notify_one();
    }

    fn set_behind(&self, is_behind: bool) {
        let mut behind = self.behind.lock().unwrap_or_else(PoisonError::into_inner);
        *behind = if is_behind { behind.or_else(|| Some(Instant::now())) } else { None };
        let lag = behind.map_or(0.0, |since| since.elapsed().as_secs_f64());
        metrics::gauge!("loom_thread_feed_lag_seconds").set(lag);
    }
}
