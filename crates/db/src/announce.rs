//! Words for other replicas about what was committed, gathered: a NOTIFY in each writing transaction would
//! make all commits queue up for one lock.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use sqlx::PgPool;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Words are said at most so often.
const PAUSE: Duration = Duration::from_millis(50);
/// Words that wait; what is beyond is not said, and those who listen are told to read again.
const QUEUE: usize = 1024;
/// What PostgreSQL takes as a payload is less than 8,000 bytes.
const LONGEST: usize = 7900;
/// Said in place of words that there was no room for.
pub const READ_AGAIN: &str = "read-again";

/// Says words on a channel. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Announcer(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    pool: PgPool,
    channel: &'static str,
    waiting: Mutex<Waiting>,
    bell: Notify,
    stop: CancellationToken,
}

#[derive(Debug, Default)]
struct Waiting {
    words: Vec<String>,
    lost: bool,
}

impl Announcer {
    /// Says nothing before [`Announcer::start`].
    pub fn new(pool: PgPool, channel: &'static str) -> Self {
        Self(Arc::new(Inner {
            pool,
            channel,
            waiting: Mutex::default(),
            bell: Notify::new(),
            stop: CancellationToken::new(),
        }))
    }

    /// Begins to say what is to be said; ends with [`Announcer::stop`].
    pub fn start(&self) {
        let announcer = self.clone();
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    () = announcer.0.stop.cancelled() => return,
                    () = announcer.0.bell.notified() => {}
                }
                announcer.flush().await;
                tokio::time::sleep(PAUSE).await;
            }
        });
    }

    /// To be called after the commit. A word that is too long, or that there is no room for, becomes
    /// [`READ_AGAIN`].
    pub fn say(&self, word: String) {
        let mut waiting = self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if word.len() > LONGEST || waiting.words.len() >= QUEUE {
            waiting.lost = true;
        } else {
            waiting.words.push(word);
        }
        drop(waiting);
        self.0.bell.notify_one();
    }

    /// Says what waits now. A database that is out of reach loses it: whoever listens reads again when
    /// it is back.
    pub async fn flush(&self) {
        let Waiting { mut words, lost } =
            std::mem::take(&mut *self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        if lost {
            words.push(READ_AGAIN.to_owned());
        }
        if words.is_empty() {
            return;
        }
        let channel = self.0.channel;
        let said = sqlx::query("SELECT count(pg_notify($1, word)) FROM unnest($2::text[]) AS word")
            .bind(channel)
            .bind(&words)
            .fetch_one(&self.0.pool)
            .await;
        if let Err(error) = said {
            tracing::debug!(%error, channel, "cannot tell the other servers");
        }
    }

    pub async fn stop(&self) {
        self.0.stop.cancel();
        self.flush().await;
    }
}
