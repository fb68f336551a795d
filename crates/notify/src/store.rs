//! The SQL of deliveries.

pub(crate) mod webhooks;

use chrono::{DateTime, Utc};
use loom_core::{
    Result,
    id::{DeliveryId, OrgId, WebhookId},
};
use sqlx::{PgConnection, PgPool, QueryBuilder};

use crate::{
    CHANNEL,
    model::{Channel, DeliveryState, DeliveryView},
};

pub(crate) struct NewDelivery<'a> {
    pub(crate) id: DeliveryId,
    pub(crate) org: Option<OrgId>,
    pub(crate) kind: &'a str,
    pub(crate) key: Option<&'a str>,
    pub(crate) channel: Channel,
    pub(crate) webhook: Option<WebhookId>,
    pub(crate) target: &'a str,
    pub(crate) subject: &'a str,
    pub(crate) now: DateTime<Utc>,
    pub(crate) expires_at: Option<DateTime<Utc>>,
    pub(crate) sealed_payload: &'a [u8],
}

/// Queues one. PostgreSQL says the same word once for each transaction, however often it is told to.
pub(crate) async fn insert(db: &mut PgConnection, new: &NewDelivery<'_>) -> Result<()> {
    sqlx::query!(
        r#"WITH queued AS (
             INSERT INTO deliveries
                 (id, org_id, kind, key, channel, webhook_id, target, subject, due_at, created_at, expires_at, sealed_payload)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $9, $10, $11))
           SELECT pg_notify($12, '') AS "said: ()""#,
        new.id.0,
        new.org.map(|org| org.0),
        new.kind,
        new.key,
        new.channel.as_str(),
        new.webhook.map(|webhook| webhook.0),
        new.target,
        new.subject,
        new.now,
        new.expires_at,
        new.sealed_payload,
        CHANNEL
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Do so many wait on the channel already?
pub(crate) async fn is_full(db: &mut PgConnection, channel: Channel, most: i64) -> Result<bool> {
    Ok(sqlx::query_scalar!(
        r#"SELECT count(*) >= $2 AS "full!" FROM (
               SELECT FROM deliveries
                WHERE channel = $1 AND state IN ('pending', 'delivering') LIMIT $2) waiting"#,
        channel.as_str(),
        most
    )
    .fetch_one(db)
    .await?)
}

/// Do so many of an organisation wait on the channel already?
pub(crate) async fn is_full_of(
    db: &mut PgConnection,
    org: OrgId,
    channel: Channel,
    most: i64,
) -> Result<bool> {
    Ok(sqlx::query_scalar!(
        r#"SELECT count(*) >= $3 AS "full!" FROM (
               SELECT FROM deliveries
                WHERE channel = $2 AND state IN ('pending', 'delivering') AND org_id = $1 LIMIT $3) waiting"#,
        org.0,
        channel.as_str(),
        most
    )
    .fetch_one(db)
    .await?)
}

/// Has an organisation had so many mails since?
pub(crate) async fn has_mailed(
    db: &mut PgConnection,
    org: OrgId,
    since: DateTime<Utc>,
    most: i64,
) -> Result<bool> {
    Ok(sqlx::query_scalar!(
        r#"SELECT count(*) >= $3 AS "many!" FROM (
               SELECT FROM deliveries
                WHERE created_at > $2 AND org_id = $1 AND channel = 'mail' LIMIT $3) sent"#,
        org.0,
        since,
        most
    )
    .fetch_one(db)
    .await?)
}

/// Does an alert about the same wait to be mailed there?
pub(crate) async fn is_waiting(
    db: &mut PgConnection,
    channel: Channel,
    target: &str,
    kind: &str,
    key: &str,
) -> Result<bool> {
    Ok(sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT FROM deliveries
            WHERE channel = $1 AND state IN ('pending', 'delivering')
              AND target = $2 AND kind = $3 AND key = $4) AS "waits!""#,
        channel.as_str(),
        target,
        kind,
        key
    )
    .fetch_one(db)
    .await?)
}

