//! The SQL of what is kept of requests and replies.

use chrono::{DateTime, Utc};
use loom_core::{Result, id::OrgId};
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::settings::{Cache, Capture, Settings};
use crate::CHANNEL;

/// Rows of one statement of the clean-up.
const BATCH: i64 = 1000;

struct SettingsRow {
    org_id: OrgId,
    cache_enabled: bool,
    cache_ttl_secs: i32,
    capture_enabled: bool,
    capture_retention_days: i32,
    capture_redact: bool,
}

impl From<SettingsRow> for Settings {
    fn from(row: SettingsRow) -> Self {
        Self {
            cache: Cache {
                enabled: row.cache_enabled,
                ttl_secs: row.cache_ttl_secs.unsigned_abs(),
            },
            capture: Capture {
                enabled: row.capture_enabled,
                retention_days: row.capture_retention_days.unsigned_abs(),
                redact: row.capture_redact,
            },
        }
    }
}

/// Of every organisation that keeps something.
pub(super) async fn all_settings(pool: &PgPool) -> Result<Vec<(OrgId, Settings)>> {
    let rows = sqlx::query_as!(
        SettingsRow,
        r#"SELECT org_id AS "org_id: OrgId", cache_enabled, cache_ttl_secs, capture_enabled, capture_retention_days,
                  capture_redact
             FROM llm_org_settings WHERE cache_enabled OR capture_enabled"#
    )
    .fetch_all(pool)
    .await?;
    Ok(rows.into_iter().map(|row| (row.org_id, row.into())).collect())
}

