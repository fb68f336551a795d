//! The whole server, from top to bottom: database, kernel, features, routes, jobs, serving, draining.

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use anyhow::Context;
use axum::{Router, http::request::Parts, middleware};
use loom_auth::Auth;
use loom_core::{
    Clock,
    health::Check,
    port::{BoxFuture, Reauthenticate},
    principal::{Authentication, Principal, RequestInfo},
};
use loom_crashes::Crashes;
use loom_crons::Crons;
use loom_db::{Database, Hub};
use loom_docs::Docs;
use loom_ingest::Ingest;
use loom_jobs::{Job, JobScheduler};
use loom_llm_proxy::LlmProxy;
use loom_logs::{Buffer, Logs};
use loom_notify::Notify;
use loom_scm::Scm;
use loom_sessions::Sessions;
use loom_threads::Threads;
use loom_vault::Vault;
use loom_weavers::Weavers;
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
    accept::{self, Ending},
    config::{Config, Cors, Http},
    health::{self, Health},
    layers::{self, Outermost},
    live,
    meta::{self, Gauges},
    otlp::{self, Exporter, Sampler},
    service_manager,
};

/// Time for what was traced and measured last to reach the collector.
const LAST_EXPORT: Duration = Duration::from_secs(5);
/// What replicas tell each other through PostgreSQL.
const CHANNELS: &[&str] = &[
    loom_auth::REVOKED,
    loom_jobs::CHANNEL,
    loom_jobs::RUNS_CHANNEL,
    loom_notify::CHANNEL,
    loom_llm_proxy::CHANNEL,
    loom_llm_proxy::USAGE_CHANNEL,
    loom_threads::CHANNEL,
    loom_crashes::CHANNEL,
    loom_crons::CHANNEL,
    loom_sessions::CHANNEL,
    loom_weavers::CHANNEL,
];

/// The features on one database.
pub struct Features {
    pub auth: Auth,
    pub llm: LlmProxy,
    pub threads: Threads,
    pub crashes: Crashes,
    pub crons: Crons,
    pub sessions: Sessions,
    pub weavers: Weavers,
    pub ingest: Ingest,
    pub scm: Scm,
    pub docs: Docs,
    pub notify: Notify,
    pub jobs: JobScheduler,
    pub logs: Logs,
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
        features.llm = features.llm.start(features.hub.subscribe(loom_auth::REVOKED)).await?;
        features.threads.start();
        features.sessions.start();
        features.crashes.start();
        features.crons.start();
        features.weavers.start().await?;
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

    /// The features on a database, or on none, without anything that they do by themselves: for who only
    /// looks.
    ///
    /// # Errors
    /// When a part cannot be built at all.
    pub fn at_rest(database: &Database, config: &Config, vault: Vault) -> anyhow::Result<Self> {
        let (pool, clock) = (database.pool().clone(), Clock::system());
        Self::new(pool, config, clock, vault, CancellationToken::new(), Hub::silent(CHANNELS))
    }

