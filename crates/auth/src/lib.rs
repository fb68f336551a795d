//! Who is asking: signing in, sessions, API keys, development mode, organisations, the audit log.

mod account;
mod admin;
mod audit;
mod authenticate;
mod bootstrap;
mod config;
mod invitations;
mod keys;
mod limit;
mod members;
pub mod model;
mod org_directory;
mod organisations;
mod pages;
mod path;
mod sessions;
mod sign_in;
mod token;
mod users;
mod weavers;

use std::sync::{Arc, OnceLock};

use axum::middleware;
use loom_core::{Clock, Result, id::UserId, principal::required};
use loom_db::Hub;
use loom_jobs::Job;
use loom_notify::Notify;
use sqlx::PgPool;
use tokio::sync::Semaphore;
use utoipa_axum::router::OpenApiRouter;

use sessions::site::Site;
use sign_in::SignIn;

pub use admin::Admins;
pub use audit::AuditLog;
pub use authenticate::REVOKED;
pub use bootstrap::NewKey;
pub use config::Config;
pub use sign_in::{Reached, SignInConfig};

/// The handle of this feature; cheap to clone, which the router does for each request.
#[derive(Clone)]
pub struct Auth(Arc<Inner>);

/// What the handle holds.
#[doc(hidden)]
pub struct Inner {
    pool: PgPool,
    clock: Clock,
    config: Config,
    notify: Notify,
    site: Site,
    sign_in: SignIn,
    audit: Arc<AuditLog>,
    cached: authenticate::Cached,
    flood: limit::Flood,
    rare: limit::Rare,
    exports: Arc<Semaphore>,
    /// Set at the start in development mode.
    dev_user: OnceLock<UserId>,
    /// Set once somebody is known to administer the installation.
    administered: OnceLock<()>,
}

impl std::ops::Deref for Auth {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl Auth {
    /// # Errors
    /// When there is no HTTP client to be had for the sign-in providers.
    pub fn new(pool: PgPool, clock: Clock, notify: Notify, config: Config) -> Result<Self> {
        let site = Site::new(&config.base_url);
        Ok(Self(Arc::new(Inner {
            sign_in: SignIn::new(config.sign_in.clone(), &site.base_url, &clock)?,
            site,
            audit: Arc::new(AuditLog::new(pool.clone(), clock.clone())),
            cached: authenticate::Cached::new(),
            flood: limit::Flood::new(clock.clone()),
            rare: limit::Rare::new(clock.clone()),
            exports: Arc::new(Semaphore::new(audit::EXPORTS)),
            dev_user: OnceLock::new(),
            administered: OnceLock::new(),
            pool,
            clock,
            notify,
            config,
        })))
    }

    /// Listens for what other replicas revoke. In development mode this makes the built-in user when it
    /// is not there yet.
    pub async fn start(self, hub: &Hub) -> Result<Self> {
        if !self.site.keeps_cookies() {
            tracing::warn!(
                base_url = self.site.base_url,
                "browsers keep no session over plain http: signing in needs an https LOOM_SERVER_BASE_URL"
            );
        }
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
            .merge(members::routes())
            .merge(invitations::routes())
            .merge(keys::routes())
            .merge(admin::routes())
            .merge(audit::routes())
            .merge(sessions::routes())
            .merge(account::routes())
            .merge(sign_in::device::routes_of_users())
            .route_layer(middleware::from_fn(required))
            .merge(sign_in::routes())
            .merge(sign_in::magic_link::routes())
            .merge(sign_in::device::routes())
            .merge(pages::routes())
            .merge(invitations::pages())
            .merge(keys::public_routes())
            .route_layer(middleware::from_fn_with_state(self.clone(), limit::by_address))
            .with_state(self.clone())
    }

    pub fn jobs(&self) -> Vec<Job> {
        let mut jobs = audit::jobs(&self.pool, &self.clock, self.config.audit_retention_days);
        jobs.push(limit::cleanup_job(self.pool.clone()));
        jobs.push(weavers::cleanup_job(self.pool.clone()));
        jobs.extend(self.sign_in_jobs());
        jobs
    }
}
