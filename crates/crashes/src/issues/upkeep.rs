//! What time does to issues: ignored ones wake, events follow merges.

use std::time::Duration;

use loom_jobs::{Job, JobContext, JobError, JobReport};
use serde_json::json;

use super::{activity, moves, store};
use crate::Crashes;

/// Issues of one look.
const BATCH: i64 = 500;
/// Batches of events of one run.
const MOVES: usize = 500;

pub(crate) fn job(crashes: &Crashes) -> Job {
    let crashes = crashes.clone();
    Job::new(
        "crash-issue-upkeep",
        "Issue upkeep",
        "Wakes issues that were ignored until now; lets events follow issues that were merged or deleted",
        Duration::from_secs(60),
        Duration::from_secs(600),
        move |context| run(crashes.clone(), context),
    )
}

async fn run(crashes: Crashes, context: JobContext) -> Result<JobReport, JobError> {
    let pool = &crashes.deps.pool;
    let now = crashes.deps.clock.now();
    let mut handled = 0;
    while !context.cancel.is_cancelled() {
        let mut db = loom_db::begin(pool).await?;
        let woken = store::change::wake(&mut db, now, BATCH).await?;
        for (org, _, issue) in &woken {
            let details = json!({ "reason": "the time it was ignored for is over" });
            activity::record(&mut db, *org, &[issue.0], None, "unresolved", &details, now).await?;
        }
        db.commit().await?;
        for (org, project, issue) in &woken {
            let data = json!({ "issue_id": issue, "status": "unresolved" });
            crashes.tell_watchers(&super::Told::new(*org, *project, "issue.unresolved", data));
        }
        handled += woken.len() as u64;
        if (woken.len() as i64) < BATCH {
            break;
        }
    }
    handled += moves::run(pool, now, MOVES, &context.cancel).await?;
    Ok(JobReport { items_handled: handled })
}
