//! What is older than a project keeps it. Days that no project keeps are dropped whole.

use chrono::{DateTime, TimeDelta, Utc};
use loom_jobs::{JobContext, JobError, JobReport};
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{EVENTS, RAW};
use crate::Crashes;

/// Rows of one statement.
const BATCH: i64 = 5000;
/// Issues that are looked at in one statement.
const ISSUES: i64 = 500;
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
        items_handled += empty(pool, project.org_id, project.id, before, &context.cancel).await?;
        items_handled += forget(pool, project.org_id, project.id, before, &context.cancel).await?;
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
    gone += sqlx::query!(
        "DELETE FROM crash_issue_hours h USING (
             SELECT issue_id, hour, environment FROM crash_issue_hours
              WHERE org_id = $1 AND project_id = $2 AND hour < $3 LIMIT $4 FOR UPDATE SKIP LOCKED) old
          WHERE h.issue_id = old.issue_id AND h.hour = old.hour AND h.environment = old.environment",
        org,
        project,
        before - TimeDelta::hours(1),
        BATCH
    )
    .execute(pool)
    .await?
    .rows_affected();
    Ok(gone)
}

/// Issues that have no events any more, with those that were merged into them.
async fn empty(
    pool: &PgPool,
    org: Uuid,
    project: Uuid,
    before: DateTime<Utc>,
    cancel: &CancellationToken,
) -> sqlx::Result<u64> {
    let mut items = 0;
    let mut after = Uuid::nil();
    while !cancel.is_cancelled() {
        let old = sqlx::query_scalar!(
            "SELECT id FROM crash_issues
              WHERE org_id = $1 AND project_id = $2 AND last_seen < $3 AND id > $4 AND merged_into IS NULL
              ORDER BY id LIMIT $5",
            org,
            project,
            before,
            after,
            ISSUES
        )
        .fetch_all(pool)
        .await?;
        let Some(last) = old.last() else { break };
        after = *last;
        // Whoever attaches an event has the issue locked, and sets when it was seen last. Events that are
        // on their way to an issue, or from one, are seen by their moves.
        let gone = sqlx::query_scalar!(
            r#"WITH gone AS (
                   DELETE FROM crash_issues i
                    WHERE i.org_id = $1 AND i.project_id = $2 AND i.id = ANY ($4) AND i.last_seen < $3
                      AND i.merged_into IS NULL
                      AND NOT EXISTS (SELECT FROM crash_events e WHERE e.org_id = $1 AND e.issue_id = i.id)
                      AND NOT EXISTS (SELECT FROM crash_event_moves m
                                       WHERE m.org_id = $1 AND (m.from_issue = i.id OR m.to_issue = i.id))
                RETURNING i.id
               ), merged AS (
                   DELETE FROM crash_issues m USING gone
                    WHERE m.org_id = $1 AND m.project_id = $2 AND m.merged_into = gone.id
                RETURNING m.id)
               SELECT (SELECT count(*) FROM gone) + (SELECT count(*) FROM merged) AS "gone!""#,
            org,
            project,
            before,
            &old
        )
        .fetch_one(pool)
        .await?;
        items += u64::try_from(gone).unwrap_or_default();
    }
    Ok(items)
}

/// What was counted, or named, and was not seen for as long as events are kept.
async fn forget(
    pool: &PgPool,
    org: Uuid,
    project: Uuid,
    before: DateTime<Utc>,
    cancel: &CancellationToken,
) -> sqlx::Result<u64> {
    let mut items = 0;
    let mut after = Uuid::nil();
    while !cancel.is_cancelled() {
        let issues = sqlx::query_scalar!(
            "SELECT id FROM crash_issues WHERE org_id = $1 AND project_id = $2 AND id > $3 ORDER BY id LIMIT $4",
            org,
            project,
            after,
            ISSUES
        )
        .fetch_all(pool)
        .await?;
        let Some(last) = issues.last() else { break };
        after = *last;
        items += sqlx::query!(
            "DELETE FROM crash_issue_tags t USING (
                 SELECT issue_id, key, value FROM crash_issue_tags
                  WHERE org_id = $1 AND issue_id = ANY ($2) AND last_seen < $3 FOR UPDATE SKIP LOCKED) old
              WHERE t.issue_id = old.issue_id AND t.key = old.key AND t.value = old.value",
            org,
            &issues,
            before
        )
        .execute(pool)
        .await?
        .rows_affected();
        items += sqlx::query!(
            "DELETE FROM crash_missing_files f USING (
                 SELECT project_id, wanted, issue_id FROM crash_missing_files
                  WHERE org_id = $1 AND issue_id = ANY ($2) AND last_seen < $3 FOR UPDATE SKIP LOCKED) old
              WHERE f.project_id = old.project_id AND f.wanted = old.wanted AND f.issue_id = old.issue_id",
            org,
            &issues,
            before
        )
        .execute(pool)
        .await?
        .rows_affected();
    }
    items += sqlx::query!(
        "DELETE FROM crash_environments WHERE org_id = $1 AND project_id = $2 AND last_seen < $3",
        org,
        project,
        before
    )
    .execute(pool)
    .await?
    .rows_affected();
    // Those that only events have named.
    items += sqlx::query!(
        "DELETE FROM crash_releases r
          WHERE r.org_id = $1 AND r.project_id = $2 AND r.on_sight AND r.last_event < $3
            AND NOT EXISTS (SELECT FROM crash_release_commits c WHERE c.release_id = r.id)
            AND NOT EXISTS (SELECT FROM crash_deploys d WHERE d.release_id = r.id)
            AND NOT EXISTS (SELECT FROM crash_issues i
                             WHERE i.project_id = r.project_id
                               AND (i.resolved_in_release = r.version OR i.resolved_after_release = r.version))",
        org,
        project,
        before
    )
    .execute(pool)
    .await?
    .rows_affected();
    Ok(items)
}