/// Does an alert about the same wait for that webhook?
pub(crate) async fn is_waiting_at(
    db: &mut PgConnection,
    webhook: WebhookId,
    kind: &str,
    key: &str,
) -> Result<bool> {
    Ok(sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT FROM deliveries
            WHERE webhook_id = $1 AND state IN ('pending', 'delivering')
              AND kind = $2 AND key = $3) AS "waits!""#,
        webhook.0,
        kind,
        key
    )
    .fetch_one(db)
    .await?)
}

/// What one channel has to do.
pub(crate) struct Queue {
    pub(crate) channel: Channel,
    /// Deliveries that have not ended.
    pub(crate) waiting: i64,
    /// When the first of them has to be looked at.
    pub(crate) due_at: DateTime<Utc>,
    /// When the oldest of them was queued.
    pub(crate) oldest: DateTime<Utc>,
}

pub(crate) async fn queues(pool: &PgPool) -> Result<Vec<Queue>> {
    Ok(sqlx::query_as!(
        Queue,
        r#"SELECT channel AS "channel: Channel", count(*) AS "waiting!", min(due_at) AS "due_at!",
                  min(created_at) AS "oldest!"
             FROM deliveries WHERE state IN ('pending', 'delivering') GROUP BY channel"#
    )
    .fetch_all(pool)
    .await?)
}

/// A delivery that is ours until its lease ends.
pub(crate) struct Claimed {
    pub(crate) id: DeliveryId,
    pub(crate) kind: String,
    pub(crate) channel: Channel,
    pub(crate) webhook_id: Option<WebhookId>,
    pub(crate) target: String,
    pub(crate) subject: String,
    pub(crate) attempt: i32,
    pub(crate) expires_at: Option<DateTime<Utc>>,
    pub(crate) sealed_payload: Option<Vec<u8>>,
}

/// Takes what is due, also what somebody took and did not end in time.
pub(crate) async fn claim(
    pool: &PgPool,
    channel: Channel,
    room: u32,
    now: DateTime<Utc>,
    lease_until: DateTime<Utc>,
) -> Result<Vec<Claimed>> {
    Ok(sqlx::query_as!(
        Claimed,
        r#"UPDATE deliveries SET state = 'delivering', attempt = attempt + 1, due_at = $4
            WHERE id IN (
                SELECT id FROM deliveries
                 WHERE channel = $1 AND state IN ('pending', 'delivering') AND due_at <= $3
                 ORDER BY due_at, id LIMIT $2 FOR UPDATE SKIP LOCKED)
           RETURNING id AS "id: DeliveryId", kind, channel AS "channel: Channel",
                     webhook_id AS "webhook_id: WebhookId", target, subject, attempt, expires_at,
                     sealed_payload"#,
        channel.as_str(),
        i64::from(room),
        now,
        lease_until
    )
    .fetch_all(pool)
    .await?)
}

/// What an attempt came to.
pub(crate) struct Recorded {
    pub(crate) state: DeliveryState,
    pub(crate) due_at: DateTime<Utc>,
    pub(crate) finished_at: Option<DateTime<Utc>>,
    pub(crate) via: Option<&'static str>,
    pub(crate) status_code: Option<i32>,
    pub(crate) last_error: Option<String>,
    pub(crate) keeps_payload: bool,
}

/// Records it. False: it is no longer ours.
pub(crate) async fn record(pool: &PgPool, claimed: &Claimed, recorded: &Recorded) -> Result<bool> {
    let done = sqlx::query!(
        "UPDATE deliveries
            SET state = $3, due_at = $4, finished_at = $5, via = $6, status_code = $7,
                last_error = $8, sealed_payload = CASE WHEN $9 THEN sealed_payload END
          WHERE id = $1 AND attempt = $2 AND state = 'delivering'",
        claimed.id.0,
        claimed.attempt,
        recorded.state.as_str(),
        recorded.due_at,
        recorded.finished_at,
        recorded.via,
        recorded.status_code,
        recorded.last_error,
        recorded.keeps_payload
    )
    .execute(pool)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// For whoever takes it next, at once.
pub(crate) async fn give_back(pool: &PgPool, claimed: &Claimed, now: DateTime<Utc>) -> Result<()> {
    sqlx::query!(
        "WITH given AS (
             UPDATE deliveries SET state = 'pending', due_at = $3
              WHERE id = $1 AND attempt = $2 AND state = 'delivering')
         SELECT pg_notify($4, '')",
        claimed.id.0,
        claimed.attempt,
        now,
        CHANNEL
    )
    .execute(pool)
    .await?;
    Ok(())
}

