//! The SQL of the outbox: what happened to threads, in the order of the transactions that did it.

use chrono::{DateTime, Utc};
use loom_core::{
    Result,
    authorize::Visibility,
    id::{OrgId, ThreadId, UserId},
};
use sqlx::{PgConnection, PgPool, types::Json};

use crate::{
    feed::{Cursor, Event, Kind, NewEvent, Shown},
    raw::Raw,
};

/// Where the outbox stands.
#[derive(Clone, Debug)]
pub(crate) struct Head {
    /// All transactions below it have ended: what they wrote is there, and nothing will be added.
    pub(crate) settled: i64,
    /// No transaction has this number yet, nor a higher one.
    pub(crate) next: i64,
    /// These, from `settled` on, are still open.
    pub(crate) open: Vec<i64>,
    /// What was here and before has been cleaned away.
    pub(crate) floor: Cursor,
}

impl Head {
    /// Had this transaction been committed, or rolled back, by then?
    pub(crate) fn had_seen(&self, xid: i64) -> bool {
        xid < self.next && !self.open.contains(&xid)
    }
}

/// Writes events in the transaction of the change that they tell of.
pub(crate) async fn insert(
    db: &mut PgConnection,
    org: OrgId,
    thread: ThreadId,
    events: &[NewEvent],
) -> Result<()> {
    if events.is_empty() {
        return Ok(());
    }
    let kinds: Vec<&str> = events.iter().map(|event| event.kind.as_str()).collect();
    let before: Vec<Option<Visibility>> = events.iter().map(|event| event.shown_before).collect();
    let data: Vec<&str> = events.iter().map(|event| event.data.as_str()).collect();
    sqlx::query!(
        "INSERT INTO thread_events (org_id, thread_id, kind, shown_before, data)
         SELECT $1, $2, kind, shown_before, data::json
         FROM UNNEST($3::text[], $4::text[], $5::text[]) WITH ORDINALITY
             AS given (kind, shown_before, data, place)
         ORDER BY place",
        org.0,
        thread.0,
        &kinds as &[&str],
        &before as &[Option<Visibility>],
        &data as &[&str],
    )
    .execute(db)
    .await?;
    Ok(())
}

pub(crate) async fn head(pool: &PgPool) -> Result<Head> {
    let row = sqlx::query!(
        r#"SELECT pg_snapshot_xmin(now)::text::bigint AS "settled!", pg_snapshot_xmax(now)::text::bigint AS "next!",
               ARRAY(SELECT pg_snapshot_xip(now)::text::bigint) AS "open!",
               floor.xid::text::bigint AS "floor_xid!", floor.id AS floor_id
           FROM pg_current_snapshot() AS now, thread_event_floor AS floor"#,
    )
    .fetch_one(pool)
    .await?;
    let floor = Cursor { xid: row.floor_xid, id: row.floor_id };
    // After the database was restored into another cluster, numbers of the old one are still around.
    let floor = if floor.xid >= row.next { Cursor::START } else { floor };
    Ok(Head { settled: row.settled, next: row.next, open: row.open, floor })
}

/// Have events been committed that wait for an older transaction to end?
pub(crate) async fn waiting(pool: &PgPool, settled: i64) -> Result<bool> {
    Ok(sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT FROM thread_events WHERE xid >= $1::bigint::text::xid8) AS "waiting!""#,
        settled,
    )
    .fetch_one(pool)
    .await?)
}

/// The seconds for which the oldest event has waited for an older transaction to end.
pub(crate) async fn held_up(pool: &PgPool) -> Result<Option<f64>> {
    Ok(sqlx::query_scalar!(
        r#"SELECT extract(epoch FROM clock_timestamp() - min(at))::float8 FROM thread_events
           WHERE xid >= (SELECT pg_snapshot_xmin(pg_current_snapshot()))
               AND xid < (SELECT pg_snapshot_xmax(pg_current_snapshot()))"#,
    )
    .fetch_one(pool)
    .await?)
}

