//! Are those who follow threads told in time?

use std::{sync::PoisonError, time::Duration};

use loom_core::{
    health::{Check, Component, Status},
    telemetry::Metric,
};

use super::Feed;
use crate::store;

/// The metrics of this crate.
pub const METRICS: &[Metric] = &[
    Metric::gauge("loom_thread_watchers", "Streams of threads that are open.", &[]),
    Metric::counter("loom_thread_events_total", "Events of threads read from the outbox.", &[]),
    Metric::gauge(
        "loom_thread_feed_lag_seconds",
        "For how long events of threads have been known that cannot be given out yet.",
        &[],
    ),
    Metric::counter(
        "loom_thread_feed_resets_total",
        "Streams of threads that began anew because their place is not known any more.",
        &[],
    ),
    Metric::counter(
        "loom_thread_deltas_dropped_total",
        "Pieces of growing texts that were not told because there were too many.",
        &[],
    ),
    Metric::counter(
        "loom_threads_lost_total",
        "Threads whose agent was not heard of any more.",
        &[],
    ),
    Metric::counter(
        "loom_thread_cache_requests_total",
        "Whole threads that were asked for, by whether they were at hand.",
        &["result"],
    ),
    Metric::gauge("loom_thread_cache_bytes", "Bytes of threads that are at hand.", &[]),
];

/// An event is not given out for so long.
const LATE: f64 = 10.0;

impl Feed {
    pub(crate) fn health(&self) -> Check {
        let feed = self.clone();
        Check::new("thread_feed", move || {
            let feed = feed.clone();
            async move { feed.component().await }
        })
        .within(Duration::from_secs(1))
    }

    async fn component(&self) -> Component {
        let behind = *self.behind.lock().unwrap_or_else(PoisonError::into_inner);
        let behind = behind.map_or(0.0, |since| since.elapsed().as_secs_f64());
        let component = match store::events::held_up(&self.pool).await {
            Ok(Some(seconds)) if seconds > LATE => Component::new(Status::Degraded)
                .error("changes of threads are told late")
                .code(
                    "THREAD_FEED_HELD_UP",
                    "A transaction that writes has been open for long, and what was committed since \
                     is told after its end. Find it: SELECT pid, datname, xact_start, query FROM \
                     pg_stat_activity WHERE backend_xid IS NOT NULL ORDER BY xact_start.",
                )
                .detail(format!("the oldest event waits for {seconds:.0} s")),
            Ok(_) if behind > LATE => unread(behind),
            Ok(_) => Component::new(Status::Healthy),
            Err(_) => unread(behind),
        };
        component
            .with("watchers", *self.watchers.count().borrow())
            .with("lag_ms", Duration::from_secs_f64(behind).as_millis() as u64)
    }
}

fn unread(seconds: f64) -> Component {
    Component::new(Status::Degraded)
        .error("changes of threads cannot be read")
        .code(
            "THREAD_FEED_UNREAD",
            "The outbox of threads cannot be read, or its reader does not get on: see the component \
             `database` and the log.",
        )
        .detail(format!("for {seconds:.0} s"))
}
