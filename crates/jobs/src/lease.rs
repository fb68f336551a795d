//! How long a run is ours. The database's clock decides when a lease ends; we trust it for less, by a
//! clock that nobody sets, counted from before we asked for it.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use loom_core::{Error, Result, id::RunId};
use sqlx::PgPool;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::store;

/// The lease of one run.
#[derive(Debug)]
pub(crate) struct Lease {
    pool: PgPool,
    run: RunId,
    length: Duration,
    /// When it was last asked for with success.
    since: Mutex<Instant>,
}

/// Of the error of a run that another may have taken over.
pub(crate) const RUN_LOST: &str = "run_lost";

impl Lease {
    /// `since` is from before it was asked for.
    pub(crate) fn new(pool: PgPool, run: RunId, length: Duration, since: Instant) -> Self {
        Self { pool, run, length, since: Mutex::new(since) }
    }

    fn since(&self) -> Instant {
        *self.since.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Until then the run may go on. A third of the lease is left for it to stop.
    fn trusted_until(&self) -> Instant {
        self.since() + self.length * 2 / 3
    }

    /// From then on another replica may have taken the run over.
    pub(crate) fn ends(&self) -> Instant {
        self.since() + self.length
    }

    /// What a run has to stop once the lease is not trusted any more; as long again stays to spare.
    pub(crate) fn to_stop(&self) -> Duration {
        self.length / 6
    }

    /// Whether the run was told to stop. None: it is ours no longer.
    async fn renew(&self) -> Result<Option<bool>> {
        let asked = Instant::now();
        let renewal = store::renew_lease(&self.pool, self.run, self.length);
        let renewed = timeout(self.length / 6, renewal)
            .await
            .map_err(|_| Error::unavailable("the database did not answer in time"))??;
        if renewed.is_some() {
            *self.since.lock().unwrap_or_else(PoisonError::into_inner) = asked;
        }
        Ok(renewed)
    }

    /// Renews the lease. Resolves when the run is ours no longer, or may soon be: early enough to stop
    /// before another replica may take over. Why a renewal failed makes no difference.
    pub(crate) async fn keep(&self, cancel: &CancellationToken) {
        let mut pause = self.length / 3;
        loop {
            let next = async {
                sleep(pause).await;
                self.renew().await
            };
            match timeout_at(self.trusted_until(), next).await {
                Ok(Ok(Some(cancelled))) => {
                    if cancelled {
                        cancel.cancel();
                    }
                    pause = self.length / 3;
                }
                Ok(Ok(None)) => return,
                Ok(Err(error)) => {
                    tracing::warn!(run_id = %self.run, ?error, "a lease was not renewed");
                    pause = self.length / 12;
                }
                // The body may have renewed it meanwhile.
                Err(_) if Instant::now() < self.trusted_until() => {}
                Err(_) => {
                    tracing::warn!(run_id = %self.run, "a lease was not renewed in time");
                    return;
                }
            }
        }
    }

    /// Renews the lease, or says that the run is ours no longer.
    pub(crate) async fn fence(&self) -> Result<()> {
        let lost =
            || Error::conflict(RUN_LOST, "the lease of this run has ended; another may have begun");
        if Instant::now() >= self.trusted_until() {
            return Err(lost());
        }
        self.renew().await?.map(|_| ()).ok_or_else(lost)
    }
}
