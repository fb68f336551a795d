//! The SQL of users.

use chrono::{DateTime, Utc};
use loom_core::{
    Error, Result,
    error::OnConstraint,
    id::{OrgId, UserId},
    principal::OrgRole,
};
use sqlx::{PgConnection, PgExecutor, PgPool, types::Json};

use super::model::{Membership, User, UserHolder};
use crate::organisations::store::{insert_member, insert_organisation};

pub(crate) async fn user_holder(db: impl PgExecutor<'_>, id: UserId) -> Result<Option<UserHolder>> {
    let row = sqlx::query!(
        r#"SELECT email, personal_org_id AS "personal_org_id: OrgId", is_system_admin, is_auditor, disabled_at,
                  (SELECT jsonb_agg(jsonb_build_object('org', m.org_id, 'slug', o.slug, 'role', m.role))
                     FROM organisation_members m JOIN organisations o ON o.id = m.org_id
                    WHERE m.user_id = users.id) AS "memberships: Json<Vec<Membership>>"
             FROM users WHERE id = $1"#,
        id.0
    )
    .fetch_optional(db)
    .await?;
    Ok(row.map(|row| UserHolder {
        id,
        email: row.email.into(),
        personal_org: row.personal_org_id,
        system_admin: row.is_system_admin,
        auditor: row.is_auditor,
        disabled: row.disabled_at.is_some(),
        memberships: row.memberships.map(|Json(list)| list).unwrap_or_default(),
    }))
}

pub(crate) async fn user(pool: &PgPool, id: UserId) -> Result<User> {
    sqlx::query_as!(
        User,
        r#"SELECT id AS "id: UserId", email, name, is_system_admin, is_auditor, created_at FROM users WHERE id = $1"#,
        id.0
    )
    .fetch_optional(pool)
    .await?
    .ok_or_else(|| Error::not_found("user"))
}

pub(crate) async fn rename(pool: &PgPool, id: UserId, name: &str) -> Result<User> {
    sqlx::query_as!(
        User,
        r#"UPDATE users SET name = $2 WHERE id = $1
           RETURNING id AS "id: UserId", email, name, is_system_admin, is_auditor, created_at"#,
        id.0,
        name
    )
    .fetch_optional(pool)
    .await?
    .ok_or_else(|| Error::not_found("user"))
}

pub(crate) async fn user_by_email(db: impl PgExecutor<'_>, email: &str) -> Result<Option<UserId>> {
    Ok(sqlx::query_scalar!(r#"SELECT id AS "id: UserId" FROM users WHERE email = $1"#, email)
        .fetch_optional(db)
        .await?)
}

/// A user with a personal organisation. Somebody else may have been quicker: then that one.
pub(crate) async fn insert_user(
    db: &mut PgConnection,
    email: &str,
    system_admin: bool,
    now: DateTime<Utc>,
) -> Result<UserId> {
    let (user, org) = (UserId::new(now), OrgId::new(now));
    let slug = format!("u-{}", user.0.simple());
    insert_organisation(db, org, &slug, email, true, now).await?;
    sqlx::query!(
        "INSERT INTO users (id, email, personal_org_id, is_system_admin, created_at) VALUES ($1, $2, $3, $4, $5)",
        user.0,
        email,
        org.0,
        system_admin,
        now
    )
    .execute(&mut *db)
    .await
    .on_constraint("users_email_key", || Error::conflict("conflict", "there is a user with this e-mail address"))?;
    insert_member(db, org, user, OrgRole::Owner, now).await?;
    Ok(user)
}

pub(crate) async fn make_system_admin(db: impl PgExecutor<'_>, user: UserId) -> Result<()> {
    sqlx::query!("UPDATE users SET is_system_admin = true WHERE id = $1", user.0)
        .execute(db)
        .await?;
    Ok(())
}
