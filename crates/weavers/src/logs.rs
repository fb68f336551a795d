//! What containers say: followed by the one who watches the cluster, masked, kept, and readable after the pod.

mod follow;
mod http;
mod line;
mod store;
mod stream;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use loom_core::{Clock, Error, Result, id::WeaverId};
use sqlx::PgPool;
use tokio::{
    sync::{Semaphore, broadcast},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;
use utoipa_axum::router::OpenApiRouter;

use crate::{
    Deps, Weavers,
    cluster::Cluster,
    model::Row,
    pod::{CLONE, CONTAINER},
};
use follow::Reader;

/// Chunks that are written at the same time: logs never take the database from those who wait for an answer.
const WRITERS: usize = 4;
/// Of the last read before a pod goes, all tries together.
const LAST_READ: Duration = Duration::from_secs(30);
/// Who is told that there is more to read, before it must look again.
const SAID: usize = 1024;

/// Cheap to clone.
#[derive(Clone)]
pub(crate) struct Logs(Arc<Inner>);

pub(crate) struct Inner {
    pool: PgPool,
    clock: Clock,
    cluster: OnceLock<Cluster>,
    /// Bytes that are kept of a weaver.
    most: i64,
    writers: Semaphore,
    followers: Mutex<HashMap<WeaverId, Follower>>,
    /// Whose log has grown, for those who read it on this server.
    said: broadcast::Sender<WeaverId>,
}

struct Follower {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl std::ops::Deref for Logs {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl Logs {
    pub(crate) fn new(deps: &Deps, most_mib: i64) -> Self {
        Self(Arc::new(Inner {
            pool: deps.pool.clone(),
            clock: deps.clock.clone(),
            cluster: OnceLock::new(),
            most: most_mib.saturating_mul(1024 * 1024),
            writers: Semaphore::new(WRITERS),
            followers: Mutex::default(),
            said: broadcast::Sender::new(SAID),
        }))
    }

    /// To be called before anything is followed.
    pub(crate) fn connect(&self, cluster: Cluster) {
        let _ = self.cluster.set(cluster);
    }

    pub(crate) fn is_followed(&self, id: WeaverId) -> bool {
        self.lock().get(&id).is_some_and(|follower| !follower.task.is_finished())
    }

    /// Begins to follow what runs, unless it is followed already.
    pub(crate) fn follow(&self, row: &Row, container: &'static str) {
        let runs = row.started_at.is_some() && row.exited_at.is_none() && row.ended_at.is_none();
        let Some(cluster) = self.cluster.get().filter(|_| runs) else { return };
        let mut followers = self.lock();
        if followers.get(&row.id).is_some_and(|follower| !follower.task.is_finished()) {
            return;
        }
        let stop = CancellationToken::new();
        let reader = Reader::new(self.clone(), cluster.clone(), row);
        let has_clone = row.spec.repo.is_some();
        let task = tokio::spawn(reader.follow(container, has_clone, stop.clone()));
        followers.insert(row.id, Follower { stop, task });
    }

    pub(crate) fn stop(&self, id: WeaverId) {
        if let Some(follower) = self.lock().remove(&id) {
            follower.stop.cancel();
        }
    }

    pub(crate) fn stop_all(&self) {
        for (_, follower) in self.lock().drain() {
            follower.stop.cancel();
        }
    }

    /// Reads all that was said and is not kept yet; nothing more comes after it.
    ///
    /// # Errors
    /// When the cluster or the database did not let it.
    pub(crate) async fn read_rest(&self, row: &Row) -> Result<()> {
        let follower = self.lock().remove(&row.id);
        if let Some(Follower { stop, mut task }) = follower {
            stop.cancel();
            if tokio::time::timeout(Duration::from_secs(5), &mut task).await.is_err() {
                task.abort();
            }
        }
        let Some(cluster) = self.cluster.get() else { return Ok(()) };
        let read = async {
            let mut reader = Reader::new(self.clone(), cluster.clone(), row);
            if row.spec.repo.is_some() {
                reader.rest(CLONE).await?;
            }
            reader.rest(CONTAINER).await
        };
        let read = tokio::time::timeout(LAST_READ, read).await;
        let read = read.unwrap_or_else(|_| Err(Error::internal("its log took too long to read")));
        if row.pod_uid.is_some() {
            store::complete(&self.pool, row.id).await?;
            let _ = self.said.send(row.id);
        }
        read
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<WeaverId, Follower>> {
        self.followers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(crate) fn routes() -> OpenApiRouter<Weavers> {
    OpenApiRouter::new().routes(utoipa_axum::routes!(http::get_logs))
}
