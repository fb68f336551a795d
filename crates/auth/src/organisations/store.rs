//! The SQL of organisations.

use chrono::{DateTime, Utc};
use loom_core::{
    Error, Result,
    error::OnConstraint,
    id::{OrgId, UserId},
    principal::OrgRole,
};
use sqlx::{PgConnection, PgExecutor, PgPool};

use super::model::Organisation;
use crate::authenticate::Revoked;

pub(crate) async fn insert_organisation(
    db: &mut PgConnection,
    org: OrgId,
    slug: &str,
    name: &str,
    is_personal: bool,
    now: DateTime<Utc>,
) -> Result<()> {
    sqlx::query!(
        "INSERT INTO organisations (id, slug, name, is_personal, created_at) VALUES ($1, $2, $3, $4, $5)",
        org.0,
        slug,
        name,
        is_personal,
        now
    )
    .execute(db)
    .await
    .on_constraint("organisations_slug_key", || Error::conflict("slug_taken", "this slug is taken; choose another"))?;
    Ok(())
}

pub(crate) async fn insert_member(
    db: &mut PgConnection,
    org: OrgId,
    user: UserId,
    role: OrgRole,
    now: DateTime<Utc>,
) -> Result<()> {
    sqlx::query!(
        "INSERT INTO organisation_members (org_id, user_id, role, created_at) VALUES ($1, $2, $3, $4)",
        org.0,
        user.0,
        role as OrgRole,
        now
    )
    .execute(db)
    .await?;
    Ok(())
}

/// The organisations of a user, the personal one first.
pub(crate) async fn organisations(pool: &PgPool, user: UserId) -> Result<Vec<Organisation>> {
    Ok(sqlx::query_as!(
        Organisation,
        r#"SELECT o.id AS "id: OrgId", o.slug, o.name, o.is_personal, m.role AS "role: OrgRole", o.created_at
             FROM organisation_members m JOIN organisations o ON o.id = m.org_id
            WHERE m.user_id = $1
            ORDER BY o.is_personal DESC, o.slug LIMIT 1000"#,
        user.0
    )
    .fetch_all(pool)
    .await?)
}

pub(crate) async fn name(db: impl PgExecutor<'_>, org: OrgId) -> Result<String> {
    Ok(sqlx::query_scalar!("SELECT name FROM organisations WHERE id = $1", org.0)
        .fetch_one(db)
        .await?)
}

/// Changes the name, the slug, or both.
pub(crate) async fn rename(
    db: impl PgExecutor<'_>,
    org: OrgId,
    name: Option<&str>,
    slug: Option<&str>,
) -> Result<()> {
    sqlx::query!(
        "UPDATE organisations SET name = coalesce($2, name), slug = coalesce($3, slug) WHERE id = $1",
        org.0,
        name,
        slug
    )
    .execute(db)
    .await
    .on_constraint("organisations_slug_key", || Error::conflict("slug_taken", "this slug is taken; choose another"))?;
    Ok(())
}

/// All whose principals show this organisation.
pub(crate) async fn member_ids(db: impl PgExecutor<'_>, org: OrgId) -> Result<Vec<Revoked>> {
    let members = sqlx::query_scalar!(
        r#"SELECT user_id AS "user_id: UserId" FROM organisation_members WHERE org_id = $1"#,
        org.0
    )
    .fetch_all(db)
    .await?;
    Ok(members.into_iter().map(Revoked::User).collect())
}

/// Deletes an organisation with its members, keys and invitations; gives what caches must forget.
///
/// # Errors
/// 409 as long as a feature keeps something for it: each one's tables refer to the organisation.
pub(crate) async fn delete(db: &mut PgConnection, org: OrgId) -> Result<Vec<Revoked>> {
    let mut forgotten = member_ids(&mut *db, org).await?;
    let digests = sqlx::query_scalar!(
        "WITH keys AS (DELETE FROM api_keys WHERE org_id = $1 RETURNING secret_sha256),
              tokens AS (DELETE FROM weaver_tokens WHERE org_id = $1 RETURNING secret_sha256),
              invitations AS (DELETE FROM organisation_invitations WHERE org_id = $1),
              members AS (DELETE FROM organisation_members WHERE org_id = $1)
         SELECT secret_sha256 AS \"digest!\" FROM keys UNION ALL SELECT secret_sha256 FROM tokens",
        org.0
    )
    .fetch_all(&mut *db)
    .await?;
    forgotten.extend(digests.iter().filter_map(|digest| Revoked::digest(digest)));
    let deleted = sqlx::query!("DELETE FROM organisations WHERE id = $1", org.0).execute(db).await;
    match deleted {
        Err(sqlx::Error::Database(error)) if error.is_foreign_key_violation() => {
            Err(Error::conflict(
                "organisation_not_empty",
                "there is still something in this organisation: delete its threads and all else first",
            ))
        }
        result => result.map(|_| forgotten).map_err(Error::from),
    }
}

/// The organisation with this id or slug, and what the user is in it.
pub(crate) async fn membership(
    db: impl PgExecutor<'_>,
    user: UserId,
    path: &str,
) -> Result<Option<(OrgId, OrgRole)>> {
    let id: Option<OrgId> = path.parse().ok();
    let row = sqlx::query!(
        r#"SELECT o.id AS "id: OrgId", m.role AS "role: OrgRole"
             FROM organisation_members m JOIN organisations o ON o.id = m.org_id
            WHERE m.user_id = $1 AND (o.id = $2 OR o.slug = $3)"#,
        user.0,
        id.map(|id| id.0),
        path
    )
    .fetch_optional(db)
    .await?;
    Ok(row.map(|row| (row.id, row.role)))
}

/// One organisation, for a service key.
pub(crate) async fn organisation(
    pool: &PgPool,
    org: OrgId,
    role: OrgRole,
) -> Result<Option<Organisation>> {
    let row = sqlx::query!(
        "SELECT slug, name, is_personal, created_at FROM organisations WHERE id = $1",
        org.0
    )
    .fetch_optional(pool)
    .await?;
    Ok(row.map(|row| Organisation {
        id: org,
        slug: row.slug,
        name: row.name,
        is_personal: row.is_personal,
        role,
        created_at: row.created_at,
    }))
}
