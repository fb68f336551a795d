//! The SQL of webhooks.

use chrono::{DateTime, Utc};
use loom_core::{
    Result,
    id::{OrgId, UserId, WebhookId},
};
use sqlx::{PgConnection, PgExecutor, PgPool};

use crate::model::WebhookView;

/// Whom to call.
pub(crate) struct Target {
    pub(crate) id: WebhookId,
    pub(crate) url: String,
}

/// The webhooks that want to hear of `kind`: of the organisation, or of the installation.
pub(crate) async fn wanting(
    db: &mut PgConnection,
    org: Option<OrgId>,
    kind: &str,
) -> Result<Vec<Target>> {
    Ok(sqlx::query_as!(
        Target,
        r#"SELECT id AS "id: WebhookId", url FROM webhooks
            WHERE org_id IS NOT DISTINCT FROM $1 AND enabled
              AND (kinds = '{}' OR $2 = ANY (kinds))
            ORDER BY created_at, id LIMIT 100"#,
        org.map(|org| org.0),
        kind
    )
    .fetch_all(db)
    .await?)
}

/// A webhook with what signs for it.
pub(crate) struct Webhook {
    pub(crate) view: WebhookView,
    pub(crate) sealed_secret: Vec<u8>,
    /// Where it leads, when that may be a secret; the view then has scheme and host only.
    pub(crate) sealed_url: Option<Vec<u8>>,
}

/// Any webhook, for sending what was queued for it.
pub(crate) async fn by_id(pool: &PgPool, id: WebhookId) -> Result<Option<Webhook>> {
    let row = sqlx::query!(
        r#"SELECT id AS "id: WebhookId", name, url, kinds, enabled, disabled_reason, failures,
                  created_by AS "created_by: UserId", created_at, updated_at, sealed_secret,
                  sealed_url
             FROM webhooks WHERE id = $1"#,
        id.0
    )
    .fetch_optional(pool)
    .await?;
    Ok(row.map(|row| Webhook {
        view: WebhookView {
            id: row.id,
            name: row.name,
            url: row.url,
            kinds: row.kinds,
            enabled: row.enabled,
            disabled_reason: row.disabled_reason,
            failures: row.failures,
            created_by: row.created_by,
            created_at: row.created_at,
            updated_at: row.updated_at,
        },
        sealed_secret: row.sealed_secret,
        sealed_url: row.sealed_url,
    }))
}

/// Those of an organisation, or of the installation; the oldest first.
pub(crate) async fn list(pool: &PgPool, org: Option<OrgId>) -> Result<Vec<WebhookView>> {
    Ok(sqlx::query_as!(
        WebhookView,
        r#"SELECT id AS "id: WebhookId", name, url, kinds, enabled, disabled_reason, failures,
                  created_by AS "created_by: UserId", created_at, updated_at
             FROM webhooks WHERE org_id IS NOT DISTINCT FROM $1
            ORDER BY created_at, id LIMIT 1000"#,
        org.map(|org| org.0)
    )
    .fetch_all(pool)
    .await?)
}

/// One of an organisation, or of the installation.
pub(crate) async fn find(
    db: &mut PgConnection,
    org: Option<OrgId>,
    id: WebhookId,
) -> Result<Option<WebhookView>> {
    Ok(sqlx::query_as!(
        WebhookView,
        r#"SELECT id AS "id: WebhookId", name, url, kinds, enabled, disabled_reason, failures,
                  created_by AS "created_by: UserId", created_at, updated_at
             FROM webhooks WHERE org_id IS NOT DISTINCT FROM $1 AND id = $2 FOR UPDATE"#,
        org.map(|org| org.0),
        id.0
    )
    .fetch_optional(db)
    .await?)
}

