//! The SQL of weavers and of what happened to them.

pub(crate) mod lease;
pub(crate) mod list;

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use loom_core::{
    Error, Result,
    id::{OrgId, UserId, WeaverId},
};
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use crate::model::{Change, Event, Network, Row, Status};

/// A row of `weavers`, as the database gives it.
#[derive(sqlx::FromRow)]
pub(crate) struct Raw {
    id: Uuid,
    org_id: Uuid,
    owner_id: Option<Uuid>,
    installation: String,
    spec: serde_json::Value,
    sealed_env: Option<Vec<u8>>,
    tags: serde_json::Value,
    network: String,
    cpu_millis: i64,
    memory_bytes: i64,
    ephemeral_bytes: i64,
    budget_nanousd: Option<i64>,
    idle_timeout_secs: Option<i32>,
    status: String,
    reason_code: Option<String>,
    reason: Option<String>,
    ending: Option<String>,
    pod_name: String,
    pod_uid: Option<String>,
    node: Option<String>,
    trouble: Option<serde_json::Value>,
    restarts: i32,
    exit_code: Option<i32>,
    created_at: DateTime<Utc>,
    scheduled_at: Option<DateTime<Utc>>,
    started_at: Option<DateTime<Utc>>,
    ready_at: Option<DateTime<Utc>>,
    exited_at: Option<DateTime<Utc>>,
    ended_at: Option<DateTime<Utc>>,
    expires_at: DateTime<Utc>,
    warned_at: Option<DateTime<Utc>>,
    active_at: DateTime<Utc>,
    version: i64,
    #[sqlx(default)]
    #[allow(dead_code, reason = "of the row; asked for by the one who inserts it")]
    idempotency_key: Option<String>,
    #[sqlx(default)]
    #[allow(dead_code, reason = "of the row; asked for by the one who inserts it")]
    request_sha256: Option<Vec<u8>>,
}

fn word<T>(parse: impl Fn(&str) -> Option<T>, text: &str) -> Result<T> {
    parse(text).ok_or_else(|| Error::internal(format!("a weaver's row says `{text}`")))
}

impl TryFrom<Raw> for Row {
    type Error = Error;

    fn try_from(raw: Raw) -> Result<Self> {
        let json = Error::internal;
        let tags: BTreeMap<String, String> = serde_json::from_value(raw.tags).map_err(json)?;
        Ok(Self {
            id: WeaverId(raw.id),
            org_id: OrgId(raw.org_id),
            owner_id: raw.owner_id.map(UserId),
            installation: raw.installation,
            spec: serde_json::from_value(raw.spec).map_err(json)?,
            sealed_env: raw.sealed_env,
            tags,
            network: word(Network::parse, &raw.network)?,
            cpu_millis: raw.cpu_millis,
            memory_bytes: raw.memory_bytes,
            ephemeral_bytes: raw.ephemeral_bytes,
            budget_nanousd: raw.budget_nanousd,
            idle_timeout_secs: raw.idle_timeout_secs,
            status: word(Status::parse, &raw.status)?,
            reason_code: raw.reason_code,
            reason: raw.reason,
            ending: raw.ending.as_deref().map(|text| word(Status::parse, text)).transpose()?,
            pod_name: raw.pod_name,
            pod_uid: raw.pod_uid,
            node: raw.node,
            trouble: raw.trouble.map(serde_json::from_value).transpose().map_err(json)?,
            restarts: raw.restarts,
            exit_code: raw.exit_code,
            created_at: raw.created_at,
            scheduled_at: raw.scheduled_at,
            started_at: raw.started_at,
            ready_at: raw.ready_at,
            exited_at: raw.exited_at,
            ended_at: raw.ended_at,
            expires_at: raw.expires_at,
            warned_at: raw.warned_at,
            active_at: raw.active_at,
            version: raw.version,
        })
    }
}

/// Of any organisation: for the one who keeps pods and rows alike.
pub(crate) async fn of_installation(
    pool: &PgPool,
    installation: &str,
    id: WeaverId,
) -> Result<Option<Row>> {
    let row = sqlx::query_as!(
        Raw,
        "SELECT * FROM weavers WHERE installation = $1 AND id = $2",
        installation,
        id.0
    )
    .fetch_optional(pool)
    .await?;
    row.map(Row::try_from).transpose()
}

