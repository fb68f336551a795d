//! The SQL of what admins see and do.

use chrono::{DateTime, Utc};
use loom_core::{Result, id::RunId};
use sqlx::PgPool;

use crate::model::{RunRecord, RunStatus, Trigger};

/// What admins see of a job beyond what the code says.
pub(crate) struct JobState {
    pub(crate) id: String,
    pub(crate) enabled: bool,
    pub(crate) last_slot: DateTime<Utc>,
    pub(crate) retry_at: Option<DateTime<Utc>>,
    pub(crate) consecutive_failures: i32,
}

pub(crate) async fn states(pool: &PgPool, ids: &[String]) -> Result<Vec<JobState>> {
    Ok(sqlx::query_as!(
        JobState,
        "SELECT id, enabled, last_slot, retry_at, consecutive_failures FROM jobs WHERE id = ANY($1)",
        ids
    )
    .fetch_all(pool)
    .await?)
}

/// The newest run of each job that has one.
pub(crate) async fn newest_runs(pool: &PgPool, ids: &[String]) -> Result<Vec<(String, RunRecord)>> {
    let rows = sqlx::query!(
        r#"SELECT run.job_id AS "job_id!", run.id AS "id!: RunId", run.slot AS "slot!",
                  run.trigger AS "trigger!: Trigger", run.attempt AS "attempt!",
                  run.term AS "term!",
                  run.missed_slots AS "missed_slots!", run.previous_slot, run.replica AS "replica!",
                  run.status AS "status!: RunStatus", run.started_at AS "started_at!",
                  run.finished_at, run.duration_ms, run.items_handled AS "items_handled!", run.error
             FROM UNNEST($1::text[]) AS known (id)
            CROSS JOIN LATERAL (
                SELECT * FROM job_runs WHERE job_id = known.id
                 ORDER BY started_at DESC, id DESC LIMIT 1) run"#,
        ids
    )
    .fetch_all(pool)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| {
            let run = RunRecord {
                id: row.id,
                slot: row.slot,
                trigger: row.trigger,
                attempt: row.attempt,
                term: row.term,
                missed_slots: row.missed_slots,
                previous_slot: row.previous_slot,
                replica: row.replica,
                status: row.status,
                started_at: row.started_at,
                finished_at: row.finished_at,
                duration_ms: row.duration_ms,
                items_handled: row.items_handled,
                error: row.error,
            };
            (row.job_id, run)
        })
        .collect())
}

/// The runs of a job, newest first, from behind `after`.
pub(crate) async fn history(
    pool: &PgPool,
    job: &str,
    after: Option<(DateTime<Utc>, RunId)>,
    limit: i64,
) -> Result<Vec<RunRecord>> {
    let (started_at, id) = after.unzip();
    Ok(sqlx::query_as!(
        RunRecord,
        r#"SELECT id AS "id: RunId", slot, trigger AS "trigger: Trigger", attempt, term, missed_slots, previous_slot, replica,
                  status AS "status: RunStatus", started_at, finished_at, duration_ms,
                  items_handled, error
             FROM job_runs
            WHERE job_id = $1 AND ($2::timestamptz IS NULL OR (started_at, id) < ($2, $3::uuid))
            ORDER BY started_at DESC, id DESC LIMIT $4"#,
        job,
        started_at,
        id.map(|id| id.0),
        limit
    )
    .fetch_all(pool)
    .await?)
}

/// Tells the run of a job to stop, and all replicas that it is to. None: none is under way.
pub(crate) async fn request_cancel(
    pool: &PgPool,
    job: &str,
    now: DateTime<Utc>,
) -> Result<Option<RunId>> {
    let asked = sqlx::query!(
        r#"UPDATE job_runs SET cancel_requested_at = COALESCE(cancel_requested_at, $2)
            WHERE job_id = $1 AND status = 'running'
           RETURNING id AS "id: RunId", pg_notify('loom_jobs', 'cancel:' || id)::text"#,
        job,
        now
    )
    .fetch_optional(pool)
    .await?;
    Ok(asked.map(|asked| asked.id))
}

/// Switches a job on, and says so. What was due while it was off is not made up for. False: it was on.
pub(crate) async fn enable(pool: &PgPool, job: &str, slot: DateTime<Utc>) -> Result<bool> {
    let done = sqlx::query!(
        "UPDATE jobs SET enabled = true, last_slot = GREATEST(last_slot, $2)
          WHERE id = $1 AND NOT enabled RETURNING pg_notify('loom_jobs', 'plan')::text",
        job,
        slot
    )
    .fetch_optional(pool)
    .await?;
    Ok(done.is_some())
}

/// Switches a job off, gives up what was to be tried again, and says so. False: it was off.
pub(crate) async fn disable(pool: &PgPool, job: &str) -> Result<bool> {
    let done = sqlx::query!(
        "UPDATE jobs SET enabled = false, retry_at = NULL, retry_slot = NULL, retry_attempt = NULL
          WHERE id = $1 AND enabled RETURNING pg_notify('loom_jobs', 'plan')::text",
        job
    )
    .fetch_optional(pool)
    .await?;
    Ok(done.is_some())
}
