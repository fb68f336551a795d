//! The SQL of the device flow.

use chrono::{DateTime, Utc};
use loom_core::{Result, id::UserId};
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::Grant;

pub(crate) async fn insert(
    pool: &PgPool,
    grant: &Grant,
    device: &[u8],
    user_code: &[u8],
    interval_secs: i32,
    expires_at: DateTime<Utc>,
) -> Result<()> {
    sqlx::query!(
        "INSERT INTO device_grants (id, device_sha256, user_code_sha256, client, ip, user_agent, interval_secs, created_at, expires_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        grant.id,
        device,
        user_code,
        grant.client,
        grant.ip,
        grant.user_agent,
        interval_secs,
        grant.created_at,
        expires_at
    )
    .execute(pool)
    .await?;
    Ok(())
}

/// A grant as the client that polls sees it.
pub(crate) struct Waiting {
    pub(crate) id: Uuid,
    pub(crate) client: String,
    pub(crate) user_agent: Option<String>,
    pub(crate) status: String,
    pub(crate) user: Option<UserId>,
    pub(crate) interval_secs: i32,
    pub(crate) polled_at: Option<DateTime<Utc>>,
    pub(crate) expires_at: DateTime<Utc>,
}

pub(crate) async fn lock(db: &mut PgConnection, device: &[u8]) -> Result<Option<Waiting>> {
    Ok(sqlx::query_as!(
        Waiting,
        r#"SELECT id, client, user_agent, status, user_id AS "user: UserId", interval_secs, polled_at, expires_at
             FROM device_grants WHERE device_sha256 = $1 FOR UPDATE"#,
        device
    )
    .fetch_optional(db)
    .await?)
}

pub(crate) async fn note_poll(
    db: &mut PgConnection,
    id: Uuid,
    interval_secs: i32,
    now: DateTime<Utc>,
) -> Result<()> {
    sqlx::query!(
        "UPDATE device_grants SET interval_secs = $2, polled_at = $3 WHERE id = $1",
        id,
        interval_secs,
        now
    )
    .execute(db)
    .await?;
    Ok(())
}

pub(crate) async fn delete(db: &mut PgConnection, id: Uuid) -> Result<()> {
    sqlx::query!("DELETE FROM device_grants WHERE id = $1", id).execute(db).await?;
    Ok(())
}

/// One that waits for an answer.
pub(crate) async fn find(
    db: &mut PgConnection,
    user_code: &[u8],
    now: DateTime<Utc>,
) -> Result<Option<Grant>> {
    Ok(sqlx::query_as!(
        Grant,
        "SELECT id, client, ip, user_agent, created_at FROM device_grants
          WHERE user_code_sha256 = $1 AND status = 'pending' AND expires_at > $2",
        user_code,
        now
    )
    .fetch_optional(db)
    .await?)
}

/// False when it was answered in this moment.
pub(crate) async fn answer(
    pool: &PgPool,
    id: Uuid,
    user: UserId,
    approve: bool,
    now: DateTime<Utc>,
) -> Result<bool> {
    let done = sqlx::query!(
        "UPDATE device_grants SET status = $3, user_id = $2
          WHERE id = $1 AND status = 'pending' AND expires_at > $4",
        id,
        user.0,
        if approve { "approved" } else { "denied" },
        now
    )
    .execute(pool)
    .await?;
    Ok(done.rows_affected() == 1)
}
