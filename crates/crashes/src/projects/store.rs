//! The SQL of projects and their keys.

use chrono::{DateTime, Utc};
use loom_core::{
    Error, Result,
    error::OnConstraint,
    id::{OrgId, ProjectId, ProjectKeyId},
};
use sqlx::PgConnection;

use super::model::{KeyLimit, KeyRow, ProjectRow};

fn slug_taken() -> Error {
    Error::conflict("slug_taken", "there is a project of this slug in the organisation")
}

/// Gives the number that it got.
pub(crate) async fn insert(db: &mut PgConnection, new: &ProjectRow) -> Result<i64> {
    sqlx::query_scalar!(
        "INSERT INTO crash_projects
             (id, org_id, slug, name, platform, short_prefix, retention_days, allowed_origins,
              grouping_rules, scrubbing, new_issues_per_hour, created_at, updated_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
         RETURNING number",
        new.id.0,
        new.org_id.0,
        new.slug,
        new.name,
        new.platform,
        new.short_prefix,
        new.retention_days,
        &new.allowed_origins,
        new.grouping_rules,
        new.scrubbing,
        new.new_issues_per_hour,
        new.created_at,
        new.updated_at
    )
    .fetch_one(db)
    .await
    .on_constraint("crash_projects_slug_key", slug_taken)
}

pub(crate) async fn count(db: &mut PgConnection, org: OrgId) -> Result<i64> {
    Ok(sqlx::query_scalar!(
        r#"SELECT count(*) AS "count!" FROM crash_projects WHERE org_id = $1 AND deleted_at IS NULL"#,
        org.0
    )
    .fetch_one(db)
    .await?)
}

/// Until the end of the transaction nobody else changes it, nor makes an issue in it.
pub(crate) async fn lock(db: &mut PgConnection, org: OrgId, id: ProjectId) -> Result<()> {
    sqlx::query!(
        "SELECT number FROM crash_projects WHERE id = $1 AND org_id = $2 FOR NO KEY UPDATE",
        id.0,
        org.0
    )
    .fetch_optional(db)
    .await?;
    Ok(())
}

/// The project and the key of its DSN.
pub(crate) async fn get(
    db: &mut PgConnection,
    org: OrgId,
    id: ProjectId,
) -> Result<Option<(ProjectRow, Option<String>)>> {
    let found = sqlx::query!(
        r#"SELECT p.number, p.slug, p.name, p.platform, p.short_prefix, p.retention_days, p.allowed_origins,
                  p.grouping_rules, p.scrubbing, p.new_issues_per_hour, p.created_at, p.updated_at,
                  (SELECT k.public_key FROM crash_project_keys k
                    WHERE k.org_id = p.org_id AND k.project_id = p.id AND k.enabled
                    ORDER BY k.created_at, k.id LIMIT 1) AS public_key
             FROM crash_projects p
            WHERE p.id = $1 AND p.org_id = $2 AND p.deleted_at IS NULL"#,
        id.0,
        org.0
    )
    .fetch_optional(db)
    .await?;
    Ok(found.map(|p| {
        let row = ProjectRow {
            id,
            number: p.number,
            org_id: org,
            slug: p.slug,
            name: p.name,
            platform: p.platform,
            short_prefix: p.short_prefix,
            retention_days: p.retention_days,
            allowed_origins: p.allowed_origins,
            grouping_rules: p.grouping_rules,
            scrubbing: p.scrubbing,
            new_issues_per_hour: p.new_issues_per_hour,
            created_at: p.created_at,
            updated_at: p.updated_at,
        };
        (row, p.public_key)
    }))
}

/// Newest first.
pub(crate) async fn list(
    db: &mut PgConnection,
    org: OrgId,
    after: Option<(DateTime<Utc>, ProjectId)>,
    limit: i64,
) -> Result<Vec<(ProjectRow, Option<String>)>> {
    let (at, id) = after.unzip();
    let found = sqlx::query!(
        r#"SELECT p.id, p.number, p.slug, p.name, p.platform, p.short_prefix, p.retention_days, p.allowed_origins,
                  p.grouping_rules, p.scrubbing, p.new_issues_per_hour, p.created_at, p.updated_at,
                  (SELECT k.public_key FROM crash_project_keys k
                    WHERE k.org_id = p.org_id AND k.project_id = p.id AND k.enabled
                    ORDER BY k.created_at, k.id LIMIT 1) AS public_key
             FROM crash_projects p
            WHERE p.org_id = $1 AND p.deleted_at IS NULL
              AND ($2::timestamptz IS NULL OR (p.created_at, p.id) < ($2, $3))
            ORDER BY p.created_at DESC, p.id DESC
            LIMIT $4"#,
        org.0,
        at,
        id.map(|id| id.0),
        limit
    )
    .fetch_all(db)
    .await?;
    let rows = found.into_iter().map(|p| {
        let row = ProjectRow {
            id: ProjectId(p.id),
            number: p.number,
            org_id: org,
            slug: p.slug,
            name: p.name,
            platform: p.platform,
            short_prefix: p.short_prefix,
            retention_days: p.retention_days,
            allowed_origins: p.allowed_origins,
            grouping_rules: p.grouping_rules,
            scrubbing: p.scrubbing,
            new_issues_per_hour: p.new_issues_per_hour,
            created_at: p.created_at,
            updated_at: p.updated_at,
        };
        (row, p.public_key)
    });
    Ok(rows.collect())
}

pub(crate) async fn update(db: &mut PgConnection, row: &ProjectRow) -> Result<()> {
    sqlx::query!(
        "UPDATE crash_projects
            SET slug = $3, name = $4, platform = $5, retention_days = $6, allowed_origins = $7,
                grouping_rules = $8, scrubbing = $9, new_issues_per_hour = $10, updated_at = $11
          WHERE id = $1 AND org_id = $2",
        row.id.0,
        row.org_id.0,
        row.slug,
        row.name,
        row.platform,
        row.retention_days,
        &row.allowed_origins,
        row.grouping_rules,
        row.scrubbing,
        row.new_issues_per_hour,
        row.updated_at
    )
    .execute(db)
    .await
    .on_constraint("crash_projects_slug_key", slug_taken)?;
    Ok(())
}

/// Hides it and its keys at once. False: there is no such project.
pub(crate) async fn delete(
    db: &mut PgConnection,
    org: OrgId,
    id: ProjectId,
    now: DateTime<Utc>,
) -> Result<bool> {
    let done = sqlx::query!(
        "UPDATE crash_projects SET deleted_at = $3 WHERE id = $1 AND org_id = $2 AND deleted_at IS NULL",
        id.0,
        org.0,
        now
    )
    .execute(db)
    .await?;
    Ok(done.rows_affected() > 0)
}

fn limit(count: Option<i32>, window_secs: Option<i32>) -> Option<KeyLimit> {
    Some(KeyLimit { count: count?, window_secs: window_secs? })
}

pub(crate) async fn insert_key(db: &mut PgConnection, org: OrgId, new: &KeyRow) -> Result<()> {
    sqlx::query!(
        "INSERT INTO crash_project_keys
             (id, org_id, project_id, name, public_key, enabled, limit_count, limit_window_secs, created_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        new.id.0,
        org.0,
        new.project_id.0,
        new.name,
        new.public_key,
        new.enabled,
        new.limit.map(|limit| limit.count),
        new.limit.map(|limit| limit.window_secs),
        new.created_at
    )
    .execute(db)
    .await?;
    Ok(())
}

pub(crate) async fn count_keys(
    db: &mut PgConnection,
    org: OrgId,
    project: ProjectId,
) -> Result<i64> {
    Ok(sqlx::query_scalar!(
        r#"SELECT count(*) AS "count!" FROM crash_project_keys WHERE org_id = $1 AND project_id = $2"#,
        org.0,
        project.0
    )
    .fetch_one(db)
    .await?)
}

/// Oldest first.
pub(crate) async fn list_keys(
    db: &mut PgConnection,
    org: OrgId,
    project: ProjectId,
    after: Option<(DateTime<Utc>, ProjectKeyId)>,
    most: i64,
) -> Result<Vec<KeyRow>> {
    let (at, id) = after.unzip();
    let found = sqlx::query!(
        "SELECT id, name, public_key, enabled, limit_count, limit_window_secs, created_at
           FROM crash_project_keys
          WHERE org_id = $1 AND project_id = $2 AND ($3::timestamptz IS NULL OR (created_at, id) > ($3, $4))
          ORDER BY created_at, id
          LIMIT $5",
        org.0,
        project.0,
        at,
        id.map(|id| id.0),
        most
    )
    .fetch_all(db)
    .await?;
    let keys = found.into_iter().map(|key| KeyRow {
        id: ProjectKeyId(key.id),
        project_id: project,
        name: key.name,
        public_key: key.public_key,
        enabled: key.enabled,
        limit: limit(key.limit_count, key.limit_window_secs),
        created_at: key.created_at,
    });
    Ok(keys.collect())
}

/// Locked.
pub(crate) async fn get_key(
    db: &mut PgConnection,
    org: OrgId,
    project: ProjectId,
    id: ProjectKeyId,
) -> Result<Option<KeyRow>> {
    let found = sqlx::query!(
        "SELECT name, public_key, enabled, limit_count, limit_window_secs, created_at
           FROM crash_project_keys WHERE org_id = $1 AND project_id = $2 AND id = $3 FOR UPDATE",
        org.0,
        project.0,
        id.0
    )
    .fetch_optional(db)
    .await?;
    Ok(found.map(|key| KeyRow {
        id,
        project_id: project,
        name: key.name,
        public_key: key.public_key,
        enabled: key.enabled,
        limit: limit(key.limit_count, key.limit_window_secs),
        created_at: key.created_at,
    }))
}

pub(crate) async fn update_key(db: &mut PgConnection, org: OrgId, key: &KeyRow) -> Result<()> {
    sqlx::query!(
        "UPDATE crash_project_keys SET name = $4, enabled = $5, limit_count = $6, limit_window_secs = $7
          WHERE org_id = $1 AND project_id = $2 AND id = $3",
        org.0,
        key.project_id.0,
        key.id.0,
        key.name,
        key.enabled,
        key.limit.map(|limit| limit.count),
        key.limit.map(|limit| limit.window_secs)
    )
    .execute(db)
    .await?;
    Ok(())
}

pub(crate) async fn delete_key(
    db: &mut PgConnection,
    org: OrgId,
    project: ProjectId,
    id: ProjectKeyId,
) -> Result<bool> {
    let done = sqlx::query!(
        "DELETE FROM crash_project_keys WHERE org_id = $1 AND project_id = $2 AND id = $3",
        org.0,
        project.0,
        id.0
    )
    .execute(db)
    .await?;
    Ok(done.rows_affected() > 0)
}
