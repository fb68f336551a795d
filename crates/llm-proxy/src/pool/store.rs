//! The SQL of credentials. Whatever changes one tells all replicas of it in the same transaction.

use chrono::{DateTime, Utc};
use loom_core::{Error, Result, error::OnConstraint, id::CredentialId};
use serde_json::Value;
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

/// So many are read. More would slow the choice of one down.
const MOST: i64 = 1000;

/// A row with what is sealed in it.
pub(crate) struct CredentialRow {
    pub(crate) id: CredentialId,
    pub(crate) provider: String,
    pub(crate) name: String,
    pub(crate) kind: String,
    pub(crate) config: Value,
    pub(crate) sealed_secret: Vec<u8>,
    pub(crate) last_four: String,
    pub(crate) version: i64,
    pub(crate) sealed_token: Option<Vec<u8>>,
    pub(crate) token_expires_at: Option<DateTime<Utc>>,
    pub(crate) generation: i64,
    pub(crate) disabled_at: Option<DateTime<Utc>>,
    pub(crate) disabled_by: Option<String>,
    pub(crate) disabled_reason: Option<String>,
    pub(crate) cooling_until: Option<DateTime<Utc>>,
    pub(crate) last_error: Option<String>,
    pub(crate) last_error_at: Option<DateTime<Utc>>,
    pub(crate) created_at: DateTime<Utc>,
    pub(crate) updated_at: DateTime<Utc>,
}

/// All of them, or one.
pub(crate) async fn read(pool: &PgPool, only: Option<CredentialId>) -> Result<Vec<CredentialRow>> {
    Ok(sqlx::query_as!(
        CredentialRow,
        r#"SELECT id AS "id: CredentialId", provider, name, kind, config, sealed_secret, last_four, version,
                  sealed_token, token_expires_at, generation, disabled_at, disabled_by, disabled_reason,
                  cooling_until, last_error, last_error_at, created_at, updated_at
             FROM llm_credentials WHERE $1::uuid IS NULL OR id = $1
            ORDER BY provider, created_at, id LIMIT $2"#,
        only.map(|id| id.0),
        MOST
    )
    .fetch_all(pool)
    .await?)
}

/// What a new row holds.
pub(crate) struct NewRow<'a> {
    pub(crate) id: CredentialId,
    pub(crate) provider: &'a str,
    pub(crate) name: &'a str,
    pub(crate) kind: &'a str,
    pub(crate) config: &'a Value,
    pub(crate) sealed_secret: &'a [u8],
    pub(crate) last_four: &'a str,
    pub(crate) sealed_token: Option<&'a [u8]>,
    pub(crate) token_expires_at: Option<DateTime<Utc>>,
}

fn name_taken() -> Error {
    Error::conflict("conflict", "this provider has a credential of this name; choose another")
}

pub(crate) async fn insert(pool: &PgPool, row: &NewRow<'_>, now: DateTime<Utc>) -> Result<()> {
    let inserted = sqlx::query!(
        r#"WITH added AS (
             INSERT INTO llm_credentials (id, provider, name, kind, config, sealed_secret, last_four, sealed_token,
                                          token_expires_at, created_at, updated_at)
             SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $10
              WHERE (SELECT count(*) FROM llm_credentials) < $11 RETURNING id)
           SELECT pg_notify('loom_llm', 'credentials ' || id)::text AS said FROM added"#,
        row.id.0,
        row.provider,
        row.name,
        row.kind,
        row.config,
        row.sealed_secret,
        row.last_four,
        row.sealed_token,
        row.token_expires_at,
        now,
        MOST
    )
    .fetch_optional(pool)
    .await
    .on_constraint("llm_credentials_name_key", name_taken)?;
    match inserted {
        Some(_) => Ok(()),
        None => Err(Error::conflict(
            "too_many_credentials",
            "there are 1000 credentials; delete some that are not used any more",
        )),
    }
}

/// What people change. Absent stays.
#[derive(Default)]
pub(crate) struct Changed<'a> {
    pub(crate) name: Option<&'a str>,
    pub(crate) config: Option<&'a Value>,
    pub(crate) sealed_secret: Option<&'a [u8]>,
    pub(crate) last_four: Option<&'a str>,
    /// With a new secret: in place of the token that belonged to the old one.
    pub(crate) sealed_token: Option<&'a [u8]>,
    pub(crate) token_expires_at: Option<DateTime<Utc>>,
}

