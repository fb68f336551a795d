//! The SQL of jobs and their runs. Each change is one statement, so that none is half done.

pub(crate) mod admin;
pub(crate) mod lag;

use chrono::{DateTime, Utc};
use loom_core::{Result, id::RunId};
use sqlx::PgPool;

use crate::{
    model::{RunOutcome, RunStatus},
    retry::MAX_ATTEMPTS,
};

/// What is known of a job.
pub(crate) struct JobRow {
    pub(crate) id: String,
    pub(crate) enabled: bool,
    pub(crate) last_slot: DateTime<Utc>,
    pub(crate) retry_at: Option<DateTime<Utc>>,
}

/// Makes jobs known. A new one counts its present slot as taken: it first runs at the next.
pub(crate) async fn register(pool: &PgPool, ids: &[String], slots: &[DateTime<Utc>]) -> Result<()> {
    sqlx::query!(
        "INSERT INTO jobs (id, last_slot) SELECT * FROM UNNEST($1::text[], $2::timestamptz[]) ORDER BY 1
         ON CONFLICT (id) DO NOTHING",
        ids,
        slots
    )
    .execute(pool)
    .await?;
    Ok(())
}

pub(crate) async fn jobs(pool: &PgPool, ids: &[String]) -> Result<Vec<JobRow>> {
    Ok(sqlx::query_as!(
        JobRow,
        "SELECT id, enabled, last_slot, retry_at FROM jobs WHERE id = ANY($1)",
        ids
    )
    .fetch_all(pool)
    .await?)
}

/// A run about to start.
pub(crate) struct NewRun<'a> {
    pub(crate) id: RunId,
    pub(crate) job: &'a str,
    pub(crate) slot: DateTime<Utc>,
    pub(crate) replica: &'a str,
    pub(crate) now: DateTime<Utc>,
    pub(crate) lease_until: DateTime<Utc>,
}

/// Takes a slot, which also ends the attempts at the one before. Gives the slot that was taken
/// before. None: it is taken, the job is off, or a run of it is under way somewhere.
pub(crate) async fn claim_slot(pool: &PgPool, run: &NewRun<'_>) -> Result<Option<DateTime<Utc>>> {
    Ok(sqlx::query_scalar!(
        r#"WITH due AS (
             SELECT id, last_slot FROM jobs
              WHERE id = $2 AND enabled AND last_slot < $3 FOR UPDATE),
         claimed AS (
             INSERT INTO job_runs (id, job_id, slot, trigger, replica, started_at, lease_until)
             SELECT $1, id, $3, 'schedule', $4, $5, $6 FROM due
             ON CONFLICT DO NOTHING
             RETURNING job_id)
         UPDATE jobs
            SET last_slot = $3, retry_at = NULL, retry_slot = NULL, retry_attempt = NULL
           FROM claimed JOIN due ON due.id = claimed.job_id WHERE jobs.id = claimed.job_id
         RETURNING due.last_slot AS "before!""#,
        run.id.0,
        run.job,
        run.slot,
        run.replica,
        run.now,
        run.lease_until
    )
    .fetch_optional(pool)
    .await?)
}

/// How many slots before its own nobody took.
pub(crate) async fn note_missed(pool: &PgPool, run: RunId, missed: i32) -> Result<()> {
    sqlx::query!("UPDATE job_runs SET missed_slots = $2 WHERE id = $1", run.0, missed)
        .execute(pool)
        .await?;
    Ok(())
}

/// Takes the next attempt of a job: its slot and number. None: there is none or it is not due (any
/// more), the job is off, or a run of it is under way somewhere. `run.slot` is not used.
pub(crate) async fn claim_retry(
    pool: &PgPool,
    run: &NewRun<'_>,
) -> Result<Option<(DateTime<Utc>, i32)>> {
    let claimed = sqlx::query!(
        r#"WITH due AS (
               SELECT id, retry_slot, retry_attempt FROM jobs
                WHERE id = $2 AND enabled AND retry_at <= $4 FOR UPDATE),
           claimed AS (
               INSERT INTO job_runs (id, job_id, slot, trigger, attempt, replica, started_at, lease_until)
               SELECT $1, id, retry_slot, 'retry', retry_attempt, $3, $4, $5 FROM due
               ON CONFLICT DO NOTHING
               RETURNING job_id, slot, attempt)
           UPDATE jobs SET retry_at = NULL, retry_slot = NULL, retry_attempt = NULL
             FROM claimed WHERE jobs.id = claimed.job_id
           RETURNING claimed.slot AS "slot!", claimed.attempt AS "attempt!""#,
        run.id.0,
        run.job,
        run.replica,
        run.now,
        run.lease_until
    )
    .fetch_optional(pool)
    .await?;
    Ok(claimed.map(|claimed| (claimed.slot, claimed.attempt)))
}

/// Starts a run by hand. False: one is under way somewhere.
pub(crate) async fn insert_run(pool: &PgPool, run: &NewRun<'_>) -> Result<bool> {
    let inserted = sqlx::query!(
        "INSERT INTO job_runs (id, job_id, slot, trigger, replica, started_at, lease_until)
         VALUES ($1, $2, $3, 'manual', $4, $5, $6)
         ON CONFLICT (job_id) WHERE status = 'running' DO NOTHING",
        run.id.0,
        run.job,
        run.slot,
        run.replica,
        run.now,
        run.lease_until
    )
    .execute(pool)
    .await?;
    Ok(inserted.rows_affected() == 1)
}