    fn new(
        pool: PgPool,
        config: &Config,
        clock: Clock,
        vault: Vault,
        stop_streams: CancellationToken,
        hub: Hub,
    ) -> anyhow::Result<Self> {
        loom_redact::learn(config.secrets.iter().cloned());
        let peer_key = vault.derive("replicas")?;
        let logs =
            Logs::new(pool.clone(), clock.clone(), Buffer::of_process(), &config.logs, peer_key)?;
        let vault = Arc::new(vault);
        let admins = Arc::new(loom_auth::Admins::new(pool.clone()));
        let notify =
            Notify::new(pool.clone(), clock.clone(), Arc::clone(&vault), admins, &config.notify)?;
        let auth = Auth::new(pool.clone(), clock.clone(), notify.clone(), config.auth.clone())?;
        let llm = loom_llm_proxy::Deps {
            pool: pool.clone(),
            clock: clock.clone(),
            vault: Arc::clone(&vault),
            hub: hub.clone(),
            notify: notify.clone(),
            audit: auth.audit(),
            orgs: Arc::new(auth.clone()),
            key_budgets: Arc::new(auth.clone()),
            weavers: Arc::new(loom_weavers::Directory::new(pool.clone())),
            who: Arc::new(ByKeys(auth.clone())),
            replica: loom_logs::replica_name(),
            stop: stop_streams.clone(),
        };
        let llm = LlmProxy::new(llm, &config.llm)?;
        let threads = loom_threads::Deps {
            pool: pool.clone(),
            clock: clock.clone(),
            hub: hub.clone(),
            audit: auth.audit(),
            orgs: Arc::new(auth.clone()),
            who: Arc::new(ByKeys(auth.clone())),
            stop: stop_streams.clone(),
        };
        let threads = Threads::new(threads, config.threads.clone());
        // One count and one memory for all ways in.
        let gate = loom_ingest::Gate::new(&config.ingest);
        let directory = loom_crashes::Directory::new(pool.clone(), hub.clone());
        let sessions = loom_sessions::Deps {
            pool: pool.clone(),
            clock: clock.clone(),
            hub: hub.clone(),
            notify: notify.clone(),
            audit: auth.audit(),
            orgs: Arc::new(auth.clone()),
            who: Arc::new(ByKeys(auth.clone())),
            projects: Arc::new(directory.clone()),
            crashes: Arc::new(directory.clone()),
            threads: Arc::new(threads.clone()),
            gate: Arc::new(gate.clone()),
            salt: vault.derive("app-sessions")?,
            stop: stop_streams.clone(),
        };
        let sessions = Sessions::new(sessions, config.sessions.clone());
        let crashes = loom_crashes::Deps {
            pool: pool.clone(),
            clock: clock.clone(),
            hub: hub.clone(),
            vault: Arc::clone(&vault),
            notify: notify.clone(),
            audit: auth.audit(),
            orgs: Arc::new(auth.clone()),
            who: Arc::new(ByKeys(auth.clone())),
            directory: directory.clone(),
            sessions: Arc::new(sessions.clone()),
            health: Arc::new(sessions.clone()),
            threads: Arc::new(threads.clone()),
            gate: Arc::new(gate.clone()),
            replica: loom_logs::replica_name(),
            stop: stop_streams.clone(),
        };
        let crashes = Crashes::new(crashes, config.crashes.clone());
        let crons = loom_crons::Deps {
            pool: pool.clone(),
            clock: clock.clone(),
            hub: hub.clone(),
            notify: notify.clone(),
            audit: auth.audit(),
            orgs: Arc::new(auth.clone()),
            who: Arc::new(ByKeys(auth.clone())),
            projects: Arc::new(directory.clone()),
            crashes: Arc::new(directory.clone()),
            events: Arc::new(crashes.clone()),
            threads: Arc::new(threads.clone()),
            stop: stop_streams.clone(),
        };
        let crons = Crons::new(crons, config.crons.clone());
        let ingest = loom_ingest::Deps {
            pool: pool.clone(),
            clock: clock.clone(),
            projects: Arc::new(directory),
            events: Arc::new(crashes.clone()),
            attachments: Arc::new(crashes.clone()),
            sessions: Arc::new(sessions.clone()),
            check_ins: Arc::new(crons.clone()),
            gate,
            stop: stop_streams.clone(),
        };
        let ingest = Ingest::new(ingest, config.ingest.clone());
        let weavers = loom_weavers::Deps {
            pool: pool.clone(),
            clock: clock.clone(),
            hub: hub.clone(),
            vault,
            notify: notify.clone(),
            audit: auth.audit(),
            orgs: Arc::new(auth.clone()),
            who: Arc::new(ByKeys(auth.clone())),
            tokens: Arc::new(auth.clone()),
            spend: Arc::new(llm.clone()),
            replica: loom_logs::replica_name(),
            stop: stop_streams.clone(),
        };
        let weavers = Weavers::new(weavers, config.weavers.clone())?;
        let scm = Scm::new(
            pool.clone(),
            clock.clone(),
            config.scm.clone(),
            Arc::new(auth.clone()),
            auth.audit(),
            stop_streams,
        );
        let all_jobs = [
            auth.jobs(),
            llm.jobs(),
            threads.jobs(),
            crashes.jobs(),
            crons.jobs(),
            sessions.jobs(),
            weavers.jobs(),
            ingest.jobs(),
            scm.jobs(),
            vec![delivery_cleanup(&notify)],
        ]
        .concat();
        let deps = loom_jobs::Deps {
            pool,
            clock,
            hub: hub.clone(),
            notify: notify.clone(),
            config: config.jobs.clone(),
            replica: loom_logs::replica_name(),
        };
        let jobs = JobScheduler::new(deps, all_jobs)?;
        jobs.report_to(Arc::new(crons.clone()));
        jobs.announce();
        Ok(Self {
            auth,
            llm,
            threads,
            crashes,
            crons,
            sessions,
            weavers,
            ingest,
            scm,
            docs: Docs::new(),
            notify,
            jobs,
            logs,
            hub,
        })
    }

