//! The whole server, from top to bottom: database, kernel, features, routes, jobs, serving, draining.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context;
use axum::{Router, middleware};
use loom_auth::Auth;
use loom_core::{Clock, health::Check};
use loom_db::{Database, Hub};
use loom_docs::Docs;
use loom_jobs::{Job, JobScheduler};
use loom_llm_proxy::LlmProxy;
use loom_notify::Notify;
use loom_threads::Threads;
use loom_vault::Vault;
use sqlx::PgPool;
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use tower_http::{
    compression::CompressionLayer,
    cors::{AllowHeaders, AllowOrigin, Any, CorsLayer, ExposeHeaders},
};
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;

use crate::{
    accept,
    config::{Config, Cors, Http},
    health::{self, Health},
    layers::{self, Outermost},
    meta,
};

/// What replicas tell each other through PostgreSQL.
const CHANNELS: &[&str] = &[loom_auth::REVOKED, loom_notify::CHANNEL];

/// The features on one database.
pub struct Features {
    pub auth: Auth,
    pub llm: LlmProxy,
    pub threads: Threads,
    pub docs: Docs,
    pub notify: Notify,
    pub jobs: JobScheduler,
    pub hub: Hub,
}

impl Features {
    /// Everything but routes and a socket; `stop_streams` ends running streams.
    ///
    /// # Errors
    /// When a part cannot be had; the message is for the operator.
    pub async fn start(
        database: &Database,
        config: &Config,
        clock: Clock,
        stop_streams: CancellationToken,
    ) -> anyhow::Result<Self> {
        let pool = database.pool().clone();
        let vault = Vault::open(config.vault.clone(), &config.data_dir)?;
        let (hub, _) = Hub::start(database.direct_url(), CHANNELS)?;
        let mut features = Self::new(pool, config, clock, vault, stop_streams, hub)?;
        features.auth = features.auth.start(&features.hub).await?;
        features.llm = features.llm.start().await?;
        Ok(features)
    }

    /// The features without anything behind them, for what only needs their shape.
    ///
    /// # Errors
    /// When a part cannot be built at all.
    pub fn disconnected(
        database: &Database,
        config: &Config,
        clock: Clock,
    ) -> anyhow::Result<Self> {
        Self::new(
            database.pool().clone(),
            config,
            clock,
            Vault::ephemeral()?,
            CancellationToken::new(),
            Hub::silent(CHANNELS),
        )
    }

    fn new(
        pool: PgPool,
        config: &Config,
        clock: Clock,
        vault: Vault,
        stop_streams: CancellationToken,
        hub: Hub,
    ) -> anyhow::Result<Self> {
        let vault = Arc::new(vault);
        let admins = Arc::new(loom_auth::Admins::new(pool.clone()));
        let notify =
            Notify::new(pool.clone(), clock.clone(), Arc::clone(&vault), admins, &config.notify)?;
        let auth = Auth::new(pool.clone(), clock.clone(), notify.clone(), config.auth.clone())?;
        let llm = LlmProxy::new(pool.clone(), clock.clone(), vault, &config.llm, stop_streams)?;
        let threads = Threads::new(pool.clone(), clock.clone());
        let mut all_jobs = [llm.jobs(), auth.jobs()].concat();
        all_jobs.push(delivery_cleanup(&notify));
        let jobs = JobScheduler::new(pool, clock, replica_name(), all_jobs)?;
        Ok(Self { auth, llm, threads, docs: Docs::new(), notify, jobs, hub })
    }

    fn checks(&self, database: &Database) -> Vec<Check> {
        vec![
            health::database(database.pool().clone()),
            self.llm.health(),
            self.auth.health(),
            self.jobs.health(),
            self.docs.health(),
            self.notify.health(),
        ]
    }

    /// Ends the background work and writes what is still to be written.
    pub async fn close(&self, grace: Duration) {
        self.jobs.shutdown(grace).await;
        // After the jobs, which may have something to say.
        self.notify.close(grace).await;
        self.llm.close().await;
        self.hub.stop();
    }
}

/// The clean-up of `notify`, which knows no jobs: these stand above it.
fn delivery_cleanup(notify: &Notify) -> Job {
    let notify = notify.clone();
    Job::new(
        "delivery-cleanup",
        "Delivery clean-up",
        "Deletes the log of mails and webhooks after 30 days; erases what failed, and the outbox, after 7",
        Duration::from_secs(24 * 3600),
        Duration::from_secs(600),
        move |context| {
            let notify = notify.clone();
            async move { Ok(notify.clean_up(context.clock.now(), &context.cancel).await?.into()) }
        },
    )
}

