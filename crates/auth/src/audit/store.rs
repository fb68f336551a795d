//! Reading the audit log.

use chrono::{DateTime, Utc};
use loom_core::{Result, id::OrgId};
use sqlx::PgPool;
use uuid::Uuid;

use super::model::{AuditQuery, Entry};

/// What matches, newest first; only of `org` when given.
pub(crate) async fn entries(
    pool: &PgPool,
    org: Option<OrgId>,
    query: &AuditQuery,
    after: Option<(DateTime<Utc>, Uuid)>,
    limit: usize,
) -> Result<Vec<Entry>> {
    let (at, id) = after.unzip();
    Ok(sqlx::query_as!(
        Entry,
        r#"SELECT id, at, org_id AS "org_id: OrgId", actor_kind, actor_id, actor_name, via, credential_id, action,
                  target, outcome, ip, request_id, details
             FROM audit_log
            WHERE ($1::uuid IS NULL OR org_id = $1)
              AND ($2::uuid IS NULL OR org_id = $2)
              AND ($3::uuid IS NULL OR actor_id = $3)
              AND ($4::text IS NULL OR starts_with(action, $4))
              AND ($5::text IS NULL OR outcome = $5)
              AND ($6::text IS NULL OR target = $6)
              AND ($7::uuid IS NULL OR credential_id = $7)
              AND ($8::text IS NULL OR ip = $8)
              AND ($9::timestamptz IS NULL OR at >= $9)
              AND ($10::timestamptz IS NULL OR at < $10)
              AND ($11::timestamptz IS NULL OR (at, id) < ($11, $12))
            ORDER BY at DESC, id DESC LIMIT $13"#,
        org.map(|org| org.0),
        query.org_id,
        query.actor,
        query.action,
        query.outcome,
        query.target,
        query.credential,
        query.ip,
        query.from,
        query.to,
        at,
        id,
        i64::try_from(limit).unwrap_or(i64::MAX)
    )
    .fetch_all(pool)
    .await?)
}
