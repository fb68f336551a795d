//! Short-lived Kubernetes pods in which agents run.

mod access;
mod cluster;
mod config;
mod draft;
mod health;
mod identity;
mod image;
mod model;
mod network;
mod quantity;
mod store;
mod stream;
mod tell;

use std::sync::Arc;

use loom_core::{
    Clock,
    port::{Audit, OrgDirectory, Reauthenticate, WeaverTokens},
};
use loom_db::{Announcer, Hub};
use loom_notify::Notify;
use loom_vault::Vault;
use sha2::{Digest, Sha256};
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;
use utoipa_axum::router::OpenApiRouter;

pub use config::Config;
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
    /// How this installation calls itself on its pods: the same as long as its master key is.
    installation: String,
    announcer: Announcer,
    /// Ends the streams, and the tasks.
    leaving: CancellationToken,
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
        let key = deps.vault.derive("weavers")?;
        let digest = Sha256::digest(key.expose().as_bytes());
        let installation =
            digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect::<String>();
        let announcer = Announcer::new(deps.pool.clone(), CHANNEL);
        let leaving = deps.stop.child_token();
        Ok(Self(Arc::new(Inner { deps, config, installation, announcer, leaving })))
    }

    /// Begins to watch the cluster.
    ///
    /// # Errors
    /// When weavers are on and the namespace or a permission is missing; the message is for the operator.
    pub async fn start(&self) -> loom_core::Result<()> {
        self.announcer.start();
        Ok(())
    }

    /// Says good-bye to all who watch.
    pub fn end_streams(&self) {
        self.leaving.cancel();
    }

    /// Pods go on: the next server takes them over.
    pub async fn close(&self) {
        self.announcer.stop().await;
    }

    pub fn jobs(&self) -> Vec<loom_jobs::Job> {
        Vec::new()
    }

    pub fn routes(&self) -> OpenApiRouter {
        OpenApiRouter::new()
    }
}