/// Whether the run was told to stop. None: it is no longer ours.
pub(crate) async fn renew_lease(
    pool: &PgPool,
    run: RunId,
    until: DateTime<Utc>,
) -> Result<Option<bool>> {
    Ok(sqlx::query_scalar!(
        r#"UPDATE job_runs SET lease_until = $2 WHERE id = $1 AND status = 'running'
           RETURNING cancel_requested_at IS NOT NULL AS "cancel!""#,
        run.0,
        until
    )
    .fetch_optional(pool)
    .await?)
}

/// Records what a run came to and when it is tried again, and counts its job's failures. False: the run is no longer ours.
pub(crate) async fn finish(
    pool: &PgPool,
    outcome: &RunOutcome,
    now: DateTime<Utc>,
) -> Result<bool> {
    let finished = sqlx::query!(
        "WITH finished AS (
             UPDATE job_runs
                SET status = $2, finished_at = $3, duration_ms = $4, items_handled = $5, error = $6
              WHERE id = $1 AND status = 'running'
             RETURNING job_id, slot, attempt)
         UPDATE jobs
            SET consecutive_failures = CASE $2 WHEN 'succeeded' THEN 0
                                               WHEN 'failed' THEN consecutive_failures + 1
                                               ELSE consecutive_failures END,
                last_failure_at = CASE $2 WHEN 'failed' THEN $3 ELSE last_failure_at END,
                retry_at = $7,
                retry_slot = CASE WHEN $7::timestamptz IS NOT NULL THEN finished.slot END,
                retry_attempt = CASE WHEN $7::timestamptz IS NOT NULL THEN finished.attempt + 1 END
           FROM finished WHERE jobs.id = finished.job_id",
        outcome.run_id.0,
        outcome.status as RunStatus,
        now,
        i64::try_from(outcome.duration.as_millis()).unwrap_or(i64::MAX),
        i64::try_from(outcome.items_handled).unwrap_or(i64::MAX),
        outcome.error,
        outcome.retry_at
    )
    .execute(pool)
    .await?;
    Ok(finished.rows_affected() == 1)
}

/// A job of which a run was abandoned.
pub(crate) struct Abandoned {
    pub(crate) id: String,
    /// Its slot is to be taken up again.
    pub(crate) again: bool,
}

/// Ends the runs whose lease has ended; each slot is taken up again at once, but for the last of its
/// attempts and for what was to be cancelled.
pub(crate) async fn abandon(pool: &PgPool, now: DateTime<Utc>) -> Result<Vec<Abandoned>> {
    Ok(sqlx::query_as!(
        Abandoned,
        r#"WITH ended AS (
             SELECT id FROM job_runs WHERE status = 'running' AND lease_until < $1
              ORDER BY job_id FOR UPDATE SKIP LOCKED),
         abandoned AS (
             UPDATE job_runs
                SET status = 'abandoned', finished_at = $1,
                    duration_ms = (EXTRACT(EPOCH FROM $1 - started_at) * 1000)::bigint,
                    error = 'its replica went away: the lease was not renewed'
               FROM ended WHERE job_runs.id = ended.id
             RETURNING job_id, slot, attempt + 1 AS next,
                       attempt < $2 AND cancel_requested_at IS NULL AS again)
         UPDATE jobs
            SET consecutive_failures = consecutive_failures + 1, last_failure_at = $1,
                retry_at = CASE WHEN again AND enabled THEN $1 END,
                retry_slot = CASE WHEN again AND enabled THEN abandoned.slot END,
                retry_attempt = CASE WHEN again AND enabled THEN abandoned.next END
           FROM abandoned WHERE jobs.id = abandoned.job_id
         RETURNING jobs.id, retry_at IS NOT NULL AS "again!""#,
        now,
        MAX_ATTEMPTS
    )
    .fetch_all(pool)
    .await?)
}

/// A job whose last run did not go well.
pub(crate) struct Failing {
    pub(crate) id: String,
    pub(crate) consecutive_failures: i32,
    pub(crate) last_failure_at: Option<DateTime<Utc>>,
}

pub(crate) async fn failing(pool: &PgPool, ids: &[String]) -> Result<Vec<Failing>> {
    Ok(sqlx::query_as!(
        Failing,
        "SELECT id, consecutive_failures, last_failure_at FROM jobs
          WHERE id = ANY($1) AND enabled AND consecutive_failures > 0
          ORDER BY consecutive_failures DESC, id",
        ids
    )
    .fetch_all(pool)
    .await?)
}

/// Deletes up to `limit` runs from before `before`, but of each job's newest `keep` none.
pub(crate) async fn delete_runs(
    pool: &PgPool,
    before: DateTime<Utc>,
    keep: i64,
    limit: i64,
) -> Result<u64> {
    let deleted = sqlx::query!(
        "DELETE FROM job_runs WHERE id IN (
             SELECT old.id FROM jobs
             CROSS JOIN LATERAL (
                 SELECT started_at, id FROM job_runs WHERE job_id = jobs.id
                  ORDER BY started_at DESC, id DESC OFFSET $2::bigint - 1 LIMIT 1) kept
             CROSS JOIN LATERAL (
                 SELECT id FROM job_runs
                  WHERE job_id = jobs.id AND started_at < $1 AND status <> 'running'
                    AND (started_at, id) < (kept.started_at, kept.id)
                  ORDER BY started_at, id LIMIT $3) old
             LIMIT $3)",
        before,
        keep,
        limit
    )
    .execute(pool)
    .await?;
    Ok(deleted.rows_affected())
}
