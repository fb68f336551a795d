//! The SQL of API keys.

use chrono::{DateTime, Utc};
use loom_core::{
    Result,
    id::{ApiKeyId, OrgId, UserId},
    principal::Scopes,
};
use sqlx::{PgExecutor, PgPool};

use super::model::{ApiKey, KeyKind, usd};
use crate::authenticate::{Revoked, store::scopes};

/// Notes the use of a key, at most once in five minutes.
/// What a key may spend on models in a month.
pub(crate) async fn budget(db: impl PgExecutor<'_>, key: ApiKeyId) -> Result<Option<i64>> {
    let budget = sqlx::query_scalar!("SELECT budget_nanousd FROM api_keys WHERE id = $1", key.0)
        .fetch_optional(db)
        .await?;
    Ok(budget.flatten())
}

pub(crate) async fn touch_key(pool: &PgPool, key: ApiKeyId, now: DateTime<Utc>) -> Result<()> {
    sqlx::query!(
        "UPDATE api_keys SET last_used_at = $2
          WHERE id = $1 AND (last_used_at IS NULL OR last_used_at <= $2::timestamptz - interval '5 minutes')",
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
    pub(crate) created_ip: Option<String>,
    pub(crate) expires_at: Option<DateTime<Utc>>,
    pub(crate) networks: &'a [String],
    pub(crate) budget_nanousd: Option<i64>,
}

pub(crate) async fn insert_key(db: impl PgExecutor<'_>, key: &KeyRow<'_>) -> Result<()> {
    let scopes: Vec<String> = key.scopes.iter().map(|scope| scope.as_str().to_owned()).collect();
    sqlx::query!(
        "INSERT INTO api_keys (id, org_id, user_id, name, secret_sha256, last_four, scopes, created_by, created_at,
                               created_ip, expires_at, networks, budget_nanousd)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)",
        key.id.0,
        key.org.0,
        key.user.map(|user| user.0),
        key.name,
        key.digest,
        key.last_four,
        &scopes,
        key.created_by.map(|user| user.0),
        key.created_at,
        key.created_ip,
        key.expires_at,
        key.networks,
        key.budget_nanousd
    )
    .execute(db)
    .await?;
    Ok(())
}

/// A key as it stands in its table.
struct Stored {
    id: ApiKeyId,
    user_id: Option<UserId>,
    name: String,
    last_four: String,
    scopes: Vec<String>,
    networks: Vec<String>,
    budget_nanousd: Option<i64>,
    created_at: DateTime<Utc>,
    expires_at: Option<DateTime<Utc>>,
    last_used_at: Option<DateTime<Utc>>,
}

