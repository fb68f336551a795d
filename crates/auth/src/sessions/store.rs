//! The SQL of sessions.

use chrono::{DateTime, Utc};
use loom_core::{
    Result,
    id::{OrgId, SessionId, UserId},
    principal::{Scopes, Via},
};
use sqlx::{PgConnection, PgPool, types::Json};

use super::{
    ABSOLUTE, NewSession, Origin, SLIDING, SessionKind,
    model::{Session, device},
};
use crate::{
    authenticate::{
        holder::{Holder, Who},
        store::Found,
    },
    users::model::{Membership, UserHolder},
};

/// Rows that one statement of a clean-up removes.
const BATCH: i64 = 5000;

pub(crate) async fn insert(
    db: &mut PgConnection,
    session: &NewSession,
    user: UserId,
    digest: &[u8],
    origin: &Origin<'_>,
    now: DateTime<Utc>,
) -> Result<()> {
    sqlx::query!(
        "INSERT INTO user_sessions (id, user_id, kind, secret_sha256, method, client, user_agent, ip,
                                    created_at, last_used_at, expires_at, last_expires_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $9, $10, $11)",
        session.id.0,
        user.0,
        origin.kind as SessionKind,
        digest,
        origin.method,
        origin.client,
        origin.user_agent,
        origin.ip,
        now,
        session.expires_at,
        now + ABSOLUTE
    )
    .execute(db)
    .await?;
    Ok(())
}

/// The session with this digest, with its user and memberships, in one query.
pub(crate) async fn holder(pool: &PgPool, digest: &[u8]) -> Result<Option<Found>> {
    let row = sqlx::query!(
        r#"SELECT s.id AS "id: SessionId", s.expires_at, s.last_used_at,
                  u.id AS "user_id: UserId", u.email, u.personal_org_id AS "personal_org_id: OrgId",
                  u.is_system_admin, u.is_auditor, u.disabled_at,
                  (SELECT jsonb_agg(jsonb_build_object('org', m.org_id, 'slug', o.slug, 'role', m.role))
                     FROM organisation_members m JOIN organisations o ON o.id = m.org_id
                    WHERE m.user_id = s.user_id) AS "memberships: Json<Vec<Membership>>"
             FROM user_sessions s JOIN users u ON u.id = s.user_id
            WHERE s.secret_sha256 = $1"#,
        digest
    )
    .fetch_optional(pool)
    .await?;
    Ok(row.map(|row| {
        let user = UserHolder {
            id: row.user_id,
            email: row.email.into(),
            personal_org: row.personal_org_id,
            system_admin: row.is_system_admin,
            auditor: row.is_auditor,
            disabled: row.disabled_at.is_some(),
            memberships: row.memberships.map(|Json(list)| list).unwrap_or_default(),
        };
        let holder = Holder {
            via: Via::Session(row.id),
            who: Who::User(user.id),
            scopes: Scopes::all(),
            networks: Vec::new(),
            expires_at: Some(row.expires_at),
            revoked: false,
            last_used_at: Some(row.last_used_at),
        };
        (holder, Some(user))
    }))
}

/// Of the secret of a session that is there still.
pub(crate) async fn digest_of(pool: &PgPool, id: SessionId) -> Result<Option<Vec<u8>>> {
    let found = sqlx::query_scalar!("SELECT secret_sha256 FROM user_sessions WHERE id = $1", id.0);
    Ok(found.fetch_optional(pool).await?)
}

/// Notes a use and moves the end on; at most once in five minutes, however many replicas ask.
pub(crate) async fn touch(
    pool: &PgPool,
    id: SessionId,
    ip: Option<String>,
    now: DateTime<Utc>,
) -> Result<()> {
    sqlx::query!(
        "UPDATE user_sessions
            SET last_used_at = $2, expires_at = LEAST(last_expires_at, $3), ip = COALESCE($4, ip)
          WHERE id = $1 AND expires_at > $2 AND last_used_at <= $2::timestamptz - interval '5 minutes'",
        id.0,
        now,
        now + SLIDING,
        ip
    )
    .execute(pool)
    .await?;
    Ok(())
}

