//! The SQL of what people do with issues.

use chrono::{DateTime, Utc};
use loom_core::{
    Result,
    id::{IssueId, OrgId, ProjectId, UserId},
};
use sqlx::PgConnection;
use uuid::Uuid;

use super::super::{actions::Change, model::Priority};
use crate::release::order::{self, Known};

/// Releases that are looked at for the newest.
const RELEASES: i64 = 500;

/// Changes issues of a project.
pub(crate) async fn apply(
    db: &mut PgConnection,
    org: OrgId,
    project: ProjectId,
    ids: &[Uuid],
    change: &Change,
    by: Option<UserId>,
    now: DateTime<Utc>,
) -> Result<()> {
    match change {
        Change::Resolve { in_release, after_release } => {
            sqlx::query!(
                "UPDATE crash_issues SET status = 'resolved', resolved_at = $4, resolved_by = $5,
                        resolved_in_release = $6, resolved_after_release = $7, ignored_until = NULL,
                        updated_at = $4
                  WHERE org_id = $1 AND project_id = $2 AND id = ANY($3)",
                org.0,
                project.0,
                ids,
                now,
                by.map(|by| by.0),
                in_release.as_deref(),
                after_release.as_deref(),
            )
            .execute(db)
            .await?;
        }
        Change::Unresolve => {
            sqlx::query!(
                "UPDATE crash_issues SET status = 'unresolved', resolved_at = NULL, resolved_by = NULL,
                        resolved_in_release = NULL, resolved_after_release = NULL, ignored_until = NULL,
                        updated_at = $4
                  WHERE org_id = $1 AND project_id = $2 AND id = ANY($3)",
                org.0,
                project.0,
                ids,
                now,
            )
            .execute(db)
            .await?;
        }
        Change::Ignore { until } => {
            sqlx::query!(
                "UPDATE crash_issues SET status = 'ignored', ignored_until = $5, resolved_at = NULL,
                        resolved_by = NULL, resolved_in_release = NULL, resolved_after_release = NULL,
                        updated_at = $4
                  WHERE org_id = $1 AND project_id = $2 AND id = ANY($3)",
                org.0,
                project.0,
                ids,
                now,
                *until,
            )
            .execute(db)
            .await?;
        }
        Change::Assign(person) => {
            sqlx::query!(
                "UPDATE crash_issues SET assigned_to = $5, updated_at = $4
                  WHERE org_id = $1 AND project_id = $2 AND id = ANY($3)",
                org.0,
                project.0,
                ids,
                now,
                person.as_ref().map(|person| person.id.0),
            )
            .execute(db)
            .await?;
        }
        Change::Prioritise(priority) => {
            sqlx::query!(
                "UPDATE crash_issues SET priority = $5, updated_at = $4
                  WHERE org_id = $1 AND project_id = $2 AND id = ANY($3)",
                org.0,
                project.0,
                ids,
                now,
                *priority as Priority,
            )
            .execute(db)
            .await?;
        }
        Change::Delete => delete(db, org, project, ids, now).await?,
    }
    Ok(())
}

/// Removes issues with what was merged into them. Their hashes go at once, so that a new event makes a
/// new issue; their events follow.
async fn delete(
    db: &mut PgConnection,
    org: OrgId,
    project: ProjectId,
    ids: &[Uuid],
    now: DateTime<Utc>,
) -> Result<()> {
    let merged = sqlx::query_scalar!(
        "SELECT id FROM crash_issues
          WHERE org_id = $1 AND project_id = $2 AND merged_into = ANY($3) ORDER BY id FOR UPDATE",
        org.0,
        project.0,
        ids,
    )
    .fetch_all(&mut *db)
    .await?;
    let all: Vec<Uuid> = ids.iter().copied().chain(merged).collect();
    // What was still on its way to them is deleted where it is.
    sqlx::query!(
        "UPDATE crash_event_moves SET to_issue = NULL WHERE org_id = $1 AND to_issue = ANY($2)",
        org.0,
        &all,
    )
    .execute(&mut *db)
    .await?;
    sqlx::query!(
        "WITH gone AS (
             DELETE FROM crash_grouping_hashes
              WHERE org_id = $1 AND project_id = $2 AND issue_id = ANY($3) RETURNING hash, issue_id
         )
         INSERT INTO crash_event_moves (org_id, project_id, from_issue, to_issue, hash, created_at)
         SELECT $1, $2, issue_id, NULL, hash, $4 FROM gone",
        org.0,
        project.0,
        &all,
        now,
    )
    .execute(&mut *db)
    .await?;
    sqlx::query!(
        "DELETE FROM crash_issues WHERE org_id = $1 AND project_id = $2 AND id = ANY($3)",
        org.0,
        project.0,
        &all,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// The newest release of a project.
pub(crate) async fn newest_release(
    db: &mut PgConnection,
    org: OrgId,
    project: ProjectId,
) -> Result<Option<String>> {
    let known = sqlx::query!(
        "SELECT version, coalesce(first_event, created_at) AS first_seen FROM crash_releases
          WHERE org_id = $1 AND project_id = $2 ORDER BY created_at DESC, id DESC LIMIT $3",
        org.0,
        project.0,
        RELEASES,
    )
    .fetch_all(db)
    .await?;
    let newest = known.iter().max_by(|a, b| {
        let [a, b] = [a, b].map(|row| Known { version: &row.version, first_seen: row.first_seen });
        order::compare(&a, &b)
    });
    Ok(newest.map(|row| row.version.clone()))
}

/// A member of the organisation, by id or address.
pub(crate) async fn member(
    db: &mut PgConnection,
    org: OrgId,
    named: &str,
) -> Result<Option<super::super::model::Person>> {
    let id = named.parse::<Uuid>().ok();
    let found = sqlx::query!(
        r#"SELECT u.id AS "id: UserId", u.email, u.name FROM users u
             JOIN organisation_members m ON m.user_id = u.id AND m.org_id = $1
            WHERE (u.id = $2 OR u.email = lower($3)) AND u.disabled_at IS NULL"#,
        org.0,
        id,
        named,
    )
    .fetch_optional(db)
    .await?;
    Ok(found.map(|row| super::super::model::Person {
        id: row.id,
        email: row.email,
        name: row.name,
    }))
}

/// Opens issues again that were ignored until now.
pub(crate) async fn wake(
    db: &mut PgConnection,
    now: DateTime<Utc>,
    limit: i64,
) -> Result<Vec<(OrgId, ProjectId, IssueId)>> {
    let woken = sqlx::query!(
        r#"UPDATE crash_issues SET status = 'unresolved', ignored_until = NULL, updated_at = $1
            WHERE id IN (SELECT id FROM crash_issues
                          WHERE status = 'ignored' AND ignored_until <= $1
                          ORDER BY ignored_until LIMIT $2 FOR UPDATE SKIP LOCKED)
        RETURNING org_id AS "org: OrgId", project_id AS "project: ProjectId", id AS "id: IssueId""#,
        now,
        limit,
    )
    .fetch_all(db)
    .await?;
    Ok(woken.into_iter().map(|row| (row.org, row.project, row.id)).collect())
}
