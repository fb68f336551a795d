//! The SQL of administration.

use chrono::{DateTime, Utc};
use loom_core::{
    Error, Result,
    id::{OrgId, UserId},
};
use sqlx::{PgConnection, PgExecutor, PgPool};

use super::model::AdminUser;
use crate::{authenticate::Revoked, keys};

/// Users whose address or name holds `part`, newest first.
pub(crate) async fn users(
    pool: &PgPool,
    part: Option<&str>,
    after: Option<(DateTime<Utc>, UserId)>,
    limit: usize,
) -> Result<Vec<AdminUser>> {
    let (at, id) = after.unzip();
    Ok(sqlx::query_as!(
        AdminUser,
        r#"SELECT id AS "id: UserId", email, name, personal_org_id AS "personal_org_id: OrgId", is_system_admin,
                  is_auditor, disabled_at, created_at
             FROM users
            WHERE ($1::text IS NULL OR strpos(email, lower($1)) > 0 OR strpos(lower(name), lower($1)) > 0)
              AND ($2::timestamptz IS NULL OR (created_at, id) < ($2, $3))
            ORDER BY created_at DESC, id DESC LIMIT $4"#,
        part,
        at,
        id.map(|id| id.0),
        i64::try_from(limit).unwrap_or(i64::MAX)
    )
    .fetch_all(pool)
    .await?)
}

pub(crate) async fn user(db: impl PgExecutor<'_>, id: UserId) -> Result<AdminUser> {
    sqlx::query_as!(
        AdminUser,
        r#"SELECT id AS "id: UserId", email, name, personal_org_id AS "personal_org_id: OrgId", is_system_admin,
                  is_auditor, disabled_at, created_at
             FROM users WHERE id = $1"#,
        id.0
    )
    .fetch_optional(db)
    .await?
    .ok_or_else(|| Error::not_found("user"))
}

/// Holds all other changes of the system admins back and makes sure that one beside `user` is left.
///
/// # Errors
/// 409 `last_admin`.
pub(crate) async fn keep_an_admin(db: &mut PgConnection, user: UserId) -> Result<()> {
    // In the order of their ids, so that two who do this at once wait for each other; whoever waited sees
    // the rows as the other one left them.
    let admins = sqlx::query_scalar!(
        r#"SELECT id AS "id: UserId" FROM users WHERE is_system_admin AND disabled_at IS NULL
            ORDER BY id FOR NO KEY UPDATE"#
    )
    .fetch_all(db)
    .await?;
    if admins.iter().all(|&admin| admin == user) {
        return Err(Error::conflict(
            "last_admin",
            "this is the last system admin: make somebody else one first",
        ));
    }
    Ok(())
}

pub(crate) async fn set_roles(
    db: impl PgExecutor<'_>,
    user: UserId,
    system_admin: Option<bool>,
    auditor: Option<bool>,
) -> Result<()> {
    sqlx::query!(
        "UPDATE users SET is_system_admin = coalesce($2, is_system_admin), is_auditor = coalesce($3, is_auditor)
          WHERE id = $1",
        user.0,
        system_admin,
        auditor
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Lets a user in no more, and ends what the user could act by; gives what caches must forget.
pub(crate) async fn disable(
    db: &mut PgConnection,
    user: UserId,
    now: DateTime<Utc>,
) -> Result<Vec<Revoked>> {
    sqlx::query!(
        "UPDATE users SET disabled_at = $2 WHERE id = $1 AND disabled_at IS NULL",
        user.0,
        now
    )
    .execute(&mut *db)
    .await?;
    sqlx::query!("DELETE FROM weaver_tokens WHERE owner_id = $1", user.0).execute(&mut *db).await?;
    let mut revoked =
        keys::store::revoke_keys_of(&mut *db, user, None, "user_disabled", now).await?;
    revoked.push(Revoked::User(user));
    Ok(revoked)
}

pub(crate) async fn enable(db: impl PgExecutor<'_>, user: UserId) -> Result<()> {
    sqlx::query!("UPDATE users SET disabled_at = NULL WHERE id = $1", user.0).execute(db).await?;
    Ok(())
}
