//! The job that looks after all repositories, one at a time.

use std::time::Duration;

use chrono::TimeDelta;
use loom_core::Error;
use loom_jobs::{Job, JobContext, JobError, JobReport};
use tokio::time::sleep;

use crate::{
    Scm, maintenance::GARBAGE_AFTER, model::MaintenanceStatus, store::maintenance as store,
};

pub(crate) const ID: &str = "scm-maintenance";
/// Of one round over all repositories; what is left over is the next one's first.
const TIMEOUT: Duration = Duration::from_secs(12 * 3600);
/// Between two repositories, for whoever else wants the disk.
const PAUSE: Duration = Duration::from_millis(100);
/// A deleted repository is kept this long.
const KEPT: TimeDelta = TimeDelta::days(30);
const BATCH: i64 = 100;

pub(crate) fn maintenance(scm: Scm) -> Job {
    let interval = scm.config.maintenance_interval;
    Job::new(
        ID,
        "Repository maintenance",
        "Packs the repositories that were pushed to, one at a time, and removes what was deleted 30 days ago.",
        interval,
        TIMEOUT,
        move |context| {
            let scm = scm.clone();
            async move { scm.sweep(context).await }
        },
    )
}

impl Scm {
    async fn sweep(&self, context: JobContext) -> Result<JobReport, JobError> {
        let began = context.clock.now();
        let (mut handled, mut failed) = (self.purge(&context).await?, 0_u64);
        while !context.cancel.is_cancelled() {
            let Some(target) = store::next_due(&self.pool, began, began - GARBAGE_AFTER).await?
            else {
                break;
            };
            // What git does to the disk no transaction undoes.
            context.fence().await?;
            // Another server may be quicker; then it is due no more.
            if let Some(run) = self.maintain_by_schedule(&target, &context.cancel).await? {
                handled += 1;
                failed += u64::from(run.status != MaintenanceStatus::Succeeded);
            }
            let _ = context.cancel.run_until_cancelled(sleep(PAUSE)).await;
        }
        if failed > 0 {
            let text = format!(
                "{failed} of {handled} repositories could not be looked after; \
                 `GET /api/repos/{{id}}/maintenance` says why"
            );
            return Err(JobError::Fail(Error::internal(text)));
        }
        Ok(handled.into())
    }

    /// Removes what was deleted long ago: the directory first, so that a crash leaves the row to try again.
    async fn purge(&self, context: &JobContext) -> Result<u64, JobError> {
        let before = context.clock.now() - KEPT;
        let mut removed = 0;
        while !context.cancel.is_cancelled() {
            let batch = store::deleted_before(&self.pool, before, BATCH).await?;
            if batch.is_empty() {
                break;
            }
            context.fence().await?;
            for (org, id) in batch {
                self.disk
                    .remove(org, id)
                    .await
                    .map_err(|error| JobError::Fail(Error::internal(error)))?;
                store::forget(&self.pool, org, id).await?;
                removed += 1;
            }
        }
        Ok(removed)
    }
}
