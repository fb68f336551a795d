//! The SQL of what is known of monitors in their environments, and of runs in progress.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use loom_core::{
    Error, Result,
    id::{CheckInId, IncidentId, MonitorId, OrgId},
};
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use crate::{
    model::{EnvironmentState, Health, Status},
    work::{Held, Place, Run},
};

/// Runs in progress that are looked at, of one monitor in one environment.
const MOST_OPEN: i64 = 50;

/// A row of `cron_environments`.
pub(crate) struct StateRow {
    monitor_id: Uuid,
    name: String,
    health: String,
    last_checkin_id: Option<Uuid>,
    last_checkin_at: Option<DateTime<Utc>>,
    last_status: Option<String>,
    expected_at: Option<DateTime<Utc>>,
    due_at: Option<DateTime<Utc>>,
    judged_at: Option<DateTime<Utc>>,
    failures: i32,
    successes: i32,
    incident_id: Option<Uuid>,
}

impl StateRow {
    fn take(self) -> (MonitorId, EnvironmentState) {
        let status = self.last_status.as_deref().and_then(Status::of);
        let last = self.last_checkin_id.zip(self.last_checkin_at).zip(status);
        let state = EnvironmentState {
            name: self.name,
            health: Health::of(&self.health).unwrap_or(Health::Unknown),
            last_checkin: last.map(|((id, at), status)| (CheckInId(id), at, status)),
            expected_at: self.expected_at,
            due_at: self.due_at,
            judged_at: self.judged_at,
            failures: self.failures,
            successes: self.successes,
            incident: self.incident_id.map(IncidentId),
        };
        (MonitorId(self.monitor_id), state)
    }
}

/// The number of the transaction, by which it can be asked for when its end was not heard of.
pub(crate) async fn transaction(db: &mut PgConnection) -> Result<u64> {
    let number = sqlx::query_scalar!(r#"SELECT pg_current_xact_id()::text AS "number!""#)
        .fetch_one(db)
        .await?;
    number.parse().map_err(Error::internal)
}

/// Was the transaction of this number committed?
///
/// # Errors
/// 503 while it is not decided.
pub(crate) async fn is_committed(pool: &PgPool, transaction: u64) -> Result<bool> {
    let status =
        sqlx::query_scalar!("SELECT pg_xact_status($1::text::xid8)", transaction.to_string())
            .fetch_one(pool)
            .await;
    match status {
        Ok(Some(status)) if status == "in progress" => {
            Err(Error::unavailable("the database has not finished what was written before"))
        }
        Ok(status) => Ok(status.as_deref() == Some("committed")),
        // Another database that has never come so far, as after a failover.
        Err(sqlx::Error::Database(error)) => {
            tracing::warn!(%error, "what became of a transaction is not known");
            Ok(false)
        }
        Err(error) => Err(error.into()),
    }
}

/// Of monitors of an organisation, by their ids.
pub(crate) async fn of(
    db: &mut PgConnection,
    org: OrgId,
    monitors: &[Uuid],
) -> Result<HashMap<MonitorId, Vec<EnvironmentState>>> {
    let rows = sqlx::query_as!(
        StateRow,
        "SELECT monitor_id, name, health, last_checkin_id, last_checkin_at, last_status, expected_at, due_at,
                judged_at, failures, successes, incident_id
           FROM cron_environments WHERE org_id = $1 AND monitor_id = ANY ($2) ORDER BY monitor_id, name",
        org.0,
        monitors
    )
    .fetch_all(db)
    .await?;
    let mut all: HashMap<_, Vec<_>> = HashMap::new();
    for (monitor, state) in rows.into_iter().map(StateRow::take) {
        all.entry(monitor).or_default().push(state);
    }
    Ok(all)
}

/// All of a monitor, locked.
pub(crate) async fn lock_all(
    db: &mut PgConnection,
    org: OrgId,
    monitor: MonitorId,
) -> Result<Vec<EnvironmentState>> {
    let rows = sqlx::query_as!(
        StateRow,
        "SELECT monitor_id, name, health, last_checkin_id, last_checkin_at, last_status, expected_at, due_at,
                judged_at, failures, successes, incident_id
           FROM cron_environments WHERE org_id = $1 AND monitor_id = $2 ORDER BY name FOR NO KEY UPDATE",
        org.0,
        monitor.0
    )
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(|row| row.take().1).collect())
}

