//! The SQL of when somebody looked, and of when nobody was there.

use chrono::{DateTime, TimeDelta, Utc};
use loom_core::Result;
use sqlx::{PgConnection, PgPool};

/// When nobody was there to look, or to take pings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gap {
    pub(crate) from: DateTime<Utc>,
    pub(crate) to: DateTime<Utc>,
}

/// Some server is there now; a gap is written down when none was for longer than `tolerance`.
pub(crate) async fn beat(pool: &PgPool, now: DateTime<Utc>, tolerance: TimeDelta) -> Result<()> {
    let usual = sqlx::query!(
        "UPDATE cron_presence SET alive_at = GREATEST(alive_at, $1) WHERE alive_at >= $2",
        now,
        now - tolerance
    )
    .execute(pool)
    .await?;
    if usual.rows_affected() > 0 {
        return Ok(());
    }
    let mut tx = loom_db::begin(pool).await?;
    let last = sqlx::query_scalar!("SELECT alive_at FROM cron_presence FOR UPDATE")
        .fetch_optional(&mut *tx)
        .await?;
    // Somebody else may have come back first.
    if let Some(last) = last.filter(|last| now - *last > tolerance) {
        sqlx::query!(
            "INSERT INTO cron_gaps (from_at, to_at) VALUES ($1, $2) ON CONFLICT DO NOTHING",
            last,
            now
        )
        .execute(&mut *tx)
        .await?;
        tracing::warn!(from = %last, to = %now, "no server was there for cron monitors");
    }
    sqlx::query!(
        "INSERT INTO cron_presence (alive_at) VALUES ($1)
         ON CONFLICT (id) DO UPDATE SET alive_at = GREATEST(cron_presence.alive_at, excluded.alive_at)",
        now
    )
    .execute(&mut *tx)
    .await?;
    tx.commit().await?;
    Ok(())
}

/// Notes that somebody looks now.
pub(crate) async fn note(pool: &PgPool, now: DateTime<Utc>) -> Result<()> {
    sqlx::query!(
        "INSERT INTO cron_sweeps (swept_at) VALUES ($1)
         ON CONFLICT (id) DO UPDATE SET swept_at = GREATEST(cron_sweeps.swept_at, excluded.swept_at)",
        now
    )
    .execute(pool)
    .await?;
    Ok(())
}

/// When somebody last looked.
pub(crate) async fn last(pool: &PgPool) -> Result<Option<DateTime<Utc>>> {
    Ok(sqlx::query_scalar!("SELECT swept_at FROM cron_sweeps").fetch_optional(pool).await?)
}

/// Those that ended after `since`, the oldest first; of very many the newest.
pub(crate) async fn gaps(db: &mut PgConnection, since: DateTime<Utc>) -> Result<Vec<Gap>> {
    Ok(sqlx::query_as!(
        Gap,
        r#"SELECT from_at AS "from!", to_at AS "to!"
             FROM (SELECT * FROM cron_gaps WHERE to_at > $1 ORDER BY from_at DESC LIMIT 1000) newest
            ORDER BY from_at"#,
        since
    )
    .fetch_all(db)
    .await?)
}

pub(crate) async fn forget_gaps(db: &mut PgConnection, before: DateTime<Utc>) -> Result<()> {
    sqlx::query!("DELETE FROM cron_gaps WHERE to_at < $1", before).execute(db).await?;
    Ok(())
}