/// Which deliveries are wanted.
#[derive(Clone, Copy, Default)]
pub(crate) struct Filter {
    pub(crate) state: Option<DeliveryState>,
    pub(crate) channel: Option<Channel>,
}

const VIEW: &str = "SELECT id, org_id, kind, channel, webhook_id, target, subject, state, attempt,
            CASE WHEN state = 'pending' THEN due_at END AS next_attempt_at, created_at,
            expires_at, finished_at, via, status_code, last_error,
            state = 'failed' AND sealed_payload IS NOT NULL AS retriable
       FROM deliveries WHERE";

/// The log, newest first.
pub(crate) async fn list(
    pool: &PgPool,
    filter: Filter,
    after: Option<(DateTime<Utc>, DeliveryId)>,
    limit: usize,
) -> Result<Vec<DeliveryView>> {
    let mut query = QueryBuilder::new(VIEW);
    query.push(" true");
    if let Some(state) = filter.state {
        query.push(" AND state = ").push_bind(state.as_str());
    }
    if let Some(channel) = filter.channel {
        query.push(" AND channel = ").push_bind(channel.as_str());
    }
    if let Some((at, id)) = after {
        query.push(" AND (created_at, id) < (").push_bind(at);
        query.push(", ").push_bind(id).push(")");
    }
    query.push(" ORDER BY created_at DESC, id DESC LIMIT ");
    query.push_bind(i64::try_from(limit).unwrap_or(i64::MAX));
    Ok(query.build_query_as().fetch_all(pool).await?)
}

/// Those of them that are still there.
pub(crate) async fn by_ids(pool: &PgPool, ids: &[DeliveryId]) -> Result<Vec<DeliveryView>> {
    let ids: Vec<_> = ids.iter().map(|id| id.0).collect();
    let mut query = QueryBuilder::new(VIEW);
    query.push(" id = ANY (").push_bind(ids).push(")");
    Ok(query.build_query_as().fetch_all(pool).await?)
}

/// Queues what was given up once more, with all its attempts. None: there is none; false: it has not
/// failed, or what it held is gone.
pub(crate) async fn retry(
    pool: &PgPool,
    id: DeliveryId,
    now: DateTime<Utc>,
) -> Result<Option<bool>> {
    Ok(sqlx::query_scalar!(
        r#"WITH again AS (
             UPDATE deliveries SET state = 'pending', attempt = 0, due_at = $2, finished_at = NULL
              WHERE id = $1 AND state = 'failed' AND sealed_payload IS NOT NULL
             RETURNING id),
           said AS (SELECT pg_notify($3, '') FROM again)
           SELECT (SELECT count(*) FROM said) = 1 AS "again!" FROM deliveries WHERE id = $1"#,
        id.0,
        now,
        CHANNEL
    )
    .fetch_optional(pool)
    .await?)
}

/// Erases what failed before and was not tried again.
pub(crate) async fn erase_payloads(
    pool: &PgPool,
    before: DateTime<Utc>,
    batch: i64,
) -> Result<u64> {
    let erased = sqlx::query!(
        "UPDATE deliveries SET sealed_payload = NULL WHERE id IN (
             SELECT id FROM deliveries
              WHERE state = 'failed' AND finished_at < $1 AND sealed_payload IS NOT NULL
              LIMIT $2)",
        before,
        batch
    )
    .execute(pool)
    .await?;
    Ok(erased.rows_affected())
}

/// Deletes what ended and was queued before.
pub(crate) async fn delete_before(pool: &PgPool, before: DateTime<Utc>, batch: i64) -> Result<u64> {
    let deleted = sqlx::query!(
        "DELETE FROM deliveries WHERE id IN (
             SELECT id FROM deliveries
              WHERE created_at < $1 AND state IN ('delivered', 'failed', 'expired')
              ORDER BY created_at LIMIT $2)",
        before,
        batch
    )
    .execute(pool)
    .await?;
    Ok(deleted.rows_affected())
}
