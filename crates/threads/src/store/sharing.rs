//! The SQL of share links and of an organisation's settings.

use chrono::{DateTime, Utc};
use loom_core::{
    Result,
    id::{OrgId, ThreadId, UserId},
};
use sqlx::{PgConnection, PgExecutor};

use crate::model::ThreadHead;

/// A link, without its token.
#[derive(Clone, Debug)]
pub(crate) struct ShareRow {
    pub(crate) created_at: DateTime<Utc>,
    pub(crate) expires_at: Option<DateTime<Utc>>,
    pub(crate) through_seq: Option<i64>,
    pub(crate) redact: bool,
}

/// Puts a link in the place of the one there is.
pub(crate) async fn put(
    db: impl PgExecutor<'_>,
    org: OrgId,
    thread: ThreadId,
    token_hash: &[u8],
    by: Option<UserId>,
    row: &ShareRow,
) -> Result<()> {
    sqlx::query!(
        "INSERT INTO thread_shares
             (org_id, thread_id, token_hash, created_by, created_at, expires_at, through_seq, redact)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
         ON CONFLICT (org_id, thread_id) DO UPDATE
         SET token_hash = $3, created_by = $4, created_at = $5, expires_at = $6, through_seq = $7, redact = $8",
        org.0,
        thread.0,
        token_hash,
        by.map(|user| user.0),
        row.created_at,
        row.expires_at,
        row.through_seq,
        row.redact,
    )
    .execute(db)
    .await?;
    Ok(())
}

pub(crate) async fn get(
    db: impl PgExecutor<'_>,
    org: OrgId,
    thread: ThreadId,
) -> Result<Option<ShareRow>> {
    Ok(sqlx::query_as!(
        ShareRow,
        "SELECT created_at, expires_at, through_seq, redact
         FROM thread_shares WHERE org_id = $1 AND thread_id = $2",
        org.0,
        thread.0,
    )
    .fetch_optional(db)
    .await?)
}

/// False when there is none.
pub(crate) async fn remove(db: impl PgExecutor<'_>, org: OrgId, thread: ThreadId) -> Result<bool> {
    let done = sqlx::query!(
        "DELETE FROM thread_shares WHERE org_id = $1 AND thread_id = $2",
        org.0,
        thread.0,
    )
    .execute(db)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// The link with this token that has not expired, and its thread. The token names the organisation.
pub(crate) async fn by_token(
    db: &mut PgConnection,
    token_hash: &[u8],
    now: DateTime<Utc>,
) -> Result<Option<(ShareRow, ThreadHead)>> {
    let row = sqlx::query!(
        r#"SELECT org_id AS "org_id: OrgId", thread_id AS "thread_id: ThreadId", created_at, expires_at,
               through_seq, redact
           FROM thread_shares
           WHERE token_hash = $1 AND (expires_at IS NULL OR expires_at > $2)"#,
        token_hash,
        now,
    )
    .fetch_optional(&mut *db)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let head = super::find(db, row.org_id, row.thread_id).await?;
    let share = ShareRow {
        created_at: row.created_at,
        expires_at: row.expires_at,
        through_seq: row.through_seq,
        redact: row.redact,
    };
    Ok(head.map(|head| (share, head)))
}

/// Does this organisation want secrets masked before anything is stored?
pub(crate) async fn redacts(db: impl PgExecutor<'_>, org: OrgId) -> Result<bool> {
    let found =
        sqlx::query_scalar!("SELECT redact_secrets FROM thread_settings WHERE org_id = $1", org.0)
            .fetch_optional(db)
            .await?;
    Ok(found.unwrap_or_default())
}

pub(crate) async fn set_redacts(
    db: impl PgExecutor<'_>,
    org: OrgId,
    redact_secrets: bool,
    now: DateTime<Utc>,
) -> Result<()> {
    sqlx::query!(
        "INSERT INTO thread_settings (org_id, redact_secrets, updated_at) VALUES ($1, $2, $3)
         ON CONFLICT (org_id) DO UPDATE SET redact_secrets = $2, updated_at = $3",
        org.0,
        redact_secrets,
        now,
    )
    .execute(db)
    .await?;
    Ok(())
}