/// Makes those that are not there; of monitors that are.
pub(crate) async fn make(
    db: &mut PgConnection,
    places: &[Place],
    expected: &[Option<DateTime<Utc>>],
    due: &[Option<DateTime<Utc>>],
) -> Result<()> {
    let (ids, names) = columns(places);
    sqlx::query!(
        "INSERT INTO cron_environments (monitor_id, name, org_id, expected_at, due_at)
         SELECT u.monitor_id, u.name, m.org_id, u.expected_at, u.due_at
           FROM UNNEST($1::uuid[], $2::text[], $3::timestamptz[], $4::timestamptz[])
                AS u (monitor_id, name, expected_at, due_at)
           JOIN cron_monitors m ON m.id = u.monitor_id
          -- Whoever has a key may name any.
          WHERE (SELECT count(*) FROM cron_environments x WHERE x.monitor_id = u.monitor_id) < 100
          ORDER BY u.monitor_id, u.name
         ON CONFLICT DO NOTHING",
        &ids,
        &names,
        expected as &[Option<DateTime<Utc>>],
        due as &[Option<DateTime<Utc>>],
    )
    .execute(db)
    .await?;
    Ok(())
}

fn columns(places: &[Place]) -> (Vec<Uuid>, Vec<String>) {
    places.iter().map(|(monitor, name)| (monitor.0, name.clone())).unzip()
}

/// Those that are there, locked, in the order in which everybody locks. `only_free` leaves out what somebody
/// else holds.
pub(crate) async fn lock(
    db: &mut PgConnection,
    places: &[Place],
    only_free: bool,
) -> Result<Vec<(MonitorId, EnvironmentState)>> {
    let (ids, names) = columns(places);
    let rows = if only_free {
        sqlx::query_as!(
            StateRow,
            "SELECT e.monitor_id, e.name, e.health, e.last_checkin_id, e.last_checkin_at, e.last_status,
                    e.expected_at, e.due_at, e.judged_at, e.failures, e.successes, e.incident_id
               FROM UNNEST($1::uuid[], $2::text[]) AS u (monitor_id, name)
               JOIN cron_environments e ON e.monitor_id = u.monitor_id AND e.name = u.name
              ORDER BY e.monitor_id, e.name FOR NO KEY UPDATE OF e SKIP LOCKED",
            &ids,
            &names
        )
        .fetch_all(db)
        .await?
    } else {
        sqlx::query_as!(
            StateRow,
            "SELECT e.monitor_id, e.name, e.health, e.last_checkin_id, e.last_checkin_at, e.last_status,
                    e.expected_at, e.due_at, e.judged_at, e.failures, e.successes, e.incident_id
               FROM UNNEST($1::uuid[], $2::text[]) AS u (monitor_id, name)
               JOIN cron_environments e ON e.monitor_id = u.monitor_id AND e.name = u.name
              ORDER BY e.monitor_id, e.name FOR NO KEY UPDATE OF e",
            &ids,
            &names
        )
        .fetch_all(db)
        .await?
    };
    Ok(rows.into_iter().map(StateRow::take).collect())
}

/// Those whose run is overdue, locked; what somebody else holds is being changed by whoever holds it.
pub(crate) async fn lock_due(
    db: &mut PgConnection,
    before: DateTime<Utc>,
    limit: i64,
) -> Result<Vec<(MonitorId, EnvironmentState)>> {
    let rows = sqlx::query_as!(
        StateRow,
        "SELECT monitor_id, name, health, last_checkin_id, last_checkin_at, last_status, expected_at, due_at,
                judged_at, failures, successes, incident_id
           FROM cron_environments WHERE due_at <= $1
          ORDER BY due_at LIMIT $2 FOR NO KEY UPDATE SKIP LOCKED",
        before,
        limit
    )
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(StateRow::take).collect())
}

