//! The SQL of the list of servers. Time is the database's, which is the same for all of them.

use chrono::{DateTime, Utc};
use loom_core::Result;
use sqlx::PgPool;
use uuid::Uuid;

pub(crate) struct NewReplica<'a> {
    pub(crate) id: Uuid,
    pub(crate) name: &'a str,
    pub(crate) version: &'a str,
    pub(crate) address: Option<&'a str>,
}

pub(crate) struct ReplicaRow {
    pub(crate) id: Uuid,
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) address: Option<String>,
    pub(crate) started_at: DateTime<Utc>,
    pub(crate) last_seen: DateTime<Utc>,
    pub(crate) stale: bool,
}

/// A server is there; those that were not seen for ten minutes are forgotten.
pub(crate) async fn beat(pool: &PgPool, replica: &NewReplica<'_>) -> Result<()> {
    sqlx::query!(
        "WITH gone AS (DELETE FROM replicas WHERE last_seen < now() - interval '10 minutes' AND id <> $1)
         INSERT INTO replicas (id, name, version, address, started_at, last_seen)
         VALUES ($1, $2, $3, $4, now(), now())
         ON CONFLICT (id) DO UPDATE SET last_seen = now(), address = excluded.address",
        replica.id,
        replica.name,
        replica.version,
        replica.address
    )
    .execute(pool)
    .await?;
    Ok(())
}

pub(crate) async fn remove(pool: &PgPool, id: Uuid) -> Result<()> {
    sqlx::query!("DELETE FROM replicas WHERE id = $1", id).execute(pool).await?;
    Ok(())
}

/// All servers, the one that runs longest first. Stale: it missed three beats.
pub(crate) async fn replicas(pool: &PgPool) -> Result<Vec<ReplicaRow>> {
    Ok(sqlx::query_as!(
        ReplicaRow,
        r#"SELECT id, name, version, address, started_at, last_seen,
                  last_seen < now() - interval '90 seconds' AS "stale!"
             FROM replicas ORDER BY started_at, id LIMIT 1000"#
    )
    .fetch_all(pool)
    .await?)
}
