//! The SQL of identities and of sign-ins at a provider.

use chrono::{DateTime, Utc};
use loom_core::{
    Error, Result,
    error::OnConstraint,
    id::{UserId, new_uuid},
};
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::identity::Proven;

/// A sign-in under way at a provider.
pub(crate) struct StateRow {
    pub(crate) browser_sha256: Vec<u8>,
    pub(crate) provider: String,
    pub(crate) redirect_to: String,
    /// Who connects an identity.
    pub(crate) user: Option<UserId>,
    pub(crate) expires_at: DateTime<Utc>,
}

pub(crate) async fn insert_state(pool: &PgPool, state: &[u8], row: &StateRow) -> Result<()> {
    sqlx::query!(
        "INSERT INTO oauth_states (state_sha256, browser_sha256, provider, redirect_to, user_id, expires_at)
         VALUES ($1, $2, $3, $4, $5, $6)",
        state,
        row.browser_sha256,
        row.provider,
        row.redirect_to,
        row.user.map(|user| user.0),
        row.expires_at
    )
    .execute(pool)
    .await?;
    Ok(())
}

/// Takes a state out: whoever asks again finds nothing, whatever became of the first.
pub(crate) async fn take_state(pool: &PgPool, state: &[u8]) -> Result<Option<StateRow>> {
    Ok(sqlx::query_as!(
        StateRow,
        r#"DELETE FROM oauth_states WHERE state_sha256 = $1
           RETURNING browser_sha256, provider, redirect_to, user_id AS "user: UserId", expires_at"#,
        state
    )
    .fetch_optional(pool)
    .await?)
}

/// The user of a known identity, whose latest address and login are noted.
pub(crate) async fn user_of_identity(
    db: &mut PgConnection,
    proven: &Proven,
    now: DateTime<Utc>,
) -> Result<Option<UserId>> {
    Ok(sqlx::query_scalar!(
        r#"UPDATE identities SET last_used_at = $4, email = COALESCE($5, email), login = COALESCE($6, login)
            WHERE provider = $1 AND issuer = $2 AND subject = $3
            RETURNING user_id AS "user: UserId""#,
        proven.provider,
        proven.issuer,
        proven.subject,
        now,
        proven.email,
        proven.login
    )
    .fetch_optional(db)
    .await?)
}

pub(crate) async fn insert_identity(
    db: &mut PgConnection,
    user: UserId,
    proven: &Proven,
    now: DateTime<Utc>,
) -> Result<()> {
    sqlx::query!(
        "INSERT INTO identities (id, user_id, provider, issuer, subject, email, login, created_at, last_used_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $8)",
        new_uuid(now),
        user.0,
        proven.provider,
        proven.issuer,
        proven.subject,
        proven.email,
        proven.login,
        now
    )
    .execute(db)
    .await
    .on_constraint("identities_subject_key", || {
        Error::conflict("conflict", "this identity was connected in this moment; try again")
    })?;
    Ok(())
}

/// An account that has a certain address.
pub(crate) struct Account {
    pub(crate) user: UserId,
    pub(crate) verified: bool,
    pub(crate) disabled: bool,
}

/// Locks it: of two who link an identity of one provider, the second sees the first.
pub(crate) async fn account_by_email(
    db: &mut PgConnection,
    email: &str,
) -> Result<Option<Account>> {
    Ok(sqlx::query_as!(
        Account,
        r#"SELECT id AS "user: UserId", email_verified_at IS NOT NULL AS "verified!", disabled_at IS NOT NULL AS "disabled!"
             FROM users WHERE email = $1 FOR NO KEY UPDATE"#,
        email
    )
    .fetch_optional(db)
    .await?)
}

pub(crate) async fn has_identity_of(
    db: &mut PgConnection,
    user: UserId,
    provider: &str,
) -> Result<bool> {
    Ok(sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT FROM identities WHERE user_id = $1 AND provider = $2) AS "has!""#,
        user.0,
        provider
    )
    .fetch_one(db)
    .await?)
}

pub(crate) async fn verify_email(
    db: &mut PgConnection,
    user: UserId,
    now: DateTime<Utc>,
) -> Result<()> {
    sqlx::query!(
        "UPDATE users SET email_verified_at = $2 WHERE id = $1 AND email_verified_at IS NULL",
        user.0,
        now
    )
    .execute(db)
    .await?;
    Ok(())
}

pub(crate) async fn name_user(db: &mut PgConnection, user: UserId, name: &str) -> Result<()> {
    sqlx::query!("UPDATE users SET name = $2 WHERE id = $1", user.0, name).execute(db).await?;
    Ok(())
}

/// Is there an open invitation to this address, from somebody who could still send it?
pub(crate) async fn is_invited(
    db: &mut PgConnection,
    email: &str,
    now: DateTime<Utc>,
) -> Result<bool> {
    Ok(sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT FROM organisation_invitations i
                           JOIN organisation_members m ON m.org_id = i.org_id AND m.user_id = i.invited_by
                           JOIN users u ON u.id = i.invited_by AND u.disabled_at IS NULL
                          WHERE i.email = $1 AND i.accepted_at IS NULL AND i.revoked_at IS NULL AND i.expires_at > $2
                            AND (m.role = 'owner' OR (m.role = 'admin' AND i.role <> 'owner'))) AS "is!""#,
        email,
        now
    )
    .fetch_one(db)
    .await?)
}

/// An identity as its owner sees it.
pub(crate) struct IdentityRow {
    pub(crate) id: Uuid,
    pub(crate) provider: String,
    pub(crate) email: Option<String>,
    pub(crate) login: Option<String>,
    pub(crate) created_at: DateTime<Utc>,
    pub(crate) last_used_at: DateTime<Utc>,
}

pub(crate) async fn identities(db: &mut PgConnection, user: UserId) -> Result<Vec<IdentityRow>> {
    Ok(sqlx::query_as!(
        IdentityRow,
        "SELECT id, provider, email, login, created_at, last_used_at FROM identities
          WHERE user_id = $1 ORDER BY created_at, id LIMIT 100",
        user.0
    )
    .fetch_all(db)
    .await?)
}

/// Gives the provider of what was removed.
pub(crate) async fn delete_identity(
    db: &mut PgConnection,
    user: UserId,
    id: Uuid,
) -> Result<Option<String>> {
    Ok(sqlx::query_scalar!(
        "DELETE FROM identities WHERE id = $1 AND user_id = $2 RETURNING provider",
        id,
        user.0
    )
    .fetch_optional(db)
    .await?)
}

/// Is the address of a user proven? Locks the user, so that two who remove ways in see each other.
pub(crate) async fn lock_user(db: &mut PgConnection, user: UserId) -> Result<(String, bool)> {
    let row = sqlx::query!(
        r#"SELECT email, email_verified_at IS NOT NULL AS "verified!" FROM users WHERE id = $1 FOR NO KEY UPDATE"#,
        user.0
    )
    .fetch_optional(db)
    .await?
    .ok_or_else(|| Error::not_found("user"))?;
    Ok((row.email, row.verified))
}
