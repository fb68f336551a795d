//! Background work.

use std::time::Duration;

use loom_jobs::{Job, JobError};

use crate::{Ingest, store};

const DAY: Duration = Duration::from_secs(24 * 3600);
/// How long client reports are kept.
const KEPT_DAYS: u64 = 90;

pub(crate) fn all(ingest: &Ingest) -> Vec<Job> {
    let ingest = ingest.clone();
    vec![Job::new(
        "client-report-cleanup",
        "Client report clean-up",
        "Deletes the counts of what clients did not send, after 90 days",
        DAY,
        Duration::from_secs(600),
        move |context| {
            let ingest = ingest.clone();
            async move {
                let today = context.clock.now().date_naive();
                let before = today.checked_sub_days(chrono::Days::new(KEPT_DAYS)).unwrap_or(today);
                let deleted = store::delete_before(&ingest.deps.pool, before).await;
                Ok::<_, JobError>(deleted?.into())
            }
        },
    )]
}
