//! Background work of cron monitoring.

use std::time::Duration;

use chrono::TimeDelta;
use loom_core::{Error, Result};
use loom_db::partitions::Daily;
use loom_jobs::{Job, JobContext, JobError, JobReport};

use crate::{Crons, store};

const MINUTE: Duration = Duration::from_secs(60);
const CHECKINS: Daily = Daily { table: "cron_checkins", column: "at" };
/// What is told twice within this is known to be.
const KNOWN: TimeDelta = TimeDelta::days(2);
/// Rows of one statement.
const BATCH: i64 = 5000;

pub(crate) fn all(crons: &Crons) -> Vec<Job> {
    let (missed, timeout) = (crons.clone(), crons.clone());
    let cleanup = crons.clone();
    vec![
        Job::new(
            "cron-missed",
            "Cron monitors: missed runs",
            "Finds runs of monitored jobs that did not begin in time, and reminds of incidents that last",
            MINUTE,
            MINUTE * 5,
            move |context| find_missed(missed.clone(), context),
        ),
        Job::new(
            "cron-timeout",
            "Cron monitors: overlong runs",
            "Finds runs of monitored jobs that were not heard of again in time",
            MINUTE,
            MINUTE * 5,
            move |context| find_timeouts(timeout.clone(), context),
        ),
        Job::partitions(
            "checkin-partition-maintenance",
            "Check-in partitions",
            "Makes the partitions of check-ins for the days to come",
            &crons.deps.pool,
            &[CHECKINS],
        ),
        Job::new(
            "checkin-cleanup",
            "Check-in clean-up",
            "Drops days of check-ins, and incidents, that are older than LOOM_SERVER_CRONS_RETENTION_DAYS",
            MINUTE * 60 * 24,
            MINUTE * 60,
            move |context| clean_up(cleanup.clone(), context),
        ),
    ]
}

async fn find_missed(crons: Crons, context: JobContext) -> Result<JobReport, JobError> {
    let engine = &crons.engine;
    let found = engine.find_missed(&context.cancel).await?;
    let told = engine.remind(&context.cancel).await?;
    engine.hand_over(context.clock.now()).await?;
    Ok(JobReport { items_handled: found + told })
}

async fn find_timeouts(crons: Crons, context: JobContext) -> Result<JobReport, JobError> {
    let found = crons.engine.find_timeouts(&context.cancel).await?;
    crons.engine.hand_over(context.clock.now()).await?;
    Ok(JobReport { items_handled: found })
}

async fn clean_up(crons: Crons, context: JobContext) -> Result<JobReport, JobError> {
    let (pool, now) = (&crons.deps.pool, context.clock.now());
    let before = now - TimeDelta::days(i64::from(crons.config.retention_days));
    let mut handled = CHECKINS.drop_before(pool, before).await.map_err(Error::from)?;
    let mut db = pool.acquire().await.map_err(Error::from)?;
    while !context.cancel.is_cancelled() {
        let runs = store::states::forget_runs(&mut db, now - KNOWN, BATCH).await?;
        let incidents = store::incidents::forget(&mut db, before, BATCH).await?;
        handled += runs + incidents;
        if runs + incidents == 0 {
            break;
        }
    }
    store::sweeps::forget_gaps(&mut db, before).await?;
    Ok(JobReport { items_handled: handled })
}
