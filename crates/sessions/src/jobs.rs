//! Background work of release health.

use std::time::Duration;

use chrono::TimeDelta;
use loom_db::partitions::Daily;
use loom_jobs::{Job, JobContext, JobError, JobReport};

use crate::{Sessions, alerts, session::UPDATABLE, store::aggregate};

const SESSIONS: Daily = Daily { table: "app_sessions", column: "started" };
const HOUR: Duration = Duration::from_secs(3600);
/// Rows of one statement.
const BATCH: i64 = 5000;
/// Lists of users that become sketches in one transaction.
const SKETCHES: i64 = 200;

pub(crate) fn all(sessions: &Sessions) -> Vec<Job> {
    let (summing, cleaning, alerting) = (sessions.clone(), sessions.clone(), sessions.clone());
    vec![
        Job::new(
            "session-aggregation",
            "Session aggregation",
            "Adds sessions of applications up by half hours and releases, also those that came late",
            sessions.config.aggregation_interval,
            HOUR,
            move |context| add_up(summing.clone(), context),
        ),
        Job::partitions(
            "app-session-partitions",
            "Session partitions",
            "Makes the partitions of sessions of applications for the days to come",
            &sessions.deps.pool,
            &[SESSIONS],
        ),
        Job::new(
            "app-session-cleanup",
            "Session clean-up",
            "Drops sessions of applications that are older than LOOM_SERVER_SESSIONS_RETENTION_DAYS; what they come to stays",
            HOUR * 24,
            HOUR,
            move |context| clean_up(cleaning.clone(), context),
        ),
        Job::new(
            "app-session-alerts",
            "Session alerts",
            "Tells who wants to know when a release crashes more often than it may",
            Duration::from_secs(60),
            Duration::from_secs(300),
            move |context| alerts::run(alerting.clone(), context),
        ),
    ]
}

impl Sessions {
    /// Single sessions are there from then on.
    pub(crate) fn kept_from(&self) -> chrono::DateTime<chrono::Utc> {
        self.now() - self.config.retention
    }
}

async fn add_up(sessions: Sessions, context: JobContext) -> Result<JobReport, JobError> {
    let pool = &sessions.deps.pool;
    let mut items_handled = 0;
    for (org, project) in aggregate::marked(pool).await? {
        loop {
            if context.cancel.is_cancelled() {
                return Ok(JobReport { items_handled });
            }
            match aggregate::run(pool, org, project, sessions.kept_from()).await {
                Ok(0) => break,
                Ok(done) => items_handled += done,
                // The project is being deleted, and its sums with it.
                Err(sqlx::Error::Database(error)) if error.is_foreign_key_violation() => {
                    aggregate::forget_project(pool, project).await?;
                    break;
                }
                // Somebody else adds up the same just now.
                Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some("40001") => {
                    break;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(JobReport { items_handled })
}

async fn clean_up(sessions: Sessions, context: JobContext) -> Result<JobReport, JobError> {
    let pool = &sessions.deps.pool;
    let now = context.clock.now();
    let mut items_handled = 0;
    while !context.cancel.is_cancelled() {
        let done = aggregate::sketch(pool, sessions.kept_from(), SKETCHES).await?;
        items_handled += done;
        if done == 0 {
            break;
        }
    }
    while !context.cancel.is_cancelled() {
        let ids_before = now - UPDATABLE - TimeDelta::days(1);
        let done = aggregate::clean_up(pool, ids_before, now - TimeDelta::hours(1), BATCH).await?;
        items_handled += done;
        if done < BATCH as u64 {
            break;
        }
    }
    // A day goes when all of it is old enough: sums of a half hour are never made of a part of it.
    items_handled += SESSIONS.drop_before(pool, sessions.kept_from()).await?;
    Ok(JobReport { items_handled })
}
