//! The health of the jobs: none failing, one that begins to fail, one that keeps failing.

use std::{sync::Arc, time::Duration};

use chrono::SecondsFormat;
use loom_core::health::{Check, Component, Status};
use serde_json::json;

use crate::{JobScheduler, alert::UNHEALTHY_FAILURES, scheduler::Inner, store};

/// The clock strikes each second; after this long without, it is broken.
const CLOCK_STANDS_STILL: Duration = Duration::from_secs(60);

impl JobScheduler {
    /// The check `jobs`: reads the database once.
    pub fn health(&self) -> Check {
        let inner = Arc::clone(&self.0);
        let probe = move || {
            let inner = Arc::clone(&inner);
            Box::pin(async move { look(&inner).await }) as _
        };
        Check { name: "jobs", critical: true, probe: Box::new(probe) }
    }
}

async fn look(inner: &Inner) -> Component {
    if inner.last_strike().is_some_and(|at| at.elapsed() > CLOCK_STANDS_STILL) {
        return Component::new(Status::Unhealthy).error("the clock of the scheduler stands still");
    }
    let ids: Vec<String> = inner.jobs.keys().map(|&id| id.to_owned()).collect();
    let failing = match store::failing(&inner.pool, &ids).await {
        Ok(failing) => failing,
        Err(error) => {
            tracing::warn!(?error, "the health of the jobs cannot be read");
            return Component::new(Status::Unhealthy).error(error.detail());
        }
    };
    let worst = failing.iter().map(|job| job.consecutive_failures).max().unwrap_or_default();
    let status = match worst {
        ..=0 => Status::Healthy,
        1..UNHEALTHY_FAILURES => Status::Degraded,
        _ => Status::Unhealthy,
    };
    let component = Component::new(status).with("jobs", ids.len());
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
    component.error(format!("{} of {} jobs fail", failing.len(), ids.len())).with("failing", facts)
}
