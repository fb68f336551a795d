//! The health of the jobs: none failing, one that begins to fail, one that keeps failing.

use std::{sync::Arc, time::Duration};

use chrono::{SecondsFormat, TimeDelta};
use loom_core::{
    Error,
    health::{Check, Component, Status},
    telemetry::Metric,
};
use serde_json::json;
use sqlx::PgPool;

use crate::{
    JobScheduler,
    alert::UNHEALTHY_FAILURES,
    scheduler::Inner,
    store::{self, lag},
};

/// The metrics of this crate.
pub const METRICS: &[Metric] = &[
    Metric::counter(
        "loom_job_runs_total",
        "Runs of background jobs that this server ended, by how.",
        &["job", "status"],
    ),
    Metric::histogram("loom_job_duration_seconds", "Time of a run of a background job.", &["job"]),
    Metric::gauge("loom_job_watchers", "Streams of jobs that are open.", &[]),
];

/// The clock strikes each second; after this long without, it is broken.
const CLOCK_STANDS_STILL: Duration = Duration::from_secs(60);
/// A job that is due begins within seconds; after this long nobody takes it.
const LATE: TimeDelta = TimeDelta::minutes(2);
const LIMIT: Duration = Duration::from_secs(1);
/// A database that hangs is told as such, below the limit of the whole check.
const DATABASE_WITHIN: Duration = Duration::from_millis(900);

const FAILING_ADVICE: &str = "GET /api/admin/jobs/{id}/history has the error of each run; mend what it \
    names, then POST /api/admin/jobs/{id}/run. A run that succeeds makes this healthy again.";

impl JobScheduler {
    /// The check `jobs`: reads the database twice.
    pub fn health(&self) -> Check {
        self.health_through(&self.0.pool)
    }

    /// As [`JobScheduler::health`], on connections that do not wait behind requests.
    pub fn health_through(&self, pool: &PgPool) -> Check {
        let (inner, pool) = (Arc::clone(&self.0), pool.clone());
        let probe = move || {
            let (inner, pool) = (Arc::clone(&inner), pool.clone());
            async move { look(&inner, &pool).await }
        };
        Check::new("jobs", probe).critical(true).within(LIMIT)
    }
}

async fn look(inner: &Inner, pool: &PgPool) -> Component {
    if inner.last_strike().is_some_and(|at| at.elapsed() > CLOCK_STANDS_STILL) {
        return Component::new(Status::Unhealthy)
            .error("the clock of the scheduler stands still")
            .code(
                "JOBS_CLOCK_STOPPED",
                "No background job runs on this server. Keep its log for a report, and restart it.",
            );
    }
    let ids: Vec<String> = inner.jobs.keys().map(|&id| id.to_owned()).collect();
    let read = async { tokio::try_join!(store::failing(pool, &ids), lag::waiting(pool, &ids)) };
    let read = tokio::time::timeout(DATABASE_WITHIN, read).await;
    let silent = |_| Err(Error::unavailable("the database does not answer"));
    let (failing, waiting) = match read.unwrap_or_else(silent) {
        Ok(read) => read,
        Err(error) => {
            tracing::warn!(?error, "the health of the jobs cannot be read");
            return Component::new(Status::Unhealthy)
                .error(error.detail())
                .code("JOBS_UNKNOWN", "The jobs cannot be read; see the component `database`.");
        }
    };
    let now = inner.clock.now();
    let oldest = waiting
        .iter()
        .filter_map(|(id, taken)| {
            let late = now - inner.jobs.get(id.as_str())?.due_since(*taken, now)?;
            Some((id, late)).filter(|(_, late)| *late > TimeDelta::zero())
        })
        .max_by_key(|(_, late)| *late);
    let late = oldest.filter(|(_, late)| *late > LATE);
    let worst = failing.iter().map(|job| job.consecutive_failures).max().unwrap_or_default();
    let status = match worst {
        ..=0 if late.is_none() => Status::Healthy,
        ..UNHEALTHY_FAILURES => Status::Degraded,
        _ => Status::Unhealthy,
    };
    let lag_secs = oldest.map_or(0, |(_, late)| late.num_seconds());
    let component = Component::new(status).with("jobs", ids.len()).inside("lag_secs", lag_secs);
    if let (true, Some((id, late))) = (failing.is_empty(), late) {
        return component
            .error("a job is due and does not begin")
            .code(
                "JOBS_LATE",
                "No server takes it up: see that one is up whose log has no complaint of the \
                 scheduler, and that the clocks of all agree (component `clock`).",
            )
            .detail(format!("{id} has been due for {} s", late.num_seconds()));
    }
    if failing.is_empty() {
        return component;
    }
    // No error texts: this is seen by anybody. Admins find them in the history.
    let facts: Vec<_> = failing
        .iter()
        .map(|job| {
            json!({
                "id": job.id,
                "consecutive_failures": job.consecutive_failures,
                "last_failure_at": job.last_failure_at.map(|at| at.to_rfc3339_opts(SecondsFormat::Millis, true)),
            })
        })
        .collect();
    let names: Vec<_> = failing
        .iter()
        .map(|job| format!("{} ({} in a row)", job.id, job.consecutive_failures))
        .collect();
    let code = if status == Status::Unhealthy { "JOBS_FAILING" } else { "JOBS_BEGIN_TO_FAIL" };
    component
        .error(format!("{} of {} jobs fail", failing.len(), ids.len()))
        .with("failing", facts)
        .code(code, FAILING_ADVICE)
        .detail(names.join(", "))
}
