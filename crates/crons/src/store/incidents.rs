//! The SQL of incidents.

use chrono::{DateTime, Utc};
use loom_core::{
    Result,
    id::{CheckInId, EventId, IncidentId, MonitorId, OrgId},
};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{
    model::{Incident, Status},
    work::{Change, Place},
};

pub(crate) async fn open(
    db: &mut PgConnection,
    id: IncidentId,
    change: &Change,
    now: DateTime<Utc>,
    event: Option<EventId>,
) -> Result<()> {
    let (monitor, environment) = &change.place;
    sqlx::query!(
        "INSERT INTO cron_incidents (id, org_id, monitor_id, environment, status, reason, checkin_id, began_at,
                opened_at, event_id)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        id.0,
        change.monitor.org.0,
        monitor.0,
        environment,
        change.status.as_str(),
        change.reason,
        change.checkin.0,
        change.at,
        now,
        event.map(|event| event.0),
    )
    .execute(db)
    .await?;
    Ok(())
}

/// It was told of; `next` is when it is told of again.
pub(crate) async fn told(
    db: &mut PgConnection,
    id: IncidentId,
    at: DateTime<Utc>,
    next: Option<DateTime<Utc>>,
) -> Result<()> {
    sqlx::query!(
        "UPDATE cron_incidents SET told = told + 1, told_at = COALESCE(told_at, $2), tell_at = $3
          WHERE id = $1",
        id.0,
        at,
        next
    )
    .execute(db)
    .await?;
    Ok(())
}

/// It is not told of now.
pub(crate) async fn tell_later(
    db: &mut PgConnection,
    id: IncidentId,
    at: Option<DateTime<Utc>>,
) -> Result<()> {
    sqlx::query!("UPDATE cron_incidents SET tell_at = $2 WHERE id = $1", id.0, at)
        .execute(db)
        .await?;
    Ok(())
}

/// Those of a monitor that goes on are told of at the next look: what nobody was told of, and with `reminds`
/// the others.
pub(crate) async fn tell_again(
    db: &mut PgConnection,
    org: OrgId,
    monitor: MonitorId,
    reminds: bool,
    now: DateTime<Utc>,
) -> Result<()> {
    sqlx::query!(
        "UPDATE cron_incidents SET tell_at = COALESCE(tell_at, $4)
          WHERE org_id = $1 AND monitor_id = $2 AND closed_at IS NULL AND (told = 0 OR $3)",
        org.0,
        monitor.0,
        reminds,
        now
    )
    .execute(db)
    .await?;
    Ok(())
}

/// When the last incident of the place that somebody was told of has closed, of those that opened since.
pub(crate) async fn recovered_at(
    db: &mut PgConnection,
    org: OrgId,
    (monitor, environment): &Place,
    since: DateTime<Utc>,
) -> Result<Option<DateTime<Utc>>> {
    Ok(sqlx::query_scalar!(
        "SELECT max(closed_at) FROM cron_incidents
          WHERE org_id = $1 AND monitor_id = $2 AND environment = $3 AND opened_at > $4 AND told > 0",
        org.0,
        monitor.0,
        environment,
        since
    )
    .fetch_one(db)
    .await?)
}

/// An incident that is, or was, open.
pub(crate) struct Open {
    pub(crate) id: IncidentId,
    pub(crate) monitor: MonitorId,
    pub(crate) environment: String,
    pub(crate) status: Status,
    pub(crate) reason: Option<String>,
    pub(crate) checkin: CheckInId,
    pub(crate) began_at: DateTime<Utc>,
    pub(crate) opened_at: DateTime<Utc>,
    pub(crate) told: i32,
}

struct OpenRow {
    id: Uuid,
    monitor_id: Uuid,
    environment: String,
    status: String,
    reason: Option<String>,
    checkin_id: Uuid,
    began_at: DateTime<Utc>,
    opened_at: DateTime<Utc>,
    told: i32,
}

impl From<OpenRow> for Open {
    fn from(row: OpenRow) -> Self {
        Self {
            id: IncidentId(row.id),
            monitor: MonitorId(row.monitor_id),
            environment: row.environment,
            status: Status::of(&row.status).unwrap_or(Status::Unknown),
            reason: row.reason,
            checkin: CheckInId(row.checkin_id),
            began_at: row.began_at,
            opened_at: row.opened_at,
            told: row.told,
        }
    }
}

