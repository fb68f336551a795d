//! Health: every component is really probed, side by side, each with a limit, and the whole answer is
//! kept for a second, so that a storm of probes costs nothing.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use chrono::{DateTime, Utc};
use futures::future::join_all;
use loom_core::{
    Clock, Error, Json,
    health::{Check, Component, Status},
};
use serde::Serialize;
use sqlx::PgPool;
use tokio::sync::Mutex;
use utoipa_axum::{router::OpenApiRouter, routes};

const LIMIT: Duration = Duration::from_millis(500);
const KEPT: Duration = Duration::from_secs(1);

#[derive(Clone)]
pub struct Health(Arc<Inner>);

struct Inner {
    checks: Vec<Check>,
    clock: Clock,
    draining: AtomicBool,
    last: Mutex<Option<(Instant, Report)>>,
}

/// The state of the whole server.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct Report {
    status: Status,
    #[serde(serialize_with = "loom_core::clock::millis")]
    timestamp: DateTime<Utc>,
    duration_ms: f64,
    version: Version,
    components: BTreeMap<&'static str, Probed>,
}

#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
struct Probed {
    #[serde(flatten)]
    component: Component,
    latency_ms: f64,
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
        Self(Arc::new(Inner {
            checks,
            clock,
            draining: AtomicBool::new(false),
            last: Mutex::new(None),
        }))
    }

    /// From now on the server is not ready: balancers send it nothing more.
    pub fn drain(&self) {
        self.0.draining.store(true, Ordering::SeqCst);
    }

    pub fn routes(&self) -> OpenApiRouter {
        OpenApiRouter::new()
            .routes(routes!(get_health))
            .routes(routes!(get_live))
            .routes(routes!(get_ready))
            .with_state(self.clone())
    }

    async fn report(&self) -> Report {
        // Whoever comes while the probes run waits for their answer.
        let mut last = self.0.last.lock().await;
        if let Some((at, report)) = &*last
            && at.elapsed() < KEPT
        {
            return report.clone();
        }
        let started = Instant::now();
        let probed = join_all(self.0.checks.iter().map(probe)).await;
        let mut status = Status::Healthy;
        for (check, probed) in self.0.checks.iter().zip(&probed) {
            let counts = match probed.component.status {
                Status::Disabled | Status::Healthy => Status::Healthy,
                Status::Unhealthy if check.critical => Status::Unhealthy,
                Status::Unhealthy | Status::Degraded => Status::Degraded,
            };
            status = status.max(counts);
        }
        let components = self.0.checks.iter().map(|check| check.name).zip(probed).collect();
        let duration_ms = started.elapsed().as_secs_f64() * 1e3;
        let report = Report {
            status,
            timestamp: self.0.clock.now(),
            duration_ms,
            version: version(),
            components,
        };
        *last = Some((Instant::now(), report.clone()));
        report
    }
}

async fn probe(check: &Check) -> Probed {
    let started = Instant::now();
    let component = tokio::time::timeout(LIMIT, (check.probe)()).await.unwrap_or_else(|_| {
        Component::new(Status::Unhealthy)
            .error(format!("no answer within {} ms", LIMIT.as_millis()))
    });
    Probed { component, latency_ms: started.elapsed().as_secs_f64() * 1e3 }
}

/// Does the database answer?
pub fn database(pool: PgPool) -> Check {
    let probe = move || {
        let pool = pool.clone();
        let answer: loom_core::port::BoxFuture<'static, Component> = Box::pin(async move {
            let (size, idle) = (pool.size(), pool.num_idle());
            let component = match sqlx::query("SELECT 1").execute(&pool).await {
                Ok(_) => Component::new(Status::Healthy),
                Err(error) => {
                    tracing::warn!(%error, "the database does not answer the health probe");
                    Component::new(Status::Unhealthy).error("the database does not answer")
                }
            };
            component.with("connections", size).with("idle_connections", idle)
        });
        answer
    };
    Check { name: "database", critical: true, probe: Box::new(probe) }
}

/// The state of the server and its parts
#[utoipa::path(get, path = "/health", tag = "health", security(()),
    responses((status = 200, description = "`healthy` or `degraded`", body = Report),
        (status = 503, description = "`unhealthy`", body = Report)))]
async fn get_health(State(health): State<Health>) -> Response {
    let report = health.report().await;
    let status = if report.status == Status::Unhealthy {
        StatusCode::SERVICE_UNAVAILABLE
    } else {
        StatusCode::OK
    };
    (status, [(header::CACHE_CONTROL, "no-store")], Json(report)).into_response()
}

/// The process is up
#[utoipa::path(get, path = "/health/live", tag = "health", security(()), responses((status = 204)))]
async fn get_live() -> StatusCode {
    StatusCode::NO_CONTENT
}

/// Ready for requests: the schema is right, the database answers, and it is not going down
#[utoipa::path(get, path = "/health/ready", tag = "health", security(()),
    responses((status = 200, body = Version), (status = 503, body = loom_core::error::Problem, content_type = "application/problem+json")))]
async fn get_ready(State(health): State<Health>) -> Result<Json<Version>, Error> {
    if health.0.draining.load(Ordering::SeqCst) {
        return Err(Error::unavailable("the server is going down"));
    }
    let report = health.report().await;
    let down =
        report.components.get("database").is_some_and(|p| p.component.status == Status::Unhealthy);
    if down {
        Err(Error::unavailable("the database does not answer"))
    } else {
        Ok(Json(report.version))
    }
}
