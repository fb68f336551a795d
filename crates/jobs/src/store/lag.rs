//! The SQL of how far the jobs are behind.

use chrono::{DateTime, Utc};
use loom_core::Result;
use sqlx::PgPool;

/// The jobs that could begin now (one that waits to be tried again is not late), with the newest slot of each that was taken.
pub(crate) async fn waiting(pool: &PgPool, ids: &[String]) -> Result<Vec<(String, DateTime<Utc>)>> {
    let rows = sqlx::query!(
        "SELECT id, last_slot FROM jobs
          WHERE id = ANY($1) AND enabled AND retry_at IS NULL
            AND NOT EXISTS (SELECT FROM job_runs WHERE job_id = jobs.id AND status = 'running')",
        ids
    )
    .fetch_all(pool)
    .await?;
    Ok(rows.into_iter().map(|row| (row.id, row.last_slot)).collect())
}
