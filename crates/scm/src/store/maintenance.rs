//! The SQL of maintenance: whose turn it is, who has it, what came of it.

use chrono::{DateTime, Utc};
use loom_core::{
    Result,
    id::{OrgId, RepositoryId},
};
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use crate::model::{Maintenance, MaintenanceStatus, MaintenanceTrigger};

/// Runs that are kept of each repository.
const KEPT: i64 = 50;

/// Which repository a run is about.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target {
    pub(crate) id: RepositoryId,
    pub(crate) org: OrgId,
    pub(crate) reclaimed_at: Option<DateTime<Utc>>,
}

/// The next repository that was pushed to since its last maintenance, whose last one failed, or whose garbage has become old
/// enough since; the longest untouched first. Behind `began`: not one that this round has seen.
pub(crate) async fn next_due(
    pool: &PgPool,
    began: DateTime<Utc>,
    garbage_before: DateTime<Utc>,
) -> Result<Option<Target>> {
    Ok(sqlx::query_as!(
        Target,
        r#"SELECT id AS "id: RepositoryId", org_id AS "org: OrgId", reclaimed_at
             FROM repositories
            WHERE deleted_at IS NULL AND pushed_at IS NOT NULL
              AND (maintained_at IS NULL OR maintained_at < $1)
              AND (maintenance_until IS NULL OR maintenance_until <= $1)
              AND (maintenance_failed OR pushed_at >= coalesce(maintained_at, '-infinity')
                   OR (pushed_at <= $2 AND coalesce(reclaimed_at, '-infinity') < pushed_at + ($1::timestamptz - $2)))
            ORDER BY maintained_at NULLS FIRST, id
            LIMIT 1"#,
        began,
        garbage_before
    )
    .fetch_optional(pool)
    .await?)
}

/// Takes a repository for `run`, unless another has it; what a dead one left is marked as such.
pub(crate) async fn claim(
    db: &mut PgConnection,
    target: &Target,
    run: Uuid,
    trigger: MaintenanceTrigger,
    now: DateTime<Utc>,
    until: DateTime<Utc>,
) -> Result<bool> {
    let claimed = sqlx::query!(
        "UPDATE repositories SET maintenance_id = $3, maintenance_until = $5, reclaiming_until = NULL
          WHERE id = $1 AND org_id = $2 AND deleted_at IS NULL
            AND (maintenance_until IS NULL OR maintenance_until <= $4)",
        target.id.0,
        target.org.0,
        run,
        now,
        until
    )
    .execute(&mut *db)
    .await?;
    if claimed.rows_affected() == 0 {
        return Ok(false);
    }
    sqlx::query!(
        "UPDATE repository_maintenance
            SET status = 'abandoned', finished_at = $3, error = 'its server went away without a word'
          WHERE repository_id = $1 AND org_id = $2 AND status = 'running'",
        target.id.0,
        target.org.0,
        now
    )
    .execute(&mut *db)
    .await?;
    sqlx::query!(
        "INSERT INTO repository_maintenance (id, org_id, repository_id, trigger, status, started_at)
         VALUES ($1, $2, $3, $4, 'running', $5)",
        run,
        target.org.0,
        target.id.0,
        trigger as MaintenanceTrigger,
        now
    )
    .execute(db)
    .await?;
    Ok(true)
}

/// False when the repository is another's by now.
pub(crate) async fn renew(
    pool: &PgPool,
    target: &Target,
    run: Uuid,
    now: DateTime<Utc>,
    until: DateTime<Utc>,
) -> Result<bool> {
    let renewed = sqlx::query!(
        "UPDATE repositories
            SET maintenance_until = $5, reclaiming_until = CASE WHEN reclaiming_until IS NOT NULL THEN $5::timestamptz END
          WHERE id = $1 AND org_id = $2 AND maintenance_id = $3 AND maintenance_until > $4",
        target.id.0,
        target.org.0,
        run,
        now,
        until
    )
    .execute(pool)
    .await?;
    Ok(renewed.rows_affected() == 1)
}

/// Keeps pushes out while objects are removed; false when one is under way.
pub(crate) async fn begin_reclaim(
    db: &mut PgConnection,
    target: &Target,
    run: Uuid,
    now: DateTime<Utc>,
    until: DateTime<Utc>,
) -> Result<bool> {
    let ours = sqlx::query_scalar!(
        r#"SELECT (maintenance_id IS NOT DISTINCT FROM $3) AS "ours!" FROM repositories
            WHERE id = $1 AND org_id = $2 FOR UPDATE"#,
        target.id.0,
        target.org.0,
        run
    )
    .fetch_optional(&mut *db)
    .await?
    .unwrap_or(false);
    sqlx::query!(
        "DELETE FROM repository_pushes WHERE repository_id = $1 AND org_id = $2 AND lease_until <= $3",
        target.id.0,
        target.org.0,
        now
    )
    .execute(&mut *db)
    .await?;
    let begun = sqlx::query!(
        "UPDATE repositories SET reclaiming_until = $4
          WHERE id = $1 AND org_id = $2 AND $3
            AND NOT EXISTS (SELECT FROM repository_pushes WHERE repository_id = $1 AND org_id = $2)",
        target.id.0,
        target.org.0,
        ours,
        until
    )
    .execute(db)
    .await?;
    Ok(begun.rows_affected() == 1)
}

