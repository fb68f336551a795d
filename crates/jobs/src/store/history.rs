//! The SQL of old runs: rolled up per job and day, and then deleted.

use chrono::{DateTime, NaiveDate, Utc};
use loom_core::Result;
use sqlx::PgPool;

use crate::model::RunDay;

/// Deletes up to `limit` runs from before `before`, but of each job's newest `keep` none, and adds
/// what they came to to their days. One statement: whatever is deleted is counted, and once.
pub(crate) async fn roll_up(
    pool: &PgPool,
    before: DateTime<Utc>,
    keep: i64,
    limit: i64,
) -> Result<i64> {
    Ok(sqlx::query_scalar!(
        r#"WITH gone AS (
             DELETE FROM job_runs WHERE id IN (
                 SELECT old.id FROM jobs
                 CROSS JOIN LATERAL (
                     SELECT started_at, id FROM job_runs WHERE job_id = jobs.id
                      ORDER BY started_at DESC, id DESC OFFSET $2::bigint - 1 LIMIT 1) kept
                 CROSS JOIN LATERAL (
                     SELECT id FROM job_runs
                      WHERE job_id = jobs.id AND started_at < $1 AND status <> 'running'
                        AND (started_at, id) < (kept.started_at, kept.id)
                      ORDER BY started_at, id LIMIT $3) old
                 LIMIT $3)
             RETURNING *),
         added AS (
             INSERT INTO job_run_days AS days (
                 job_id, day, runs, succeeded, failed, cancelled, abandoned, retried,
                 items_handled, total_duration_ms, max_duration_ms)
             SELECT job_id, (started_at AT TIME ZONE 'UTC')::date, count(*),
                    count(*) FILTER (WHERE status = 'succeeded'),
                    count(*) FILTER (WHERE status = 'failed'),
                    count(*) FILTER (WHERE status = 'cancelled'),
                    count(*) FILTER (WHERE status = 'abandoned'),
                    count(*) FILTER (WHERE attempt > 1),
                    sum(items_handled)::bigint, COALESCE(sum(duration_ms), 0)::bigint,
                    COALESCE(max(duration_ms), 0)
               FROM gone GROUP BY 1, 2 ORDER BY 1, 2
             ON CONFLICT (job_id, day) DO UPDATE
                SET runs = days.runs + excluded.runs,
                    succeeded = days.succeeded + excluded.succeeded,
                    failed = days.failed + excluded.failed,
                    cancelled = days.cancelled + excluded.cancelled,
                    abandoned = days.abandoned + excluded.abandoned,
                    retried = days.retried + excluded.retried,
                    items_handled = days.items_handled + excluded.items_handled,
                    total_duration_ms = days.total_duration_ms + excluded.total_duration_ms,
                    max_duration_ms = GREATEST(days.max_duration_ms, excluded.max_duration_ms))
         SELECT count(*) AS "count!" FROM gone"#,
        before,
        keep,
        limit
    )
    .fetch_one(pool)
    .await?)
}

/// The days of a job, newest first, from behind `after`.
pub(crate) async fn days(
    pool: &PgPool,
    job: &str,
    after: Option<NaiveDate>,
    limit: i64,
) -> Result<Vec<RunDay>> {
    Ok(sqlx::query_as!(
        RunDay,
        "SELECT day, runs, succeeded, failed, cancelled, abandoned, retried, items_handled,
                total_duration_ms, max_duration_ms
           FROM job_run_days WHERE job_id = $1 AND ($2::date IS NULL OR day < $2)
          ORDER BY day DESC LIMIT $3",
        job,
        after,
        limit
    )
    .fetch_all(pool)
    .await?)
}