pub(crate) async fn find(db: &mut PgConnection, org: OrgId, id: WeaverId) -> Result<Option<Row>> {
    let row =
        sqlx::query_as!(Raw, "SELECT * FROM weavers WHERE org_id = $1 AND id = $2", org.0, id.0)
            .fetch_optional(db)
            .await?;
    row.map(Row::try_from).transpose()
}

/// As [`find`], until the end of the transaction nobody else changes it.
pub(crate) async fn lock(db: &mut PgConnection, org: OrgId, id: WeaverId) -> Result<Option<Row>> {
    let row = sqlx::query_as!(
        Raw,
        "SELECT * FROM weavers WHERE org_id = $1 AND id = $2 FOR NO KEY UPDATE",
        org.0,
        id.0
    )
    .fetch_optional(db)
    .await?;
    row.map(Row::try_from).transpose()
}

/// All that are not over, of all organisations.
pub(crate) async fn live(pool: &PgPool, installation: &str) -> Result<Vec<Row>> {
    let rows = sqlx::query_as!(
        Raw,
        "SELECT * FROM weavers WHERE installation = $1 AND ended_at IS NULL",
        installation
    )
    .fetch_all(pool)
    .await?;
    rows.into_iter().map(Row::try_from).collect()
}

/// Those whose time is over, or that have done nothing for too long, and that nobody has ended yet.
pub(crate) async fn due(pool: &PgPool, installation: &str, now: DateTime<Utc>) -> Result<Vec<Row>> {
    let rows = sqlx::query_as!(
        Raw,
        "SELECT * FROM weavers WHERE installation = $1 AND ended_at IS NULL AND ending IS NULL
            AND (expires_at <= $2 OR active_at + make_interval(secs => idle_timeout_secs) <= $2)",
        installation,
        now
    )
    .fetch_all(pool)
    .await?;
    rows.into_iter().map(Row::try_from).collect()
}

/// Which of these are known, and over or not.
pub(crate) async fn over(
    pool: &PgPool,
    installation: &str,
    ids: &[WeaverId],
) -> Result<BTreeMap<WeaverId, bool>> {
    let ids: Vec<Uuid> = ids.iter().map(|id| id.0).collect();
    let rows = sqlx::query!(
        r#"SELECT id, ended_at IS NOT NULL AS "over!" FROM weavers
            WHERE installation = $1 AND id = ANY($2)"#,
        installation,
        &ids
    )
    .fetch_all(pool)
    .await?;
    Ok(rows.into_iter().map(|row| (WeaverId(row.id), row.over)).collect())
}

/// A new row with its first event, which the caller's transaction commits. The organisation's limits are
/// the caller's to look at.
pub(crate) async fn insert(
    db: &mut PgConnection,
    row: &Row,
    idempotency: Option<(&str, &[u8])>,
) -> Result<()> {
    let (key, digest) = idempotency.unzip();
    let spec = serde_json::to_value(&row.spec).map_err(Error::internal)?;
    let tags = serde_json::to_value(&row.tags).map_err(Error::internal)?;
    sqlx::query!(
        "INSERT INTO weavers (id, org_id, owner_id, installation, idempotency_key, request_sha256, spec, sealed_env,
            tags, network, cpu_millis, memory_bytes, ephemeral_bytes, budget_nanousd, idle_timeout_secs, status,
            pod_name, created_at, expires_at, active_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20)",
        row.id.0,
        row.org_id.0,
        row.owner_id.map(|owner| owner.0),
        row.installation,
        key,
        digest,
        spec,
        row.sealed_env.as_deref(),
        tags,
        row.network.as_str(),
        row.cpu_millis,
        row.memory_bytes,
        row.ephemeral_bytes,
        row.budget_nanousd,
        row.idle_timeout_secs,
        row.status.as_str(),
        row.pod_name,
        row.created_at,
        row.expires_at,
        row.active_at,
    )
    .execute(&mut *db)
    .await?;
    add_events(db, row.id, &[Event::new(row.created_at, "queued")]).await
}

