//! Artifacts: what symbolication reads. Contents lie once for each organisation in the object store, under
//! names that are used once; rows say what they are and what finds them.

mod again;
mod assemble;
mod cache;
mod chunks;
mod cleanup;
pub(crate) mod config;
mod files;
pub(crate) mod http;
pub(crate) mod model;
mod objects;
mod recognise;
mod store;
mod turns;

use std::{path::PathBuf, sync::Arc};

use bytes::Bytes;
use chrono::TimeDelta;
use futures::Stream;
use loom_core::{
    Clock, Error, Result,
    id::{ArtifactId, OrgId, ProjectId},
    port::Project,
};
use loom_db::{Announcer, Signal};
use loom_symbolication::Malformed;
use sqlx::{PgConnection, PgPool};
use tokio::sync::Semaphore;
use uuid::Uuid;

use crate::Crashes;

pub(crate) use assemble::{Assembly, State};
use cache::Cache;
pub(crate) use chunks::{CHUNK, SHARE};
pub(crate) use cleanup::job;
use config::Config;
use model::{About, Artifact, ArtifactObject};
use objects::{Objects, Staged, drain};
use recognise::{Recognised, recognise};
use turns::Turns;

/// Contents that nothing refers to are kept for so long; nothing that is still being uploaded takes longer.
const GRACE: TimeDelta = TimeDelta::hours(24);
/// Files that come in at the same time, each with its parts in memory; half of them of one organisation.
const UPLOADS: usize = 8;
/// Names and addresses of one file.
const MOST_OBJECTS: i64 = 1_000;
/// Files that are looked into at the same time.
const LOOKING: usize = 2;

/// The handle; cheap to clone.
#[derive(Clone)]
pub(crate) struct Artifacts(Arc<Inner>);

pub(crate) struct Inner {
    pool: PgPool,
    clock: Clock,
    announcer: Announcer,
    config: Config,
    objects: Objects,
    cache: Cache,
    looking: Semaphore,
    assembling: Semaphore,
    /// Requests that bring pieces.
    pub(crate) chunks: Turns,
    /// Requests that bring whole files.
    pub(crate) uploads: Turns,
}

impl std::ops::Deref for Artifacts {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl Artifacts {
    pub(crate) fn new(pool: PgPool, clock: Clock, announcer: Announcer, config: Config) -> Self {
        Self(Arc::new(Inner {
            objects: Objects::new(config.place.clone()),
            cache: Cache::new(config.cache_dir.clone(), config.cache_bytes),
            pool,
            clock,
            announcer,
            config,
            looking: Semaphore::new(LOOKING),
            assembling: Semaphore::new(assemble::PARALLEL),
            chunks: Turns::new("the upload of chunks", chunks::PARALLEL, SHARE),
            uploads: Turns::new("the upload of artifacts", UPLOADS, UPLOADS / 2),
        }))
    }

    pub(crate) async fn probe(&self) -> Result<(), String> {
        self.objects.probe(loom_core::id::new_uuid(self.clock.now())).await
    }

    pub(crate) fn max_bytes(&self) -> u64 {
        self.config.max_bytes
    }

    /// A content as it comes in, into the store.
    async fn stage(
        &self,
        project: &Project,
        pieces: impl Stream<Item = Result<Bytes>>,
    ) -> Result<Staged> {
        let now = self.clock.now();
        let location = Objects::name("files", project.org, loom_core::id::new_uuid(now));
        store::reserve(&self.pool, &location, now + GRACE).await?;
        let mut upload = self.objects.upload(&location, self.config.max_bytes).await?;
        match drain(&mut upload, pieces).await {
            Ok(()) => upload.finish().await,
            Err(error) => {
                upload.abort().await;
                self.discard(&location).await;
                Err(error)
            }
        }
    }

    /// An attachment of an event into the store. No row refers to it before it is settled.
    pub(crate) async fn put_attachment(&self, org: OrgId, content: Bytes) -> Result<String> {
        let now = self.clock.now();
        let location = Objects::name("attachments", org, loom_core::id::new_uuid(now));
        store::reserve(&self.pool, &location, now + GRACE).await?;
        self.objects.put(&location, content).await?;
        Ok(location)
    }

    /// Whether a row refers to it from now on.
    pub(crate) async fn settle_attachment(
        &self,
        db: &mut PgConnection,
        location: &str,
        is_used: bool,
    ) -> Result<()> {
        if is_used {
            store::keep(db, location).await
        } else {
            store::release(db, location).await.map(drop)
        }
    }

    pub(crate) async fn read_attachment(&self, location: &str) -> Result<Bytes> {
        self.objects.get(location).await
    }

    pub(crate) async fn stream_attachment(
        &self,
        location: &str,
    ) -> Result<impl Stream<Item = object_store::Result<Bytes>> + Send + use<>> {
        self.objects.stream(location).await
    }

    /// Takes back what was staged. What fails here is made up for by the clean-up.
    async fn discard(&self, location: &str) {
        let removed = async {
            let mut db = self.pool.acquire().await?;
            // Not when a commit went through whose answer was lost: then it is an artifact.
            if store::release(&mut db, location).await? {
                drop(db);
                self.objects.remove(location).await?;
            }
            Ok::<_, Error>(())
        };
        if let Err(error) = removed.await {
            tracing::debug!(%error, "a staged file stays until the clean-up");
        }
    }

