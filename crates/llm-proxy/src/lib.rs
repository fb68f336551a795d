//! The LLM gateway: the vendors' wires and a native API in, providers out, every request accounted.

mod attempt;
mod candidates;
mod config;
mod demo;
mod dialect;
mod drain;
mod exchange;
mod flow;
mod forward;
mod frames;
mod hear;
mod http;
mod jobs;
mod ledger;
mod limits;
mod live;
pub mod measures;
mod model_list;
mod models;
mod native;
mod observe;
mod org_routes;
mod pool;
mod price;
mod provider;
mod record;
mod refused;
mod relay;
mod request_log;
mod scan;
mod silence;
mod spend;
mod store;
mod stream_options;
mod trace;
mod trailer;
mod translate;
mod translated;
mod usage;
mod usage_sums;
mod vertex;

use std::sync::Arc;

use loom_core::{
    Clock, Error, Result,
    health::Check,
    port::{Audit, KeyBudgets, OrgDirectory, Reauthenticate, WeaverDirectory},
    sse::Seats,
};
use loom_db::{Hub, Subscription};
use loom_notify::Notify;
use loom_vault::Vault;
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;
use utoipa_axum::router::OpenApiRouter;

pub use config::Config;
pub use pool::{
    CredentialKind, CredentialView, METRICS as CREDENTIAL_METRICS, NewCredential, SecretJson,
    Tested,
};

pub use usage_sums::USAGE_CHANNEL;

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
    pub weavers: Arc<dyn WeaverDirectory>,
    /// Asks again who watches.
    pub who: Arc<dyn Reauthenticate>,
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
    audit: Arc<dyn Audit>,
    orgs: Arc<dyn OrgDirectory>,
    who: Arc<dyn Reauthenticate>,
    limits: limits::Limits,
    client: reqwest::Client,
    providers: provider::Providers,
    org_routes: org_routes::OrgRoutes,
    ledger: ledger::Ledger,
    news: usage_sums::News,
    seats: Seats,
    record: record::Record,
    prices: Arc<price::Overrides>,
    timeouts: config::Timeouts,
    retention: std::time::Duration,
    pool_config: pool::Config,
    keeper: Arc<pool::Keeper>,
    assertion_files: Vec<String>,
    reading_credentials: tokio::sync::Mutex<()>,
    measured: pool::Measured,
    /// Cancelled when all streams must end.
    stop: CancellationToken,
    /// Ends the streams of those who watch.
    leaving: CancellationToken,
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
        let Deps {
            pool,
            clock,
            vault,
            hub,
            notify,
            audit,
            orgs,
            key_budgets,
            weavers,
            who,
            replica,
            stop,
        } = deps;
        let prices: Arc<price::Overrides> = Arc::default();
        let limits = limits::Limits::new(
            pool.clone(),
            clock.clone(),
            replica,
            key_budgets,
            weavers,
            Arc::clone(&prices),
        );
        let keeper = pool::Keeper::new(pool.clone(), clock.clone(), Arc::clone(&vault), notify);
        let keeper = Arc::new(keeper);
        let client = reqwest::Client::builder()
            .connect_timeout(config.timeouts.connect)
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .tcp_nodelay(true)
            .pool_max_idle_per_host(512)
            .build()
            .map_err(Error::internal)?;
        let drains = drain::Drains::new(config.drain);
        let news = usage_sums::News::new(pool.clone());
        Ok(Self(Arc::new(Inner {
            ledger: ledger::Ledger::start(
                &pool,
                clock.clone(),
                limits.clone(),
                Arc::clone(&prices),
                drains,
                news.clone(),
            ),
            news,
            seats: Seats::new(usage_sums::PLACES),
            leaving: stop.child_token(),
            prices,
            limits,
            record: record::Record::new(&vault)?,
            org_routes: org_routes::OrgRoutes::default(),
            providers: provider::Providers::new(config, &clock, Some(&keeper)),
            keeper,
            timeouts: config.timeouts,
            retention: config.retention,
            pool_config: config.pool,
            assertion_files: config.assertion_files.clone(),
            reading_credentials: tokio::sync::Mutex::default(),
            measured: pool::Measured::default(),
            pool,
            clock,
            vault,
            hub,
            audit,
            orgs,
            who,
            client,
            stop,
        })))
    }

    /// Reads credentials, routes, settings and limits, and follows their changes. `keys` says when API
    /// keys have changed.
    pub async fn start(self, keys: Subscription) -> Result<Self> {
        self.news.start();
        let words = self.hub.subscribe(CHANNEL);
        self.read_routes(None).await?;
        let proxy = self.clone();
        tokio::spawn(async move {
            let read = |org| proxy.read_routes(org);
            let following = hear::follow(words, &proxy.pool, org_routes::WORD, read);
            proxy.stop.run_until_cancelled(following).await;
        });
        self.start_credentials().await?;
        self.follow_settings().await?;
        self.limits.start(&self.hub, keys).await?;
        Arc::clone(&self.prices).start(self.pool.clone(), &self.hub).await?;
        Ok(self)
    }

    pub fn routes(&self) -> OpenApiRouter {
        http::routes(self.clone())
            .merge(native::routes(self.clone()))
            .merge(org_routes::routes(self.clone()))
            .merge(pool::routes(self.clone()))
            .merge(record::routes(self.clone()))
            .merge(limits::http::routes(self.clone()))
            .merge(self.account_routes())
    }

    /// What those follow who watch; to be had together with other streams.
    pub fn stream_routes(&self) -> OpenApiRouter {
        usage_sums::stream_routes(self.clone())
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

    /// Says good-bye to all who watch.
    pub fn end_streams(&self) {
        self.leaving.cancel();
    }

    /// Writes what is not yet written of the account. Streams that run on are no longer counted.
    pub async fn close(&self) {
        self.leaving.cancel();
        self.keeper.close().await;
        self.record.close().await;
        self.ledger.close().await;
        self.news.close().await;
        self.limits.close().await;
    }
}
