//! The SQL of ping keys.

use chrono::{DateTime, Utc};
use loom_core::{
    Result,
    id::{OrgId, ProjectId},
};
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

/// A key of the form `/ping/<key>/<slug>`.
pub(crate) struct PingKey {
    pub(crate) id: Uuid,
    pub(crate) name: String,
    pub(crate) project_id: Option<Uuid>,
    pub(crate) created_at: DateTime<Utc>,
}

pub(crate) async fn insert(
    db: &mut PgConnection,
    org: OrgId,
    key: &PingKey,
    digest: &[u8],
) -> Result<()> {
    sqlx::query!(
        "INSERT INTO cron_ping_keys (id, org_id, project_id, name, digest, created_at)
         VALUES ($1, $2, $3, $4, $5, $6)",
        key.id,
        org.0,
        key.project_id,
        key.name,
        digest,
        key.created_at
    )
    .execute(db)
    .await?;
    Ok(())
}

/// All of an organisation, the newest first.
pub(crate) async fn list(db: &mut PgConnection, org: OrgId) -> Result<Vec<PingKey>> {
    Ok(sqlx::query_as!(
        PingKey,
        "SELECT id, name, project_id, created_at FROM cron_ping_keys WHERE org_id = $1
          ORDER BY created_at DESC, id DESC",
        org.0
    )
    .fetch_all(db)
    .await?)
}

pub(crate) async fn delete(db: &mut PgConnection, org: OrgId, id: Uuid) -> Result<bool> {
    let done = sqlx::query!("DELETE FROM cron_ping_keys WHERE org_id = $1 AND id = $2", org.0, id)
        .execute(db)
        .await?;
    Ok(done.rows_affected() == 1)
}

/// Whose key this is, and the project of what is made through it.
pub(crate) async fn by_digest(
    pool: &PgPool,
    digest: &[u8],
) -> Result<Option<(OrgId, Option<ProjectId>)>> {
    let row =
        sqlx::query!("SELECT org_id, project_id FROM cron_ping_keys WHERE digest = $1", digest)
            .fetch_optional(pool)
            .await?;
    Ok(row.map(|row| (OrgId(row.org_id), row.project_id.map(ProjectId))))
}
