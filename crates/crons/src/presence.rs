//! That somebody is there to be told of runs. While no server is, what should have been heard of is not known,
//! and nobody's fault.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use chrono::{DateTime, TimeDelta, Utc};
use loom_core::{Clock, Result};
use tokio_util::sync::CancellationToken;

use crate::{engine::Engine, store};

/// How often a server says that it is there.
const BEAT: Duration = Duration::from_secs(3);
/// Nobody was there when nobody said so for longer. A shorter time is bridged by whoever tries again.
const TOLERANCE: TimeDelta = TimeDelta::seconds(10);
/// By a clock that is moved by hand: it leaps from one look to the next.
const LEAP: TimeDelta = TimeDelta::seconds(150);

/// What this server knows of its own presence.
#[derive(Default)]
pub(crate) struct Presence {
    /// When it last said that it is there.
    said_at: Mutex<Option<DateTime<Utc>>>,
}

impl Presence {
    fn said_at(&self) -> Option<DateTime<Utc>> {
        *self.said_at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For how long it may have been silent.
    fn tolerance(&self, clock: &Clock) -> TimeDelta {
        // What happened before this server began, only the database knows.
        if clock.is_manual() && self.said_at().is_some() { LEAP } else { TOLERANCE }
    }
}

impl Engine {
    /// Says that somebody is there, and writes down since when nobody was if that is so.
    pub(crate) async fn beat(&self) -> Result<()> {
        let now = self.clock.now();
        let tolerance = self.presence.tolerance(&self.clock);
        store::sweeps::beat(&self.pool, now, tolerance).await?;
        *self.presence.said_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(now);
        Ok(())
    }

    /// Before anything is judged: an outage that is over is known.
    pub(crate) async fn be_there(&self) -> Result<()> {
        let tolerance = self.presence.tolerance(&self.clock);
        let now = self.clock.now();
        match self.presence.said_at() {
            Some(at) if (now - at).abs() <= tolerance => Ok(()),
            _ => self.beat().await,
        }
    }

    /// Beats until the server is gone. By a clock that is moved by hand only who looks beats.
    pub(crate) async fn keep_beating(&self, gone: CancellationToken) {
        if self.clock.is_manual() {
            return;
        }
        loop {
            if let Err(error) = self.beat().await {
                tracing::debug!(?error, "it could not be written down that a server is there");
            }
            tokio::select! {
                () = gone.cancelled() => return,
                () = tokio::time::sleep(BEAT) => {}
            }
        }
    }
}