/// False: there are `most` already.
pub(crate) async fn insert(
    db: impl PgExecutor<'_>,
    org: Option<OrgId>,
    new: &Webhook,
    most: i64,
) -> Result<bool> {
    let view = &new.view;
    let inserted = sqlx::query!(
        "INSERT INTO webhooks
             (id, org_id, name, url, sealed_secret, kinds, enabled, created_by, created_at, updated_at,
              sealed_url)
         SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $9, $11
          WHERE (SELECT count(*) FROM webhooks WHERE org_id IS NOT DISTINCT FROM $2) < $10",
        view.id.0,
        org.map(|org| org.0),
        view.name,
        view.url,
        new.sealed_secret,
        &view.kinds,
        view.enabled,
        view.created_by.map(|user| user.0),
        view.created_at,
        most,
        new.sealed_url.as_deref()
    )
    .execute(db)
    .await?;
    Ok(inserted.rows_affected() == 1)
}

/// Those of features whose URL is there to be read: they were made before it was sealed.
pub(crate) async fn unsealed(pool: &PgPool, most: i64) -> Result<Vec<Target>> {
    Ok(sqlx::query_as!(
        Target,
        r#"SELECT id AS "id: WebhookId", url FROM webhooks
            WHERE org_id IS NOT NULL AND sealed_url IS NULL ORDER BY id LIMIT $1"#,
        most
    )
    .fetch_all(pool)
    .await?)
}

/// Keeps of the URL what may be shown. Another server may have done so already.
pub(crate) async fn seal(
    pool: &PgPool,
    id: WebhookId,
    shown: &str,
    sealed_url: &[u8],
) -> Result<()> {
    sqlx::query!(
        "UPDATE webhooks SET url = $2, sealed_url = $3 WHERE id = $1 AND sealed_url IS NULL",
        id.0,
        shown,
        sealed_url
    )
    .execute(pool)
    .await?;
    Ok(())
}

/// Writes what a person may change of it.
pub(crate) async fn update(db: &mut PgConnection, view: &WebhookView) -> Result<()> {
    sqlx::query!(
        "UPDATE webhooks SET name = $2, url = $3, kinds = $4, enabled = $5, disabled_reason = $6,
                failures = $7, updated_at = $8
          WHERE id = $1",
        view.id.0,
        view.name,
        view.url,
        &view.kinds,
        view.enabled,
        view.disabled_reason,
        view.failures,
        view.updated_at
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Deletes it, and gives up what waits for it. False: there is none.
pub(crate) async fn delete(
    db: &mut PgConnection,
    org: Option<OrgId>,
    id: WebhookId,
    now: DateTime<Utc>,
) -> Result<bool> {
    if find(&mut *db, org, id).await?.is_none() {
        return Ok(false);
    }
    sqlx::query!(
        "UPDATE deliveries
            SET sealed_payload = NULL, state = 'failed',
                finished_at = coalesce(finished_at, $2),
                last_error = coalesce(last_error, 'the webhook was deleted')
          WHERE webhook_id = $1 AND state IN ('pending', 'failed')",
        id.0,
        now
    )
    .execute(&mut *db)
    .await?;
    sqlx::query!("DELETE FROM webhooks WHERE id = $1", id.0).execute(db).await?;
    Ok(true)
}

pub(crate) async fn succeeded(pool: &PgPool, id: WebhookId) -> Result<()> {
    sqlx::query!("UPDATE webhooks SET failures = 0 WHERE id = $1 AND failures > 0", id.0)
        .execute(pool)
        .await?;
    Ok(())
}

pub(crate) async fn failed(pool: &PgPool, id: WebhookId) -> Result<()> {
    sqlx::query!("UPDATE webhooks SET failures = failures + 1 WHERE id = $1", id.0)
        .execute(pool)
        .await?;
    Ok(())
}

/// Switches it off: its receiver said that there is nothing any more.
pub(crate) async fn gone(pool: &PgPool, id: WebhookId, now: DateTime<Utc>) -> Result<()> {
    sqlx::query!(
        "UPDATE webhooks SET enabled = false, failures = failures + 1, updated_at = $2,
                disabled_reason = 'the receiver answered 410 Gone'
          WHERE id = $1",
        id.0,
        now
    )
    .execute(pool)
    .await?;
    Ok(())
}
