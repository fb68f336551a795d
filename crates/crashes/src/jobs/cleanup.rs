//! What is older than a project keeps it. Days that no project keeps are dropped whole.

use chrono::{DateTime, TimeDelta, Utc};
use loom_jobs::{JobContext, JobError, JobReport};
use sqlx::PgPool;
use uuid::Uuid;

use super::{EVENTS, RAW};
use crate::Crashes;

/// Rows of one statement.
const BATCH: i64 = 5000;
/// What nobody has wanted to hear of by then, nobody will.
const SIGNALS: TimeDelta = TimeDelta::days(7);

pub(super) async fn run(crashes: Crashes, context: JobContext) -> Result<JobReport, JobError> {
    let pool = &crashes.deps.pool;
    let now = context.clock.now();
    let projects = sqlx::query!("SELECT id, org_id, retention_days FROM crash_projects")
        .fetch_all(pool)
        .await?;
    let longest = projects.iter().map(|project| project.retention_days).max().unwrap_or(90);
    let before = now - TimeDelta::days(longest.into());
    let mut items_handled =
        RAW.drop_before(pool, before).await? + EVENTS.drop_before(pool, before).await?;
    for project in projects {
        let before = now - TimeDelta::days(project.retention_days.into());
        while !context.cancel.is_cancelled() {
            let gone = sweep(pool, project.org_id, project.id, before).await?;
            items_handled += gone;
            if gone == 0 {
                break;
            }
        }
    }
    sqlx::query!("DELETE FROM crash_alert_signals WHERE at < $1", now - SIGNALS)
        .execute(pool)
        .await?;
    sqlx::query!("DELETE FROM crash_new_issues WHERE hour < $1", now - SIGNALS)
        .execute(pool)
        .await?;
    Ok(JobReport { items_handled })
}

/// A batch of each kind; gives how many rows went.
async fn sweep(
    pool: &PgPool,
    org: Uuid,
    project: Uuid,
    before: DateTime<Utc>,
) -> sqlx::Result<u64> {
    let mut gone = 0;
    // The condition on the time leaves out the days that are kept whole.
    gone += sqlx::query!(
        "DELETE FROM crash_events e USING (
             SELECT project_id, event_id, received_at FROM crash_events
              WHERE org_id = $1 AND project_id = $2 AND received_at < $3 LIMIT $4) old
          WHERE e.project_id = old.project_id AND e.event_id = old.event_id AND e.received_at = old.received_at",
        org,
        project,
        before,
        BATCH
    )
    .execute(pool)
    .await?
    .rows_affected();
    gone += sqlx::query!(
        "DELETE FROM crash_raw e USING (
             SELECT project_id, event_id, received_at FROM crash_raw
              WHERE org_id = $1 AND project_id = $2 AND received_at < $3 LIMIT $4) old
          WHERE e.project_id = old.project_id AND e.event_id = old.event_id AND e.received_at = old.received_at",
        org,
        project,
        before,
        BATCH
    )
    .execute(pool)
    .await?
    .rows_affected();
    gone += sqlx::query!(
        "DELETE FROM crash_attachments WHERE id IN (
             SELECT id FROM crash_attachments WHERE org_id = $1 AND project_id = $2 AND received_at < $3 LIMIT $4)",
        org,
        project,
        before,
        BATCH
    )
    .execute(pool)
    .await?
    .rows_affected();
    gone += sqlx::query!(
        "DELETE FROM crash_feedback WHERE id IN (
             SELECT id FROM crash_feedback WHERE org_id = $1 AND project_id = $2 AND received_at < $3 LIMIT $4)",
        org,
        project,
        before,
        BATCH
    )
    .execute(pool)
    .await?
    .rows_affected();
    gone += sqlx::query!(
        "DELETE FROM crash_event_ids i USING (
             SELECT project_id, event_id FROM crash_event_ids
              WHERE project_id = $1 AND received_at < $2 LIMIT $3) old
          WHERE i.project_id = old.project_id AND i.event_id = old.event_id",
        project,
        before,
        BATCH
    )
    .execute(pool)
    .await?
    .rows_affected();
    gone += sqlx::query!(
        "DELETE FROM crash_queue WHERE id IN (
             SELECT id FROM crash_queue
              WHERE org_id = $1 AND project_id = $2 AND parked_at IS NOT NULL AND received_at < $3 LIMIT $4)",
        org,
        project,
        before,
        BATCH
    )
    .execute(pool)
    .await?
    .rows_affected();
    Ok(gone)
}