struct RunRow {
    monitor_id: Uuid,
    environment: String,
    run_key: Uuid,
    given: bool,
    checkin_id: Uuid,
    checkin_at: DateTime<Utc>,
    started_at: Option<DateTime<Utc>>,
    seen_at: DateTime<Utc>,
    deadline_at: Option<DateTime<Utc>>,
    ended_at: Option<DateTime<Utc>>,
    outcome: Option<String>,
}

impl RunRow {
    fn take(self) -> (Place, Run) {
        let run = Run {
            key: self.run_key,
            given: self.given,
            checkin: CheckInId(self.checkin_id),
            at: self.checkin_at,
            started_at: self.started_at,
            seen_at: self.seen_at,
            deadline_at: self.deadline_at,
            ended_at: self.ended_at,
            outcome: self.outcome.as_deref().and_then(Status::of),
            changed: false,
        };
        ((MonitorId(self.monitor_id), self.environment), run)
    }
}

/// The newest runs in progress of each place.
pub(crate) async fn open_runs(
    db: &mut PgConnection,
    places: &[Place],
) -> Result<Vec<(Place, Run)>> {
    if places.is_empty() {
        return Ok(Vec::new());
    }
    let (ids, names) = columns(places);
    let rows = sqlx::query_as!(
        RunRow,
        r#"SELECT r.monitor_id AS "monitor_id!", r.environment AS "environment!", r.run_key AS "run_key!",
                  r.given AS "given!", r.checkin_id AS "checkin_id!", r.checkin_at AS "checkin_at!",
                  r.started_at, r.seen_at AS "seen_at!", r.deadline_at, r.ended_at, r.outcome
             FROM UNNEST($1::uuid[], $2::text[]) AS u (monitor_id, environment),
                  LATERAL (SELECT * FROM cron_runs r
                            WHERE r.monitor_id = u.monitor_id AND r.environment = u.environment
                              AND r.deadline_at IS NOT NULL
                            ORDER BY r.checkin_at DESC LIMIT $3) r"#,
        &ids,
        &names,
        MOST_OPEN
    )
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(RunRow::take).collect())
}

/// Runs by the ids that their jobs gave them.
pub(crate) async fn runs_by_key(
    db: &mut PgConnection,
    places: &[Place],
    keys: &[Uuid],
) -> Result<Vec<(Place, Run)>> {
    if places.is_empty() {
        return Ok(Vec::new());
    }
    let (ids, names) = columns(places);
    let rows = sqlx::query_as!(
        RunRow,
        "SELECT r.monitor_id, r.environment, r.run_key, r.given, r.checkin_id, r.checkin_at, r.started_at,
                r.seen_at, r.deadline_at, r.ended_at, r.outcome
           FROM UNNEST($1::uuid[], $2::text[], $3::uuid[]) AS u (monitor_id, environment, run_key)
           JOIN cron_runs r ON r.monitor_id = u.monitor_id AND r.environment = u.environment
                           AND r.run_key = u.run_key",
        &ids,
        &names,
        keys
    )
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(RunRow::take).collect())
}

/// Places of runs that should have ended by then.
pub(crate) async fn overdue_runs(
    db: &mut PgConnection,
    before: DateTime<Utc>,
    limit: i64,
) -> Result<Vec<(Place, Run)>> {
    let rows = sqlx::query_as!(
        RunRow,
        "SELECT monitor_id, environment, run_key, given, checkin_id, checkin_at, started_at, seen_at,
                deadline_at, ended_at, outcome
           FROM cron_runs WHERE deadline_at <= $1 ORDER BY deadline_at LIMIT $2",
        before,
        limit
    )
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(RunRow::take).collect())
}

