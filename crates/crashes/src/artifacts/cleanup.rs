//! What is not used any more goes: artifacts after their retention, contents and pieces after a grace, and
//! then their objects.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use loom_core::Result;
use loom_jobs::{Job, JobContext, JobError, JobReport};
use sqlx::PgPool;

use super::{Artifacts, GRACE};
use crate::Crashes;

/// Rows of one statement.
const BATCH: i64 = 500;
/// What became of an assembly is told for so long.
const TOLD: TimeDelta = TimeDelta::days(7);

pub(crate) fn job(crashes: &Crashes) -> Job {
    let artifacts = crashes.artifacts.clone();
    Job::new(
        "artifact-cleanup",
        "Artifact clean-up",
        "Removes artifacts that were not used for `LOOM_SERVER_ARTIFACTS_RETENTION_DAYS`, and what uploads left",
        Duration::from_secs(3600),
        Duration::from_secs(3000),
        move |context| clean_up(artifacts.clone(), context),
    )
}

async fn clean_up(artifacts: Artifacts, context: JobContext) -> Result<JobReport, JobError> {
    let now = context.clock.now();
    let retention = TimeDelta::from_std(artifacts.config.retention).unwrap_or(TimeDelta::MAX);
    let unused_since = now.checked_sub_signed(retention).unwrap_or(DateTime::<Utc>::MIN_UTC);
    let mut items_handled = 0;
    // Each leaves to the next what it makes superfluous.
    for step in [Step::Artifacts(unused_since), Step::Blobs(now - GRACE), Step::Chunks(now - GRACE)]
    {
        while !context.cancel.is_cancelled() {
            let gone = step.batch(&artifacts.pool).await?;
            items_handled += gone;
            if gone < BATCH as u64 {
                break;
            }
        }
    }
    sqlx::query!(
        "DELETE FROM crash_assemblies WHERE updated_at < $1 AND artifact_id IS NULL",
        now - TOLD
    )
    .execute(&artifacts.pool)
    .await
    .map_err(loom_core::Error::from)?;
    while !context.cancel.is_cancelled() {
        let removed = remove_objects(&artifacts, now).await?;
        if removed < BATCH as usize {
            break;
        }
    }
    Ok(JobReport { items_handled })
}

/// Rows that go, some at a time.
enum Step {
    Artifacts(DateTime<Utc>),
    Blobs(DateTime<Utc>),
    Chunks(DateTime<Utc>),
}

impl Step {
    async fn batch(&self, pool: &PgPool) -> Result<u64> {
        let done = match self {
            Self::Artifacts(before) => {
                sqlx::query!(
                    "DELETE FROM crash_artifacts WHERE id IN
                         (SELECT id FROM crash_artifacts WHERE last_used_at < $1 ORDER BY last_used_at LIMIT $2
                             FOR UPDATE SKIP LOCKED)",
                    before,
                    BATCH
                )
                .execute(pool)
                .await?
            }
            // One that is taken up again meanwhile was touched, and stays.
            Self::Blobs(before) => {
                sqlx::query!(
                    "DELETE FROM crash_blobs WHERE (org_id, sha256) IN
                         (SELECT org_id, sha256 FROM crash_blobs WHERE refs = 0 AND touched_at < $1 LIMIT $2
                             FOR UPDATE SKIP LOCKED)",
                    before,
                    BATCH
                )
                .execute(pool)
                .await?
            }
            Self::Chunks(before) => {
                sqlx::query!(
                    "DELETE FROM crash_chunks WHERE (org_id, sha1) IN
                         (SELECT org_id, sha1 FROM crash_chunks WHERE touched_at < $1 LIMIT $2
                             FOR UPDATE SKIP LOCKED)",
                    before,
                    BATCH
                )
                .execute(pool)
                .await?
            }
        };
        Ok(done.rows_affected())
    }
}

/// The object first: what fails is tried again at the next run.
async fn remove_objects(artifacts: &Artifacts, now: DateTime<Utc>) -> Result<usize> {
    let due = sqlx::query_scalar!(
        "SELECT location FROM crash_loose_objects WHERE remove_after <= $1 ORDER BY remove_after LIMIT $2",
        now,
        BATCH
    )
    .fetch_all(&artifacts.pool)
    .await?;
    for location in &due {
        artifacts.objects.remove(location).await?;
    }
    sqlx::query!("DELETE FROM crash_loose_objects WHERE location = ANY($1)", &due)
        .execute(&artifacts.pool)
        .await?;
    Ok(due.len())
}
