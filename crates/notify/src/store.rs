//! The SQL of deliveries.

pub(crate) mod webhooks;

use chrono::{DateTime, Utc};
use loom_core::{
    Result,
    id::{DeliveryId, OrgId, WebhookId},
};
use sqlx::PgConnection;

use crate::{CHANNEL, model::Channel};

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