impl From<Stored> for ApiKey {
    fn from(row: Stored) -> Self {
        let kind = if row.user_id.is_some() { KeyKind::Personal } else { KeyKind::Service };
        Self {
            id: row.id,
            kind,
            name: row.name,
            hint: hint(kind, &row.last_four),
            scopes: scopes(&row.scopes).iter().collect(),
            user_id: row.user_id,
            allowed_networks: row.networks,
            monthly_budget_usd: row.budget_nanousd.map(usd),
            created_at: row.created_at,
            expires_at: row.expires_at,
            last_used_at: row.last_used_at,
        }
    }
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
    let rows = sqlx::query_as!(
        Stored,
        r#"SELECT id AS "id: ApiKeyId", user_id AS "user_id: UserId", name, last_four, scopes, networks, budget_nanousd,
                  created_at, expires_at, last_used_at
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
    Ok(rows.into_iter().map(ApiKey::from).collect())
}

/// One key that is not revoked; `user` limits it to that user's own.
pub(crate) async fn key(
    db: impl PgExecutor<'_>,
    org: OrgId,
    key: ApiKeyId,
    user: Option<UserId>,
) -> Result<Option<ApiKey>> {
    let row = sqlx::query_as!(
        Stored,
        r#"SELECT id AS "id: ApiKeyId", user_id AS "user_id: UserId", name, last_four, scopes, networks, budget_nanousd,
                  created_at, expires_at, last_used_at
             FROM api_keys
            WHERE org_id = $1 AND id = $2 AND revoked_at IS NULL AND ($3::uuid IS NULL OR user_id = $3)"#,
        org.0,
        key.0,
        user.map(|user| user.0)
    )
    .fetch_optional(db)
    .await?;
    Ok(row.map(ApiKey::from))
}

/// What a key is limited by.
#[derive(Default)]
pub(crate) struct KeyLimits {
    pub(crate) expires_at: Option<DateTime<Utc>>,
    pub(crate) networks: Vec<String>,
    pub(crate) budget_nanousd: Option<i64>,
}

pub(crate) async fn limits(pool: &PgPool, key: ApiKeyId) -> Result<Option<KeyLimits>> {
    Ok(sqlx::query_as!(
        KeyLimits,
        "SELECT expires_at, networks, budget_nanousd FROM api_keys WHERE id = $1",
        key.0
    )
    .fetch_optional(pool)
    .await?)
}

/// Writes what can change of a key; gives what caches must forget. None when there is no such key any more.
pub(crate) async fn update_key(
    db: impl PgExecutor<'_>,
    org: OrgId,
    key: &ApiKey,
    budget_nanousd: Option<i64>,
) -> Result<Option<Revoked>> {
    let digest = sqlx::query_scalar!(
        "UPDATE api_keys SET name = $3, expires_at = $4, networks = $5, budget_nanousd = $6
          WHERE org_id = $1 AND id = $2 AND revoked_at IS NULL RETURNING secret_sha256",
        org.0,
        key.id.0,
        key.name,
        key.expires_at,
        &key.allowed_networks,
        budget_nanousd
    )
    .fetch_optional(db)
    .await?;
    Ok(digest.as_deref().and_then(Revoked::digest))
}

pub(crate) fn hint(kind: KeyKind, last_four: &str) -> String {
    match kind {
        KeyKind::Personal => format!("loom_pat_…{last_four}"),
        KeyKind::Service => format!("loom_svc_…{last_four}"),
    }
}

/// Ends a key; gives what caches must forget. `user` limits it to that user's own.
pub(crate) async fn revoke_key(
    db: impl PgExecutor<'_>,
    org: OrgId,
    key: ApiKeyId,
    user: Option<UserId>,
    now: DateTime<Utc>,
) -> Result<Option<Revoked>> {
    let digest = sqlx::query_scalar!(
        "UPDATE api_keys SET revoked_at = $4, revoked_because = 'revoked'
          WHERE org_id = $1 AND id = $2 AND revoked_at IS NULL AND ($3::uuid IS NULL OR user_id = $3)
          RETURNING secret_sha256",
        org.0,
        key.0,
        user.map(|user| user.0),
        now
    )
    .fetch_optional(db)
    .await?;
    Ok(digest.as_deref().and_then(Revoked::digest))
}

/// Ends every personal key of a user, in one organisation or in all.
pub(crate) async fn revoke_keys_of(
    db: impl PgExecutor<'_>,
    user: UserId,
    org: Option<OrgId>,
    because: &str,
    now: DateTime<Utc>,
) -> Result<Vec<Revoked>> {
    let digests = sqlx::query_scalar!(
        "UPDATE api_keys SET revoked_at = $4, revoked_because = $3
          WHERE user_id = $1 AND ($2::uuid IS NULL OR org_id = $2) AND revoked_at IS NULL
          RETURNING secret_sha256",
        user.0,
        org.map(|org| org.0),
        because,
        now
    )
    .fetch_all(db)
    .await?;
    Ok(digests.iter().filter_map(|digest| Revoked::digest(digest)).collect())
}

/// A key that was found where it should not be.
pub(crate) struct Leaked {
    pub(crate) id: ApiKeyId,
    pub(crate) org: OrgId,
    pub(crate) name: String,
    pub(crate) hint: String,
    /// Whom to tell: the user of a personal key, the owners of an organisation for a service key.
    pub(crate) tell: Vec<String>,
}

pub(crate) async fn revoke_leaked(
    db: impl PgExecutor<'_>,
    digest: &[u8],
    now: DateTime<Utc>,
) -> Result<Option<Leaked>> {
    let row = sqlx::query!(
        r#"WITH ended AS (
               UPDATE api_keys SET revoked_at = $2, revoked_because = 'reported'
                WHERE secret_sha256 = $1 AND revoked_at IS NULL
                RETURNING id, org_id, user_id, name, last_four)
           SELECT e.id AS "id: ApiKeyId", e.org_id AS "org_id: OrgId", e.user_id AS "user_id: UserId", e.name,
                  e.last_four,
                  ARRAY(SELECT u.email FROM users u
                         WHERE u.disabled_at IS NULL
                           AND (u.id = e.user_id OR e.user_id IS NULL AND u.id IN
                                (SELECT m.user_id FROM organisation_members m
                                  WHERE m.org_id = e.org_id AND m.role = 'owner'))
                         ORDER BY u.email LIMIT 20) AS "tell!"
             FROM ended e"#,
        digest,
        now
    )
    .fetch_optional(db)
    .await?;
    Ok(row.map(|row| {
        let kind = if row.user_id.is_some() { KeyKind::Personal } else { KeyKind::Service };
        let hint = hint(kind, &row.last_four);
        Leaked { id: row.id, org: row.org_id, name: row.name, hint, tell: row.tell }
    }))
}
