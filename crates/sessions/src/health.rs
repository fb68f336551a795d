//! What release health says of its own state, and its metrics.

use loom_core::{
    health::{Check, Component, Status},
    telemetry::Metric,
};
use metrics::gauge;

use crate::{Sessions, store::aggregate};

pub const METRICS: &[Metric] = &[
    Metric::counter(
        "loom_app_session_updates_total",
        "Updates of sessions that came, by what became of them.",
        &["outcome"],
    ),
    Metric::counter(
        "loom_app_session_folded_total",
        "Updates of sessions whose release or environment was one too many for its project that day; they are \
         counted as (other).",
        &[],
    ),
    Metric::gauge(
        "loom_app_session_aggregation_lag_seconds",
        "How long the oldest change has waited to be added up.",
        &[],
    ),
    Metric::gauge("loom_app_session_watchers", "Streams of sessions that are open.", &[]),
    Metric::counter(
        "loom_app_session_alerts_total",
        "Alerts on releases that were told.",
        &["kind"],
    ),
];

impl Sessions {
    pub fn health(&self) -> Check {
        let sessions = self.clone();
        Check::new("app_sessions", move || {
            let sessions = sessions.clone();
            async move { sessions.component().await }
        })
    }

    async fn component(&self) -> Component {
        let oldest = match aggregate::oldest_mark(&self.deps.pool).await {
            Ok(oldest) => oldest,
            Err(error) => {
                tracing::debug!(%error, "the marks of sessions cannot be read");
                return Component::new(Status::Degraded)
                    .error("the sessions cannot be looked at")
                    .code("SESSIONS_UNREADABLE", "see what `database` says")
                    .detail(error.to_string());
            }
        };
        let lag = oldest.map_or(0.0, |at| (self.now() - at).as_seconds_f64().max(0.0));
        gauge!("loom_app_session_aggregation_lag_seconds").set(lag);
        // A run may have been missed, and the next be under way.
        let late = self.config.aggregation_interval.as_secs_f64() * 2.0 + 600.0;
        let component = if lag > late {
            Component::new(Status::Degraded)
                .error("sessions are not being added up; reading them takes longer")
                .code(
                    "SESSIONS_LAG",
                    "look at the history of the job `session-aggregation`; run it by hand",
                )
                .detail(format!("the oldest change has waited for {lag:.0} s"))
        } else {
            Component::new(Status::Healthy)
        };
        component.with("aggregation_lag_secs", lag.round())
    }
}
