//! The SQL of repositories. Each statement that serves a request names the organisation.

pub(crate) mod maintenance;
pub(crate) mod pushes;

use chrono::{DateTime, Utc};
use loom_core::{
    Error, Principal, Result,
    authorize::Visibility,
    error::OnConstraint,
    id::{OrgId, RepositoryId, UserId},
};
use sqlx::PgConnection;

use crate::model::{Repository, sees_unowned};

/// A repository as somebody of `org` may find it: one of their own, or a public one of another.
pub(crate) async fn find(
    db: &mut PgConnection,
    org: OrgId,
    id: RepositoryId,
) -> Result<Option<Repository>> {
    Ok(sqlx::query_as!(
        Repository,
        r#"SELECT id AS "id: RepositoryId", org_id AS "org_id: OrgId", owner_user_id AS "owner_user_id: UserId",
                  name, description, default_branch, visibility AS "visibility: Visibility", size_bytes,
                  created_at, updated_at, pushed_at, maintained_at
             FROM repositories
            WHERE id = $1 AND (org_id = $2 OR visibility = 'public') AND deleted_at IS NULL"#,
        id.0,
        org.0
    )
    .fetch_optional(db)
    .await?)
}

/// As [`find`], locked.
pub(crate) async fn lock(
    db: &mut PgConnection,
    org: OrgId,
    id: RepositoryId,
) -> Result<Option<Repository>> {
    Ok(sqlx::query_as!(
        Repository,
        r#"SELECT id AS "id: RepositoryId", org_id AS "org_id: OrgId", owner_user_id AS "owner_user_id: UserId",
                  name, description, default_branch, visibility AS "visibility: Visibility", size_bytes,
                  created_at, updated_at, pushed_at, maintained_at
             FROM repositories
            WHERE id = $1 AND (org_id = $2 OR visibility = 'public') AND deleted_at IS NULL
              FOR UPDATE"#,
        id.0,
        org.0
    )
    .fetch_optional(db)
    .await?)
}

/// The repository that a clone URL names: one of `org`, by id or by name.
pub(crate) async fn find_named(
    db: &mut PgConnection,
    org: OrgId,
    id: Option<RepositoryId>,
    name: &str,
) -> Result<Option<Repository>> {
    Ok(sqlx::query_as!(
        Repository,
        r#"SELECT id AS "id: RepositoryId", org_id AS "org_id: OrgId", owner_user_id AS "owner_user_id: UserId",
                  name, description, default_branch, visibility AS "visibility: Visibility", size_bytes,
                  created_at, updated_at, pushed_at, maintained_at
             FROM repositories
            WHERE org_id = $1 AND (id = $2 OR lower(name) = lower($3)) AND deleted_at IS NULL"#,
        org.0,
        id.map(|id| id.0),
        name
    )
    .fetch_optional(db)
    .await?)
}

/// Those of the principal's organisation that it may see, newest first.
pub(crate) async fn list(
    db: &mut PgConnection,
    principal: &Principal,
    after: Option<(DateTime<Utc>, RepositoryId)>,
    limit: i64,
) -> Result<Vec<Repository>> {
    let (at, id) = after.unzip();
    Ok(sqlx::query_as!(
        Repository,
        r#"SELECT id AS "id: RepositoryId", org_id AS "org_id: OrgId", owner_user_id AS "owner_user_id: UserId",
                  name, description, default_branch, visibility AS "visibility: Visibility", size_bytes,
                  created_at, updated_at, pushed_at, maintained_at
             FROM repositories
            WHERE org_id = $1 AND deleted_at IS NULL
              AND (visibility <> 'private' OR owner_user_id = $2 OR (owner_user_id IS NULL AND $3))
              AND ($4::timestamptz IS NULL OR (created_at, id) < ($4, $5))
            ORDER BY created_at DESC, id DESC
            LIMIT $6"#,
        principal.org.0,
        principal.user_id().map(|user| user.0),
        sees_unowned(principal),
        at,
        id.map(|id: RepositoryId| id.0),
        limit
    )
    .fetch_all(db)
    .await?)
}

fn name_taken() -> Error {
    Error::conflict("name_taken", "there is a repository of this name in the organisation")
}

/// 409 when the name is taken, 429 when the organisation has as many repositories as it may.
pub(crate) async fn require_room(
    db: &mut PgConnection,
    org: OrgId,
    name: &str,
    most: i64,
) -> Result<()> {
    let row = sqlx::query!(
        r#"SELECT count(*) AS "count!", coalesce(bool_or(lower(name) = lower($2)), false) AS "taken!"
             FROM repositories WHERE org_id = $1 AND deleted_at IS NULL"#,
        org.0,
        name
    )
    .fetch_one(db)
    .await?;
    if row.taken {
        return Err(name_taken());
    }
    if row.count >= most {
        let detail =
            format!("the organisation has {most} repositories, which is as many as it may");
        return Err(Error::new(http::StatusCode::TOO_MANY_REQUESTS, "quota_exceeded", detail));
    }
    Ok(())
}

pub(crate) async fn insert(db: &mut PgConnection, new: &Repository) -> Result<()> {
    sqlx::query!(
        "INSERT INTO repositories
             (id, org_id, owner_user_id, name, description, default_branch, visibility, created_at, updated_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        new.id.0,
        new.org_id.0,
        new.owner_user_id.map(|user| user.0),
        new.name,
        new.description,
        new.default_branch,
        new.visibility as Visibility,
        new.created_at,
        new.updated_at
    )
    .execute(db)
    .await
    .on_constraint("repositories_name_key", name_taken)?;
    Ok(())
}

/// Writes back one that [`lock`] gave.
pub(crate) async fn update(db: &mut PgConnection, repository: &Repository) -> Result<()> {
    sqlx::query!(
        "UPDATE repositories
            SET name = $3, description = $4, default_branch = $5, visibility = $6, updated_at = $7
          WHERE id = $1 AND org_id = $2",
        repository.id.0,
        repository.org_id.0,
        repository.name,
        repository.description,
        repository.default_branch,
        repository.visibility as Visibility,
        repository.updated_at
    )
    .execute(db)
    .await
    .on_constraint("repositories_name_key", name_taken)?;
    Ok(())
}

pub(crate) async fn delete(
    db: &mut PgConnection,
    repository: &Repository,
    now: DateTime<Utc>,
) -> Result<()> {
    sqlx::query!(
        "UPDATE repositories SET deleted_at = $3 WHERE id = $1 AND org_id = $2",
        repository.id.0,
        repository.org_id.0,
        now
    )
    .execute(db)
    .await?;
    Ok(())
}
