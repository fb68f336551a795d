//! What becomes of a reply whose client has left: it ends at the provider, or is read on, for the
//! provider's last count of tokens.

use std::{sync::Arc, time::Duration};

use http_body_util::BodyExt;
use loom_core::config::Env;
use metrics::counter;
use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    ledger::{Meter, Outcome},
    observe::Observer,
};

/// What to do when a client leaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum OnDisconnect {
    /// The request ends at the provider; what was seen counts.
    #[default]
    Cut,
    /// Read on until usage has come, within limits.
    Drain,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Config {
    on_disconnect: OnDisconnect,
    within: Duration,
    max_bytes: usize,
    at_once: usize,
}

impl Config {
    pub(crate) fn load(env: &mut Env) -> Self {
        let words = [("cut", OnDisconnect::Cut), ("drain", OnDisconnect::Drain)];
        let mib = env.number("LOOM_SERVER_LLM_DRAIN_MAX_MIB", 16_usize, 1, 1024);
        Self {
            on_disconnect: env
                .choice("LOOM_SERVER_LLM_ON_DISCONNECT", "cut", &words)
                .unwrap_or_default(),
            within: env.secs("LOOM_SERVER_LLM_DRAIN_MAX_SECS", 120, 1, 3600),
            max_bytes: mib << 20,
            at_once: env.number("LOOM_SERVER_LLM_DRAIN_MAX_STREAMS", 256_usize, 1, 10_000),
        }
    }
}

/// Replies that are read on in the background.
#[derive(Clone)]
pub(crate) struct Drains(Arc<Inner>);

struct Inner {
    /// None: nothing is read on.
    limits: Option<(Duration, usize)>,
    room: Arc<Semaphore>,
    running: TaskTracker,
    stop: CancellationToken,
}

impl Default for Drains {
    fn default() -> Self {
        Self::of(None, 0)
    }
}

impl Drains {
    pub(crate) fn new(config: Config) -> Self {
        let drains = config.on_disconnect == OnDisconnect::Drain;
        Self::of(drains.then_some((config.within, config.max_bytes)), config.at_once)
    }

    fn of(limits: Option<(Duration, usize)>, at_once: usize) -> Self {
        Self(Arc::new(Inner {
            limits,
            room: Arc::new(Semaphore::new(at_once)),
            running: TaskTracker::new(),
            stop: CancellationToken::new(),
        }))
    }

    /// Ends what is being read, and resolves when all of it is on the account.
    pub(crate) async fn close(&self) {
        self.0.stop.cancel();
        self.0.running.close();
        self.0.running.wait().await;
    }
}

/// Takes over the account of a reply whose client has left in the middle. `held` is what must live as
/// long as the request does at the provider.
pub(crate) fn leave(
    upstream: reqwest::Body,
    mut observer: Observer,
    mut meter: Meter,
    held: impl Send + 'static,
) {
    meter.left();
    let drains = meter.drains().clone();
    let room = Arc::clone(&drains.0.room).try_acquire_owned();
    let (Some((within, max_bytes)), Ok(room)) = (drains.0.limits, room) else {
        drop(upstream);
        settle(&observer, meter);
        return;
    };
    // Dropped on a thread that runs no tasks, as at the end of the process, it is cut.
    let Ok(runtime) = tokio::runtime::Handle::try_current() else {
        settle(&observer, meter);
        return;
    };
    let stop = drains.0.stop.clone();
    let task = async move {
        let end = tokio::select! {
            biased;
            () = stop.cancelled() => "stopped",
            read = tokio::time::timeout(within, read(upstream, &mut observer, max_bytes)) => {
                read.unwrap_or("too_long")
            }
        };
        counter!("loom_llm_drained_total", "end" => end).increment(1);
        settle(&observer, meter);
        drop((room, held));
    };
    drains.0.running.spawn_on(task, &runtime);
}

/// Until all has been said, or more than that; gives how it ended.
async fn read(mut upstream: reqwest::Body, observer: &mut Observer, max: usize) -> &'static str {
    let mut bytes = 0_usize;
    loop {
        match upstream.frame().await {
            None => {
                observer.finish();
                return "complete";
            }
            Some(Err(_)) => return "broken",
            Some(Ok(frame)) => {
                let Ok(data) = frame.into_data() else { continue };
                bytes = bytes.saturating_add(data.len());
                observer.feed(&data);
                if observer.seen.last_word {
                    return "complete";
                }
                if bytes > max {
                    return "too_large";
                }
            }
        }
    }
}

fn settle(observer: &Observer, mut meter: Meter) {
    meter.saw(&observer.seen);
    let outcome = if observer.seen.error.is_some() { Outcome::Failed } else { Outcome::Cancelled };
    meter.end(outcome, None);
}
