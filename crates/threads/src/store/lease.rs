//! The SQL of leases: who works on a thread, and until when they need not be heard of.

use chrono::{DateTime, TimeDelta, Utc};
use loom_core::{
    Result,
    id::{OrgId, ThreadId},
};
use sqlx::{PgConnection, PgPool};

/// How long an agent that holds no lease by name may work without a write.
pub(crate) const SILENCE: TimeDelta = TimeDelta::minutes(10);

/// A lease that somebody holds by name.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub(crate) holder: String,
    pub(crate) until: DateTime<Utc>,
}

/// The lease of a thread that is locked, if one runs.
pub(crate) async fn held(
    db: &mut PgConnection,
    org: OrgId,
    thread: ThreadId,
    now: DateTime<Utc>,
) -> Result<Option<Held>> {
    Ok(sqlx::query_as!(
        Held,
        r#"SELECT lease_holder AS "holder!", lease_until AS "until!" FROM threads
           WHERE id = $1 AND org_id = $2 AND lease_holder IS NOT NULL AND lease_until > $3"#,
        thread.0,
        org.0,
        now,
    )
    .fetch_optional(db)
    .await?)
}

/// Sets the lease of a thread that is locked. Its version stays: a heartbeat is no change.
pub(crate) async fn set(
    db: &mut PgConnection,
    org: OrgId,
    thread: ThreadId,
    holder: Option<&str>,
    until: Option<DateTime<Utc>>,
) -> Result<()> {
    sqlx::query!(
        "UPDATE threads SET lease_holder = $3, lease_until = $4 WHERE id = $1 AND org_id = $2",
        thread.0,
        org.0,
        holder,
        until,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Threads whose lease has run out, or which work without any; longest first.
pub(crate) async fn due(
    pool: &PgPool,
    now: DateTime<Utc>,
    limit: i64,
) -> Result<Vec<(OrgId, ThreadId)>> {
    let rows = sqlx::query!(
        r#"(SELECT org_id AS "org: OrgId", id AS "id: ThreadId", lease_until AS at FROM threads
            WHERE lease_until IS NOT NULL AND lease_until <= $1
            ORDER BY lease_until LIMIT $3)
           UNION ALL
           (SELECT org_id, id, updated_at FROM threads
            WHERE lease_until IS NULL AND deleted_at IS NULL AND updated_at <= $2
                AND state IN ('calling_llm', 'processing_llm_response', 'executing_tools')
            ORDER BY updated_at LIMIT $3)"#,
        now,
        now - SILENCE,
        limit,
    )
    .fetch_all(pool)
    .await?;
    Ok(rows.into_iter().filter_map(|row| Some((row.org?, row.id?))).collect())
}

/// Is the lease of a thread that is locked still one that has run out?
pub(crate) async fn is_due(
    db: &mut PgConnection,
    org: OrgId,
    thread: ThreadId,
    now: DateTime<Utc>,
) -> Result<bool> {
    Ok(sqlx::query_scalar!(
        r#"SELECT coalesce(lease_until <= $3, updated_at <= $4) AS "due!" FROM threads
           WHERE id = $1 AND org_id = $2"#,
        thread.0,
        org.0,
        now,
        now - SILENCE,
    )
    .fetch_optional(db)
    .await?
    .unwrap_or_default())
}