/// Writes back what is held, in two statements.
pub(crate) async fn write(db: &mut PgConnection, held: &HashMap<Place, Held>) -> Result<()> {
    let mut all: Vec<_> = held.iter().collect();
    all.sort_by_key(|(place, _)| *place);
    let states = || all.iter().map(|(_, held)| &held.state);
    let ids: Vec<Uuid> = all.iter().map(|(place, _)| place.0.0).collect();
    let names: Vec<String> = all.iter().map(|(place, _)| place.1.clone()).collect();
    let health: Vec<String> = states().map(|s| s.health.as_str().to_owned()).collect();
    let last_id: Vec<_> = states().map(|s| s.last_checkin.map(|last| last.0.0)).collect();
    let last_at: Vec<_> = states().map(|s| s.last_checkin.map(|last| last.1)).collect();
    let last_status: Vec<_> =
        states().map(|s| s.last_checkin.map(|last| last.2.as_str().to_owned())).collect();
    let expected: Vec<_> = states().map(|s| s.expected_at).collect();
    let due: Vec<_> = states().map(|s| s.due_at).collect();
    let judged: Vec<_> = states().map(|s| s.judged_at).collect();
    let failures: Vec<_> = states().map(|s| s.failures).collect();
    let successes: Vec<_> = states().map(|s| s.successes).collect();
    let incidents: Vec<_> = states().map(|s| s.incident.map(|id| id.0)).collect();
    sqlx::query!(
        "UPDATE cron_environments e
            SET health = u.health, last_checkin_id = u.last_id, last_checkin_at = u.last_at,
                last_status = u.last_status, expected_at = u.expected_at, due_at = u.due_at,
                judged_at = u.judged_at, failures = u.failures, successes = u.successes,
                incident_id = u.incident_id
           FROM UNNEST($1::uuid[], $2::text[], $3::text[], $4::uuid[], $5::timestamptz[], $6::text[],
                       $7::timestamptz[], $8::timestamptz[], $9::timestamptz[], $10::int[], $11::int[],
                       $12::uuid[])
                AS u (monitor_id, name, health, last_id, last_at, last_status, expected_at, due_at,
                      judged_at, failures, successes, incident_id)
          WHERE e.monitor_id = u.monitor_id AND e.name = u.name",
        &ids,
        &names,
        &health,
        &last_id as &[Option<Uuid>],
        &last_at as &[Option<DateTime<Utc>>],
        &last_status as &[Option<String>],
        &expected as &[Option<DateTime<Utc>>],
        &due as &[Option<DateTime<Utc>>],
        &judged as &[Option<DateTime<Utc>>],
        &failures,
        &successes,
        &incidents as &[Option<Uuid>],
    )
    .execute(&mut *db)
    .await?;
    let changed: Vec<_> = all
        .iter()
        .flat_map(|(place, held)| held.runs.iter().map(move |run| (place, run)))
        .filter(|(_, run)| run.changed)
        .collect();
    // Nobody can tell one again that had no id.
    let (over, kept): (Vec<_>, Vec<_>) =
        changed.into_iter().partition(|(_, run)| !run.given && run.outcome == Some(Status::Ok));
    if !kept.is_empty() {
        write_runs(db, &kept).await?;
    }
    if !over.is_empty() {
        let ids: Vec<Uuid> = over.iter().map(|(place, _)| place.0.0).collect();
        let names: Vec<String> = over.iter().map(|(place, _)| place.1.clone()).collect();
        let keys: Vec<Uuid> = over.iter().map(|(_, run)| run.key).collect();
        sqlx::query!(
            "DELETE FROM cron_runs r
              USING UNNEST($1::uuid[], $2::text[], $3::uuid[]) AS u (monitor_id, environment, run_key)
              WHERE r.monitor_id = u.monitor_id AND r.environment = u.environment
                AND r.run_key = u.run_key",
            &ids,
            &names,
            &keys
        )
        .execute(db)
        .await?;
    }
    Ok(())
}

