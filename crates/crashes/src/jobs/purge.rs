//! What belongs to deleted projects goes in pieces, the project itself last.

use loom_core::{Error, id::ProjectId};
use loom_jobs::{JobContext, JobError, JobReport};
use sqlx::{AssertSqlSafe, PgPool};

use crate::Crashes;

/// Rows of one statement.
const BATCH: i64 = 5000;
/// By the names of their tables; each has the column `project_id`. Issues take along what hangs on them.
const TABLES: &[&str] = &[
    "crash_queue",
    "crash_events",
    "crash_raw",
    "crash_event_ids",
    "crash_attachments",
    "crash_feedback",
    "crash_alert_signals",
    "crash_issues",
];

pub(super) async fn run(crashes: Crashes, context: JobContext) -> Result<JobReport, JobError> {
    let pool = &crashes.deps.pool;
    let mut items_handled = 0;
    let deleted = sqlx::query_scalar!(
        "SELECT id FROM crash_projects WHERE deleted_at IS NOT NULL ORDER BY id"
    )
    .fetch_all(pool)
    .await?;
    for project in deleted {
        for table in TABLES {
            loop {
                if context.cancel.is_cancelled() {
                    return Ok(JobReport { items_handled });
                }
                let gone = delete(pool, table, ProjectId(project)).await.map_err(Error::from)?;
                items_handled += gone;
                if gone == 0 {
                    break;
                }
            }
        }
        sqlx::query!(
            "DELETE FROM crash_projects WHERE id = $1 AND deleted_at IS NOT NULL",
            project
        )
        .execute(pool)
        .await?;
        items_handled += 1;
    }
    Ok(JobReport { items_handled })
}

async fn delete(pool: &PgPool, table: &str, project: ProjectId) -> sqlx::Result<u64> {
    // Put together of names of our own. A row of a partition is known by its table and place.
    let statement = format!(
        "DELETE FROM {table} WHERE (tableoid, ctid) IN
             (SELECT tableoid, ctid FROM {table} WHERE project_id = $1 LIMIT $2) AND project_id = $1"
    );
    let done =
        sqlx::query(AssertSqlSafe(statement)).bind(project.0).bind(BATCH).execute(pool).await?;
    Ok(done.rows_affected())
}
