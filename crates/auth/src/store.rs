//! The SQL of users, organisations and keys.

use chrono::{DateTime, Utc};
use loom_core::{
    Error, Result,
    error::OnConstraint,
    id::{ApiKeyId, OrgId, UserId},
    principal::{OrgRole, Scopes},
};
use sqlx::{PgConnection, PgExecutor, PgPool, types::Json};

use crate::model::{ApiKey, KeyHolder, KeyKind, Membership, Organisation, User, UserHolder};

/// The key with this digest, with its user and memberships, in one query.
pub(crate) async fn key_holder(pool: &PgPool, digest: &[u8]) -> Result<Option<KeyHolder>> {
    let row = sqlx::query!(
        r#"SELECT k.id AS "id: ApiKeyId", k.name, k.org_id AS "org_id: OrgId", o.slug, k.scopes, k.expires_at,
                  u.id AS "user_id?: UserId", u.email AS "email?", u.personal_org_id AS "personal_org_id?: OrgId",
                  u.is_system_admin AS "is_system_admin?", u.is_auditor AS "is_auditor?", u.disabled_at,
                  (SELECT jsonb_agg(jsonb_build_object('org', m.org_id, 'slug', mo.slug, 'role', m.role))
                     FROM organisation_members m JOIN organisations mo ON mo.id = m.org_id
                    WHERE m.user_id = k.user_id) AS "memberships: Json<Vec<Membership>>"
             FROM api_keys k
             JOIN organisations o ON o.id = k.org_id
             LEFT JOIN users u ON u.id = k.user_id
            WHERE k.secret_sha256 = $1 AND k.revoked_at IS NULL"#,
        digest
    )
    .fetch_optional(pool)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let user = match (row.user_id, row.email, row.personal_org_id) {
        (Some(id), Some(email), Some(personal_org)) => Some(UserHolder {
            id,
            email,
            personal_org,
            system_admin: row.is_system_admin.unwrap_or_default(),
            auditor: row.is_auditor.unwrap_or_default(),
            disabled: row.disabled_at.is_some(),
            memberships: row.memberships.map(|Json(list)| list).unwrap_or_default(),
        }),
        _ => None,
    };
    Ok(Some(KeyHolder {
        id: row.id,
        name: row.name,
        org: row.org_id,
        org_slug: row.slug,
        scopes: row.scopes.iter().filter_map(|scope| scope.parse().ok()).collect(),
        expires_at: row.expires_at,
        user,
    }))
}

/// Notes the use of a key, at most once a minute.
pub(crate) async fn touch_key(pool: &PgPool, key: ApiKeyId, now: DateTime<Utc>) -> Result<()> {
    sqlx::query!(
        "UPDATE api_keys SET last_used_at = $2
          WHERE id = $1 AND (last_used_at IS NULL OR last_used_at < $2::timestamptz - interval '1 minute')",
        key.0,
        now
    )
    .execute(pool)
    .await?;
    Ok(())
}

pub(crate) async fn user_holder(pool: &PgPool, id: UserId) -> Result<Option<UserHolder>> {
    let row = sqlx::query!(
        r#"SELECT email, personal_org_id AS "personal_org_id: OrgId", is_system_admin, is_auditor, disabled_at,
                  (SELECT jsonb_agg(jsonb_build_object('org', m.org_id, 'slug', o.slug, 'role', m.role))
                     FROM organisation_members m JOIN organisations o ON o.id = m.org_id
                    WHERE m.user_id = users.id) AS "memberships: Json<Vec<Membership>>"
             FROM users WHERE id = $1"#,
        id.0
    )
    .fetch_optional(pool)
    .await?;
    Ok(row.map(|row| UserHolder {
        id,
        email: row.email,
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