    fn checks(&self, database: &Database, config: &Config, clock: &Clock) -> Vec<Check> {
        let thresholds = config.health;
        let transaction = thresholds.transaction;
        vec![
            database.health(loom_db::health::Thresholds { transaction }),
            database.listener_health(&self.hub),
            database.clock_health(clock),
            // Where the database lies there too, a full disk stops everything.
            health::disk(&config.data_dir, thresholds, database.is_private()),
            health::memory(thresholds),
            health::configuration(config),
            self.llm.health(),
            self.threads.health(),
            self.crashes.health(),
            self.crons.health(),
            self.sessions.health(),
            self.weavers.health(),
            self.ingest.health(),
            self.auth.health(),
            self.jobs.health_through(database.probes()),
            self.docs.health(),
            self.notify.health(),
            self.scm.health(),
            self.logs.health(),
        ]
    }

    /// Errors of this server become events of the project `loom-server`.
    fn report_own_errors(&self, production: bool) {
        let health::Version { version, git_sha, .. } = health::version();
        let commit = git_sha.get(..12).unwrap_or(git_sha);
        self.logs.report(loom_logs::Reporting {
            events: Arc::new(self.crashes.clone()),
            projects: Arc::new(self.crashes.directory()),
            release: format!("loom-server@{version}+{commit}"),
            environment: if production { "production" } else { "development" },
        });
    }

    /// Ends the background work and writes what is still to be written.
    pub async fn close(&self, grace: Duration) {
        self.jobs.shutdown(grace).await;
        self.scm.close().await;
        self.threads.close().await;
        // What takes before what is given to.
        self.ingest.close().await;
        self.crons.close().await;
        self.crashes.close().await;
        self.sessions.close().await;
        self.weavers.close().await;
        // After the jobs, which may have something to say.
        self.notify.close(grace).await;
        self.logs.close().await;
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

/// Asks the keys again.
struct ByKeys(Auth);

impl Reauthenticate for ByKeys {
    fn again<'a>(&'a self, request: &'a Parts) -> BoxFuture<'a, Authentication> {
        Box::pin(self.0.authenticate(request))
    }

    fn still<'a>(
        &'a self,
        principal: &'a Principal,
        info: &'a RequestInfo,
    ) -> BoxFuture<'a, Authentication> {
        Box::pin(self.0.still(principal, info))
    }
}

