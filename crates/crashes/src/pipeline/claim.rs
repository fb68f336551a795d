//! The queue, in SQL: who has which events, and for how long. Leases go by the database's clock.

use chrono::{DateTime, Utc};
use loom_core::id::ProjectId;
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

/// An event that is to be processed.
#[derive(Clone, Debug)]
pub(crate) struct Claimed {
    pub queue_id: i64,
    pub org: Uuid,
    pub project: ProjectId,
    pub event: Uuid,
    pub received_at: DateTime<Utc>,
    /// It was processed before.
    pub again: bool,
    /// This one included.
    pub attempts: i32,
}

/// So long has whoever took it.
const LEASE_SECS: f64 = 120.0;
/// What failed waits so long, times how often it did.
const PAUSE_SECS: f64 = 2.0;

/// Takes those that nobody has had, the oldest first.
pub(super) async fn fresh(pool: &PgPool, most: i64) -> sqlx::Result<Vec<Claimed>> {
    let rows = sqlx::query!(
        "WITH due AS (
             SELECT id FROM crash_queue WHERE parked_at IS NULL AND claimed_until IS NULL
              ORDER BY id LIMIT $1 FOR UPDATE SKIP LOCKED)
         UPDATE crash_queue q
            SET claimed_until = clock_timestamp() + make_interval(secs => $2), attempts = attempts + 1
           FROM due WHERE q.id = due.id
         RETURNING q.id, org_id, project_id, event_id, received_at, again, attempts",
        most,
        LEASE_SECS
    )
    .fetch_all(pool)
    .await?;
    let mut claimed: Vec<_> = rows
        .into_iter()
        .map(|row| Claimed {
            queue_id: row.id,
            org: row.org_id,
            project: ProjectId(row.project_id),
            event: row.event_id,
            received_at: row.received_at,
            again: row.again,
            attempts: row.attempts,
        })
        .collect();
    claimed.sort_unstable_by_key(|claimed| claimed.queue_id);
    Ok(claimed)
}

/// Takes one whose lease is over: whoever had it is gone, or failed.
pub(super) async fn overdue(pool: &PgPool) -> sqlx::Result<Option<Claimed>> {
    let row = sqlx::query!(
        "WITH due AS (
             SELECT id FROM crash_queue
              WHERE parked_at IS NULL AND claimed_until IS NOT NULL AND claimed_until < clock_timestamp()
              ORDER BY claimed_until LIMIT 1 FOR UPDATE SKIP LOCKED)
         UPDATE crash_queue q
            SET claimed_until = clock_timestamp() + make_interval(secs => $1), attempts = attempts + 1
           FROM due WHERE q.id = due.id
         RETURNING q.id, org_id, project_id, event_id, received_at, again, attempts",
        LEASE_SECS
    )
    .fetch_optional(pool)
    .await?;
    Ok(row.map(|row| Claimed {
        queue_id: row.id,
        org: row.org_id,
        project: ProjectId(row.project_id),
        event: row.event_id,
        received_at: row.received_at,
        again: row.again,
        attempts: row.attempts,
    }))
}

/// Gives back what could not be looked at for a reason that is not its own.
pub(super) async fn give_back(pool: &PgPool, ids: &[i64]) -> sqlx::Result<()> {
    sqlx::query!(
        "UPDATE crash_queue SET claimed_until = NULL, attempts = greatest(attempts - 1, 0)
          WHERE id = ANY ($1) AND parked_at IS NULL",
        ids
    )
    .execute(pool)
    .await?;
    Ok(())
}

/// Lets one that failed rest.
pub(super) async fn postpone(pool: &PgPool, claimed: &Claimed) -> sqlx::Result<()> {
    sqlx::query!(
        "UPDATE crash_queue SET claimed_until = clock_timestamp() + make_interval(secs => $2)
          WHERE id = $1 AND parked_at IS NULL",
        claimed.queue_id,
        PAUSE_SECS * f64::from(claimed.attempts)
    )
    .execute(pool)
    .await?;
    Ok(())
}

