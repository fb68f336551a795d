//! Does somebody look after the monitors?

use std::time::Duration;

use loom_core::{
    health::{Check, Component, Status},
    telemetry::Metric,
};

use crate::{Crons, store};

/// The metrics of this crate.
pub const METRICS: &[Metric] = &[
    Metric::counter(
        "loom_cron_checkins_total",
        "Reports of monitored jobs that were taken, by the way they came.",
        &["source"],
    ),
    Metric::counter("loom_cron_missed_total", "Runs of monitored jobs that did not begin.", &[]),
    Metric::counter(
        "loom_cron_timeouts_total",
        "Runs of monitored jobs that were not heard of again in time.",
        &[],
    ),
    Metric::counter("loom_cron_incidents_total", "Incidents of monitored jobs that opened.", &[]),
    Metric::counter(
        "loom_cron_own_runs_lost_total",
        "Runs of this server's own jobs that were not noted because too many waited.",
        &[],
    ),
    Metric::gauge("loom_cron_watchers", "Streams of monitors that are open.", &[]),
    Metric::gauge(
        "loom_cron_sweep_lag_seconds",
        "Since when nobody has looked for runs that did not come, when health was last asked.",
        &[],
    ),
];

/// Seconds; a look is due each minute.
const LATE: i64 = 180;

pub(crate) fn check(crons: &Crons) -> Check {
    let crons = crons.clone();
    Check::new("crons", move || {
        let crons = crons.clone();
        async move { component(&crons).await }
    })
    .within(Duration::from_secs(1))
}

async fn component(crons: &Crons) -> Component {
    let Ok(last) = store::sweeps::last(&crons.deps.pool).await else {
        return Component::new(Status::Degraded)
            .error("it is not known whether somebody looks after the monitors")
            .code(
                "CRON_SWEEP_UNKNOWN",
                "The database did not say when monitors were last looked at: see the component `database`.",
            );
    };
    // A server that has just started looks soon.
    let lag = last.map_or(0, |last| (crons.deps.clock.now() - last).num_seconds().max(0));
    metrics::gauge!("loom_cron_sweep_lag_seconds").set(lag as f64);
    let component = if lag > LATE {
        Component::new(Status::Degraded)
            .error("missed runs are found late")
            .code(
                "CRON_SWEEP_LATE",
                "The jobs cron-missed and cron-timeout have not run for a while: look at GET \
                 /api/admin/jobs, whether they are switched off, fail, or wait for a lease.",
            )
            .detail(format!("for {lag} s"))
    } else {
        Component::new(Status::Healthy)
    };
    component.with("sweep_lag_secs", lag)
}
