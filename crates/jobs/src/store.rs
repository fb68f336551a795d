//! The SQL of jobs and their runs. Each change is one statement, so that none is half done, and locks
//! the row of the job before those of its runs, so that no two wait for each other. Nobody who looks
//! what is due waits for a lock: a replica that hangs while it holds one must not hold up the others.
//!
//! Leases go by the database's clock, on which all replicas agree; slots and what is recorded go by
//! the replica's own.

pub(crate) mod admin;
pub(crate) mod history;
pub(crate) mod lag;

use std::time::Duration;

use chrono::{DateTime, Utc};
use loom_core::{Result, id::RunId};
use sqlx::{PgConnection, PgPool};

use crate::{
    alert::UNHEALTHY_FAILURES,
    model::{RunOutcome, RunStatus},
    retry::MAX_ATTEMPTS,
};

/// What is known of a job, and of its run when one is under way.
pub(crate) struct JobRow {
    pub(crate) id: String,
    pub(crate) enabled: bool,
    pub(crate) last_slot: DateTime<Utc>,
    pub(crate) retry_at: Option<DateTime<Utc>>,
    pub(crate) running: Option<RunId>,
    pub(crate) cancel_requested: bool,
    /// Seconds until its lease ends; not above zero when it has ended.
    pub(crate) lease_left: Option<f64>,
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

/// All that a scheduler plans with, in one statement.
pub(crate) async fn jobs(pool: &PgPool, ids: &[String]) -> Result<Vec<JobRow>> {
    Ok(sqlx::query_as!(
        JobRow,
        r#"SELECT jobs.id, enabled, last_slot, retry_at, run.id AS "running?: RunId",
                  cancel_requested_at IS NOT NULL AS "cancel_requested!",
                  EXTRACT(EPOCH FROM lease_until - now())::float8 AS "lease_left?"
             FROM jobs LEFT JOIN job_runs run ON run.job_id = jobs.id AND run.status = 'running'
            WHERE jobs.id = ANY($1)"#,
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
    pub(crate) lease: Duration,
}

/// What was claimed.
pub(crate) struct Claimed {
    pub(crate) slot: DateTime<Utc>,
    pub(crate) attempt: i32,
    pub(crate) term: i64,
}

/// Takes a slot, which also ends the attempts at the one before, unless they go `in_order`. None: it
/// is taken or just being, the job is off, an attempt goes before, or a run of it is under way.
pub(crate) async fn claim_slot(
    pool: &PgPool,
    run: &NewRun<'_>,
    in_order: bool,
) -> Result<Option<Claimed>> {
    let claimed = sqlx::query!(
        r#"WITH due AS (
             SELECT id, last_slot, term FROM jobs
              WHERE id = $2 AND enabled AND last_slot < $3 AND (retry_at IS NULL OR NOT $7)
                FOR NO KEY UPDATE SKIP LOCKED),
         claimed AS (
             INSERT INTO job_runs (id, job_id, slot, trigger, replica, started_at, lease_until, term, previous_slot)
             SELECT $1, id, $3, 'schedule', $4, $5, now() + make_interval(secs => $6), term + 1, last_slot
               FROM due
             ON CONFLICT DO NOTHING
             RETURNING job_id, term)
         UPDATE jobs
            SET last_slot = $3, term = claimed.term,
                retry_at = NULL, retry_slot = NULL, retry_attempt = NULL
           FROM claimed WHERE jobs.id = claimed.job_id
         RETURNING claimed.term AS "term!""#,
        run.id.0,
        run.job,
        run.slot,
        run.replica,
        run.now,
        run.lease.as_secs_f64(),
        in_order
    )
    .fetch_optional(pool)
    .await?;
    Ok(claimed.map(|claimed| Claimed { slot: run.slot, attempt: 1, term: claimed.term }))
}

/// Takes the next attempt of a job. None: there is none or it is not due (any more), the job is off,
/// or a run of it is under way somewhere. `run.slot` is not used.
pub(crate) async fn claim_retry(pool: &PgPool, run: &NewRun<'_>) -> Result<Option<Claimed>> {
    let claimed = sqlx::query!(
        r#"WITH due AS (
               SELECT id, retry_slot, retry_attempt, term FROM jobs
                WHERE id = $2 AND enabled AND retry_at <= $4
                  FOR NO KEY UPDATE SKIP LOCKED),
           claimed AS (
               INSERT INTO job_runs (id, job_id, slot, trigger, attempt, replica, started_at, lease_until, term)
               SELECT $1, id, retry_slot, 'retry', retry_attempt, $3, $4,
                      now() + make_interval(secs => $5), term + 1
                 FROM due
               ON CONFLICT DO NOTHING
               RETURNING job_id, slot, attempt, term)
           UPDATE jobs
              SET retry_at = NULL, retry_slot = NULL, retry_attempt = NULL, term = claimed.term
             FROM claimed WHERE jobs.id = claimed.job_id
           RETURNING claimed.slot AS "slot!", claimed.attempt AS "attempt!", claimed.term AS "term!""#,
        run.id.0,
        run.job,
        run.replica,
        run.now,
        run.lease.as_secs_f64()
    )
    .fetch_optional(pool)
    .await?;
    Ok(claimed.map(|claimed| Claimed {
        slot: claimed.slot,
        attempt: claimed.attempt,
        term: claimed.term,
    }))
}

/// Starts a run by hand, of which no other replica would know by the schedule: they are told. None:
/// one is under way somewhere.
pub(crate) async fn claim_manual(pool: &PgPool, run: &NewRun<'_>) -> Result<Option<Claimed>> {
    let term = sqlx::query!(
        r#"WITH held AS (SELECT id, term FROM jobs WHERE id = $2 FOR NO KEY UPDATE),
         claimed AS (
             INSERT INTO job_runs (id, job_id, slot, trigger, replica, started_at, lease_until, term)
             SELECT $1, id, $3, 'manual', $4, $5, now() + make_interval(secs => $6), term + 1
               FROM held
             ON CONFLICT (job_id) WHERE status = 'running' DO NOTHING
             RETURNING job_id, term)
         UPDATE jobs SET term = claimed.term FROM claimed WHERE jobs.id = claimed.job_id
         RETURNING claimed.term AS "term!", pg_notify('loom_jobs', 'plan')::text"#,
        run.id.0,
        run.job,
        run.slot,
        run.replica,
        run.now,
        run.lease.as_secs_f64()
    )
    .fetch_optional(pool)
    .await?;
    Ok(term.map(|row| Claimed { slot: run.slot, attempt: 1, term: row.term }))
}

/// Whether the run was told to stop. None: it is no longer ours.
pub(crate) async fn renew_lease(
    pool: &PgPool,
    run: RunId,
    lease: Duration,
) -> Result<Option<bool>> {
    Ok(sqlx::query_scalar!(
        r#"UPDATE job_runs SET lease_until = now() + make_interval(secs => $2)
            WHERE id = $1 AND status = 'running' AND lease_until > now()
           RETURNING cancel_requested_at IS NOT NULL AS "cancel!""#,
        run.0,
        lease.as_secs_f64()
    )
    .fetch_optional(pool)
    .await?)
}

/// What the end of a run made of its job.
pub(crate) struct Finished {
    pub(crate) consecutive_failures: i32,
    /// Since when the admins know that it fails, before this run and after it.
    pub(crate) alerted_before: Option<DateTime<Utc>>,
    pub(crate) alerted_at: Option<DateTime<Utc>>,
}

/// Records what a run came to and when it is tried again, and counts its job's failures. `tell` false:
/// what the admins know stays as it is. None: the run is no longer ours.
pub(crate) async fn finish(
    db: &mut PgConnection,
    job: &str,
    outcome: &RunOutcome,
    now: DateTime<Utc>,
    tell: bool,
) -> Result<Option<Finished>> {
    Ok(sqlx::query_as!(
        Finished,
        r#"WITH held AS (SELECT id, alerted_at FROM jobs WHERE id = $8 FOR NO KEY UPDATE),
         finished AS (
             UPDATE job_runs
                SET status = $2, finished_at = $3, duration_ms = $4, items_handled = $5, error = $6
               FROM held
              WHERE job_runs.id = $1 AND job_runs.job_id = held.id AND status = 'running'
             RETURNING job_id, slot, attempt, held.alerted_at)
         UPDATE jobs
            SET consecutive_failures = CASE WHEN $2 = 'succeeded' THEN 0
                                            WHEN $2 IN ('failed', 'abandoned') THEN consecutive_failures + 1
                                            ELSE consecutive_failures END,
                last_failure_at = CASE WHEN $2 IN ('failed', 'abandoned') THEN $3 ELSE last_failure_at END,
                alerted_at = CASE WHEN NOT $10 THEN jobs.alerted_at
                                  WHEN $2 = 'succeeded' THEN NULL
                                  WHEN $2 IN ('failed', 'abandoned') AND consecutive_failures + 1 >= $9
                                  THEN COALESCE(jobs.alerted_at, $3)
                                  ELSE jobs.alerted_at END,
                retry_at = CASE WHEN enabled THEN $7::timestamptz END,
                retry_slot = CASE WHEN enabled AND $7::timestamptz IS NOT NULL THEN finished.slot END,
                retry_attempt = CASE WHEN enabled AND $7::timestamptz IS NOT NULL THEN finished.attempt + 1 END
           FROM finished WHERE jobs.id = finished.job_id
         RETURNING consecutive_failures, finished.alerted_at AS alerted_before, jobs.alerted_at"#,
        outcome.run_id.0,
        outcome.status as RunStatus,
        now,
        i64::try_from(outcome.duration.as_millis()).unwrap_or(i64::MAX),
        i64::try_from(outcome.items_handled).unwrap_or(i64::MAX),
        outcome.error,
        outcome.retry_at,
        job,
        UNHEALTHY_FAILURES,
        tell
    )
    .fetch_optional(db)
    .await?)
}

/// A job of which a run was abandoned.
pub(crate) struct Abandoned {
    pub(crate) id: String,
    pub(crate) error: String,
    pub(crate) consecutive_failures: i32,
    pub(crate) alerted_before: Option<DateTime<Utc>>,
    pub(crate) alerted_at: Option<DateTime<Utc>>,
    /// Its slot is to be taken up again.
    pub(crate) again: bool,
}

/// Ends the runs whose lease has ended; each slot is taken up again at once, but for the last of its
/// attempts and for what was to be cancelled. `tell` as with [`finish`].
pub(crate) async fn abandon(
    db: &mut PgConnection,
    now: DateTime<Utc>,
    tell: bool,
) -> Result<Vec<Abandoned>> {
    Ok(sqlx::query_as!(
        Abandoned,
        r#"WITH ended AS (
             SELECT jobs.id AS job_id, alerted_at, run.id
               FROM job_runs run JOIN jobs ON jobs.id = run.job_id
              WHERE run.status = 'running' AND run.lease_until < now()
              ORDER BY jobs.id FOR NO KEY UPDATE OF jobs SKIP LOCKED),
         abandoned AS (
             UPDATE job_runs
                SET status = 'abandoned', finished_at = $1,
                    duration_ms = GREATEST(0, EXTRACT(EPOCH FROM $1 - started_at) * 1000)::bigint,
                    error = 'its replica ' || replica || ' went away: the lease was not renewed'
               FROM ended
              WHERE job_runs.id = ended.id AND status = 'running' AND lease_until < now()
             RETURNING job_runs.job_id, slot, error, attempt + 1 AS next, ended.alerted_at,
                       attempt < $2 AND cancel_requested_at IS NULL AS again)
         UPDATE jobs
            SET consecutive_failures = consecutive_failures + 1, last_failure_at = $1,
                alerted_at = CASE WHEN $4 AND consecutive_failures + 1 >= $3
                                  THEN COALESCE(jobs.alerted_at, $1) ELSE jobs.alerted_at END,
                retry_at = CASE WHEN again AND enabled THEN $1 END,
                retry_slot = CASE WHEN again AND enabled THEN abandoned.slot END,
                retry_attempt = CASE WHEN again AND enabled THEN abandoned.next END
           FROM abandoned WHERE jobs.id = abandoned.job_id
         RETURNING jobs.id, abandoned.error AS "error!", consecutive_failures,
                   abandoned.alerted_at AS alerted_before, jobs.alerted_at,
                   retry_at IS NOT NULL AS "again!""#,
        now,
        MAX_ATTEMPTS,
        UNHEALTHY_FAILURES,
        tell
    )
    .fetch_all(db)
    .await?)
}

/// Tells all replicas to read the plan again, once what is done in this transaction is to be seen.
pub(crate) async fn say_plan(db: &mut PgConnection) -> Result<()> {
    sqlx::query!("SELECT pg_notify('loom_jobs', 'plan')::text").fetch_one(db).await?;
    Ok(())
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