/// All routes, and the document that describes them.
pub fn routes(
    features: &Features,
    health: &Health,
    database: &Database,
    config: &Config,
    clock: Clock,
    sampler: Option<Sampler>,
) -> (Router, OpenApi) {
    // Replies of the providers pass as they are: no compression, and time limits of their own.
    let (llm, llm_document) = features.llm.routes().split_for_parts();
    // Files of gigabytes, and none of them compressed on the way.
    let (uploads, uploads_document) = features.crashes.upload_routes().split_for_parts();
    let (waiting, waiting_document) = features.weavers.waiting_routes().split_for_parts();
    let native = OpenApiRouter::with_openapi(meta::openapi())
        .merge(health.routes())
        .merge(meta::metrics_routes(Gauges::new(features, health, database)))
        .merge(features.auth.routes())
        .merge(features.llm.stream_routes())
        .merge(features.threads.routes())
        .merge(features.crashes.routes())
        .merge(features.ingest.native_routes())
        .merge(features.crons.routes())
        .merge(features.sessions.routes())
        .merge(features.weavers.routes())
        .merge(features.scm.routes(features.jobs.clone()))
        .merge(features.docs.routes())
        .merge(features.notify.routes(features.auth.audit()))
        .merge(features.jobs.routes(features.auth.audit(), Arc::new(ByKeys(features.auth.clone()))))
        .merge(
            features.logs.routes(features.auth.audit(), Arc::new(ByKeys(features.auth.clone()))),
        );
    let (native, mut document) = native.split_for_parts();
    let (many, live_document) = live::routes(native.clone()).split_for_parts();
    document.merge(live_document);
    document.merge(llm_document);
    document.merge(uploads_document);
    document.merge(waiting_document);
    let (session_capture, capture_document) = features.sessions.capture_routes().split_for_parts();
    document.merge(capture_document);
    let native = native
        .merge(many)
        .merge(meta::document_routes(&document))
        .merge(loom_dashboard::routes())
        .layer(middleware::from_fn_with_state(config.http.request_timeout, layers::time_limit))
        .layer(CompressionLayer::new());
    let outermost = Outermost {
        clock,
        auth: features.auth.clone(),
        proxies: config.http.proxies.clone(),
        sampler,
    };
    let router = native
        .merge(llm)
        .merge(uploads)
        .merge(waiting)
        .merge(features.scm.git_routes())
        .fallback(layers::no_such_route)
        .method_not_allowed_fallback(layers::wrong_method)
        .layer(cors(&config.http))
        // What applications send, from any page that their project allows: origins of its own.
        .merge(features.ingest.routes())
        .merge(features.crashes.cli_routes())
        .merge(features.crons.ping_routes())
        .merge(session_capture)
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
    ending: Ending,
    /// Between not being ready and the end.
    delay: Duration,
    serving: JoinHandle<()>,
    exporter: Option<Exporter>,
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
    let listener = match service_manager::listener().context("LISTEN_FDS")? {
        Some(listener) => TcpListener::from_std(listener)?,
        None => TcpListener::bind(wanted).await.with_context(|| {
            format!(
                "cannot listen on {wanted}; set LOOM_SERVER_HOST and LOOM_SERVER_PORT to what is free"
            )
        })?,
    };
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
    features.notify.start(&features.hub);
    let health = Health::new(clock.clone(), features.checks(&database, config, &clock));
    let gauges = Gauges::new(&features, &health, &database);
    let (exporter, sampler) = otlp::start(&config.otlp, gauges, &clock)?.unzip();
    let (router, _) = routes(&features, &health, &database, config, clock, sampler);
    features.jobs.start_clock().await?;
    features.logs.serve(address).await;
    if config.self_monitoring {
        features.report_own_errors(config.production);
    }
    let ending = Ending { stop_streams, grace: http.shutdown_grace, ..Ending::default() };
    tokio::spawn(meta::keep_up(metrics, ending.stop.clone()));
    let serving =
        tokio::spawn(accept::serve(listener, router, http.max_connections, ending.clone()));
    let delay = http.shutdown_delay;
    Ok(Running { address, features, health, database, ending, delay, serving, exporter })
}

impl Running {
    pub fn database(&self) -> &Database {
        &self.database
    }

    /// Not ready, no new connections, streams told to come again elsewhere, running requests to their end,
    /// background work stopped, everything written, database closed: in this order.
    pub async fn shut_down(self) {
        self.health.drain();
        self.ending.leaving.store(true, Ordering::Relaxed);
        if !self.delay.is_zero() {
            tracing::info!(seconds = self.delay.as_secs(), "not ready any more; still answering");
            tokio::time::sleep(self.delay).await;
        }
        self.ending.stop.cancel();
        // Who is sent away now does not come back to this server.
        self.ending.closed.cancelled().await;
        self.features.logs.end_streams();
        self.features.llm.end_streams();
        self.features.threads.end_streams();
        self.features.crashes.end_streams();
        self.features.crons.end_streams();
        self.features.sessions.end_streams();
        self.features.weavers.end_streams();
        self.features.jobs.end_streams();
        if let Err(error) = self.serving.await {
            tracing::error!(%error, "the accept loop ended badly");
        }
        self.features.close(self.ending.grace).await;
        if let Some(exporter) = self.exporter {
            exporter.close(self.ending.grace.clamp(Duration::from_secs(1), LAST_EXPORT)).await;
        }
        self.database.close().await;
    }
}
