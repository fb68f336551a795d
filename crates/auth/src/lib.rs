//! Who is asking: API keys, development mode, organisations, the audit log.

mod admins;
mod audit;
mod authenticate;
mod bootstrap;
mod config;
mod http;
pub mod model;
mod store;
mod token;

use std::{
    sync::{Arc, OnceLock, atomic::AtomicU64},
    time::Duration,
};

use loom_core::{Clock, Result, id::UserId};
use moka::future::Cache;
use sqlx::PgPool;
use utoipa_axum::router::OpenApiRouter;

pub use audit::AuditLog;
pub use bootstrap::NewKey;
pub use config::Config;

/// How long a looked-up key is believed. A revocation on another replica takes effect within it.
const KEY_TTL: Duration = Duration::from_secs(10);
const KEYS_CACHED: u64 = 100_000;

/// The handle of this feature; cheap to clone, which the router does for each request.
#[derive(Clone)]
pub struct Auth(Arc<Inner>);

/// What the handle holds.
#[doc(hidden)]
pub struct Inner {
    pool: PgPool,
    clock: Clock,
    audit: Arc<AuditLog>,
    /// By digest; `None` for a token that does not exist, so that guessing costs one query each.
    keys: Cache<[u8; 32], Option<Arc<model::KeyHolder>>>,
    /// Counted up by each, so that a lookup under way knows of them.
    revocations: AtomicU64,
    /// Set at the start in development mode.
    dev_user: OnceLock<model::UserHolder>,
}

impl std::ops::Deref for Auth {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl Auth {
    pub fn new(pool: PgPool, clock: Clock) -> Self {
        let audit = Arc::new(AuditLog::new(pool.clone(), clock.clone()));
        let keys = Cache::builder().max_capacity(KEYS_CACHED).time_to_live(KEY_TTL).build();
        Self(Arc::new(Inner {
            pool,
            clock,
            audit,
            keys,
            revocations: AtomicU64::new(0),
            dev_user: OnceLock::new(),
        }))
    }

    /// In development mode this makes the built-in user when it is not there yet.
    pub async fn start(self, config: &Config) -> Result<Self> {
        if config.dev_mode {
            tracing::warn!(
                "development mode is on: requests from this machine without a credential act as a system admin"
            );
            let user = self.ensure_user(bootstrap::DEV_EMAIL, true).await?;
            let holder = self.user_holder(user).await?;
            self.dev_user.get_or_init(|| holder);
        }
        Ok(self)
    }

    pub fn audit(&self) -> Arc<AuditLog> {
        Arc::clone(&self.audit)
    }

    pub fn routes(&self) -> OpenApiRouter {
        http::routes(self.clone())
    }

    async fn user_holder(&self, user: UserId) -> Result<model::UserHolder> {
        store::user_holder(&self.pool, user)
            .await?
            .ok_or_else(|| loom_core::Error::not_found("user"))
    }
}