/// Which of several servers this is, in job runs.
fn replica_name() -> String {
    let host = nix::unistd::gethostname()
        .ok()
        .and_then(|name| name.into_string().ok())
        .unwrap_or_default();
    format!("{host}:{}", std::process::id())
}

/// All routes, and the document that describes them.
pub fn routes(
    features: &Features,
    health: &Health,
    database: &Database,
    config: &Config,
    clock: Clock,
) -> (Router, OpenApi) {
    // Replies of the providers pass as they are: no compression, and time limits of their own.
    let (llm, llm_document) = features.llm.routes().split_for_parts();
    let native = OpenApiRouter::with_openapi(meta::openapi())
        .merge(health.routes())
        .merge(meta::metrics_routes(meta::start_metrics(), database.pool().clone()))
        .merge(features.auth.routes())
        .merge(features.threads.routes())
        .merge(features.docs.routes())
        .merge(features.notify.routes(features.auth.audit()))
        .merge(features.jobs.routes(features.auth.audit()));
    let (native, mut document) = native.split_for_parts();
    document.merge(llm_document);
    let native = native
        .merge(meta::document_routes(&document))
        .layer(middleware::from_fn_with_state(config.http.request_timeout, layers::time_limit))
        .layer(CompressionLayer::new());
    let outermost =
        Outermost { clock, auth: features.auth.clone(), proxies: config.http.proxies.clone() };
    let router = native
        .merge(llm)
        .fallback(layers::no_such_route)
        .method_not_allowed_fallback(layers::wrong_method)
        .layer(cors(&config.http))
        .layer(middleware::from_fn_with_state(outermost, layers::observe));
    (router, document)
}

fn cors(http: &Http) -> CorsLayer {
    let layer = CorsLayer::new()
        .allow_methods(Any)
        // Not `*`, which by the Fetch standard leaves out `authorization`.
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers(ExposeHeaders::any())
        .max_age(Duration::from_secs(3600));
    match &http.cors {
        Cors::Any => layer.allow_origin(Any),
        Cors::Listed(origins) => layer.allow_origin(AllowOrigin::list(origins.iter().cloned())),
    }
}

/// A server that runs.
pub struct Running {
    pub address: SocketAddr,
    pub features: Features,
    pub health: Health,
    database: Database,
    stop: CancellationToken,
    serving: JoinHandle<()>,
    grace: Duration,
}

/// Opens the database, starts the features and listens.
///
/// # Errors
/// When a part cannot be had; the message is for the operator.
pub async fn start(config: &Config, clock: Clock) -> anyhow::Result<Running> {
    // Before the features: a metric that is looked up before there is a recorder counts nowhere.
    let metrics = meta::start_metrics();
    let http = &config.http;
    let wanted = SocketAddr::new(http.host, http.port);
    // Before anything is started: most often it is another server that has the port.
    let listener = TcpListener::bind(wanted).await.with_context(|| {
        format!(
            "cannot listen on {wanted}; set LOOM_SERVER_HOST and LOOM_SERVER_PORT to what is free"
        )
    })?;
    let address = listener.local_addr()?;
    let config = &config.clone().reached_at(address.port());
    let database = Database::open(&config.database).await?;
    let stop_streams = CancellationToken::new();
    let features =
        match Features::start(&database, config, clock.clone(), stop_streams.clone()).await {
            Ok(features) => features,
            Err(error) => {
                database.close().await;
                return Err(error);
            }
        };
    let health = Health::new(clock.clone(), features.checks(&database));
    let (router, _) = routes(&features, &health, &database, config, clock);
    features.notify.start(&features.hub);
    features.jobs.start_clock().await?;
    let stop = CancellationToken::new();
    tokio::spawn(meta::keep_up(metrics, stop.clone()));
    let serving = tokio::spawn(accept::serve(
        listener,
        router,
        http.max_connections,
        stop.clone(),
        http.shutdown_grace,
        stop_streams,
    ));
    Ok(Running { address, features, health, database, stop, serving, grace: http.shutdown_grace })
}

impl Running {
    pub fn database(&self) -> &Database {
        &self.database
    }

    /// Not ready, no new connections, running requests to their end, background work stopped, everything
    /// written, database closed: in this order.
    pub async fn shut_down(self) {
        self.health.drain();
        self.stop.cancel();
        if let Err(error) = self.serving.await {
            tracing::error!(%error, "the accept loop ended badly");
        }
        self.features.close(self.grace).await;
        self.database.close().await;
    }
}
