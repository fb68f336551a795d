//! What is measured of the pipeline, and whether it keeps up.

use std::time::Duration;

use loom_core::{
    health::{Check, Component, Status},
    telemetry::Metric,
};

use crate::{Crashes, pipeline::claim};

pub const METRICS: &[Metric] = &[
    Metric::counter("loom_crash_events_processed_total", "Events that were processed.", &[]),
    Metric::counter(
        "loom_crash_events_repeated_total",
        "Events that had come before, and were not counted again.",
        &[],
    ),
    Metric::counter(
        "loom_crash_events_parked_total",
        "Events that could not be processed, and were put aside.",
        &[],
    ),
    Metric::counter(
        "loom_crash_events_folded_total",
        "Events of new issues beyond a project's limit, folded into one issue.",
        &[],
    ),
    Metric::counter(
        "loom_crash_surplus_total",
        "Names in events beyond what is counted: tags, their values, environments, releases, missing files.",
        &["what"],
    ),
    Metric::counter(
        "loom_crash_alerts_total",
        "Alerts of crashes, by what became of them: sent, or held back as there were too many.",
        &["outcome"],
    ),
    Metric::counter(
        "loom_crash_artifacts_total",
        "Artifacts that were uploaded, each content of a project once.",
        &[],
    ),
    Metric::gauge("loom_crash_watchers", "Streams of crashes that are open.", &[]),
    Metric::gauge(
        "loom_crash_queue_items",
        "Events that are to be processed, on all servers together, up to 110,000.",
        &[],
    ),
    Metric::gauge(
        "loom_crash_queue_lag_seconds",
        "For how long the oldest event has waited that nobody processes yet.",
        &[],
    ),
    Metric::gauge("loom_crash_parked_items", "Events that are put aside, up to 10,000.", &[]),
];

/// Events wait longer only when there are more than can be processed.
const LATE: f64 = 60.0;

impl Crashes {
    pub(crate) fn check(&self) -> Check {
        let crashes = self.clone();
        Check::new("crashes", move || {
            let crashes = crashes.clone();
            async move { crashes.look().await }
        })
        .within(Duration::from_millis(500))
    }

    async fn look(&self) -> Component {
        let Ok(lag) = claim::lag(&self.deps.pool, self.deps.clock.now()).await else {
            return Component::new(Status::Degraded).error("the queue cannot be read").code(
                "CRASH_QUEUE_UNREAD",
                "The queue of events cannot be read: see the component `database`.",
            );
        };
        #[expect(clippy::cast_precision_loss, reason = "they are below a million")]
        {
            metrics::gauge!("loom_crash_queue_items").set(lag.waiting as f64);
            metrics::gauge!("loom_crash_parked_items").set(lag.parked as f64);
        }
        metrics::gauge!("loom_crash_queue_lag_seconds").set(lag.oldest_secs);
        let component = if lag.oldest_secs > LATE {
            Component::new(Status::Degraded)
                .error("events are processed late")
                .code(
                    "CRASH_QUEUE_LATE",
                    "More events come than are processed; all are stored. Raise \
                     LOOM_SERVER_CRASHES_WORKERS, add servers, or limit the keys that send so much.",
                )
                .detail(format!("the oldest waits for {:.0} s", lag.oldest_secs))
        } else if lag.parked > 0 {
            Component::new(Status::Healthy).code(
                "CRASH_EVENTS_PARKED",
                "Events could not be processed: GET /api/crash/projects/{project}/parked says why, and \
                 POST …/parked/retry tries them again.",
            )
        } else {
            Component::new(Status::Healthy)
        };
        #[expect(clippy::cast_possible_truncation, reason = "a number of milliseconds")]
        let lag_ms = (lag.oldest_secs * 1000.0) as i64;
        component.with("queued", lag.waiting).with("lag_ms", lag_ms).with("parked", lag.parked)
    }
}
