//! Health: every component is really probed, side by side, each with a limit, and each answer is kept
//! for a second, so that a storm of probes costs nothing.

mod http;
mod machine;
mod settings;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};
use futures::future::join_all;
use loom_core::{
    Clock, Error,
    health::{Check, Component, Finding, Status, no_answer},
    telemetry::Metric,
};
use metrics::gauge;
use serde::Serialize;
use serde_json::{Map, Value};
use tokio::sync::Mutex;

pub use machine::{disk, memory};
pub(crate) use settings::judge;
pub use settings::{Config, configuration};

/// For probes that have no limit of their own.
const LIMIT: Duration = Duration::from_secs(2);
const KEPT: Duration = Duration::from_secs(1);
/// Whoever asks for a new look gets one, but not in a storm.
const FORCED: Duration = Duration::from_millis(200);
/// Metrics are read every few seconds; the components are not looked at for each reader anew.
const MEASURED: Duration = Duration::from_secs(10);

pub(crate) const METRICS: &[Metric] = &[Metric::gauge(
    "loom_component_health",
    "State of a component at its last probe: 0 healthy or not configured, 1 degraded, 2 unhealthy.",
    &["component"],
)];

#[derive(Clone)]
pub struct Health(Arc<Inner>);

struct Inner {
    probed: Vec<Watched>,
    clock: Clock,
    draining: AtomicBool,
}

/// A check, and its last answer.
struct Watched {
    check: Check,
    last: Mutex<Option<Probed>>,
}

#[derive(Clone)]
struct Probed {
    component: Component,
    latency: Duration,
    at: Instant,
    checked_at: DateTime<Utc>,
    /// When it turned to its present status and code.
    since: DateTime<Utc>,
}

/// The state of the whole server.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct Report {
    pub status: Status,
    #[serde(serialize_with = "loom_core::clock::millis")]
    timestamp: DateTime<Utc>,
    duration_ms: f64,
    version: Version,
    components: BTreeMap<&'static str, Shown>,
}

#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
struct Shown {
    #[serde(flatten)]
    component: Component,
    latency_ms: f64,
}

/// The state of the whole server, with what admins may see.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
struct AdminReport {
    status: Status,
    #[serde(serialize_with = "loom_core::clock::millis")]
    timestamp: DateTime<Utc>,
    duration_ms: f64,
    version: Version,
    components: BTreeMap<&'static str, AdminShown>,
}

#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
struct AdminShown {
    #[serde(flatten)]
    component: Component,
    /// Further facts.
    #[serde(flatten)]
    #[schema(ignore)]
    inside: Map<String, Value>,
    #[serde(flatten)]
    finding: Option<Finding>,
    /// Whether the whole server is unhealthy when this is.
    critical: bool,
    latency_ms: f64,
    #[serde(serialize_with = "loom_core::clock::millis")]
    checked_at: DateTime<Utc>,
    /// When it turned to its present state, or the server began to look.
    #[serde(serialize_with = "loom_core::clock::millis")]
    since: DateTime<Utc>,
}

/// Which build this is.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct Version {
    pub version: &'static str,
    pub git_sha: &'static str,
    pub built_at: &'static str,
}

pub fn version() -> Version {
    Version {
        version: env!("CARGO_PKG_VERSION"),
        git_sha: env!("LOOM_GIT_SHA"),
        built_at: env!("LOOM_BUILT_AT"),
    }
}

impl Health {
    pub fn new(clock: Clock, checks: Vec<Check>) -> Self {
        let watch = |check| Watched { check, last: Mutex::default() };
        Self(Arc::new(Inner {
            probed: checks.into_iter().map(watch).collect(),
            clock,
            draining: AtomicBool::new(false),
        }))
    }

    /// From now on the server is not ready: balancers send it nothing more.
    pub fn drain(&self) {
        self.0.draining.store(true, Ordering::SeqCst);
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.0.draining.load(Ordering::SeqCst)
    }

    /// Is the server ready for requests: the schema is right, the database answers, and it is not going down?
    ///
    /// # Errors
    /// 503, and why it is not.
    pub async fn ready(&self) -> Result<(), Error> {
        if self.is_draining() {
            return Err(Error::unavailable("the server is going down"));
        }
        match self.component("database").await {
            Some(database) if database.status == Status::Unhealthy => {
                let what = database.error.unwrap_or_else(|| "the database is not well".to_owned());
                Err(Error::unavailable(what))
            }
            _ => Ok(()),
        }
    }

    /// Every component, none of the answers older than `kept`.
    async fn look(&self, kept: Duration) -> (Status, Duration, Vec<(&Check, Probed)>) {
        let started = Instant::now();
        let clock = &self.0.clock;
        let looks = self.0.probed.iter().map(|watched| watched.look(clock, kept));
        let probed = join_all(looks).await;
        let mut status = Status::Healthy;
        let mut all = Vec::with_capacity(probed.len());
        for (watched, probed) in self.0.probed.iter().zip(probed) {
            status = status.max(counts(&watched.check, &probed.component));
            all.push((&watched.check, probed));
        }
        (status, started.elapsed(), all)
    }

