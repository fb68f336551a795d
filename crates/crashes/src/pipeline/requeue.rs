//! Events that are to be processed once more: a file came that they waited for, or rules changed.

use loom_core::{
    Result,
    id::{EventId, OrgId, ProjectId},
};
use sqlx::{PgExecutor, PgPool};
use uuid::Uuid;

use super::http::ParkedEvent;

/// Events of one call, the newest: what is older is seldom looked at.
const MOST: i64 = 10_000;

/// Puts the events of these issues into the queue again; gives how many. Those that are in it stay as they
/// are.
pub(crate) async fn issues(
    db: impl PgExecutor<'_>,
    org: OrgId,
    project: ProjectId,
    issues: &[Uuid],
) -> Result<u64> {
    let done = sqlx::query!(
        "INSERT INTO crash_queue (org_id, project_id, event_id, received_at, again)
         SELECT e.org_id, e.project_id, e.event_id, e.received_at, true
           FROM crash_events e
          WHERE e.org_id = $1 AND e.issue_id = ANY ($3) AND e.project_id = $2
            AND NOT EXISTS (SELECT FROM crash_queue q
                             WHERE q.project_id = e.project_id AND q.event_id = e.event_id
                               AND q.again AND q.parked_at IS NULL AND q.claimed_until IS NULL)
          ORDER BY e.received_at DESC
          LIMIT $4",
        org.0,
        project.0,
        issues,
        MOST
    )
    .execute(db)
    .await?;
    Ok(done.rows_affected())
}

/// As [`issues`], of all that lack one of these files: debug ids, or addresses of scripts.
pub(crate) async fn lacking(
    pool: &PgPool,
    org: OrgId,
    project: ProjectId,
    files: &[String],
) -> Result<u64> {
    let mut tx = loom_db::begin(pool).await?;
    // What is still missing is written down again when they are processed.
    let found = sqlx::query_scalar!(
        "DELETE FROM crash_missing_files
          WHERE org_id = $1 AND project_id = $2 AND wanted = ANY ($3)
      RETURNING issue_id",
        org.0,
        project.0,
        files
    )
    .fetch_all(&mut *tx)
    .await?;
    let queued = if found.is_empty() { 0 } else { issues(&mut *tx, org, project, &found).await? };
    tx.commit().await?;
    Ok(queued)
}

/// Those that were put aside, the newest first.
pub(super) async fn parked(
    pool: &PgPool,
    org: OrgId,
    project: ProjectId,
    after: Option<i64>,
    most: i64,
) -> Result<Vec<ParkedEvent>> {
    Ok(sqlx::query_as!(
        ParkedEvent,
        r#"SELECT id AS queue_id, event_id AS "event_id: EventId", coalesce(parked_reason, '') AS "reason!",
                  attempts, received_at, parked_at AS "parked_at!"
             FROM crash_queue
            WHERE org_id = $1 AND project_id = $2 AND parked_at IS NOT NULL AND ($3::bigint IS NULL OR id < $3)
            ORDER BY id DESC
            LIMIT $4"#,
        org.0,
        project.0,
        after,
        most
    )
    .fetch_all(pool)
    .await?)
}

/// Puts those that were put aside back into the queue; gives how many.
pub(super) async fn retry(pool: &PgPool, org: OrgId, project: ProjectId) -> Result<u64> {
    let done = sqlx::query!(
        // One by one at first: what is at fault takes no other along.
        "UPDATE crash_queue
            SET parked_at = NULL, parked_reason = NULL, attempts = 0, claimed_until = clock_timestamp()
          WHERE org_id = $1 AND project_id = $2 AND parked_at IS NOT NULL",
        org.0,
        project.0
    )
    .execute(pool)
    .await?;
    Ok(done.rows_affected())
}

/// An issue by its id or its short id.
pub(super) async fn find_issue(
    pool: &PgPool,
    org: OrgId,
    project: ProjectId,
    named: &str,
) -> Result<Option<Uuid>> {
    let number = named.rsplit_once('-').and_then(|(_, number)| number.parse::<i64>().ok());
    let id = named.parse::<Uuid>().ok();
    Ok(sqlx::query_scalar!(
        "SELECT i.id FROM crash_issues i JOIN crash_projects p ON p.org_id = i.org_id AND p.id = i.project_id
          WHERE i.org_id = $1 AND i.project_id = $2
            AND (i.id = $3 OR ($3::uuid IS NULL AND i.number = $4
                               AND upper($5) = p.short_prefix || '-' || i.number))",
        org.0,
        project.0,
        id,
        number,
        named
    )
    .fetch_optional(pool)
    .await?)
}
