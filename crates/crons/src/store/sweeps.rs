//! The SQL of when somebody looked, and of when nobody was there.

use chrono::{DateTime, TimeDelta, Utc};
use loom_core::Result;
use sqlx::{PgConnection, PgPool};

/// Twice the time between two looks, and some more.
const GAP: TimeDelta = TimeDelta::seconds(150);

/// When nobody was there to look, or to take pings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gap {
    pub(crate) from: DateTime<Utc>,
    pub(crate) to: DateTime<Utc>,
}

/// Notes that somebody looks now, and a gap when it was long ago that somebody did.
pub(crate) async fn note(pool: &PgPool, now: DateTime<Utc>) -> Result<()> {
    let mut tx = loom_db::begin(pool).await?;
    let last = sqlx::query_scalar!("SELECT swept_at FROM cron_sweeps FOR UPDATE")
        .fetch_optional(&mut *tx)
        .await?;
    if let Some(last) = last.filter(|last| now - *last > GAP) {
        sqlx::query!(
            "INSERT INTO cron_gaps (from_at, to_at) VALUES ($1, $2) ON CONFLICT DO NOTHING",
            last,
            now
        )
        .execute(&mut *tx)
        .await?;
        tracing::warn!(from = %last, to = %now, "nobody looked after cron monitors");
    }
    sqlx::query!(
        "INSERT INTO cron_sweeps (swept_at) VALUES ($1)
         ON CONFLICT (id) DO UPDATE SET swept_at = GREATEST(cron_sweeps.swept_at, excluded.swept_at)",
        now
    )
    .execute(&mut *tx)
    .await?;
    tx.commit().await?;
    Ok(())
}

/// When somebody last looked.
pub(crate) async fn last(pool: &PgPool) -> Result<Option<DateTime<Utc>>> {
    Ok(sqlx::query_scalar!("SELECT swept_at FROM cron_sweeps").fetch_optional(pool).await?)
}

/// Those that ended after `since`, the oldest first.
pub(crate) async fn gaps(db: &mut PgConnection, since: DateTime<Utc>) -> Result<Vec<Gap>> {
    Ok(sqlx::query_as!(
        Gap,
        r#"SELECT from_at AS "from", to_at AS "to" FROM cron_gaps WHERE to_at > $1 ORDER BY from_at LIMIT 1000"#,
        since
    )
    .fetch_all(db)
    .await?)
}

pub(crate) async fn forget_gaps(db: &mut PgConnection, before: DateTime<Utc>) -> Result<()> {
    sqlx::query!("DELETE FROM cron_gaps WHERE to_at < $1", before).execute(db).await?;
    Ok(())
}