/// Writes a change of a row that is as it was read (`row.version`) and not over, and gives the row that came
/// of it; None when another was faster, or `term` is no longer that of the one who watches the cluster.
pub(crate) async fn change(
    db: &mut PgConnection,
    row: &Row,
    change: &Change,
    term: Option<i64>,
) -> Result<Option<Row>> {
    let trouble = change.trouble.as_ref().and_then(Option::as_ref);
    let trouble = trouble.map(serde_json::to_value).transpose().map_err(Error::internal)?;
    let (code, reason) = change.reason.clone().unzip();
    let written = sqlx::query_as!(
        Raw,
        "UPDATE weavers SET
            status = COALESCE($5, status),
            reason_code = COALESCE($6, reason_code),
            reason = COALESCE($7, reason),
            ending = COALESCE($8, ending),
            pod_uid = COALESCE($9, pod_uid),
            node = COALESCE($10, node),
            trouble = CASE WHEN $11 THEN $12 ELSE trouble END,
            restarts = COALESCE($13, restarts),
            exit_code = COALESCE($14, exit_code),
            scheduled_at = COALESCE($15, scheduled_at),
            started_at = COALESCE($16, started_at),
            ready_at = COALESCE($17, ready_at),
            exited_at = COALESCE($18, exited_at),
            ended_at = COALESCE($19, ended_at),
            warned_at = COALESCE($20, warned_at),
            sealed_env = CASE WHEN $21 THEN NULL ELSE sealed_env END,
            version = version + 1
         WHERE org_id = $1 AND id = $2 AND version = $3 AND ended_at IS NULL
            AND ($4::bigint IS NULL OR EXISTS (
                SELECT FROM weaver_leases AS lease
                WHERE lease.installation = weavers.installation AND lease.term = $4))
         RETURNING *",
        row.org_id.0,
        row.id.0,
        row.version,
        term,
        change.status.map(Status::as_str),
        code,
        reason,
        change.ending.map(Status::as_str),
        change.pod_uid.as_deref(),
        change.node.as_deref(),
        change.trouble.is_some(),
        trouble,
        change.restarts,
        change.exit_code,
        change.scheduled_at,
        change.started_at,
        change.ready_at,
        change.exited_at,
        change.ended_at,
        change.warned_at,
        change.erase_sealed,
    )
    .fetch_optional(&mut *db)
    .await?;
    let Some(written) = written else { return Ok(None) };
    add_events(db, row.id, &change.events).await?;
    Row::try_from(written).map(Some)
}

/// In a transaction that holds the weaver's row. What has a code is told once for each phase and code, what has
/// none once for each phase: a server that takes over sees much of it again. The warning before the end is our
/// own, and comes again after an extension.
pub(crate) async fn add_events(
    db: &mut PgConnection,
    id: WeaverId,
    events: &[Event],
) -> Result<()> {
    for event in events {
        sqlx::query!(
            "INSERT INTO weaver_events (weaver_id, number, at, phase, code, message)
             SELECT $1, (SELECT COALESCE(max(number), 0) + 1 FROM weaver_events WHERE weaver_id = $1), $2, $3, $4, $5
             WHERE COALESCE($4::text = 'expiring', false) OR NOT EXISTS (
                SELECT FROM weaver_events WHERE weaver_id = $1 AND phase = $3 AND code IS NOT DISTINCT FROM $4)",
            id.0,
            event.at,
            event.phase,
            event.code,
            event.message,
        )
        .execute(&mut *db)
        .await?;
    }
    Ok(())
}

/// What happened to a weaver of the organisation, in order.
pub(crate) async fn events(db: &mut PgConnection, org: OrgId, id: WeaverId) -> Result<Vec<Event>> {
    let events = sqlx::query_as!(
        Event,
        "SELECT event.at, event.phase, event.code, event.message
         FROM weaver_events AS event JOIN weavers AS weaver ON weaver.id = event.weaver_id
         WHERE weaver.org_id = $1 AND weaver.id = $2 ORDER BY event.at, event.number",
        org.0,
        id.0
    )
    .fetch_all(db)
    .await?;
    Ok(events)
}

/// Deletes up to `most` that ended before `before`, with all that belongs to them.
pub(crate) async fn forget(pool: &PgPool, before: DateTime<Utc>, most: i64) -> Result<u64> {
    let done = sqlx::query!(
        "DELETE FROM weavers WHERE id IN (
            SELECT id FROM weavers WHERE ended_at < $1 ORDER BY ended_at LIMIT $2)",
        before,
        most
    )
    .execute(pool)
    .await?;
    Ok(done.rows_affected())
}
