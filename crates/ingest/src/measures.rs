//! What is counted, and the component of health.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::StatusCode;
use loom_core::{
    Clock,
    health::{Check, Component, Status},
    telemetry::Metric,
};
use metrics::{counter, gauge};

use crate::{body::Memory, item::Category, reports::Report};

pub const METRICS: &[Metric] = &[
    Metric::counter(
        "loom_ingest_items_total",
        "Items that applications sent, by category and what became of them: accepted, dropped (of a kind \
         that is not kept), rate_limited, rejected (the sender's fault), failed (ours).",
        &["category", "outcome"],
    ),
    Metric::counter(
        "loom_ingest_rejected_total",
        "Requests of applications that were turned away whole, by status.",
        &["status"],
    ),
    Metric::counter(
        "loom_ingest_client_discarded_total",
        "What SDKs say that they did not send, by category and reason.",
        &["category", "reason"],
    ),
    Metric::gauge("loom_ingest_in_flight", "Requests of applications that are being handled.", &[]),
    Metric::gauge(
        "loom_ingest_memory_bytes",
        "Memory that bodies take while they are read and handed on.",
        &[],
    ),
];

/// How long a refusal for want of room counts as news.
const RECENT: Duration = Duration::from_secs(60);

pub(crate) fn item(category: Category, outcome: &'static str) {
    counter!("loom_ingest_items_total", "category" => category.as_str(), "outcome" => outcome)
        .increment(1);
}

/// What bodies take together now.
pub(crate) fn memory(bytes: usize) {
    #[expect(clippy::cast_precision_loss, reason = "a gauge")]
    gauge!("loom_ingest_memory_bytes").set(bytes as f64);
}

pub(crate) fn client_discarded(report: &Report) {
    for lost in &report.0 {
        counter!("loom_ingest_client_discarded_total", "category" => lost.category, "reason" => lost.reason)
            .increment(u64::try_from(lost.quantity).unwrap_or_default());
    }
}

/// What goes on just now.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pulse(Arc<Numbers>);

#[derive(Debug, Default)]
struct Numbers {
    in_flight: AtomicUsize,
    rejected: AtomicU64,
    without_room: AtomicU64,
    /// In microseconds since 1970; 0: never.
    last_without_room: AtomicI64,
}

/// Counts a request until it is dropped, also when its client goes away.
pub(crate) struct InFlight(Pulse);

impl Pulse {
    pub(crate) fn enter(&self) -> InFlight {
        self.0.in_flight.fetch_add(1, Ordering::Relaxed);
        gauge!("loom_ingest_in_flight").increment(1);
        InFlight(self.clone())
    }

    /// Notes how a request ended.
    pub(crate) fn ended(&self, status: StatusCode, clock: &Clock) {
        if status.is_client_error() || status.is_server_error() {
            self.0.rejected.fetch_add(1, Ordering::Relaxed);
            counter!("loom_ingest_rejected_total", "status" => status.as_str().to_owned())
                .increment(1);
        }
        if status == StatusCode::SERVICE_UNAVAILABLE {
            self.0.without_room.fetch_add(1, Ordering::Relaxed);
            self.0.last_without_room.store(clock.now().timestamp_micros(), Ordering::Relaxed);
        }
    }

    pub(crate) fn health(&self, memory: &Memory, clock: &Clock) -> Check {
        let (pulse, memory, clock) = (self.clone(), memory.clone(), clock.clone());
        Check::new("ingest", move || {
            let component = pulse.look(&memory, &clock);
            async move { component }
        })
    }

    fn look(&self, memory: &Memory, clock: &Clock) -> Component {
        let numbers = &self.0;
        let last = numbers.last_without_room.load(Ordering::Relaxed);
        let recent = i64::try_from(RECENT.as_micros()).unwrap_or(i64::MAX);
        let is_full = last != 0 && clock.now().timestamp_micros().saturating_sub(last) < recent;
        let mut component = if is_full {
            Component::new(Status::Degraded)
                .error("applications were asked to come back later in the last minute")
                .code(
                    "INGEST_NO_ROOM",
                    "Events were answered with 503: the database does not keep up, or bodies took all of \
                     LOOM_SERVER_INGEST_MEMORY_MIB, or an organisation its part of it. Look at loom_group_commit_refused_total, the health of \
                     the database, and loom_ingest_memory_bytes.",
                )
        } else {
            Component::new(Status::Healthy)
        };
        component = component.with("in_flight", numbers.in_flight.load(Ordering::Relaxed));
        component
            .inside("rejected", numbers.rejected.load(Ordering::Relaxed))
            .inside("without_room", numbers.without_room.load(Ordering::Relaxed))
            .inside("memory_bytes", memory.used())
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.0.in_flight.fetch_sub(1, Ordering::Relaxed);
        gauge!("loom_ingest_in_flight").decrement(1);
    }
}
