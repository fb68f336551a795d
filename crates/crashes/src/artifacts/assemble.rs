//! Files put together of pieces. What is asked for is a row, so that any server answers how far it is, and
//! another goes on when the one that worked on it is gone.

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};
use loom_core::{
    Error, Result,
    id::{ArtifactId, ProjectId},
    port::Project,
};
use sqlx::PgPool;

use super::{
    Artifacts, Content, GRACE,
    chunks::{self, Checksum},
    model::{About, What},
    objects::{Objects, Staged},
    store,
};

/// Files that are put together at the same time.
pub(super) const PARALLEL: usize = 2;
/// Whoever works on one says so this often, and is taken for gone after the lease.
const RENEWAL: Duration = Duration::from_secs(20);
const LEASE: TimeDelta = TimeDelta::seconds(60);
/// A failure is told for so long; then it is tried again.
const FAILED: TimeDelta = TimeDelta::seconds(60);

/// A file that is to be put together.
#[derive(Clone, Debug)]
pub(crate) struct Assembly {
    /// Of the whole file.
    pub(crate) sha1: Checksum,
    pub(crate) chunks: Vec<Checksum>,
    pub(crate) about: About,
}

/// How far it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// These pieces are wanted.
    Missing(Vec<Checksum>),
    /// It will be put together.
    Created,
    Assembling,
    Done(ArtifactId),
    Failed(String),
}

impl Artifacts {
    /// Begins to put a file together, or says how far it is.
    pub(crate) async fn assemble(
        &self,
        project: &Arc<Project>,
        assembly: Assembly,
    ) -> Result<State> {
        let now = self.clock.now();
        let known = self.progress(project.id, &assembly, now).await?;
        // The same mapping may have been made by another build, which gave it another id.
        let is_other = match &known {
            Some(State::Done(id)) => self.lacks_id(project, *id, &assembly).await?,
            _ => false,
        };
        if let (Some(state), false) = (known, is_other) {
            return Ok(state);
        }
        if store::blob_by_sha1(&self.pool, project.org, &assembly.sha1).await?.is_none() {
            if assembly.chunks.is_empty() {
                return Ok(State::Missing(Vec::new()));
            }
            let there = chunks::touch(&self.pool, project.org, &assembly.chunks, now).await?;
            let missing: Vec<_> =
                assembly.chunks.iter().filter(|sum| !there.contains_key(*sum)).copied().collect();
            if !missing.is_empty() {
                return Ok(State::Missing(missing));
            }
            let size: u64 = assembly
                .chunks
                .iter()
                .filter_map(|sum| there.get(sum))
                .map(|chunk| u64::try_from(chunk.size).unwrap_or_default())
                .sum();
            if size > self.config.max_bytes {
                return Ok(State::Failed(format!(
                    "the file has {size} bytes, and at most {} are taken",
                    self.config.max_bytes
                )));
            }
        }
        if claim(&self.pool, project, &assembly, now).await? {
            let (artifacts, project) = (self.clone(), Arc::clone(project));
            tokio::spawn(async move { artifacts.work(&project, &assembly).await });
        }
        Ok(State::Created)
    }

    /// Whether a mapping is there, and not by this id.
    async fn lacks_id(
        &self,
        project: &Project,
        id: ArtifactId,
        assembly: &Assembly,
    ) -> Result<bool> {
        let Some(wanted) = &assembly.about.debug_id else { return Ok(false) };
        let (objects, _) = store::objects(&self.pool, project.org, id).await?;
        let is_mapping = objects.iter().any(|object| object.what == What::Mapping);
        Ok(is_mapping && objects.iter().all(|object| object.debug_id.as_ref() != Some(wanted)))
    }