    async fn report(&self) -> Report {
        let (status, took, probed) = self.look(KEPT).await;
        let shown = |(check, probed): (&Check, Probed)| {
            let shown = Shown { component: probed.component, latency_ms: millis(probed.latency) };
            (check.name, shown)
        };
        Report {
            status,
            timestamp: self.0.clock.now(),
            duration_ms: millis(took),
            version: version(),
            components: probed.into_iter().map(shown).collect(),
        }
    }

    async fn admin_report(&self, force: bool) -> AdminReport {
        let (status, took, probed) = self.look(if force { FORCED } else { KEPT }).await;
        let shown = |(check, mut probed): (&Check, Probed)| {
            let shown = AdminShown {
                inside: std::mem::take(&mut probed.component.inside),
                finding: probed.component.finding.take(),
                component: probed.component,
                critical: check.critical,
                latency_ms: millis(probed.latency),
                checked_at: probed.checked_at,
                since: probed.since,
            };
            (check.name, shown)
        };
        AdminReport {
            status,
            timestamp: self.0.clock.now(),
            duration_ms: millis(took),
            version: version(),
            components: probed.into_iter().map(shown).collect(),
        }
    }

    /// One component, and no other: readiness waits for nothing else.
    async fn component(&self, name: &str) -> Option<Component> {
        let watched = self.0.probed.iter().find(|watched| watched.check.name == name)?;
        Some(watched.look(&self.0.clock, KEPT).await.component)
    }

    /// Sets the gauges of the components, for who reads the metrics now.
    pub(crate) async fn measure(&self) {
        for (check, probed) in self.look(MEASURED).await.2 {
            let state = match probed.component.status {
                Status::Disabled | Status::Healthy => 0.0,
                Status::Degraded => 1.0,
                Status::Unhealthy => 2.0,
            };
            gauge!("loom_component_health", "component" => check.name).set(state);
        }
    }
}

/// What a component's state is for the whole.
fn counts(check: &Check, component: &Component) -> Status {
    match component.status {
        Status::Disabled | Status::Healthy => Status::Healthy,
        Status::Unhealthy if check.critical => Status::Unhealthy,
        Status::Unhealthy | Status::Degraded => Status::Degraded,
    }
}

impl Watched {
    async fn look(&self, clock: &Clock, kept: Duration) -> Probed {
        // Whoever comes while the probe runs waits for its answer.
        let mut last = self.last.lock().await;
        if let Some(probed) = last.as_ref().filter(|probed| probed.at.elapsed() < kept) {
            return probed.clone();
        }
        let started = Instant::now();
        let component = tokio::time::timeout(LIMIT, (self.check.probe)())
            .await
            .unwrap_or_else(|_| no_answer(LIMIT));
        let now = clock.now();
        let code = |component: &Component| component.finding.as_ref().map(|found| found.code);
        let before = last.take();
        let same = before.filter(|before| {
            before.component.status == component.status
                && code(&before.component) == code(&component)
        });
        if same.is_none() && component.status >= Status::Degraded {
            tracing::warn!(
                component = self.check.name,
                status = ?component.status,
                code = code(&component),
                error = component.error,
                "a component is not well"
            );
        }
        let since = same.map_or(now, |before| before.since);
        let (latency, at) = (started.elapsed(), Instant::now());
        let probed = Probed { component, latency, at, checked_at: now, since };
        *last = Some(probed.clone());
        probed
    }
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    fn counting() -> (Health, Arc<AtomicUsize>) {
        let count = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&count);
        let check = Check::new("counted", move || {
            let counted = Arc::clone(&counted);
            async move {
                counted.fetch_add(1, Ordering::SeqCst);
                tokio::task::yield_now().await;
                Component::new(Status::Healthy)
            }
        });
        (Health::new(Clock::system(), vec![check]), count)
    }

    #[tokio::test]
    async fn a_thousand_who_ask_at_once_cost_one_probe() {
        let (health, count) = counting();
        let started = Instant::now();
        join_all((0..1_000).map(|_| health.report())).await;
        let most = 1 + usize::try_from(started.elapsed().as_secs()).unwrap();
        assert!((1..=most).contains(&count.load(Ordering::SeqCst)), "{count:?}");
    }

    #[tokio::test]
    async fn whoever_forces_a_look_does_not_make_a_storm() {
        let (health, count) = counting();
        let started = Instant::now();
        join_all((0..1_000).map(|_| health.admin_report(true))).await;
        let most = 1 + started.elapsed().as_millis() / FORCED.as_millis();
        assert!((1..=most).contains(&(count.load(Ordering::SeqCst) as u128)), "{count:?}");
    }

    #[tokio::test]
    async fn only_what_is_critical_makes_the_whole_unhealthy() {
        let whole = async |critical: bool, status: Status| {
            let check = Check::new("part", move || async move { Component::new(status) });
            Health::new(Clock::system(), vec![check.critical(critical)]).report().await.status
        };
        assert_eq!(whole(true, Status::Unhealthy).await, Status::Unhealthy);
        assert_eq!(whole(false, Status::Unhealthy).await, Status::Degraded);
        assert_eq!(whole(true, Status::Degraded).await, Status::Degraded);
        assert_eq!(whole(true, Status::Disabled).await, Status::Healthy);
    }
}
