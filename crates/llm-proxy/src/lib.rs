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
};
use loom_vault::Vault;
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;
use utoipa_axum::router::OpenApiRouter;

pub use config::Config;
pub use credentials::Tested;
pub use store::CredentialSummary;

/// The handle of this feature; cheap to clone, which the router does for each request.
#[derive(Clone)]
pub struct LlmProxy(Arc<Inner>);

/// What the handle holds.
#[doc(hidden)]
pub struct Inner {
    pool: PgPool,
    clock: Clock,
    vault: Arc<Vault>,
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
    /// Starts the account. `stop` ends all running streams. Stored credentials are not known before
    /// [`LlmProxy::start`].
    pub fn new(
        pool: PgPool,
        clock: Clock,
        vault: Arc<Vault>,
        config: &Config,
        stop: CancellationToken,
    ) -> Result<Self> {
        let client = reqwest::Client::builder()
            .connect_timeout(config.timeouts.connect)
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .tcp_nodelay(true)
            .pool_max_idle_per_host(512)
            .build()
            .map_err(Error::internal)?;
        Ok(Self(Arc::new(Inner {
            ledger: ledger::Ledger::start(&pool, clock.clone()),
            providers: provider::Providers::new(config),
            timeouts: config.timeouts,
            retention: config.retention,
            credentials_read: AtomicI64::default(),
            credentials_reading: AtomicBool::default(),
            pool,
            clock,
            vault,
            client,
            stop,
        })))
    }

    /// Reads the stored credentials.
    pub async fn start(self) -> Result<Self> {
        self.read_credentials().await?;
        Ok(self)
    }

    pub fn routes(&self) -> OpenApiRouter {
        http::routes(self.clone()).merge(native::routes(self.clone()))
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
