//! Pushes under way. They and the removal of objects exclude each other, over all replicas.

use chrono::{DateTime, Utc};
use loom_core::{
    Result,
    id::{OrgId, RepositoryId},
};
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

/// Notes a push; false while objects are being removed.
pub(crate) async fn begin(
    db: &mut PgConnection,
    org: OrgId,
    repository: RepositoryId,
    push: Uuid,
    now: DateTime<Utc>,
    lease_until: DateTime<Utc>,
) -> Result<bool> {
    // The lock orders it with `maintenance::begin_reclaim`, which takes the row for itself.
    let free = sqlx::query_scalar!(
        r#"SELECT coalesce(reclaiming_until <= $3, true) AS "free!" FROM repositories
            WHERE id = $1 AND org_id = $2 FOR SHARE"#,
        repository.0,
        org.0,
        now
    )
    .fetch_optional(&mut *db)
    .await?
    .unwrap_or(false);
    if free {
        sqlx::query!(
            "INSERT INTO repository_pushes (id, org_id, repository_id, lease_until) VALUES ($1, $2, $3, $4)",
            push,
            org.0,
            repository.0,
            lease_until
        )
        .execute(db)
        .await?;
    }
    Ok(free)
}

/// The push has ended; `pushed` when git took something in.
pub(crate) async fn end(
    pool: &PgPool,
    org: OrgId,
    repository: RepositoryId,
    push: Uuid,
    pushed: Option<(DateTime<Utc>, i64)>,
) -> Result<()> {
    let (at, size) = pushed.unzip();
    sqlx::query!(
        "WITH ended AS (DELETE FROM repository_pushes WHERE id = $3 AND org_id = $2)
         UPDATE repositories SET pushed_at = greatest(pushed_at, $4), size_bytes = $5
          WHERE id = $1 AND org_id = $2 AND $4::timestamptz IS NOT NULL",
        repository.0,
        org.0,
        push,
        at,
        size
    )
    .execute(pool)
    .await?;
    Ok(())
}
