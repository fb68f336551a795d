//! The scheduler's own job: old history becomes sums per day, but the newest runs of each job stay.

use std::time::Duration;

use sqlx::PgPool;

use crate::{
    model::{Job, JobContext, JobError, JobReport},
    store::history,
};

const DAY: Duration = Duration::from_secs(24 * 3600);
const KEEP_FOR: Duration = Duration::from_secs(90 * 24 * 3600);
const KEEP_NEWEST: i64 = 50;
/// Rows of one statement.
const BATCH: i64 = 1000;

pub(crate) fn job(pool: PgPool) -> Job {
    Job::new(
        "job-history-cleanup",
        "Job history clean-up",
        "Rolls runs older than 90 days up per job and day, and deletes them; the newest 50 of each job stay",
        DAY,
        Duration::from_secs(600),
        move |context| run(pool.clone(), context),
    )
}

async fn run(pool: PgPool, context: JobContext) -> Result<JobReport, JobError> {
    let before = context.clock.now() - KEEP_FOR;
    let mut items_handled = 0;
    while !context.cancel.is_cancelled() {
        let gone = history::roll_up(&pool, before, KEEP_NEWEST, BATCH).await?;
        items_handled += u64::try_from(gone).unwrap_or_default();
        if gone == 0 {
            break;
        }
    }
    Ok(JobReport { items_handled })
}
