//! The LLM gateway: the vendors' wires and a native API in, providers out, every request accounted.

mod config;
mod credentials;
mod demo;
mod dialect;
mod exchange;
mod forward;
mod http;
mod jobs;
mod ledger;
mod limits;
mod live;
pub mod measures;
mod models;
mod native;
mod observe;
mod price;
mod provider;
mod relay;
mod scan;
mod store;
mod stream_options;
mod trace;
mod translate;
mod translated;
mod usage;

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicI64, Ordering},
};

use loom_core::{
    Clock, Error, Result,
    health::{Check, Component, Status},
    port::{Audit, KeyBudgets, OrgDirectory},
};
use loom_db::{Hub, Subscription};
use loom_notify::Notify;
use loom_vault::Vault;
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;
use utoipa_axum::router::OpenApiRouter;

pub use config::Config;
pub use credentials::Tested;
pub use store::CredentialSummary;

/// What replicas tell each other: what of this feature's settings has changed.
pub const CHANNEL: &str = "loom_llm";

/// What the feature is given.
pub struct Deps {
    pub pool: PgPool,
    pub clock: Clock,
    pub vault: Arc<Vault>,
    pub hub: Hub,
    pub notify: Notify,
    pub audit: Arc<dyn Audit>,
    pub orgs: Arc<dyn OrgDirectory>,
    pub key_budgets: Arc<dyn KeyBudgets>,
    /// This server's name among the replicas.
    pub replica: String,
    /// Ends all running streams.
    pub stop: CancellationToken,
}

/// The handle of this feature; cheap to clone, which the router does for each request.
#[derive(Clone)]
pub struct LlmProxy(Arc<Inner>);

/// What the handle holds.
#[doc(hidden)]
pub struct Inner {
    pool: PgPool,
    clock: Clock,
    vault: Arc<Vault>,
    hub: Hub,
    #[expect(dead_code, reason = "for what follows")]
    notify: Notify,
    audit: Arc<dyn Audit>,
    orgs: Arc<dyn OrgDirectory>,
    limits: limits::Limits,
    client: reqwest::Client,
    providers: provider::Providers,
    ledger: ledger::Ledger,
    timeouts: config::Timeouts,
    retention: std::time::Duration,
    /// When the stored credentials were last read, in milliseconds since 1970.
    credentials_read: AtomicI64,
    credentials_reading: AtomicBool,
    /// Cancelled when all streams must end.
    stop: CancellationToken,
}

impl std::ops::Deref for LlmProxy {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl LlmProxy {
    /// Starts the account. Stored credentials are not known before [`LlmProxy::start`].
    pub fn new(deps: Deps, config: &Config) -> Result<Self> {
        let Deps { pool, clock, vault, hub, notify, audit, orgs, key_budgets, replica, stop } =
            deps;
        let limits = limits::Limits::new(pool.clone(), clock.clone(), replica, key_budgets);
        let client = reqwest::Client::builder()
            .connect_timeout(config.timeouts.connect)
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .tcp_nodelay(true)
            .pool_max_idle_per_host(512)
            .build()
            .map_err(Error::internal)?;
        Ok(Self(Arc::new(Inner {
            ledger: ledger::Ledger::start(&pool, clock.clone(), limits.clone()),
            limits,
            providers: provider::Providers::new(config),
            timeouts: config.timeouts,
            retention: config.retention,
            credentials_read: AtomicI64::default(),
            credentials_reading: AtomicBool::default(),
            pool,
            clock,
            vault,
            hub,
            notify,
            audit,
            orgs,
            client,
            stop,
        })))
    }

    /// Reads the stored credentials and the limits. `keys` says when API keys have changed.
    pub async fn start(self, keys: Subscription) -> Result<Self> {
        self.read_credentials().await?;
        self.limits.start(self.hub.subscribe(CHANNEL), keys).await?;
        Ok(self)
    }

    pub fn routes(&self) -> OpenApiRouter {
        http::routes(self.clone())
            .merge(native::routes(self.clone()))
            .merge(limits::http::routes(self.clone()))
    }

    pub fn jobs(&self) -> Vec<loom_jobs::Job> {
        jobs::all(self)
    }

    /// The names of the providers that can be asked.
    pub fn configured(&self) -> Vec<String> {
        self.providers.iter().filter(|p| p.is_configured()).map(|p| p.name.to_string()).collect()
    }

    /// The state of each provider, by its last answer.
    pub fn health(&self) -> Check {
        let proxy = self.clone();
        let probe = move || {
            let component = proxy.component();
            async move { component }
        };
        Check::new("llm_providers", probe)
    }

    fn component(&self) -> Component {
        let mut worst = Status::Disabled;
        let mut facts = serde_json::Map::new();
        let mut failing = Vec::new();
        for provider in self.providers.iter() {
            let status = if !provider.is_configured() {
                Status::Disabled
            } else if provider.failing.load(Ordering::Relaxed) {
                Status::Degraded
            } else {
                Status::Healthy
            };
            worst = worst.max(status);
            if status == Status::Degraded {
                failing.push(provider.name.to_string());
            }
            facts.insert(
                provider.name.to_string(),
                serde_json::json!({"status": status, "credentials": provider.credential_count()}),
            );
        }
        let component = Component::new(worst).with("providers", facts);
        if worst == Status::Degraded {
            component
                .error("the last request to a provider got no sound answer")
                .code(
                    "LLM_PROVIDER_FAILING",
                    "`loom-server llm credential test` asks each provider with each key and tells what \
                     it answers; the provider's status page tells the rest. One sound answer makes this \
                     healthy again.",
                )
                .detail(failing.join(", "))
        } else {
            component
        }
    }

    /// Writes what is not yet written of the account. Streams that run on are no longer counted.
    pub async fn close(&self) {
        self.ledger.close().await;
        self.limits.close().await;
    }
}