    /// What the row says; none when there is none, or one that is to be taken up again.
    async fn progress(
        &self,
        project: ProjectId,
        assembly: &Assembly,
        now: DateTime<Utc>,
    ) -> Result<Option<State>> {
        let row = sqlx::query!(
            r#"SELECT state, detail, artifact_id AS "artifact_id: ArtifactId", claimed_until, updated_at
                 FROM crash_assemblies
                WHERE project_id = $1 AND sha1 = $2 AND release = $3 AND dist = $4"#,
            project.0,
            &assembly.sha1,
            assembly.release(),
            assembly.dist()
        )
        .fetch_optional(&self.pool)
        .await?;
        let Some(row) = row else { return Ok(None) };
        let is_claimed = row.claimed_until.is_some_and(|until| until > now);
        Ok(match (row.state.as_str(), row.artifact_id) {
            ("ok", Some(artifact)) => Some(State::Done(artifact)),
            ("error", _) if row.updated_at + FAILED > now => {
                Some(State::Failed(row.detail.unwrap_or_default()))
            }
            ("created", _) if is_claimed => Some(State::Created),
            ("assembling", _) if is_claimed => Some(State::Assembling),
            _ => None,
        })
    }

    /// Puts the file together, and keeps the lease meanwhile.
    async fn work(&self, project: &Project, assembly: &Assembly) {
        let done = {
            let mut work = std::pin::pin!(self.put_together(project, assembly));
            loop {
                tokio::select! {
                    done = &mut work => break done,
                    () = tokio::time::sleep(RENEWAL) => {
                        let until = self.clock.now() + LEASE;
                        if let Err(error) = renew(&self.pool, project.id, assembly, until).await {
                            tracing::debug!(%error, "the lease of an assembly could not be renewed");
                        }
                    }
                }
            }
        };
        let now = self.clock.now();
        let told = match done {
            Ok(id) => end(&self.pool, project.id, assembly, Some(id), None, now).await,
            Err(error) if error.status().is_server_error() => {
                tracing::warn!(cause = error.cause(), %error, "a file could not be put together");
                forget(&self.pool, project.id, assembly).await
            }
            Err(error) => {
                end(&self.pool, project.id, assembly, None, Some(error.detail()), now).await
            }
        };
        if let Err(error) = told {
            tracing::warn!(%error, "how an assembly ended could not be stored");
        }
    }

    async fn put_together(&self, project: &Project, assembly: &Assembly) -> Result<ArtifactId> {
        let _turn = self.assembling.acquire().await.map_err(Error::internal)?;
        begin(&self.pool, project.id, assembly, self.clock.now()).await?;
        let known = store::blob_by_sha1(&self.pool, project.org, &assembly.sha1).await?;
        let about = assembly.about.clone().check()?;
        if let Some(blob) = known {
            let location = blob.location.clone();
            let found = self.look(&location, &about).await?.map_err(|error| is_none(&error))?;
            let (id, _) = self.register(project, &Content::There(blob), &found, &about).await?;
            return Ok(id);
        }
        let staged = self.join(project, assembly).await?;
        let done = async {
            if staged.sha1 != assembly.sha1 {
                return Err(Error::invalid(
                    "checksum",
                    "the chunks put together do not have the checksum of the file",
                ));
            }
            let found =
                self.look(&staged.location, &about).await?.map_err(|error| is_none(&error))?;
            self.register(project, &Content::New(&staged), &found, &about).await
        };
        match done.await {
            Ok((id, _)) => Ok(id),
            Err(error) => {
                self.discard(&staged.location).await;
                Err(error)
            }
        }
    }

    /// The pieces one after the other, one in memory at a time.
    async fn join(&self, project: &Project, assembly: &Assembly) -> Result<Staged> {
        let now = self.clock.now();
        let there = chunks::touch(&self.pool, project.org, &assembly.chunks, now).await?;
        let location = Objects::name("files", project.org, loom_core::id::new_uuid(now));
        store::reserve(&self.pool, &location, now + GRACE).await?;
        let mut upload = self.objects.upload(&location, self.config.max_bytes).await?;
        let written = async {
            for sum in &assembly.chunks {
                let chunk = there
                    .get(sum)
                    .ok_or_else(|| Error::unavailable("a chunk was removed; send it again"))?;
                upload.write(self.objects.get(&chunk.location).await?).await?;
            }
            Ok(())
        };
        match written.await {
            Ok(()) => upload.finish().await,
            Err(error) => {
                upload.abort().await;
                self.discard(&location).await;
                Err(error)
            }
        }
    }
}

