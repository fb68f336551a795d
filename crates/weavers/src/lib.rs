//! Short-lived Kubernetes pods in which agents run.

mod access;
mod canary;
mod cluster;
mod config;
mod directory;
mod draft;
mod enter;
mod health;
mod http;
mod identity;
mod image;
mod jobs;
mod logs;
mod model;
mod network;
mod pod;
mod quantity;
mod reconcile;
mod spending;
mod store;
mod stream;
mod tell;
mod upkeep;
mod view;

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use ::http::StatusCode;
use axum::middleware;
use loom_core::{
    Clock, Error,
    port::{Audit, OrgDirectory, Reauthenticate, Spend, WeaverTokens},
    principal,
};
use loom_db::{Announcer, Hub};
use loom_notify::Notify;
use loom_vault::Vault;
use sha2::{Digest, Sha256};
use sqlx::PgPool;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use utoipa_axum::{router::OpenApiRouter, routes};

use cluster::Cluster;
use health::Access;
use logs::Logs;
use reconcile::Inbox;

pub use config::Config;
pub use directory::Directory;
pub use health::METRICS;
pub use model::{Event, Network, Status};

/// What replicas tell each other: `row …` (ids of weavers that changed), `stream …` (what watchers are told,
/// as JSON).
pub const CHANNEL: &str = "loom_weavers";

/// What the feature is given.
#[derive(Clone)]
pub struct Deps {
    pub pool: PgPool,
    pub clock: Clock,
    pub hub: Hub,
    pub vault: Arc<Vault>,
    pub notify: Notify,
    pub audit: Arc<dyn Audit>,
    pub orgs: Arc<dyn OrgDirectory>,
    /// Asks again who watches.
    pub who: Arc<dyn Reauthenticate>,
    pub tokens: Arc<dyn WeaverTokens>,
    pub spend: Arc<dyn Spend>,
    /// The name of this server among its replicas.
    pub replica: String,
    /// Ends all running streams.
    pub stop: CancellationToken,
}

/// The feature, as the server holds it; cheap to clone.
#[derive(Clone)]
pub struct Weavers(Arc<Inner>);

/// What the handle holds.
#[doc(hidden)]
pub struct Inner {
    deps: Deps,
    config: Config,
    /// How this installation calls itself on its pods: the same as long as its master key is, and the one before.
    installation: String,
    announcer: Announcer,
    /// Ends the streams.
    leaving: CancellationToken,
    seats: loom_core::sse::Seats,
    /// Commands and terminals that run.
    inside: enter::Places,
    kept: upkeep::Kept,
    /// Ends what looks after the cluster.
    closing: CancellationToken,
    keeper: Mutex<Option<JoinHandle<()>>>,
    /// As which this server holds the lease.
    holder: String,
    inbox: Inbox,
    cluster: OnceLock<Cluster>,
    access: Access,
    logs: Logs,
}

impl std::ops::Deref for Weavers {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl Weavers {
    /// # Errors
    /// When the vault gives no key.
    pub fn new(deps: Deps, config: Config) -> loom_core::Result<Self> {
        let key = deps.vault.derive_lasting("weavers")?;
        let digest = Sha256::digest(key.expose().as_bytes());
        let installation =
            digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect::<String>();
        let announcer = Announcer::new(deps.pool.clone(), CHANNEL);
        let leaving = deps.stop.child_token();
        let holder = format!("{} {:016x}", deps.replica, rand::random::<u64>());
        let logs = Logs::new(&deps, config.log_mib);
        Ok(Self(Arc::new(Inner {
            deps,
            config,
            installation,
            announcer,
            leaving,
            seats: loom_core::sse::Seats::new(stream::PLACES),
            inside: enter::Places::default(),
            kept: upkeep::Kept::default(),
            closing: CancellationToken::new(),
            keeper: Mutex::default(),
            holder,
            inbox: Inbox::default(),
            cluster: OnceLock::new(),
            access: Access::default(),
            logs,
        })))
    }

    /// Begins to watch the cluster.
    ///
    /// # Errors
    /// When weavers are on and the namespace or a permission is missing; the message is for the operator.
    pub async fn start(&self) -> loom_core::Result<()> {
        self.announcer.start();
        if !self.config.enabled {
            return Ok(());
        }
        let cluster = Cluster::new(&self.config).await.map_err(health::not_set_up)?;
        self.look_before_start(&cluster).await?;
        let _ = self.cluster.set(cluster.clone());
        self.logs.connect(cluster.clone());
        let keeper = tokio::spawn(self.clone().keep(cluster));
        *self.keeper.lock().unwrap_or_else(PoisonError::into_inner) = Some(keeper);
        Ok(())
    }

    /// The way to the cluster.
    ///
    /// # Errors
    /// 503 when weavers are off.
    pub(crate) fn cluster(&self) -> loom_core::Result<&Cluster> {
        self.cluster.get().ok_or_else(|| {
            Error::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "feature_disabled",
                "this server runs no weavers: LOOM_SERVER_WEAVER_ENABLED is not set",
            )
        })
    }

    /// Says good-bye to all who watch.
    pub fn end_streams(&self) {
        self.leaving.cancel();
    }

    /// Pods go on: the next server takes them over.
    pub async fn close(&self) {
        self.closing.cancel();
        let keeper = self.keeper.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(keeper) = keeper {
            let _ = keeper.await;
            match store::lease::leave(&self.deps.pool, &self.installation, &self.holder).await {
                Ok(()) => self.announcer.say(reconcile::FREE.to_owned()),
                Err(error) => {
                    tracing::debug!(%error, "the next to watch the cluster waits for our lease");
                }
            }
        }
        self.announcer.stop().await;
    }

    pub fn jobs(&self) -> Vec<loom_jobs::Job> {
        jobs::all(self)
    }

    /// What waits for the cluster for as long as its caller says: with limits of its own.
    pub fn waiting_routes(&self) -> OpenApiRouter {
        OpenApiRouter::new()
            .routes(routes!(http::create::create_weaver))
            .routes(routes!(enter::exec::exec))
            .route_layer(middleware::from_fn(principal::required))
            .with_state(self.clone())
    }

    pub fn routes(&self) -> OpenApiRouter {
        OpenApiRouter::new()
            .routes(routes!(http::read::list_weavers))
            .routes(routes!(http::watch::watch_weavers))
            .routes(routes!(http::change::clean_up_weavers))
            .routes(routes!(
                http::read::get_weaver,
                http::change::patch_weaver,
                http::change::delete_weaver
            ))
            .routes(routes!(http::read::get_timeline))
            .merge(logs::routes())
            .route_layer(middleware::from_fn(principal::required))
            // Who cannot send a credential with the handshake sends it as the first message.
            .routes(routes!(enter::attach::attach))
            .with_state(self.clone())
    }
}
