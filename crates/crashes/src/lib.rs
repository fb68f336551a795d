//! Error tracking: projects, events, issues, releases, artifacts.

mod config;
mod directory;
mod event;
mod grouping;
mod jobs;
mod projects;
mod sinks;
mod symbols;

use std::sync::Arc;

use axum::middleware;
use loom_core::{
    Clock,
    health::{Check, Component, Status},
    port::{Audit, OrgDirectory, Reauthenticate, ReleaseHealth, SessionSink, ThreadDirectory},
    principal,
};
use loom_db::{Announcer, Hub};
use loom_notify::Notify;
use loom_vault::Vault;
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;
use utoipa_axum::{router::OpenApiRouter, routes};

pub use config::Config;
pub use directory::Directory;

/// What replicas tell each other: `projects …` (a project or its keys changed), `artifacts …` (something
/// was uploaded), `stream …` (what watchers are told, as JSON).
pub const CHANNEL: &str = "loom_crashes";

/// What the feature is given.
#[derive(Clone)]
pub struct Deps {
    pub pool: PgPool,
    pub clock: Clock,
    pub hub: Hub,
    pub vault: Arc<Vault>,
    pub notify: Notify,
    pub audit: Arc<dyn Audit>,
    pub orgs: Arc<dyn OrgDirectory>,
    /// Asks again who watches.
    pub who: Arc<dyn Reauthenticate>,
    pub directory: Directory,
    pub sessions: Arc<dyn SessionSink>,
    pub health: Arc<dyn ReleaseHealth>,
    pub threads: Arc<dyn ThreadDirectory>,
    pub replica: String,
    /// Ends all running streams.
    pub stop: CancellationToken,
}

/// The feature, as the server holds it; cheap to clone.
#[derive(Clone)]
pub struct Crashes(Arc<Inner>);

/// What the handle holds.
#[doc(hidden)]
pub struct Inner {
    deps: Deps,
    config: Config,
    announcer: Announcer,
}

impl std::ops::Deref for Crashes {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl Crashes {
    pub fn new(deps: Deps, config: Config) -> Self {
        let announcer = Announcer::new(deps.pool.clone(), CHANNEL);
        Self(Arc::new(Inner { deps, config, announcer }))
    }

    /// Begins to process what was taken, and to hear other replicas.
    pub fn start(&self) {
        self.announcer.start();
        self.deps.directory.follow(self.deps.stop.clone());
    }

    pub fn health(&self) -> Check {
        Check::new("crashes", || async { Component::new(Status::Healthy) })
    }

    /// Says good-bye to all who watch.
    pub fn end_streams(&self) {}

    /// Finishes the batch that is being processed.
    pub async fn close(&self) {
        self.announcer.stop().await;
    }

    pub fn jobs(&self) -> Vec<loom_jobs::Job> {
        jobs::all(self)
    }

    /// All native routes. They need an `Authentication` in each request.
    pub fn routes(&self) -> OpenApiRouter {
        OpenApiRouter::new()
            .routes(routes!(
                projects::http::list_crash_projects,
                projects::http::create_crash_project
            ))
            .routes(routes!(
                projects::http::get_crash_project,
                projects::http::patch_crash_project,
                projects::http::delete_crash_project
            ))
            .routes(routes!(projects::keys::list_crash_keys, projects::keys::create_crash_key))
            .routes(routes!(projects::keys::patch_crash_key, projects::keys::delete_crash_key))
            .route_layer(middleware::from_fn(principal::required))
            .with_state(self.clone())
    }
}
