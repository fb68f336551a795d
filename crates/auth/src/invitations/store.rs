//! The SQL of invitations.

use chrono::{DateTime, Utc};
use loom_core::{
    Result,
    id::{InvitationId, OrgId, UserId},
    principal::OrgRole,
};
use sqlx::{PgExecutor, PgPool};

use super::model::Invitation;

/// The open invitations of an organisation, newest first, expired ones among them.
pub(crate) async fn open(
    pool: &PgPool,
    org: OrgId,
    after: Option<(DateTime<Utc>, InvitationId)>,
    limit: usize,
) -> Result<Vec<Invitation>> {
    let (at, id) = after.unzip();
    Ok(sqlx::query_as!(
        Invitation,
        r#"SELECT id AS "id: InvitationId", email, role AS "role: OrgRole", invited_by AS "invited_by: UserId",
                  created_at, expires_at
             FROM organisation_invitations
            WHERE org_id = $1 AND accepted_at IS NULL AND revoked_at IS NULL
              AND ($2::timestamptz IS NULL OR (created_at, id) < ($2, $3))
            ORDER BY created_at DESC, id DESC LIMIT $4"#,
        org.0,
        at,
        id.map(|id| id.0),
        i64::try_from(limit).unwrap_or(i64::MAX)
    )
    .fetch_all(pool)
    .await?)
}

/// Is somebody with this address a member already?
pub(crate) async fn is_member(db: impl PgExecutor<'_>, org: OrgId, email: &str) -> Result<bool> {
    Ok(sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT 1 FROM organisation_members m JOIN users u ON u.id = m.user_id
            WHERE m.org_id = $1 AND u.email = $2) AS "there!""#,
        org.0,
        email
    )
    .fetch_one(db)
    .await?)
}

pub(crate) async fn insert(
    db: impl PgExecutor<'_>,
    org: OrgId,
    invitation: &Invitation,
    token_sha256: &[u8],
) -> Result<()> {
    sqlx::query!(
        "INSERT INTO organisation_invitations (id, org_id, email, role, token_sha256, invited_by, created_at, expires_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        invitation.id.0,
        org.0,
        invitation.email,
        invitation.role as OrgRole,
        token_sha256,
        invitation.invited_by.0,
        invitation.created_at,
        invitation.expires_at
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Voids what is open for an address.
pub(crate) async fn revoke_for(
    db: impl PgExecutor<'_>,
    org: OrgId,
    email: &str,
    now: DateTime<Utc>,
) -> Result<()> {
    sqlx::query!(
        "UPDATE organisation_invitations SET revoked_at = $3
          WHERE org_id = $1 AND email = $2 AND accepted_at IS NULL AND revoked_at IS NULL",
        org.0,
        email,
        now
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Voids one; gives its address.
pub(crate) async fn revoke(
    db: impl PgExecutor<'_>,
    org: OrgId,
    id: InvitationId,
    now: DateTime<Utc>,
) -> Result<Option<String>> {
    Ok(sqlx::query_scalar!(
        "UPDATE organisation_invitations SET revoked_at = $3
          WHERE org_id = $1 AND id = $2 AND accepted_at IS NULL AND revoked_at IS NULL
          RETURNING email",
        org.0,
        id.0,
        now
    )
    .fetch_optional(db)
    .await?)
}

/// An invitation that is good now.
pub(crate) struct Open {
    pub(crate) id: InvitationId,
    pub(crate) org: OrgId,
    pub(crate) org_name: String,
    pub(crate) org_slug: String,
    pub(crate) sender: String,
    pub(crate) email: String,
    pub(crate) role: OrgRole,
    pub(crate) invited_by: UserId,
}

impl Open {
    pub(crate) fn role_name(&self) -> &'static str {
        match self.role {
            OrgRole::Member => "a member",
            OrgRole::Admin => "an admin",
            OrgRole::Owner => "an owner",
        }
    }
}

/// By its token. Not one that has expired, and not one whose sender could not send it any more.
pub(crate) async fn by_token(
    db: impl PgExecutor<'_>,
    token_sha256: &[u8],
    now: DateTime<Utc>,
) -> Result<Option<Open>> {
    let row = sqlx::query!(
        r#"SELECT i.id AS "id: InvitationId", i.org_id AS "org_id: OrgId", i.email, i.role AS "role: OrgRole",
                  i.invited_by AS "invited_by: UserId", m.role AS "now: OrgRole",
                  o.name, o.slug, u.email AS sender
             FROM organisation_invitations i
             JOIN organisation_members m ON m.org_id = i.org_id AND m.user_id = i.invited_by
             JOIN organisations o ON o.id = i.org_id
             JOIN users u ON u.id = i.invited_by AND u.disabled_at IS NULL
            WHERE i.token_sha256 = $1 AND i.accepted_at IS NULL AND i.revoked_at IS NULL AND i.expires_at > $2"#,
        token_sha256,
        now
    )
    .fetch_optional(db)
    .await?;
    Ok(row.filter(|row| row.now >= OrgRole::Admin && row.now >= row.role).map(|row| Open {
        id: row.id,
        org: row.org_id,
        org_name: row.name,
        org_slug: row.slug,
        sender: row.sender,
        email: row.email,
        role: row.role,
        invited_by: row.invited_by,
    }))
}

/// Uses it up; false when somebody else was quicker.
pub(crate) async fn accept(
    db: impl PgExecutor<'_>,
    org: OrgId,
    id: InvitationId,
    user: UserId,
    now: DateTime<Utc>,
) -> Result<bool> {
    let done = sqlx::query!(
        "UPDATE organisation_invitations SET accepted_at = $4, accepted_by = $3
          WHERE org_id = $1 AND id = $2 AND accepted_at IS NULL AND revoked_at IS NULL AND expires_at > $4",
        org.0,
        id.0,
        user.0,
        now
    )
    .execute(db)
    .await?;
    Ok(done.rows_affected() == 1)
}
