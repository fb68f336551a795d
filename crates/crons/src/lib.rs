//! Cron monitoring: monitors, pings and check-ins, missed and overlong runs, incidents.

mod config;
mod jobs;
mod sink;

use std::sync::Arc;

use axum::{Router, middleware};
use loom_core::{
    Clock,
    health::{Check, Component, Status},
    port::{
        Audit, CrashDirectory, EventSink, OrgDirectory, ProjectDirectory, Reauthenticate,
        ThreadDirectory,
    },
    principal,
};
use loom_db::{Announcer, Hub};
use loom_notify::Notify;
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;
use utoipa_axum::router::OpenApiRouter;

pub use config::Config;

/// What replicas tell each other: `stream …` (what watchers are told, as JSON).
pub const CHANNEL: &str = "loom_crons";

/// What the feature is given.
#[derive(Clone)]
pub struct Deps {
    pub pool: PgPool,
    pub clock: Clock,
    pub hub: Hub,
    pub notify: Notify,
    pub audit: Arc<dyn Audit>,
    pub orgs: Arc<dyn OrgDirectory>,
    /// Asks again who watches.
    pub who: Arc<dyn Reauthenticate>,
    pub projects: Arc<dyn ProjectDirectory>,
    pub crashes: Arc<dyn CrashDirectory>,
    pub events: Arc<dyn EventSink>,
    pub threads: Arc<dyn ThreadDirectory>,
    /// Ends all running streams.
    pub stop: CancellationToken,
}

/// The feature, as the server holds it; cheap to clone.
#[derive(Clone)]
pub struct Crons(Arc<Inner>);

/// What the handle holds.
#[doc(hidden)]
pub struct Inner {
    deps: Deps,
    config: Config,
    announcer: Announcer,
}

impl std::ops::Deref for Crons {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl Crons {
    pub fn new(deps: Deps, config: Config) -> Self {
        let announcer = Announcer::new(deps.pool.clone(), CHANNEL);
        Self(Arc::new(Inner { deps, config, announcer }))
    }

    pub fn start(&self) {
        let _ = (&self.deps, &self.config);
        self.announcer.start();
    }

    pub fn health(&self) -> Check {
        Check::new("crons", || async { Component::new(Status::Healthy) })
    }

    /// Says good-bye to all who watch.
    pub fn end_streams(&self) {}

    pub async fn close(&self) {
        self.announcer.stop().await;
    }

    pub fn jobs(&self) -> Vec<loom_jobs::Job> {
        jobs::all(self)
    }

    /// All native routes. They need an `Authentication` in each request.
    pub fn routes(&self) -> OpenApiRouter {
        OpenApiRouter::new()
            .layer(middleware::from_fn(principal::required))
            .with_state(self.clone())
    }

    /// `/ping/…`: the key is the secret; any origin, any method, answers in the surface's own shape.
    pub fn ping_routes(&self) -> Router {
        Router::new()
    }
}