/// The sessions of a user that are still good, newest first.
pub(crate) async fn list(
    pool: &PgPool,
    user: UserId,
    current: Option<SessionId>,
    after: Option<(DateTime<Utc>, SessionId)>,
    limit: usize,
    now: DateTime<Utc>,
) -> Result<Vec<Session>> {
    let (at, id) = after.unzip();
    let rows = sqlx::query!(
        r#"SELECT id AS "id: SessionId", kind AS "kind: SessionKind", method, client, user_agent, ip,
                  created_at, last_used_at, expires_at
             FROM user_sessions
            WHERE user_id = $1 AND expires_at > $2
              AND ($3::timestamptz IS NULL OR (created_at, id) < ($3, $4))
            ORDER BY created_at DESC, id DESC LIMIT $5"#,
        user.0,
        now,
        at,
        id.map(|id| id.0),
        i64::try_from(limit).unwrap_or(i64::MAX)
    )
    .fetch_all(pool)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| Session {
            device: match (row.client, &row.user_agent) {
                (Some(client), _) => client,
                (None, agent) => device(agent.as_deref().unwrap_or_default()),
            },
            id: row.id,
            kind: row.kind,
            method: row.method,
            user_agent: row.user_agent,
            ip: row.ip,
            current: current == Some(row.id),
            created_at: row.created_at,
            last_used_at: row.last_used_at,
            expires_at: row.expires_at,
        })
        .collect())
}

/// Gives the digest of what was ended.
pub(crate) async fn delete(
    db: &mut PgConnection,
    user: UserId,
    id: SessionId,
) -> Result<Option<Vec<u8>>> {
    Ok(sqlx::query_scalar!(
        "DELETE FROM user_sessions WHERE id = $1 AND user_id = $2 RETURNING secret_sha256",
        id.0,
        user.0
    )
    .fetch_optional(db)
    .await?)
}

pub(crate) async fn delete_by_digest(db: &mut PgConnection, digest: &[u8]) -> Result<bool> {
    let done = sqlx::query!("DELETE FROM user_sessions WHERE secret_sha256 = $1", digest)
        .execute(db)
        .await?;
    Ok(done.rows_affected() > 0)
}

/// Ends a session whose token was found somewhere; gives whose it was.
pub(crate) async fn delete_leaked(
    db: &mut PgConnection,
    digest: &[u8],
) -> Result<Option<(SessionId, OrgId, String)>> {
    let row = sqlx::query!(
        r#"DELETE FROM user_sessions s USING users u WHERE s.secret_sha256 = $1 AND u.id = s.user_id
           RETURNING s.id AS "id: SessionId", u.personal_org_id AS "org: OrgId", u.email"#,
        digest
    )
    .fetch_optional(db)
    .await?;
    Ok(row.map(|row| (row.id, row.org, row.email)))
}

pub(crate) async fn delete_all(db: &mut PgConnection, user: UserId) -> Result<Vec<Vec<u8>>> {
    Ok(sqlx::query_scalar!(
        "DELETE FROM user_sessions WHERE user_id = $1 RETURNING secret_sha256",
        user.0
    )
    .fetch_all(db)
    .await?)
}

/// Removes sessions that have ended by themselves, in batches; gives how many.
pub(crate) async fn delete_expired(pool: &PgPool, now: DateTime<Utc>) -> Result<u64> {
    let mut deleted = 0;
    loop {
        let batch = sqlx::query!(
            "DELETE FROM user_sessions WHERE id IN (SELECT id FROM user_sessions WHERE expires_at <= $1 LIMIT $2)",
            now,
            BATCH
        )
        .execute(pool)
        .await?
        .rows_affected();
        deleted += batch;
        if batch == 0 {
            return Ok(deleted);
        }
    }
}
