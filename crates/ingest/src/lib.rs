//! The Sentry envelope protocol: parse, authenticate, hand items on.

mod config;

use std::sync::Arc;

use axum::Router;
use loom_core::{
    Clock,
    health::{Check, Component, Status},
    port::{AttachmentSink, CheckInSink, EventSink, ProjectDirectory, SessionSink},
};
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

pub use config::Config;

/// What the feature is given.
#[derive(Clone)]
pub struct Deps {
    pub pool: PgPool,
    pub clock: Clock,
    pub projects: Arc<dyn ProjectDirectory>,
    pub events: Arc<dyn EventSink>,
    pub attachments: Arc<dyn AttachmentSink>,
    pub sessions: Arc<dyn SessionSink>,
    pub check_ins: Arc<dyn CheckInSink>,
    pub stop: CancellationToken,
}

/// The feature, as the server holds it; cheap to clone.
#[derive(Clone)]
pub struct Ingest(Arc<Inner>);

/// What the handle holds.
#[doc(hidden)]
pub struct Inner {
    deps: Deps,
    config: Config,
}

impl std::ops::Deref for Ingest {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl Ingest {
    pub fn new(deps: Deps, config: Config) -> Self {
        Self(Arc::new(Inner { deps, config }))
    }

    pub fn health(&self) -> Check {
        let _ = (&self.deps, &self.config);
        Check::new("ingest", || async { Component::new(Status::Healthy) })
    }

    pub async fn close(&self) {}

    pub fn jobs(&self) -> Vec<loom_jobs::Job> {
        Vec::new()
    }

    /// `/api/{number}/…`: the key is in the request; CORS, errors and slashes are Sentry's.
    pub fn routes(&self) -> Router {
        Router::new()
    }
}