/// The events after a place, up to the transactions that may still be open; of one organisation, or of
/// all. Who may see them is what holds now.
pub(crate) async fn after(
    pool: &PgPool,
    org: Option<OrgId>,
    after: Cursor,
    settled: i64,
    limit: i64,
) -> Result<Vec<Event>> {
    // Two statements, so that each has a plan for its own index.
    match org {
        None => {
            let rows = sqlx::query_as!(
                Row,
                r#"SELECT event.xid::text::bigint AS "xid!", event.id, event.org_id AS "org: OrgId",
                       event.thread_id AS "thread: ThreadId", event.kind,
                       event.shown_before AS "shown_before: Visibility", event.data AS "data: Json<Raw>",
                       thread.owner_user_id AS "owner: UserId",
                       thread.visibility AS "visibility?: Visibility", thread.deleted_at
                   FROM thread_events AS event
                   LEFT JOIN threads AS thread ON thread.id = event.thread_id AND thread.org_id = event.org_id
                   WHERE (event.xid, event.id) > ($1::bigint::text::xid8, $2) AND event.xid < $3::bigint::text::xid8
                   ORDER BY event.xid, event.id
                   LIMIT $4"#,
                after.xid,
                after.id,
                settled,
                limit,
            )
            .fetch_all(pool)
            .await?;
            Ok(rows.into_iter().map(Row::event).collect())
        }
        Some(org) => {
            let rows = sqlx::query_as!(
                Row,
                r#"SELECT event.xid::text::bigint AS "xid!", event.id, event.org_id AS "org: OrgId",
                       event.thread_id AS "thread: ThreadId", event.kind,
                       event.shown_before AS "shown_before: Visibility", event.data AS "data: Json<Raw>",
                       thread.owner_user_id AS "owner: UserId",
                       thread.visibility AS "visibility?: Visibility", thread.deleted_at
                   FROM thread_events AS event
                   LEFT JOIN threads AS thread ON thread.id = event.thread_id AND thread.org_id = event.org_id
                   WHERE event.org_id = $5
                       AND (event.xid, event.id) > ($1::bigint::text::xid8, $2) AND event.xid < $3::bigint::text::xid8
                   ORDER BY event.xid, event.id
                   LIMIT $4"#,
                after.xid,
                after.id,
                settled,
                limit,
                org.0,
            )
            .fetch_all(pool)
            .await?;
            Ok(rows.into_iter().map(Row::event).collect())
        }
    }
}

struct Row {
    xid: i64,
    id: i64,
    org: OrgId,
    thread: ThreadId,
    kind: String,
    shown_before: Option<Visibility>,
    data: Json<Raw>,
    owner: Option<UserId>,
    /// None when the thread is gone for good.
    visibility: Option<Visibility>,
    deleted_at: Option<DateTime<Utc>>,
}

impl Row {
    fn event(self) -> Event {
        let kind = Kind::from_name(&self.kind);
        let shown = match self.visibility {
            // A kind that a newer server has written is for newer servers.
            _ if kind.is_none() => Shown::Gone,
            None => Shown::Gone,
            Some(visibility) if self.deleted_at.is_some() => Shown::Deleted(self.owner, visibility),
            Some(visibility) => Shown::To(self.owner, visibility),
        };
        Event {
            at: Cursor { xid: self.xid, id: self.id },
            org: self.org,
            thread: self.thread,
            kind: kind.unwrap_or(Kind::Updated),
            shown,
            shown_before: self.shown_before,
            data: self.data.0,
        }
    }
}

/// Deletes the oldest events if they are older than `days`; how many.
pub(crate) async fn clean_up(pool: &PgPool, days: i32, batch: i64) -> Result<u64> {
    let mut tx = loom_db::begin(pool).await?;
    let gone = sqlx::query!(
        r#"DELETE FROM thread_events
           WHERE (xid, id) IN (SELECT xid, id FROM thread_events ORDER BY xid, id LIMIT $2)
               AND at < clock_timestamp() - make_interval(days => $1)
           RETURNING xid::text::bigint AS "xid!", id"#,
        days,
        batch,
    )
    .fetch_all(&mut *tx)
    .await?;
    if let Some(floor) = gone.iter().map(|row| Cursor { xid: row.xid, id: row.id }).max() {
        sqlx::query!(
            "UPDATE thread_event_floor SET xid = $1::bigint::text::xid8, id = $2",
            floor.xid,
            floor.id
        )
        .execute(&mut *tx)
        .await?;
    }
    tx.commit().await?;
    Ok(gone.len() as u64)
}

/// Deletes what bears the number of a transaction to come: the database was restored from another
/// cluster's, and the numbers mean nothing here.
pub(crate) async fn clean_up_foreign(pool: &PgPool) -> Result<u64> {
    let done = sqlx::query!(
        "DELETE FROM thread_events WHERE xid >= (SELECT pg_snapshot_xmax(pg_current_snapshot()))",
    )
    .execute(pool)
    .await?;
    Ok(done.rows_affected())
}