/// With the defaults, so that there is a row to be locked.
pub(super) async fn make_settings(
    db: &mut PgConnection,
    org: OrgId,
    now: DateTime<Utc>,
) -> Result<()> {
    let Settings { cache, capture } = Settings::default();
    sqlx::query!(
        "INSERT INTO llm_org_settings
             (org_id, cache_enabled, cache_ttl_secs, capture_enabled, capture_retention_days, capture_redact, updated_at)
           VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT ON CONSTRAINT llm_org_settings_pkey DO NOTHING",
        org.0,
        cache.enabled,
        cache.ttl_secs.cast_signed(),
        capture.enabled,
        capture.retention_days.cast_signed(),
        capture.redact,
        now
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Locked, when it is there, until the end of the transaction.
pub(super) async fn settings(db: &mut PgConnection, org: OrgId) -> Result<Settings> {
    let row = sqlx::query_as!(
        SettingsRow,
        r#"SELECT org_id AS "org_id: OrgId", cache_enabled, cache_ttl_secs, capture_enabled, capture_retention_days,
                  capture_redact
             FROM llm_org_settings WHERE org_id = $1 FOR UPDATE"#,
        org.0
    )
    .fetch_optional(db)
    .await?;
    Ok(row.map(Into::into).unwrap_or_default())
}

/// Stores them, and tells all replicas at the commit.
pub(super) async fn put_settings(
    db: &mut PgConnection,
    org: OrgId,
    settings: &Settings,
    now: DateTime<Utc>,
) -> Result<()> {
    sqlx::query!(
        "INSERT INTO llm_org_settings
             (org_id, cache_enabled, cache_ttl_secs, capture_enabled, capture_retention_days, capture_redact, updated_at)
           VALUES ($1, $2, $3, $4, $5, $6, $7)
           ON CONFLICT ON CONSTRAINT llm_org_settings_pkey DO UPDATE
             SET cache_enabled = excluded.cache_enabled, cache_ttl_secs = excluded.cache_ttl_secs,
                 capture_enabled = excluded.capture_enabled,
                 capture_retention_days = excluded.capture_retention_days,
                 capture_redact = excluded.capture_redact, updated_at = excluded.updated_at",
        org.0,
        settings.cache.enabled,
        settings.cache.ttl_secs.cast_signed(),
        settings.capture.enabled,
        settings.capture.retention_days.cast_signed(),
        settings.capture.redact,
        now
    )
    .execute(&mut *db)
    .await?;
    sqlx::query!("SELECT pg_notify($1, 'settings ' || $2::uuid)::text", CHANNEL, org.0)
        .fetch_one(db)
        .await?;
    Ok(())
}

/// One run of a request with a key.
pub(super) struct Claim<'a> {
    pub(super) org: OrgId,
    pub(super) key: &'a [u8],
    pub(super) attempt: Uuid,
}

/// Takes the key for this run when nobody has it: it is new, its day is over, or who ran it is dead.
pub(super) async fn claim(
    pool: &PgPool,
    claim: &Claim<'_>,
    body: &[u8],
    [now, lease_until, expires_at]: [DateTime<Utc>; 3],
) -> Result<bool> {
    let taken = sqlx::query!(
        "INSERT INTO llm_idempotency_keys AS k (org_id, key_digest, body_digest, attempt, state, lease_until, expires_at)
           VALUES ($1, $2, $3, $4, 'running', $6, $7)
           ON CONFLICT ON CONSTRAINT llm_idempotency_keys_pkey DO UPDATE
             SET body_digest = excluded.body_digest, attempt = excluded.attempt, state = 'running',
                 lease_until = excluded.lease_until, expires_at = excluded.expires_at, sealed_reply = NULL
           WHERE k.org_id = $1 AND (k.expires_at <= $5 OR (k.state = 'running' AND k.lease_until <= $5))",
        claim.org.0,
        claim.key,
        body,
        claim.attempt,
        now,
        lease_until,
        expires_at
    )
    .execute(pool)
    .await?;
    Ok(taken.rows_affected() == 1)
}

/// What is known under a key.
pub(super) struct Known {
    pub(super) body_digest: Vec<u8>,
    pub(super) attempt: Uuid,
    pub(super) state: String,
    pub(super) sealed_reply: Option<Vec<u8>>,
}

pub(super) async fn known(pool: &PgPool, org: OrgId, key: &[u8]) -> Result<Option<Known>> {
    Ok(sqlx::query_as!(
        Known,
        "SELECT body_digest, attempt, state, sealed_reply FROM llm_idempotency_keys WHERE org_id = $1 AND key_digest = $2",
        org.0,
        key
    )
    .fetch_optional(pool)
    .await?)
}

/// False: the claim is lost.
pub(super) async fn renew(pool: &PgPool, claim: &Claim<'_>, until: DateTime<Utc>) -> Result<bool> {
    let renewed = sqlx::query!(
        "UPDATE llm_idempotency_keys SET lease_until = $4
           WHERE org_id = $1 AND key_digest = $2 AND attempt = $3 AND state = 'running'",
        claim.org.0,
        claim.key,
        claim.attempt,
        until
    )
    .execute(pool)
    .await?;
    Ok(renewed.rows_affected() == 1)
}

/// Keeps the reply; without one, that it was too large.
pub(super) async fn finish(
    pool: &PgPool,
    claim: &Claim<'_>,
    sealed_reply: Option<&[u8]>,
) -> Result<()> {
    sqlx::query!(
        "UPDATE llm_idempotency_keys
            SET state = CASE WHEN $4::bytea IS NULL THEN 'too_large' ELSE 'finished' END, sealed_reply = $4
           WHERE org_id = $1 AND key_digest = $2 AND attempt = $3 AND state = 'running'",
        claim.org.0,
        claim.key,
        claim.attempt,
        sealed_reply
    )
    .execute(pool)
    .await?;
    Ok(())
}

/// Nothing came of the run: the key is free again.
pub(super) async fn release(pool: &PgPool, claim: &Claim<'_>) -> Result<()> {
    sqlx::query!(
        "DELETE FROM llm_idempotency_keys WHERE org_id = $1 AND key_digest = $2 AND attempt = $3 AND state = 'running'",
        claim.org.0,
        claim.key,
        claim.attempt
    )
    .execute(pool)
    .await?;
    Ok(())
}

pub(super) struct Cached {
    pub(super) provider: String,
    pub(super) model: String,
    pub(super) sealed_reply: Vec<u8>,
    pub(super) stored_at: DateTime<Utc>,
}

pub(super) async fn cached(
    pool: &PgPool,
    org: OrgId,
    request: &[u8],
    newer_than: DateTime<Utc>,
) -> Result<Option<Cached>> {
    Ok(sqlx::query_as!(
        Cached,
        "SELECT provider, model, sealed_reply, stored_at FROM llm_cached_replies
          WHERE org_id = $1 AND request_digest = $2 AND stored_at > $3",
        org.0,
        request,
        newer_than
    )
    .fetch_optional(pool)
    .await?)
}

/// Only while the organisation wants it: it may have changed its mind since the request.
pub(super) async fn put_cached(
    pool: &PgPool,
    org: OrgId,
    request: &[u8],
    reply: &Cached,
) -> Result<()> {
    sqlx::query!(
        "INSERT INTO llm_cached_replies (org_id, request_digest, provider, model, sealed_reply, stored_at)
           SELECT $1, $2, $3, $4, $5, $6 FROM llm_org_settings WHERE org_id = $1 AND cache_enabled FOR SHARE
           ON CONFLICT ON CONSTRAINT llm_cached_replies_pkey DO UPDATE
             SET provider = excluded.provider, model = excluded.model, sealed_reply = excluded.sealed_reply,
                 stored_at = excluded.stored_at",
        org.0,
        request,
        reply.provider,
        reply.model,
        reply.sealed_reply,
        reply.stored_at
    )
    .execute(pool)
    .await?;
    Ok(())
}

pub(super) async fn delete_cached(db: &mut PgConnection, org: OrgId) -> Result<u64> {
    let done = sqlx::query!("DELETE FROM llm_cached_replies WHERE org_id = $1", org.0);
    Ok(done.execute(db).await?.rows_affected())
}

/// A request and its reply as they are kept.
pub(super) struct CaptureRow {
    pub(super) request_id: Uuid,
    pub(super) captured_at: DateTime<Utc>,
    pub(super) status: i32,
    pub(super) content_type: Option<String>,
    pub(super) is_whole: bool,
    pub(super) is_redacted: bool,
    pub(super) request_truncated: bool,
    pub(super) reply_truncated: bool,
    pub(super) sealed_request: Vec<u8>,
    pub(super) sealed_reply: Vec<u8>,
}

/// Only while the organisation wants it: it may have changed its mind since the request.
pub(super) async fn put_capture(pool: &PgPool, org: OrgId, row: &CaptureRow) -> Result<()> {
    sqlx::query!(
        "INSERT INTO llm_captures (org_id, request_id, captured_at, status, content_type, is_whole, is_redacted,
                                   request_truncated, reply_truncated, sealed_request, sealed_reply)
           SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11
             FROM llm_org_settings WHERE org_id = $1 AND capture_enabled FOR SHARE
           ON CONFLICT ON CONSTRAINT llm_captures_pkey DO NOTHING",
        org.0,
        row.request_id,
        row.captured_at,
        row.status,
        row.content_type,
        row.is_whole,
        row.is_redacted,
        row.request_truncated,
        row.reply_truncated,
        row.sealed_request,
        row.sealed_reply
    )
    .execute(pool)
    .await?;
    Ok(())
}

