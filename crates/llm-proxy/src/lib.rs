//! The LLM gateway: the vendors' wires and a native API in, providers out, every request accounted.

mod config;
mod credentials;
mod demo;
mod dialect;
mod drain;
mod exchange;
mod forward;
mod http;
mod jobs;
mod ledger;
mod live;
pub mod measures;
mod model_list;
mod models;
mod native;
mod observe;
mod partitions;
mod price;
mod provider;
mod relay;
mod request_log;
mod scan;
mod store;
mod stream_options;
mod trace;
mod trailer;
mod translate;
mod translated;
mod usage;
mod usage_sums;

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicI64, Ordering},
};

use loom_core::{
    Clock, Error, Result,
    health::{Check, Component, Status},
    port::{Audit, OrgDirectory},
};
use loom_db::Hub;
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
    #[expect(dead_code, reason = "for what follows")]
    replica: String,
    client: reqwest::Client,
    providers: provider::Providers,
    ledger: ledger::Ledger,
    prices: Arc<price::Overrides>,
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
        let Deps { pool, clock, vault, hub, notify, audit, orgs, replica, stop } = deps;
        let client = reqwest::Client::builder()
            .connect_timeout(config.timeouts.connect)
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .tcp_nodelay(true)
            .pool_max_idle_per_host(512)
            .build()
            .map_err(Error::internal)?;
        let prices: Arc<price::Overrides> = Arc::default();
        let drains = drain::Drains::new(config.drain);
        Ok(Self(Arc::new(Inner {
            ledger: ledger::Ledger::start(&pool, clock.clone(), Arc::clone(&prices), drains),
            prices,
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
            replica,
            client,
            stop,
        })))
    }

    /// Reads the stored credentials.
    pub async fn start(self) -> Result<Self> {
        self.read_credentials().await?;
        Arc::clone(&self.prices).start(self.pool.clone(), &self.hub).await?;
        Ok(self)
    }

    pub fn routes(&self) -> OpenApiRouter {
        http::routes(self.clone()).merge(native::routes(self.clone())).merge(self.account_routes())
    }

    /// What accounts tell, and what they are reckoned by.
    fn account_routes(&self) -> OpenApiRouter {
        price::routes(self.clone())
            .merge(request_log::routes(self.clone()))
            .merge(usage_sums::routes(self.clone()))
            .merge(model_list::routes(self.clone()))
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
    }
}
