//! The SQL of API keys.

use chrono::{DateTime, Utc};
use loom_core::{
    Result,
    id::{ApiKeyId, OrgId, UserId},
    principal::Scopes,
};
use sqlx::{PgExecutor, PgPool};

use super::model::{ApiKey, KeyKind};

/// Notes the use of a key, at most once in five minutes.
pub(crate) async fn touch_key(pool: &PgPool, key: ApiKeyId, now: DateTime<Utc>) -> Result<()> {
    sqlx::query!(
        "UPDATE api_keys SET last_used_at = $2
          WHERE id = $1 AND (last_used_at IS NULL OR last_used_at < $2::timestamptz - interval '5 minutes')",
        key.0,
        now
    )
    .execute(pool)
    .await?;
    Ok(())
}

/// A key about to be stored.
pub(crate) struct KeyRow<'a> {
    pub(crate) id: ApiKeyId,
    pub(crate) org: OrgId,
    pub(crate) user: Option<UserId>,
    pub(crate) name: &'a str,
    pub(crate) digest: &'a [u8],
    pub(crate) last_four: &'a str,
    pub(crate) scopes: Scopes,
    pub(crate) created_by: Option<UserId>,
    pub(crate) created_at: DateTime<Utc>,
    pub(crate) expires_at: Option<DateTime<Utc>>,
}

pub(crate) async fn insert_key(db: impl PgExecutor<'_>, key: &KeyRow<'_>) -> Result<()> {
    let scopes: Vec<String> = key.scopes.iter().map(|scope| scope.as_str().to_owned()).collect();
    sqlx::query!(
        "INSERT INTO api_keys (id, org_id, user_id, name, secret_sha256, last_four, scopes, created_by, created_at, expires_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        key.id.0,
        key.org.0,
        key.user.map(|user| user.0),
        key.name,
        key.digest,
        key.last_four,
        &scopes,
        key.created_by.map(|user| user.0),
        key.created_at,
        key.expires_at
    )
    .execute(db)
    .await?;
    Ok(())
}

/// The keys of an organisation, newest first; only those of `user` when given.
pub(crate) async fn keys(
    pool: &PgPool,
    org: OrgId,
    user: Option<UserId>,
    after: Option<(DateTime<Utc>, ApiKeyId)>,
    limit: usize,
) -> Result<Vec<ApiKey>> {
    let (at, id) = after.unzip();
    let rows = sqlx::query!(
        r#"SELECT id AS "id: ApiKeyId", user_id AS "user_id: UserId", name, last_four, scopes, created_at, expires_at, last_used_at
             FROM api_keys
            WHERE org_id = $1 AND revoked_at IS NULL AND ($2::uuid IS NULL OR user_id = $2)
              AND ($3::timestamptz IS NULL OR (created_at, id) < ($3, $4))
            ORDER BY created_at DESC, id DESC LIMIT $5"#,
        org.0,
        user.map(|user| user.0),
        at,
        id.map(|id| id.0),
        i64::try_from(limit).unwrap_or(i64::MAX)
    )
    .fetch_all(pool)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| {
            let kind = if row.user_id.is_some() { KeyKind::Personal } else { KeyKind::Service };
            ApiKey {
                id: row.id,
                kind,
                name: row.name,
                hint: hint(kind, &row.last_four),
                scopes: row.scopes.iter().filter_map(|scope| scope.parse().ok()).collect(),
                user_id: row.user_id,
                created_at: row.created_at,
                expires_at: row.expires_at,
                last_used_at: row.last_used_at,
            }
        })
        .collect())
}

pub(crate) fn hint(kind: KeyKind, last_four: &str) -> String {
    match kind {
        KeyKind::Personal => format!("loom_pat_…{last_four}"),
        KeyKind::Service => format!("loom_svc_…{last_four}"),
    }
}

/// Ends a key; gives its digest, so that caches can forget it. `user` limits it to that user's own.
pub(crate) async fn revoke_key(
    db: impl PgExecutor<'_>,
    org: OrgId,
    key: ApiKeyId,
    user: Option<UserId>,
    now: DateTime<Utc>,
) -> Result<Option<Vec<u8>>> {
    Ok(sqlx::query_scalar!(
        "UPDATE api_keys SET revoked_at = $4
          WHERE org_id = $1 AND id = $2 AND revoked_at IS NULL AND ($3::uuid IS NULL OR user_id = $3)
          RETURNING secret_sha256",
        org.0,
        key.0,
        user.map(|user| user.0),
        now
    )
    .fetch_optional(db)
    .await?)
}
