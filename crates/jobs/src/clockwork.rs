//! The clock: tokio-cron-scheduler strikes each second, and nothing more is asked of it. It overlaps
//! its own jobs, does not wait on shutdown and keeps no history; all that is done elsewhere.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use loom_core::{Error, Result};

use crate::{JobScheduler, scheduler::Inner};

const EACH_SECOND: &str = "* * * * * *";

pub(crate) struct Clockwork {
    clock: tokio_cron_scheduler::JobScheduler,
    last_strike: Arc<Mutex<Instant>>,
}

impl Clockwork {
    pub(crate) async fn start(scheduler: &Arc<Inner>) -> Result<Self> {
        let last_strike = Arc::new(Mutex::new(Instant::now()));
        let struck = Arc::clone(&last_strike);
        // Weak, or the clock would keep alive what owns it.
        let scheduler = Arc::downgrade(scheduler);
        let look = tokio_cron_scheduler::Job::new_async(EACH_SECOND, move |_, _| {
            *struck.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
            let scheduler = scheduler.upgrade().map(JobScheduler);
            Box::pin(async move {
                if let Some(scheduler) = scheduler {
                    scheduler.tick().await;
                }
            })
        })
        .map_err(Error::internal)?;
        let clock = tokio_cron_scheduler::JobScheduler::new().await.map_err(Error::internal)?;
        clock.add(look).await.map_err(Error::internal)?;
        clock.start().await.map_err(Error::internal)?;
        Ok(Self { clock, last_strike })
    }

    pub(crate) fn last_strike(&self) -> Instant {
        *self.last_strike.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) async fn stop(mut self) {
        if let Err(error) = self.clock.shutdown().await {
            tracing::warn!(%error, "the clock of the jobs did not stop");
        }
    }
}
