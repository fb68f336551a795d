//! The SQL of check-ins.

use chrono::{DateTime, Utc};
use loom_core::{
    Result,
    id::{CheckInId, MonitorId, OrgId},
};
use sqlx::{PgConnection, Postgres, QueryBuilder};
use uuid::Uuid;

use crate::{
    model::{CheckIn, CheckInRow, Status},
    work::{Place, Row},
};

macro_rules! column {
    ($rows:expr, $field:expr) => {
        $rows.iter().map($field).collect::<Vec<_>>()
    };
}

/// Writes the new ones and what is new of those that are there, in a statement each.
pub(crate) async fn write(db: &mut PgConnection, rows: &[Row]) -> Result<()> {
    let (new, changed): (Vec<&Row>, Vec<&Row>) = rows.iter().partition(|row| row.is_new);
    if !new.is_empty() {
        insert(db, &new).await?;
    }
    if !changed.is_empty() {
        update(db, &changed).await?;
    }
    Ok(())
}

async fn insert(db: &mut PgConnection, rows: &[&Row]) -> Result<()> {
    sqlx::query!(
        "INSERT INTO cron_checkins (id, at, org_id, monitor_id, environment, run_key, status, reason, source,
                expected_at, started_at, finished_at, received_at, duration_ms, exit_code, output, late,
                release, trace_id)
         SELECT * FROM UNNEST($1::uuid[], $2::timestamptz[], $3::uuid[], $4::uuid[], $5::text[], $6::uuid[],
                $7::text[], $8::text[], $9::text[], $10::timestamptz[], $11::timestamptz[],
                $12::timestamptz[], $13::timestamptz[], $14::bigint[], $15::smallint[], $16::text[],
                $17::bool[], $18::text[], $19::text[])
         ON CONFLICT DO NOTHING",
        &column!(rows, |r| r.id.0),
        &column!(rows, |r| r.at),
        &column!(rows, |r| r.monitor.org.0),
        &column!(rows, |r| r.place.0.0),
        &column!(rows, |r| r.place.1.clone()),
        &column!(rows, |r| r.run_key) as &[Option<Uuid>],
        &column!(rows, |r| r.status.as_str().to_owned()),
        &column!(rows, |r| r.reason.map(str::to_owned)) as &[Option<String>],
        &column!(rows, |r| r.source.as_str().to_owned()),
        &column!(rows, |r| r.expected_at) as &[Option<DateTime<Utc>>],
        &column!(rows, |r| r.started_at) as &[Option<DateTime<Utc>>],
        &column!(rows, |r| r.finished_at) as &[Option<DateTime<Utc>>],
        &column!(rows, |r| r.received_at),
        &column!(rows, |r| r.duration_ms) as &[Option<i64>],
        &column!(rows, |r| r.exit_code) as &[Option<i16>],
        &column!(rows, |r| r.output.clone()) as &[Option<String>],
        &column!(rows, |r| r.late),
        &column!(rows, |r| r.release.clone()) as &[Option<String>],
        &column!(rows, |r| r.trace_id.clone()) as &[Option<String>],
    )
    .execute(db)
    .await?;
    Ok(())
}