    /// Makes a staged file an artifact of a project. The artifact, and whether it is new.
    ///
    /// # Errors
    /// 422 for what is no artifact.
    pub(crate) async fn finish(
        &self,
        project: &Project,
        staged: Staged,
        about: About,
    ) -> Result<(Artifact, bool)> {
        let done = async {
            let about = about.check()?;
            let found = self
                .look(&staged.location, &about)
                .await?
                .map_err(|error| Error::invalid("file", format!("this is no artifact: {error}")))?;
            self.register(project, &Content::New(&staged), &found, &about).await
        };
        match done.await {
            Ok((id, is_new)) => {
                let stored = store::find(&self.pool, project.org, project.id, id).await?;
                Ok((stored.ok_or_else(|| Error::not_found("artifact"))?, is_new))
            }
            Err(error) => {
                self.discard(&staged.location).await;
                Err(error)
            }
        }
    }

    /// An artifact with some of what it is found by.
    pub(crate) async fn detail(
        &self,
        project: &Project,
        id: ArtifactId,
    ) -> Result<Option<(Artifact, Vec<ArtifactObject>)>> {
        let artifact = store::find(&self.pool, project.org, project.id, id).await?;
        let (objects, _) = store::objects(&self.pool, project.org, id).await?;
        Ok(artifact.map(|artifact| (artifact, objects)))
    }

    /// Looks into a file of the store.
    async fn look(&self, location: &str, about: &About) -> Result<Result<Recognised, Malformed>> {
        let path = self.local(location).await?;
        let _turn = self.looking.acquire().await.map_err(Error::internal)?;
        let about = about.clone();
        tokio::task::spawn_blocking(move || recognise(&path, &about)).await.map_err(Error::internal)
    }

    /// The file of a location on this machine.
    async fn local(&self, location: &str) -> Result<PathBuf> {
        match self.objects.here(location) {
            Some(path) => Ok(path),
            None => {
                let (objects, from) = (self.objects.clone(), location.to_owned());
                let key = location.replace('/', "-");
                self.cache
                    .get(&key, |path| async move { objects.copy_to(&from, &path).await })
                    .await
            }
        }
    }

    /// Writes the rows of an artifact. Its id, and whether it is new.
    async fn register(
        &self,
        project: &Project,
        content: &Content<'_>,
        found: &Recognised,
        about: &About,
    ) -> Result<(ArtifactId, bool)> {
        let now = self.clock.now();
        let (sha256, size): (&[u8], _) = match content {
            Content::New(staged) => {
                (&staged.sha256, i64::try_from(staged.size).unwrap_or(i64::MAX))
            }
            Content::There(blob) => (&blob.sha256, blob.size),
        };
        let mut tx = loom_db::begin(&self.pool).await?;
        let mut superfluous = None;
        match content {
            Content::New(staged) => {
                if !store::take_blob(&mut tx, project.org, staged, now).await? {
                    superfluous = Some(&staged.location);
                }
            }
            Content::There(blob) => {
                if !store::hold_blob(&mut tx, project.org, &blob.sha256, now).await? {
                    return Err(Error::unavailable(
                        "the file was removed meanwhile; send it again",
                    ));
                }
            }
        }
        let new = store::NewArtifact {
            org: project.org,
            project: project.id,
            sha256,
            kind: found.kind,
            name: about.name.as_deref().unwrap_or("file"),
            size,
            release: about.release.as_deref().or(found.release.as_deref()).unwrap_or_default(),
            dist: about.dist.as_deref().or(found.dist.as_deref()).unwrap_or_default(),
            uploaded_by: about.uploaded_by.as_deref(),
            now,
        };
        let (id, is_new) = store::insert(&mut tx, &new).await?;
        // The same file may be served at another address, or be said to have another id. What is in a bundle
        // is known by its content.
        let added = if is_new || found.objects.iter().all(|object| object.entry.is_none()) {
            store::insert_objects(&mut tx, project.org, project.id, id, &found.objects).await?
        } else {
            0
        };
        if added > 0 && !is_new && store::count_objects(&mut tx, id).await? > MOST_OBJECTS {
            return Err(Error::invalid(
                "url",
                format!("the file is known at {MOST_OBJECTS} addresses already"),
            ));
        }
        tx.commit().await?;
        if let Some(location) = superfluous {
            self.discard(location).await;
        }
        // Whoever looked for it in vain is to look again.
        self.announcer.say(format!("artifacts {}", project.id));
        metrics::counter!("loom_crash_artifacts_total").increment(u64::from(is_new));
        Ok((id, is_new))
    }
}

/// What an artifact is made of.
enum Content<'a> {
    New(&'a Staged),
    There(store::Blob),
}

/// Has symbolication look again for what was not there, whoever took the upload.
pub(crate) fn follow(crashes: &Crashes) {
    let (symbolicator, stop) = (crashes.symbolicator.clone(), crashes.deps.stop.clone());
    crashes.deps.hub.follow(crate::CHANNEL, stop, move |signal| match signal {
        Signal::Said(word) => {
            if let Some(project) = heard(&word) {
                symbolicator.uploaded(project);
            }
        }
        // What was missed is not known.
        Signal::ReadAgain => symbolicator.uploads_missed(),
    });
}

/// The project that a word of [`crate::CHANNEL`] says has new artifacts.
fn heard(word: &str) -> Option<ProjectId> {
    word.strip_prefix("artifacts ").and_then(|id| id.parse::<Uuid>().ok()).map(ProjectId)
}