pub(super) async fn capture(
    pool: &PgPool,
    org: OrgId,
    request: Uuid,
    now: DateTime<Utc>,
) -> Result<Option<CaptureRow>> {
    Ok(sqlx::query_as!(
        CaptureRow,
        "SELECT c.request_id, c.captured_at, c.status, c.content_type, c.is_whole, c.is_redacted, c.request_truncated,
                c.reply_truncated, c.sealed_request, c.sealed_reply
           FROM llm_captures c JOIN llm_org_settings s ON s.org_id = c.org_id
          WHERE c.org_id = $1 AND c.request_id = $2
            AND c.captured_at > $3::timestamptz - make_interval(days => s.capture_retention_days)",
        org.0,
        request,
        now
    )
    .fetch_optional(pool)
    .await?)
}

pub(super) async fn delete_captures(db: &mut PgConnection, org: OrgId) -> Result<u64> {
    let done = sqlx::query!("DELETE FROM llm_captures WHERE org_id = $1", org.0);
    Ok(done.execute(db).await?.rows_affected())
}

/// A batch of what is past its time; how many rows went.
pub(super) async fn purge(pool: &PgPool, now: DateTime<Utc>) -> Result<u64, sqlx::Error> {
    let keys = sqlx::query!(
        "DELETE FROM llm_idempotency_keys WHERE (org_id, key_digest) IN
           (SELECT org_id, key_digest FROM llm_idempotency_keys WHERE expires_at <= $1 LIMIT $2)",
        now,
        BATCH
    )
    .execute(pool)
    .await?;
    let cached = sqlx::query!(
        "DELETE FROM llm_cached_replies WHERE (org_id, request_digest) IN
           (SELECT c.org_id, c.request_digest FROM llm_org_settings s JOIN llm_cached_replies c
                ON c.org_id = s.org_id AND c.stored_at <= $1::timestamptz - make_interval(secs => s.cache_ttl_secs) LIMIT $2)",
        now,
        BATCH
    )
    .execute(pool)
    .await?;
    let captures = sqlx::query!(
        "DELETE FROM llm_captures WHERE (org_id, request_id) IN
           (SELECT c.org_id, c.request_id FROM llm_org_settings s JOIN llm_captures c
                ON c.org_id = s.org_id AND c.captured_at <= $1::timestamptz - make_interval(days => s.capture_retention_days) LIMIT $2)",
        now,
        BATCH
    )
    .execute(pool)
    .await?;
    Ok(keys.rows_affected() + cached.rows_affected() + captures.rows_affected())
}