async fn update(db: &mut PgConnection, rows: &[&Row]) -> Result<()> {
    sqlx::query!(
        "UPDATE cron_checkins c
            SET status = u.status, reason = u.reason, late = u.late,
                started_at = COALESCE(u.started_at, c.started_at),
                finished_at = COALESCE(u.finished_at, c.finished_at),
                duration_ms = COALESCE(u.duration_ms, c.duration_ms),
                exit_code = COALESCE(u.exit_code, c.exit_code), output = COALESCE(u.output, c.output),
                release = COALESCE(u.release, c.release), trace_id = COALESCE(u.trace_id, c.trace_id)
           FROM UNNEST($1::uuid[], $2::timestamptz[], $3::text[], $4::text[], $5::bool[], $6::timestamptz[],
                       $7::timestamptz[], $8::bigint[], $9::smallint[], $10::text[], $11::text[], $12::text[],
                       $13::uuid[])
                AS u (id, at, status, reason, late, started_at, finished_at, duration_ms, exit_code, output,
                      release, trace_id, org_id)
          WHERE c.id = u.id AND c.at = u.at AND c.org_id = u.org_id",
        &column!(rows, |r| r.id.0),
        &column!(rows, |r| r.at),
        &column!(rows, |r| r.status.as_str().to_owned()),
        &column!(rows, |r| r.reason.map(str::to_owned)) as &[Option<String>],
        &column!(rows, |r| r.late),
        &column!(rows, |r| r.started_at) as &[Option<DateTime<Utc>>],
        &column!(rows, |r| r.finished_at) as &[Option<DateTime<Utc>>],
        &column!(rows, |r| r.duration_ms) as &[Option<i64>],
        &column!(rows, |r| r.exit_code) as &[Option<i16>],
        &column!(rows, |r| r.output.clone()) as &[Option<String>],
        &column!(rows, |r| r.release.clone()) as &[Option<String>],
        &column!(rows, |r| r.trace_id.clone()) as &[Option<String>],
        &column!(rows, |r| r.monitor.org.0),
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Takes away what was said to be missed, or not known, and was told of afterwards.
pub(crate) async fn refute(
    db: &mut PgConnection,
    refuted: &[(Place, DateTime<Utc>, DateTime<Utc>)],
) -> Result<()> {
    for ((monitor, environment), from, to) in refuted {
        sqlx::query!(
            "DELETE FROM cron_checkins
              WHERE monitor_id = $1 AND environment = $2 AND at BETWEEN $3 AND $4
                AND source = 'system' AND status IN ('missed', 'unknown') AND run_key IS NULL
                AND org_id = (SELECT org_id FROM cron_monitors WHERE id = $1)",
            monitor.0,
            environment,
            from,
            to
        )
        .execute(&mut *db)
        .await?;
    }
    Ok(())
}

/// When a check-in of this id is; ids hold it.
pub(crate) fn time_of(id: CheckInId) -> Option<DateTime<Utc>> {
    let (secs, nanos) = id.0.get_timestamp()?.to_unix();
    DateTime::from_timestamp(i64::try_from(secs).ok()?, nanos)
}

pub(crate) async fn find(
    db: &mut PgConnection,
    org: OrgId,
    id: CheckInId,
) -> Result<Option<CheckIn>> {
    let Some(at) = time_of(id) else { return Ok(None) };
    let row = sqlx::query_as!(
        CheckInRow,
        "SELECT * FROM cron_checkins WHERE org_id = $1 AND id = $2 AND at = $3",
        org.0,
        id.0,
        at
    )
    .fetch_optional(db)
    .await?;
    Ok(row.map(CheckIn::from))
}

/// What a list is narrowed to.
#[derive(Debug, Default)]
pub(crate) struct Filter {
    pub(crate) environment: Option<String>,
    pub(crate) status: Option<Status>,
}

/// The newest first, without their output.
pub(crate) async fn list(
    db: &mut PgConnection,
    org: OrgId,
    monitor: MonitorId,
    filter: &Filter,
    after: Option<(DateTime<Utc>, Uuid)>,
    limit: i64,
) -> Result<Vec<CheckIn>> {
    let mut sql = QueryBuilder::<Postgres>::new(
        "SELECT id, at, org_id, monitor_id, environment, run_key, status, reason, source, expected_at, started_at,
                finished_at, received_at, duration_ms, exit_code, NULL::text AS output, late, release, trace_id
           FROM cron_checkins WHERE org_id = ",
    );
    sql.push_bind(org.0).push(" AND monitor_id = ").push_bind(monitor.0);
    if let Some(environment) = &filter.environment {
        sql.push(" AND environment = ").push_bind(environment.clone());
    }
    if let Some(status) = filter.status {
        sql.push(" AND status = ").push_bind(status.as_str());
    }
    if let Some((at, id)) = after {
        sql.push(" AND (at, id) < (").push_bind(at).push(", ").push_bind(id).push(")");
    }
    sql.push(" ORDER BY at DESC, id DESC LIMIT ").push_bind(limit);
    let rows: Vec<CheckInRow> = sql.build_query_as().fetch_all(db).await?;
    Ok(rows.into_iter().map(CheckIn::from).collect())
}