async fn write_runs(db: &mut PgConnection, runs: &[(&&Place, &Run)]) -> Result<()> {
    let ids: Vec<Uuid> = runs.iter().map(|(place, _)| place.0.0).collect();
    let names: Vec<String> = runs.iter().map(|(place, _)| place.1.clone()).collect();
    let keys: Vec<Uuid> = runs.iter().map(|(_, run)| run.key).collect();
    let given: Vec<bool> = runs.iter().map(|(_, run)| run.given).collect();
    let checkins: Vec<Uuid> = runs.iter().map(|(_, run)| run.checkin.0).collect();
    let at: Vec<_> = runs.iter().map(|(_, run)| run.at).collect();
    let started: Vec<_> = runs.iter().map(|(_, run)| run.started_at).collect();
    let seen: Vec<_> = runs.iter().map(|(_, run)| run.seen_at).collect();
    let deadline: Vec<_> = runs.iter().map(|(_, run)| run.deadline_at).collect();
    let ended: Vec<_> = runs.iter().map(|(_, run)| run.ended_at).collect();
    let outcome: Vec<_> =
        runs.iter().map(|(_, run)| run.outcome.map(|status| status.as_str().to_owned())).collect();
    sqlx::query!(
        "INSERT INTO cron_runs (monitor_id, environment, run_key, given, checkin_id, checkin_at, started_at,
                seen_at, deadline_at, ended_at, outcome)
         SELECT * FROM UNNEST($1::uuid[], $2::text[], $3::uuid[], $4::bool[], $5::uuid[], $6::timestamptz[],
                $7::timestamptz[], $8::timestamptz[], $9::timestamptz[], $10::timestamptz[], $11::text[])
         ON CONFLICT (monitor_id, environment, run_key) DO UPDATE
            SET started_at = excluded.started_at, seen_at = excluded.seen_at,
                deadline_at = excluded.deadline_at, ended_at = excluded.ended_at,
                outcome = excluded.outcome",
        &ids,
        &names,
        &keys,
        &given,
        &checkins,
        &at,
        &started as &[Option<DateTime<Utc>>],
        &seen,
        &deadline as &[Option<DateTime<Utc>>],
        &ended as &[Option<DateTime<Utc>>],
        &outcome as &[Option<String>],
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Forgets runs that ended before; gives their number.
pub(crate) async fn forget_runs(
    db: &mut PgConnection,
    before: DateTime<Utc>,
    limit: i64,
) -> Result<u64> {
    let done = sqlx::query!(
        "DELETE FROM cron_runs WHERE ctid IN
            (SELECT ctid FROM cron_runs WHERE ended_at < $1 LIMIT $2)",
        before,
        limit
    )
    .execute(db)
    .await?;
    Ok(done.rows_affected())
}

/// Sets anew what is waited for, after a change of the monitor.
pub(crate) async fn expect(
    db: &mut PgConnection,
    org: OrgId,
    monitor: MonitorId,
    name: &str,
    expected: Option<DateTime<Utc>>,
    due: Option<DateTime<Utc>>,
) -> Result<()> {
    sqlx::query!(
        "UPDATE cron_environments SET expected_at = $4, due_at = $5
          WHERE org_id = $1 AND monitor_id = $2 AND name = $3",
        org.0,
        monitor.0,
        name,
        expected,
        due
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Takes environments away, with what is known of them.
pub(crate) async fn remove(
    db: &mut PgConnection,
    org: OrgId,
    monitor: MonitorId,
    names: &[String],
) -> Result<()> {
    sqlx::query!(
        "DELETE FROM cron_environments WHERE org_id = $1 AND monitor_id = $2 AND name = ANY ($3)",
        org.0,
        monitor.0,
        names
    )
    .execute(db)
    .await?;
    Ok(())
}