/// Lets pushes in again.
pub(crate) async fn end_reclaim(pool: &PgPool, target: &Target, run: Uuid) -> Result<()> {
    sqlx::query!(
        "UPDATE repositories SET reclaiming_until = NULL WHERE id = $1 AND org_id = $2 AND maintenance_id = $3",
        target.id.0,
        target.org.0,
        run
    )
    .execute(pool)
    .await?;
    Ok(())
}

/// Records the end of a run and gives the repository back.
pub(crate) async fn finish(
    db: &mut PgConnection,
    org: OrgId,
    run: &Maintenance,
    now: DateTime<Utc>,
) -> Result<()> {
    sqlx::query!(
        "UPDATE repository_maintenance
            SET status = $3, finished_at = $4, duration_ms = $5, packs_before = $6, packs_after = $7,
                bytes_before = $8, bytes_after = $9, reclaimed = $10, error = $11
          WHERE id = $1 AND org_id = $2",
        run.id,
        org.0,
        run.status as MaintenanceStatus,
        run.finished_at,
        run.duration_ms,
        run.packs_before,
        run.packs_after,
        run.bytes_before,
        run.bytes_after,
        run.reclaimed,
        run.error
    )
    .execute(&mut *db)
    .await?;
    sqlx::query!(
        "UPDATE repositories
            SET maintenance_id = NULL, maintenance_until = NULL, reclaiming_until = NULL,
                -- From its start: what was pushed meanwhile is for the next.
                maintained_at = $4, maintenance_failed = $8, size_bytes = coalesce($5, size_bytes),
                reclaimed_at = CASE WHEN $6 THEN $7 ELSE reclaimed_at END
          WHERE id = $1 AND org_id = $2 AND maintenance_id = $3",
        run.repository_id.0,
        org.0,
        run.id,
        run.started_at,
        run.bytes_after,
        run.reclaimed,
        now,
        run.status != MaintenanceStatus::Succeeded
    )
    .execute(&mut *db)
    .await?;
    sqlx::query!(
        "DELETE FROM repository_maintenance
          WHERE org_id = $2 AND repository_id = $1 AND id IN (
              SELECT id FROM repository_maintenance WHERE org_id = $2 AND repository_id = $1
               ORDER BY started_at DESC, id DESC OFFSET $3)",
        run.repository_id.0,
        org.0,
        KEPT
    )
    .execute(db)
    .await?;
    Ok(())
}

/// The runs of a repository, newest first.
pub(crate) async fn history(
    db: &mut PgConnection,
    org: OrgId,
    repository: RepositoryId,
    after: Option<(DateTime<Utc>, Uuid)>,
    limit: i64,
) -> Result<Vec<Maintenance>> {
    let (at, id) = after.unzip();
    Ok(sqlx::query_as!(
        Maintenance,
        r#"SELECT id, repository_id AS "repository_id: RepositoryId", trigger AS "trigger: MaintenanceTrigger",
                  status AS "status: MaintenanceStatus", started_at, finished_at, duration_ms, packs_before,
                  packs_after, bytes_before, bytes_after, reclaimed, error
             FROM repository_maintenance
            WHERE org_id = $1 AND repository_id = $2
              AND ($3::timestamptz IS NULL OR (started_at, id) < ($3, $4))
            ORDER BY started_at DESC, id DESC
            LIMIT $5"#,
        org.0,
        repository.0,
        at,
        id,
        limit
    )
    .fetch_all(db)
    .await?)
}

/// Repositories that were deleted before `before`, of all organisations.
pub(crate) async fn deleted_before(
    pool: &PgPool,
    before: DateTime<Utc>,
    limit: i64,
) -> Result<Vec<(OrgId, RepositoryId)>> {
    let rows = sqlx::query!(
        r#"SELECT org_id AS "org: OrgId", id AS "id: RepositoryId" FROM repositories
            WHERE deleted_at < $1 ORDER BY deleted_at LIMIT $2"#,
        before,
        limit
    )
    .fetch_all(pool)
    .await?;
    Ok(rows.into_iter().map(|row| (row.org, row.id)).collect())
}

pub(crate) async fn forget(pool: &PgPool, org: OrgId, repository: RepositoryId) -> Result<()> {
    sqlx::query!(
        "DELETE FROM repositories WHERE id = $1 AND org_id = $2 AND deleted_at IS NOT NULL",
        repository.0,
        org.0
    )
    .execute(pool)
    .await?;
    Ok(())
}
