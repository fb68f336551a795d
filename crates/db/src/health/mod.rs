//! The health of the database: that it answers, how fast, that it is the one we know, the connections,
//! word between replicas, and whether its clock and ours agree.

mod clock;
mod database;
mod listener;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use loom_core::{Clock, health::Check, telemetry::Metric};
use sqlx::PgPool;

use crate::{Database, Hub};

/// For the database.
const LIMIT: Duration = Duration::from_millis(500);

/// The metrics of this crate.
pub const METRICS: &[Metric] = &[
    Metric::gauge("loom_db_connections", "Open connections of the pool.", &[]),
    Metric::gauge(
        "loom_db_connections_idle",
        "Open connections of the pool that nobody uses.",
        &[],
    ),
    Metric::gauge("loom_db_connections_max", "Connections that the pool opens at most.", &[]),
    Metric::gauge(
        "loom_hub_connected",
        "1 while the server listens for word from other replicas, else 0.",
        &[],
    ),
    Metric::gauge(
        "loom_hub_lag_seconds",
        "How long a word took through PostgreSQL and back at the last probe.",
        &[],
    ),
    Metric::gauge(
        "loom_clock_skew_seconds",
        "How far this machine's clock is ahead of the database's.",
        &[],
    ),
];

/// Sets the gauges of the pool and the hub, for who reads the metrics now.
pub fn measure(pool: &PgPool, hub: &Hub) {
    #[expect(clippy::cast_precision_loss, reason = "a small count")]
    let idle = pool.num_idle() as f64;
    metrics::gauge!("loom_db_connections").set(pool.size());
    metrics::gauge!("loom_db_connections_idle").set(idle);
    metrics::gauge!("loom_db_connections_max").set(pool.options().get_max_connections());
    metrics::gauge!("loom_hub_connected").set(f64::from(u8::from(hub.is_connected())));
}

/// What an operator may want other than it is.
#[derive(Clone, Copy, Debug)]
pub struct Thresholds {
    /// An open transaction older than this is told.
    pub transaction: Duration,
}

impl Database {
    /// Whether it answers and is fit for us.
    pub fn health(&self, thresholds: Thresholds) -> Check {
        let (pool, probes) = (self.pool().clone(), self.probes().clone());
        // The same URL for both means that nobody told of a way past a pooler.
        let through_pooler = self.direct_url_is_url;
        let probe = move || {
            let (pool, probes) = (pool.clone(), probes.clone());
            async move { database::probe(&pool, &probes, thresholds, through_pooler).await }
        };
        Check::new("database", probe).critical(true).within(LIMIT)
    }

    /// Whether word between replicas arrives.
    pub fn listener_health(&self, hub: &Hub) -> Check {
        let (hub, probes) = (hub.clone(), self.probes().clone());
        let last = Arc::<Mutex<listener::Last>>::default();
        let probe = move || {
            let (hub, probes, last) = (hub.clone(), probes.clone(), Arc::clone(&last));
            async move { listener::probe(&hub, &probes, &last).await }
        };
        Check::new("listener", probe).within(listener::HEARD + LIMIT)
    }

    /// Whether the database's clock and ours agree.
    pub fn clock_health(&self, clock: &Clock) -> Check {
        let (clock, probes) = (clock.clone(), self.probes().clone());
        let probe = move || {
            let (clock, probes) = (clock.clone(), probes.clone());
            async move { clock::probe(&clock, &probes).await }
        };
        Check::new("clock", probe).within(2 * LIMIT)
    }
}