fn is_none(error: &loom_symbolication::Malformed) -> Error {
    Error::invalid("", format!("this is no artifact: {error}"))
}

impl Assembly {
    fn release(&self) -> &str {
        self.about.release.as_deref().unwrap_or_default()
    }

    fn dist(&self) -> &str {
        self.about.dist.as_deref().unwrap_or_default()
    }
}

/// Makes it ours to work on, unless somebody is at it.
async fn claim(
    pool: &PgPool,
    project: &Project,
    assembly: &Assembly,
    now: DateTime<Utc>,
) -> Result<bool> {
    let claimed = sqlx::query!(
        "INSERT INTO crash_assemblies AS a
             (org_id, project_id, sha1, release, dist, name, chunks, state, uploaded_by, claimed_until, updated_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, 'created', $8, $9, $10)
         ON CONFLICT (project_id, sha1, release, dist) DO UPDATE
             SET name = EXCLUDED.name, chunks = EXCLUDED.chunks, state = 'created', detail = NULL,
                 artifact_id = NULL, uploaded_by = EXCLUDED.uploaded_by,
                 claimed_until = EXCLUDED.claimed_until, updated_at = EXCLUDED.updated_at
           WHERE a.claimed_until IS NULL OR a.claimed_until <= EXCLUDED.updated_at",
        project.org.0,
        project.id.0,
        &assembly.sha1,
        assembly.release(),
        assembly.dist(),
        assembly.about.name.as_deref().unwrap_or_default(),
        &assembly.chunks.concat(),
        assembly.about.uploaded_by,
        now + LEASE,
        now
    )
    .execute(pool)
    .await?;
    Ok(claimed.rows_affected() > 0)
}

async fn begin(
    pool: &PgPool,
    project: ProjectId,
    assembly: &Assembly,
    now: DateTime<Utc>,
) -> Result<()> {
    sqlx::query!(
        "UPDATE crash_assemblies SET state = 'assembling', claimed_until = $5, updated_at = $6
          WHERE project_id = $1 AND sha1 = $2 AND release = $3 AND dist = $4",
        project.0,
        &assembly.sha1,
        assembly.release(),
        assembly.dist(),
        now + LEASE,
        now
    )
    .execute(pool)
    .await?;
    Ok(())
}

async fn renew(
    pool: &PgPool,
    project: ProjectId,
    assembly: &Assembly,
    until: DateTime<Utc>,
) -> Result<()> {
    sqlx::query!(
        "UPDATE crash_assemblies SET claimed_until = $5
          WHERE project_id = $1 AND sha1 = $2 AND release = $3 AND dist = $4",
        project.0,
        &assembly.sha1,
        assembly.release(),
        assembly.dist(),
        until
    )
    .execute(pool)
    .await?;
    Ok(())
}

async fn end(
    pool: &PgPool,
    project: ProjectId,
    assembly: &Assembly,
    artifact: Option<ArtifactId>,
    detail: Option<&str>,
    now: DateTime<Utc>,
) -> Result<()> {
    sqlx::query!(
        "UPDATE crash_assemblies
            SET state = CASE WHEN $5::uuid IS NULL THEN 'error' ELSE 'ok' END, artifact_id = $5, detail = $6,
                claimed_until = NULL, updated_at = $7
          WHERE project_id = $1 AND sha1 = $2 AND release = $3 AND dist = $4",
        project.0,
        &assembly.sha1,
        assembly.release(),
        assembly.dist(),
        artifact.map(|id| id.0),
        detail,
        now
    )
    .execute(pool)
    .await?;
    Ok(())
}

/// It failed for a reason that goes away: whoever asks again begins anew.
async fn forget(pool: &PgPool, project: ProjectId, assembly: &Assembly) -> Result<()> {
    sqlx::query!(
        "DELETE FROM crash_assemblies WHERE project_id = $1 AND sha1 = $2 AND release = $3 AND dist = $4",
        project.0,
        &assembly.sha1,
        assembly.release(),
        assembly.dist()
    )
    .execute(pool)
    .await?;
    Ok(())
}