/// Puts one aside for good, until somebody asks for it.
pub(super) async fn park(
    pool: &PgPool,
    queue_id: i64,
    reason: &str,
    now: DateTime<Utc>,
) -> sqlx::Result<()> {
    let reason = reason.replace('\0', "");
    sqlx::query!(
        "UPDATE crash_queue SET parked_at = $3, parked_reason = $2, claimed_until = NULL
          WHERE id = $1 AND parked_at IS NULL",
        queue_id,
        loom_core::text::cut(&reason, 1000),
        now
    )
    .execute(pool)
    .await?;
    Ok(())
}

/// What is stored of those that were taken, in their order; none where it is gone.
pub(super) async fn load(
    pool: &PgPool,
    claimed: &[Claimed],
) -> sqlx::Result<Vec<Option<(Vec<u8>, serde_json::Value)>>> {
    let numbers: Vec<i64> = (0..).take(claimed.len()).collect();
    let projects: Vec<Uuid> = claimed.iter().map(|claimed| claimed.project.0).collect();
    let events: Vec<Uuid> = claimed.iter().map(|claimed| claimed.event).collect();
    let times: Vec<_> = claimed.iter().map(|claimed| claimed.received_at).collect();
    // The limit keeps the look-ups one by one: each goes to the one partition of its day.
    let rows = sqlx::query!(
        r#"SELECT t.n AS "n!", r.payload, r.delivery
             FROM unnest($1::bigint[], $2::uuid[], $3::uuid[], $4::timestamptz[]) AS t(n, project, event, at)
            CROSS JOIN LATERAL (
                SELECT payload, delivery FROM crash_raw
                 WHERE project_id = t.project AND event_id = t.event AND received_at = t.at
                 LIMIT 1) r"#,
        &numbers,
        &projects,
        &events,
        &times
    )
    .fetch_all(pool)
    .await?;
    let mut found: Vec<_> = claimed.iter().map(|_| None).collect();
    for row in rows {
        if let Some(slot) = usize::try_from(row.n).ok().and_then(|n| found.get_mut(n)) {
            *slot = Some((row.payload, row.delivery));
        }
    }
    Ok(found)
}

/// Takes rows out of the queue for good: what comes back is ours alone, whoever else still works on it.
pub(super) async fn finish(db: &mut PgConnection, ids: &[i64]) -> sqlx::Result<Vec<i64>> {
    sqlx::query_scalar!(
        "WITH ours AS (SELECT id FROM crash_queue WHERE id = ANY ($1) ORDER BY id FOR UPDATE)
         DELETE FROM crash_queue q USING ours WHERE q.id = ours.id RETURNING q.id",
        ids
    )
    .fetch_all(db)
    .await
}

/// Events waiting, the age of the oldest in seconds, and how many were put aside. Counts to a bound: a long
/// queue is as bad as a longer one.
pub(crate) struct Lag {
    pub waiting: i64,
    pub oldest_secs: f64,
    pub parked: i64,
}

pub(crate) async fn lag(pool: &PgPool, now: DateTime<Utc>) -> sqlx::Result<Lag> {
    let row = sqlx::query!(
        r#"SELECT (SELECT count(*) FROM (
                      SELECT FROM crash_queue WHERE parked_at IS NULL AND claimed_until IS NULL LIMIT 100000) q) AS "fresh!",
                  (SELECT count(*) FROM (
                      SELECT FROM crash_queue WHERE parked_at IS NULL AND claimed_until IS NOT NULL LIMIT 10000) q) AS "claimed!",
                  (SELECT received_at FROM crash_queue WHERE parked_at IS NULL AND claimed_until IS NULL
                    ORDER BY id LIMIT 1) AS oldest,
                  (SELECT count(*) FROM (
                      SELECT FROM crash_queue WHERE parked_at IS NOT NULL LIMIT 10000) q) AS "parked!""#
    )
    .fetch_one(pool)
    .await?;
    let oldest_secs = row.oldest.map_or(0.0, |oldest| (now - oldest).as_seconds_f64().max(0.0));
    Ok(Lag { waiting: row.fresh + row.claimed, oldest_secs, parked: row.parked })
}
