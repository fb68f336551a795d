//! Projects, releases and events for other features: no state but a cache of keys and projects.

mod cache;
mod store;

use std::{collections::HashMap, sync::Arc};

use loom_core::{
    Result,
    id::{OrgId, ProjectId},
    port::{
        BoxFuture, CrashDirectory, DsnKey, Project, ProjectDirectory, ReleaseFacts, TracedEvent,
    },
};
use loom_db::{Hub, Signal};
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

use cache::Cached;
pub(crate) use store::ProjectSettings;

/// How a word on the channel begins that is about projects and keys.
pub(crate) const WORD: &str = "projects ";
/// Keys that are there, and those that somebody made up.
const KEYS: u64 = 100_000;
const STRANGERS: u64 = 10_000;
const PROJECTS: u64 = 50_000;

/// The handle; cheap to clone.
#[derive(Clone)]
pub struct Directory(Arc<Inner>);

struct Inner {
    pool: PgPool,
    hub: Hub,
    keys: Cached<String, DsnKey>,
    /// By what a path names them.
    named: Cached<(OrgId, String), Project>,
    settings: Cached<ProjectId, ProjectSettings>,
}

impl Directory {
    pub fn new(pool: PgPool, hub: Hub) -> Self {
        Self(Arc::new(Inner {
            pool,
            hub,
            keys: Cached::new(KEYS, STRANGERS),
            named: Cached::new(PROJECTS, STRANGERS),
            settings: Cached::new(PROJECTS, STRANGERS),
        }))
    }

    /// Forgets what other replicas say has changed, until stopped.
    pub(crate) fn follow(&self, stop: CancellationToken) {
        let directory = self.clone();
        self.0.hub.follow(crate::CHANNEL, stop, move |signal| match signal {
            Signal::Said(word) if !word.starts_with(WORD) => {}
            Signal::Said(_) | Signal::ReadAgain => directory.forget(),
        });
    }

    /// All of it: projects change seldom.
    pub(crate) fn forget(&self) {
        self.0.keys.forget();
        self.0.named.forget();
        self.0.settings.forget();
    }

    /// What processing needs of a project; none of one that is gone.
    pub(crate) async fn settings(
        &self,
        project: ProjectId,
    ) -> Result<Option<Arc<ProjectSettings>>> {
        self.0.settings.get(project, |id| store::settings(&self.0.pool, id)).await
    }
}

impl ProjectDirectory for Directory {
    fn by_key<'a>(&'a self, public_key: &'a str) -> BoxFuture<'a, Result<Option<Arc<DsnKey>>>> {
        Box::pin(async move {
            let is_key = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
            if public_key.len() != 32 || !public_key.bytes().all(is_key) {
                return Ok(None);
            }
            let load = |key: String| async move { store::by_key(&self.0.pool, &key).await };
            self.0.keys.get(public_key.to_owned(), load).await
        })
    }

    fn find<'a>(
        &'a self,
        org: OrgId,
        project: &'a str,
    ) -> BoxFuture<'a, Result<Option<Arc<Project>>>> {
        Box::pin(async move {
            // No name is so long.
            if project.len() > 64 || project.contains('\0') {
                return Ok(None);
            }
            let load = |(org, name): (OrgId, String)| async move {
                store::find(&self.0.pool, org, &name).await
            };
            self.0.named.get((org, project.to_owned()), load).await
        })
    }
}

impl CrashDirectory for Directory {
    fn releases<'a>(
        &'a self,
        project: &'a Project,
        versions: &'a [String],
    ) -> BoxFuture<'a, Result<HashMap<String, ReleaseFacts>>> {
        Box::pin(crate::releases::facts::of(&self.0.pool, project, versions))
    }

    fn of_trace<'a>(
        &'a self,
        org: OrgId,
        trace_id: &'a str,
    ) -> BoxFuture<'a, Result<Vec<TracedEvent>>> {
        Box::pin(store::of_trace(&self.0.pool, org, trace_id))
    }
}
