//! What keeps the index of the search true: threads from before it are put in, and once a day all is
//! compared. Writes bring their rows along, so that nothing should ever be found wrong.

use std::time::Duration;

use loom_core::id::{OrgId, ThreadId};
use loom_jobs::{Job, JobContext, JobError, JobReport};
use uuid::Uuid;

use crate::{
    Threads,
    store::{drift, index},
};

const BACKFILL_EVERY: Duration = Duration::from_secs(60);
const CHECK_EVERY: Duration = Duration::from_secs(24 * 3600);
/// Of one run; what is left over is the next one's.
const TIMEOUT: Duration = Duration::from_secs(12 * 3600);
/// Threads looked at in one statement.
const BATCH: i64 = 100;

pub(super) fn backfill(threads: Threads) -> Job {
    Job::new(
        "search-backfill",
        "Search back-fill",
        "Puts threads into the index of the search that were written before it, or before a change of how text is taken apart.",
        BACKFILL_EVERY,
        TIMEOUT,
        move |context| {
            let threads = threads.clone();
            async move { threads.backfill_search(&context).await }
        },
    )
}

pub(super) fn drift_check(threads: Threads) -> Job {
    Job::new(
        "search-drift-check",
        "Search drift check",
        "Compares the index of the search with the threads, and mends what differs; its items are the rows that did, of which there should be none.",
        CHECK_EVERY,
        TIMEOUT,
        move |context| {
            let threads = threads.clone();
            async move { threads.check_search(&context).await }
        },
    )
}

impl Threads {
    /// Each thread is a transaction: a run that is stopped has lost nothing.
    async fn backfill_search(&self, context: &JobContext) -> Result<JobReport, JobError> {
        let mut done = 0_u64;
        while !context.cancel.is_cancelled() {
            let found = drift::unprepared(&mut *self.pool.acquire().await?, BATCH).await?;
            if found.is_empty() {
                break;
            }
            for (org, thread) in found {
                if context.cancel.is_cancelled() {
                    break;
                }
                self.mend(org, thread, true).await?;
                done += 1;
            }
        }
        Ok(done.into())
    }

    async fn check_search(&self, context: &JobContext) -> Result<JobReport, JobError> {
        let (mut after, mut wrong) = (Uuid::nil(), 0_u64);
        while !context.cancel.is_cancelled() {
            let found = drift::compare(&mut *self.pool.acquire().await?, after, BATCH).await?;
            let Some(last) = found.last() else { break };
            after = last.head.id.0;
            for thread in &found {
                let head = &thread.head;
                let is_head_wrong = match &thread.head_digest {
                    Some(digest) => {
                        head.deleted_at.is_some() || *digest != index::head_digest(head)
                    }
                    None => head.deleted_at.is_none(),
                };
                let rows = thread.missing + thread.stale + thread.surplus;
                if rows == 0 && !is_head_wrong {
                    continue;
                }
                tracing::warn!(
                    thread = %head.id,
                    missing = thread.missing,
                    stale = thread.stale,
                    surplus = thread.surplus,
                    head = is_head_wrong,
                    "the search had another content than the thread; it is mended"
                );
                self.mend(head.org_id, head.id, false).await?;
                wrong += u64::try_from(rows).unwrap_or_default() + u64::from(is_head_wrong);
            }
        }
        Ok(wrong.into())
    }

    async fn mend(&self, org: OrgId, thread: ThreadId, all: bool) -> Result<(), JobError> {
        let mut tx = loom_db::begin(&self.pool).await?;
        drift::mend(&mut tx, org, thread, all).await?;
        tx.commit().await?;
        Ok(())
    }
}