pub(crate) async fn close(
    db: &mut PgConnection,
    id: IncidentId,
    now: DateTime<Utc>,
) -> Result<Option<Open>> {
    let row = sqlx::query_as!(
        OpenRow,
        "UPDATE cron_incidents SET closed_at = $2, tell_at = NULL,
                event_id = CASE WHEN told > 0 THEN event_id END
          WHERE id = $1 AND closed_at IS NULL
         RETURNING id, monitor_id, environment, status, reason, checkin_id, began_at, opened_at, told",
        id.0,
        now
    )
    .fetch_optional(db)
    .await?;
    Ok(row.map(Open::from))
}

/// Those of environments that are taken away.
pub(crate) async fn close_of(
    db: &mut PgConnection,
    org: OrgId,
    monitor: MonitorId,
    environments: &[String],
    now: DateTime<Utc>,
) -> Result<()> {
    sqlx::query!(
        "UPDATE cron_incidents SET closed_at = $4, tell_at = NULL
          WHERE org_id = $1 AND monitor_id = $2 AND environment = ANY ($3) AND closed_at IS NULL",
        org.0,
        monitor.0,
        environments,
        now
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Those that are to be told of, locked.
pub(crate) async fn lock_due(
    db: &mut PgConnection,
    now: DateTime<Utc>,
    limit: i64,
) -> Result<Vec<Open>> {
    let rows = sqlx::query_as!(
        OpenRow,
        "SELECT id, monitor_id, environment, status, reason, checkin_id, began_at, opened_at, told
           FROM cron_incidents WHERE tell_at <= $1 AND closed_at IS NULL
          ORDER BY tell_at LIMIT $2 FOR NO KEY UPDATE SKIP LOCKED",
        now,
        limit
    )
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(Open::from).collect())
}

/// Those that were told of and whose event the project has not yet, with the event's id; the oldest first.
pub(crate) async fn without_event(
    db: &mut PgConnection,
    limit: i64,
) -> Result<Vec<(Open, EventId)>> {
    let rows = sqlx::query!(
        r#"SELECT id, monitor_id, environment, status, reason, checkin_id, began_at, opened_at, told,
                  event_id AS "event_id!"
             FROM cron_incidents
            WHERE event_id IS NOT NULL AND event_sent_at IS NULL AND told_at IS NOT NULL
            ORDER BY opened_at LIMIT $1"#,
        limit
    )
    .fetch_all(db)
    .await?;
    let open = |row: OpenRow| Open::from(row);
    Ok(rows
        .into_iter()
        .map(|row| {
            let event = EventId(row.event_id);
            let row = OpenRow {
                id: row.id,
                monitor_id: row.monitor_id,
                environment: row.environment,
                status: row.status,
                reason: row.reason,
                checkin_id: row.checkin_id,
                began_at: row.began_at,
                opened_at: row.opened_at,
                told: row.told,
            };
            (open(row), event)
        })
        .collect())
}

pub(crate) async fn event_sent(
    db: &mut PgConnection,
    id: IncidentId,
    at: DateTime<Utc>,
) -> Result<()> {
    sqlx::query!("UPDATE cron_incidents SET event_sent_at = $2 WHERE id = $1", id.0, at)
        .execute(db)
        .await?;
    Ok(())
}

/// The newest first.
pub(crate) async fn list(
    db: &mut PgConnection,
    org: OrgId,
    monitor: MonitorId,
    after: Option<(DateTime<Utc>, Uuid)>,
    limit: i64,
) -> Result<Vec<Incident>> {
    let (at, id) = after.unzip();
    let rows = sqlx::query!(
        "SELECT id, environment, status, reason, checkin_id, began_at, opened_at, closed_at, told_at
           FROM cron_incidents
          WHERE org_id = $1 AND monitor_id = $2
            AND ($3::timestamptz IS NULL OR (opened_at, id) < ($3, $4::uuid))
          ORDER BY opened_at DESC, id DESC LIMIT $5",
        org.0,
        monitor.0,
        at,
        id,
        limit
    )
    .fetch_all(db)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| Incident {
            id: IncidentId(row.id),
            environment: row.environment,
            status: Status::of(&row.status).unwrap_or(Status::Unknown),
            reason: row.reason,
            checkin_id: CheckInId(row.checkin_id),
            began_at: row.began_at,
            opened_at: row.opened_at,
            closed_at: row.closed_at,
            told_at: row.told_at,
        })
        .collect())
}

/// Forgets those that were closed before; gives their number.
pub(crate) async fn forget(
    db: &mut PgConnection,
    before: DateTime<Utc>,
    limit: i64,
) -> Result<u64> {
    let done = sqlx::query!(
        "DELETE FROM cron_incidents WHERE id IN
            (SELECT id FROM cron_incidents WHERE closed_at < $1 LIMIT $2)",
        before,
        limit
    )
    .execute(db)
    .await?;
    Ok(done.rows_affected())
}
