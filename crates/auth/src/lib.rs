//! Who is asking: API keys, development mode, organisations, the audit log.

mod audit;
mod authenticate;
mod bootstrap;
mod config;
mod keys;
mod limit;
pub mod model;
mod organisations;
mod path;
mod token;
mod users;

use std::sync::{Arc, OnceLock};

use axum::middleware;
use loom_core::{Clock, Result, id::UserId, principal::required};
use loom_db::Hub;
use loom_jobs::Job;
use sqlx::PgPool;
use utoipa_axum::router::OpenApiRouter;

pub use audit::AuditLog;
pub use authenticate::REVOKED;
pub use bootstrap::NewKey;
pub use config::Config;

/// The handle of this feature; cheap to clone, which the router does for each request.
#[derive(Clone)]
pub struct Auth(Arc<Inner>);

/// What the handle holds.
#[doc(hidden)]
pub struct Inner {
    pool: PgPool,
    clock: Clock,
    config: Config,
    audit: Arc<AuditLog>,
    cached: authenticate::Cached,
    flood: limit::Flood,
    rare: limit::Rare,
    /// Set at the start in development mode.
    dev_user: OnceLock<UserId>,
}

impl std::ops::Deref for Auth {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl Auth {
    pub fn new(pool: PgPool, clock: Clock, config: Config) -> Self {
        Self(Arc::new(Inner {
            audit: Arc::new(AuditLog::new(pool.clone(), clock.clone())),
            cached: authenticate::Cached::new(),
            flood: limit::Flood::new(clock.clone()),
            rare: limit::Rare::new(clock.clone()),
            dev_user: OnceLock::new(),
            pool,
            clock,
            config,
        }))
    }

    /// Listens for what other replicas revoke. In development mode this makes the built-in user when it
    /// is not there yet.
    pub async fn start(self, hub: &Hub) -> Result<Self> {
        tokio::spawn(self.clone().listen(hub.subscribe(REVOKED)));
        if self.config.dev_mode {
            tracing::warn!(
                "development mode is on: requests from this machine without a credential act as a system admin"
            );
            let user = self.ensure_user(bootstrap::DEV_EMAIL, true).await?;
            self.dev_user.get_or_init(|| user);
        }
        Ok(self)
    }

    pub fn audit(&self) -> Arc<AuditLog> {
        Arc::clone(&self.audit)
    }

    pub fn routes(&self) -> OpenApiRouter {
        OpenApiRouter::new()
            .merge(users::routes())
            .merge(organisations::routes())
            .merge(keys::routes())
            .route_layer(middleware::from_fn(required))
            .with_state(self.clone())
    }

    pub fn jobs(&self) -> Vec<Job> {
        vec![limit::cleanup_job(self.pool.clone())]
    }
}