/// A new secret also ends whatever state the old one was in, unless an admin disabled it.
pub(crate) async fn change(
    pool: &PgPool,
    id: CredentialId,
    change: &Changed<'_>,
    now: DateTime<Utc>,
) -> Result<bool> {
    let changed = sqlx::query!(
        r#"WITH changed AS (
             UPDATE llm_credentials SET
                    name = coalesce($2, name), config = coalesce($3, config),
                    sealed_secret = coalesce($4, sealed_secret), last_four = coalesce($5, last_four),
                    sealed_token = CASE WHEN $4::bytea IS NULL THEN sealed_token ELSE $6 END,
                    token_expires_at = CASE WHEN $4::bytea IS NULL THEN token_expires_at ELSE $7 END,
                    generation = generation + CASE WHEN $4::bytea IS NULL THEN 0 ELSE 1 END,
                    refreshing_until = CASE WHEN $4::bytea IS NULL THEN refreshing_until END,
                    cooling_until = CASE WHEN $4::bytea IS NULL THEN cooling_until END,
                    disabled_at = CASE WHEN $4::bytea IS NULL OR disabled_by = 'admin' THEN disabled_at END,
                    disabled_reason = CASE WHEN $4::bytea IS NULL OR disabled_by = 'admin' THEN disabled_reason END,
                    disabled_by = CASE WHEN $4::bytea IS NULL OR disabled_by = 'admin' THEN disabled_by END,
                    version = version + 1, updated_at = $8
              WHERE id = $1 RETURNING id)
           SELECT pg_notify('loom_llm', 'credentials ' || id)::text AS said FROM changed"#,
        id.0,
        change.name,
        change.config,
        change.sealed_secret,
        change.last_four,
        change.sealed_token,
        change.token_expires_at,
        now
    )
    .fetch_optional(pool)
    .await
    .on_constraint("llm_credentials_name_key", name_taken)?;
    Ok(changed.is_some())
}

/// Enabled, it is as new: not cooling either.
pub(crate) async fn enable(pool: &PgPool, id: CredentialId, now: DateTime<Utc>) -> Result<bool> {
    let changed = sqlx::query!(
        r#"WITH changed AS (
             UPDATE llm_credentials SET disabled_at = NULL, disabled_by = NULL, disabled_reason = NULL,
                    cooling_until = NULL, version = version + 1, updated_at = $2
              WHERE id = $1 RETURNING id)
           SELECT pg_notify('loom_llm', 'credentials ' || id)::text AS said FROM changed"#,
        id.0,
        now
    )
    .fetch_optional(pool)
    .await?;
    Ok(changed.is_some())
}

pub(crate) async fn disable(
    pool: &PgPool,
    id: CredentialId,
    reason: &str,
    now: DateTime<Utc>,
) -> Result<bool> {
    let changed = sqlx::query!(
        r#"WITH changed AS (
             UPDATE llm_credentials SET disabled_at = $3, disabled_by = 'admin', disabled_reason = $2,
                    version = version + 1, updated_at = $3
              WHERE id = $1 RETURNING id)
           SELECT pg_notify('loom_llm', 'credentials ' || id)::text AS said FROM changed"#,
        id.0,
        reason,
        now
    )
    .fetch_optional(pool)
    .await?;
    Ok(changed.is_some())
}

pub(crate) async fn delete(pool: &PgPool, id: CredentialId) -> Result<bool> {
    let deleted = sqlx::query!(
        r#"WITH deleted AS (DELETE FROM llm_credentials WHERE id = $1 RETURNING id)
           SELECT pg_notify('loom_llm', 'credentials ' || id)::text AS said FROM deleted"#,
        id.0
    )
    .fetch_optional(pool)
    .await?;
    Ok(deleted.is_some())
}

/// It rests until then, or longer when that is written already.
pub(crate) async fn cool(
    pool: &PgPool,
    id: CredentialId,
    version: i64,
    until: DateTime<Utc>,
    reason: &str,
    now: DateTime<Utc>,
) -> Result<()> {
    sqlx::query!(
        r#"WITH changed AS (
             UPDATE llm_credentials SET cooling_until = GREATEST(cooling_until, $3), last_error = $4, last_error_at = $5
              WHERE id = $1 AND version = $2 RETURNING id)
           SELECT pg_notify('loom_llm', 'credentials ' || id)::text AS said FROM changed"#,
        id.0,
        version,
        until,
        reason,
        now
    )
    .fetch_optional(pool)
    .await?;
    Ok(())
}

