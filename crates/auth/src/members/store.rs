//! The SQL of members. Who changes them holds the organisation's lock, so that what was looked at is
//! still so when it is written.

use chrono::{DateTime, Utc};
use loom_core::{
    Error, Result,
    id::{OrgId, UserId},
    principal::OrgRole,
};
use sqlx::{PgConnection, PgExecutor, PgPool};

use super::model::Member;
use crate::authenticate::Revoked;

/// The members of an organisation, who came last first.
pub(crate) async fn members(
    pool: &PgPool,
    org: OrgId,
    after: Option<(DateTime<Utc>, UserId)>,
    limit: usize,
) -> Result<Vec<Member>> {
    let (at, id) = after.unzip();
    Ok(sqlx::query_as!(
        Member,
        r#"SELECT u.id AS "user_id: UserId", u.email, u.name, m.role AS "role: OrgRole", m.created_at AS joined_at
             FROM organisation_members m JOIN users u ON u.id = m.user_id
            WHERE m.org_id = $1 AND ($2::timestamptz IS NULL OR (m.created_at, m.user_id) < ($2, $3))
            ORDER BY m.created_at DESC, m.user_id DESC LIMIT $4"#,
        org.0,
        at,
        id.map(|id| id.0),
        i64::try_from(limit).unwrap_or(i64::MAX)
    )
    .fetch_all(pool)
    .await?)
}

/// Holds all other changes of the members of an organisation back; others read and write as before.
///
/// # Errors
/// 409 for a personal organisation, which has one member for ever.
pub(crate) async fn lock(db: &mut PgConnection, org: OrgId) -> Result<()> {
    let is_personal = sqlx::query_scalar!(
        "SELECT is_personal FROM organisations WHERE id = $1 FOR NO KEY UPDATE",
        org.0
    )
    .fetch_optional(db)
    .await?
    .ok_or_else(|| Error::not_found("organisation"))?;
    if is_personal {
        return Err(Error::conflict(
            "personal_organisation",
            "this is the personal organisation of a user: nobody joins or leaves it, and it stays",
        ));
    }
    Ok(())
}

pub(crate) async fn role(
    db: impl PgExecutor<'_>,
    org: OrgId,
    user: UserId,
) -> Result<Option<OrgRole>> {
    Ok(sqlx::query_scalar!(
        r#"SELECT role AS "role: OrgRole" FROM organisation_members WHERE org_id = $1 AND user_id = $2"#,
        org.0,
        user.0
    )
    .fetch_optional(db)
    .await?)
}

/// Is there an owner beside this one who can act?
pub(crate) async fn has_other_owner(
    db: impl PgExecutor<'_>,
    org: OrgId,
    user: UserId,
) -> Result<bool> {
    Ok(sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT 1 FROM organisation_members m JOIN users u ON u.id = m.user_id
            WHERE m.org_id = $1 AND m.user_id <> $2 AND m.role = 'owner' AND u.disabled_at IS NULL) AS "there!""#,
        org.0,
        user.0
    )
    .fetch_one(db)
    .await?)
}

pub(crate) async fn set_role(
    db: impl PgExecutor<'_>,
    org: OrgId,
    user: UserId,
    role: OrgRole,
) -> Result<()> {
    sqlx::query!(
        "UPDATE organisation_members SET role = $3 WHERE org_id = $1 AND user_id = $2",
        org.0,
        user.0,
        role as OrgRole
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Removes a member and what the member could still act by; gives what caches must forget.
pub(crate) async fn remove(
    db: &mut PgConnection,
    org: OrgId,
    user: UserId,
    now: DateTime<Utc>,
) -> Result<Vec<Revoked>> {
    sqlx::query!(
        "DELETE FROM organisation_members WHERE org_id = $1 AND user_id = $2",
        org.0,
        user.0
    )
    .execute(&mut *db)
    .await?;
    sqlx::query!("DELETE FROM weaver_tokens WHERE org_id = $1 AND owner_id = $2", org.0, user.0)
        .execute(&mut *db)
        .await?;
    let mut revoked =
        crate::keys::store::revoke_keys_of(&mut *db, user, Some(org), "member_left", now).await?;
    revoked.push(Revoked::User(user));
    Ok(revoked)
}
