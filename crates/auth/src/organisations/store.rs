//! The SQL of organisations.

use chrono::{DateTime, Utc};
use loom_core::{
    Error, Result,
    error::OnConstraint,
    id::{OrgId, UserId},
    principal::OrgRole,
};
use sqlx::{PgConnection, PgPool};

use super::model::Organisation;

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