/// Disables what was refused, if it is still what is stored (of a key, which has no tokens, whatever their
/// count). Gives whether this did it.
pub(crate) async fn disable_refused(
    db: &mut PgConnection,
    id: CredentialId,
    (version, generation): (i64, Option<i64>),
    by: &str,
    reason: &str,
    now: DateTime<Utc>,
) -> Result<bool> {
    let changed = sqlx::query!(
        r#"WITH changed AS (
             UPDATE llm_credentials SET disabled_at = $6, disabled_by = $4, disabled_reason = $5,
                    last_error = $5, last_error_at = $6, refreshing_until = NULL, refreshing_by = NULL
              WHERE id = $1 AND version = $2 AND ($3::bigint IS NULL OR generation = $3) AND disabled_at IS NULL
              RETURNING id)
           SELECT pg_notify('loom_llm', 'credentials ' || id)::text AS said FROM changed"#,
        id.0,
        version,
        generation,
        by,
        reason,
        now
    )
    .fetch_optional(db)
    .await?;
    Ok(changed.is_some())
}

/// Takes the right to ask for the token after `generation`, for a minute. False: somebody else has it, or
/// has used it.
pub(crate) async fn begin_refresh(
    pool: &PgPool,
    id: CredentialId,
    generation: i64,
    by: Uuid,
) -> Result<bool> {
    let begun = sqlx::query!(
        "UPDATE llm_credentials SET refreshing_until = now() + interval '60 seconds', refreshing_by = $3
          WHERE id = $1 AND generation = $2 AND disabled_at IS NULL
            AND (refreshing_until IS NULL OR refreshing_until < now())",
        id.0,
        generation,
        by
    )
    .execute(pool)
    .await?;
    Ok(begun.rows_affected() == 1)
}

/// What came of it. The refresh token is written with the token, before either is used.
pub(crate) async fn finish_refresh(
    pool: &PgPool,
    id: CredentialId,
    generation: i64,
    sealed_secret: Option<&[u8]>,
    sealed_token: &[u8],
    expires_at: DateTime<Utc>,
) -> Result<bool> {
    let stored = sqlx::query!(
        r#"WITH changed AS (
             UPDATE llm_credentials SET sealed_secret = coalesce($3, sealed_secret), sealed_token = $4,
                    token_expires_at = $5, generation = generation + 1, refreshing_until = NULL, refreshing_by = NULL
              WHERE id = $1 AND generation = $2 RETURNING id)
           SELECT pg_notify('loom_llm', 'credentials ' || id)::text AS said FROM changed"#,
        id.0,
        generation,
        sealed_secret,
        sealed_token,
        expires_at
    )
    .fetch_optional(pool)
    .await?;
    Ok(stored.is_some())
}

/// It brought nothing, and may be tried again.
pub(crate) async fn give_up_refresh(
    pool: &PgPool,
    id: CredentialId,
    by: Uuid,
    reason: &str,
    now: DateTime<Utc>,
) -> Result<()> {
    sqlx::query!(
        "UPDATE llm_credentials SET refreshing_until = NULL, refreshing_by = NULL, last_error = $3, last_error_at = $4
          WHERE id = $1 AND refreshing_by = $2",
        id.0,
        by,
        reason,
        now
    )
    .execute(pool)
    .await?;
    Ok(())
}

/// Those whose token ends before `before`, or that have none yet.
pub(crate) async fn ending(pool: &PgPool, before: DateTime<Utc>) -> Result<Vec<CredentialId>> {
    Ok(sqlx::query_scalar!(
        r#"SELECT id AS "id: CredentialId" FROM llm_credentials
            WHERE kind <> 'api_key' AND disabled_at IS NULL AND (token_expires_at IS NULL OR token_expires_at <= $1)
            ORDER BY token_expires_at NULLS FIRST LIMIT $2"#,
        before,
        MOST
    )
    .fetch_all(pool)
    .await?)
}

/// The same secrets under another master key, if they are still the same.
pub(crate) async fn rewrap(
    pool: &PgPool,
    id: CredentialId,
    from: (&[u8], Option<&[u8]>),
    to: (&[u8], Option<&[u8]>),
) -> Result<()> {
    sqlx::query!(
        "UPDATE llm_credentials SET sealed_secret = $4, sealed_token = $5
          WHERE id = $1 AND sealed_secret = $2 AND sealed_token IS NOT DISTINCT FROM $3",
        id.0,
        from.0,
        from.1,
        to.0,
        to.1
    )
    .execute(pool)
    .await?;
    Ok(())
}
