//! Git repositories: created over the API, cloned and pushed over smart HTTP, kept in order by a job.

mod config;
mod disk;
mod git;
pub mod health;
mod http;
mod jobs;
mod maintenance;
mod model;
mod name;
mod session;
mod store;

use std::{
    collections::BTreeMap,
    ops::Deref,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{Router, middleware};
use loom_core::{
    Clock, Error, Result,
    id::RepositoryId,
    port::{Audit, OrgDirectory},
    principal,
};
use loom_jobs::{Job, JobScheduler};
use sqlx::PgPool;
use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use utoipa_axum::{router::OpenApiRouter, routes};

pub use config::Config;
pub use model::{
    Maintenance, MaintenancePage, MaintenanceStatus, MaintenanceTrigger, NewRepository, Repository,
    RepositoryPage, RepositoryPatch, RepositoryView,
};

use disk::Disk;
use model::Repository as Repo;

/// Maintenance by hand that runs at once on one server, beside the job's.
const BY_HAND: usize = 2;
/// Repositories without a directory that health tells of.
const MAX_MISSING: usize = 100;

/// The feature, as the server holds it. Cheap to clone.
#[derive(Clone)]
pub struct Scm(Arc<Inner>);

/// What the handle holds.
#[doc(hidden)]
pub struct Inner {
    pool: PgPool,
    clock: Clock,
    config: Config,
    orgs: Arc<dyn OrgDirectory>,
    audit: Arc<dyn Audit>,
    disk: Disk,
    /// Git processes that serve a client.
    processes: Arc<Semaphore>,
    by_hand: Arc<Semaphore>,
    /// Whose directory was not there when it was wanted.
    missing: Mutex<BTreeMap<RepositoryId, PathBuf>>,
    tasks: TaskTracker,
    /// Clones and pushes end with the streams of the server, maintenance with its background work.
    stop_streams: CancellationToken,
    stop: CancellationToken,
}

impl Deref for Scm {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

/// What the routes that start jobs need.
#[derive(Clone)]
pub(crate) struct Sweeper {
    scm: Scm,
    jobs: JobScheduler,
}

impl Scm {
    pub fn new(
        pool: PgPool,
        clock: Clock,
        config: Config,
        orgs: Arc<dyn OrgDirectory>,
        audit: Arc<dyn Audit>,
        stop_streams: CancellationToken,
    ) -> Self {
        Self(Arc::new(Inner {
            pool,
            clock,
            disk: Disk { root: config.root.clone() },
            processes: Arc::new(Semaphore::new(config.max_processes)),
            by_hand: Arc::new(Semaphore::new(BY_HAND)),
            config,
            orgs,
            audit,
            missing: Mutex::default(),
            tasks: TaskTracker::new(),
            stop_streams,
            stop: CancellationToken::new(),
        }))
    }

    /// The routes under `/api`. They need an `Authentication` in each request.
    pub fn routes(&self, jobs: JobScheduler) -> OpenApiRouter {
        let sweep = OpenApiRouter::new()
            .routes(routes!(http::maintenance::sweep))
            .with_state(Sweeper { scm: self.clone(), jobs });
        OpenApiRouter::new()
            .routes(routes!(http::repos::list_repositories, http::repos::create_repository))
            .routes(routes!(
                http::repos::get_repository,
                http::repos::patch_repository,
                http::repos::delete_repository
            ))
            .routes(routes!(
                http::maintenance::list_maintenance,
                http::maintenance::maintain_repository
            ))
            .with_state(self.clone())
            .merge(sweep)
            .route_layer(middleware::from_fn(principal::required))
    }

    /// What git itself speaks, under `/git`: streams without end, which no time or size limit of other
    /// routes may cut and nothing may compress.
    pub fn git_routes(&self) -> Router {
        http::git::routes(self.clone())
    }

    pub fn jobs(&self) -> Vec<Job> {
        vec![jobs::maintenance(self.clone())]
    }

    /// Stops the maintenance that runs here and waits until its processes are gone.
    pub async fn close(&self) {
        self.stop.cancel();
        self.tasks.close();
        if tokio::time::timeout(Duration::from_secs(10), self.tasks.wait()).await.is_err() {
            tracing::warn!("some git processes did not end in time");
        }
    }

    /// The repository's directory; one that is gone is a fault of the installation, not of the request.
    fn directory(&self, repository: &Repo) -> Result<PathBuf> {
        let path = self.disk.path(repository.org_id, repository.id);
        if path.join("HEAD").is_file() {
            return Ok(path);
        }
        tracing::error!(repository = %repository.id, path = %path.display(), "the directory of a repository is not there");
        let mut missing = self.missing.lock().unwrap_or_else(PoisonError::into_inner);
        if missing.len() < MAX_MISSING {
            missing.insert(repository.id, path);
        }
        Err(Error::unavailable(
            "the directory of this repository is not there just now; all servers must share \
             LOOM_SERVER_DATA_DIR/repos. Tell whoever runs this server",
        )
        .retry_after(Duration::from_secs(60)))
    }
}
