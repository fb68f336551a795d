//! The SQL of figures over check-ins.

use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use loom_core::{
    Result,
    id::{MonitorId, OrgId},
};
use serde::Serialize;
use sqlx::PgConnection;
use utoipa::ToSchema;

/// Runs of a time, by what became of them.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
pub(crate) struct RunCounts {
    pub(crate) ok: i64,
    pub(crate) error: i64,
    pub(crate) missed: i64,
    pub(crate) timeout: i64,
    /// Of a time when this server was down: neither good nor bad.
    pub(crate) unknown: i64,
    pub(crate) in_progress: i64,
}

impl RunCounts {
    /// Of what is known, per cent; null when nothing is.
    pub(crate) fn uptime(&self) -> Option<f64> {
        let known = self.ok + self.error + self.missed + self.timeout;
        (known > 0).then(|| self.ok as f64 * 100.0 / known as f64)
    }
}

/// Figures of one environment.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Figures {
    pub(crate) environment: String,
    pub(crate) counts: RunCounts,
    /// Per cent of the runs of which something is known; null without any.
    pub(crate) uptime_percent: Option<f64>,
    pub(crate) avg_duration_ms: Option<f64>,
    pub(crate) p50_duration_ms: Option<f64>,
    pub(crate) p95_duration_ms: Option<f64>,
    pub(crate) max_duration_ms: Option<i64>,
}

/// Of a monitor since a time: of each environment, or of the one that is named.
pub(crate) async fn of_monitor(
    db: &mut PgConnection,
    org: OrgId,
    monitor: MonitorId,
    since: DateTime<Utc>,
    until: DateTime<Utc>,
    environment: Option<&str>,
) -> Result<Vec<Figures>> {
    let rows = sqlx::query!(
        r#"SELECT environment,
                  count(*) FILTER (WHERE status = 'ok') AS "ok!",
                  count(*) FILTER (WHERE status = 'error') AS "error!",
                  count(*) FILTER (WHERE status = 'missed') AS "missed!",
                  count(*) FILTER (WHERE status = 'timeout') AS "timeout!",
                  count(*) FILTER (WHERE status = 'unknown') AS "unknown!",
                  count(*) FILTER (WHERE status = 'in_progress') AS "in_progress!",
                  avg(duration_ms)::float8 AS avg,
                  percentile_cont(0.5) WITHIN GROUP (ORDER BY duration_ms) AS p50,
                  percentile_cont(0.95) WITHIN GROUP (ORDER BY duration_ms) AS p95,
                  max(duration_ms) AS max
             FROM cron_checkins
            WHERE org_id = $1 AND monitor_id = $2 AND at >= $3 AND at <= $4
              AND ($5::text IS NULL OR environment = $5)
            GROUP BY environment ORDER BY environment"#,
        org.0,
        monitor.0,
        since,
        until,
        environment
    )
    .fetch_all(db)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| {
            let counts = RunCounts {
                ok: row.ok,
                error: row.error,
                missed: row.missed,
                timeout: row.timeout,
                unknown: row.unknown,
                in_progress: row.in_progress,
            };
            Figures {
                environment: row.environment,
                uptime_percent: counts.uptime(),
                counts,
                avg_duration_ms: row.avg,
                p50_duration_ms: row.p50,
                p95_duration_ms: row.p95,
                max_duration_ms: row.max,
            }
        })
        .collect())
}

/// A day of a monitor's calendar.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Day {
    /// In the zone of the monitor.
    pub(crate) date: NaiveDate,
    pub(crate) counts: RunCounts,
    pub(crate) uptime_percent: Option<f64>,
}

/// The days since a time that have runs.
pub(crate) async fn days(
    db: &mut PgConnection,
    org: OrgId,
    monitor: MonitorId,
    since: DateTime<Utc>,
    zone: &str,
    environment: Option<&str>,
) -> Result<Vec<Day>> {
    let rows = sqlx::query!(
        r#"SELECT (at AT TIME ZONE $4)::date AS "date!",
                  count(*) FILTER (WHERE status = 'ok') AS "ok!",
                  count(*) FILTER (WHERE status = 'error') AS "error!",
                  count(*) FILTER (WHERE status = 'missed') AS "missed!",
                  count(*) FILTER (WHERE status = 'timeout') AS "timeout!",
                  count(*) FILTER (WHERE status = 'unknown') AS "unknown!",
                  count(*) FILTER (WHERE status = 'in_progress') AS "in_progress!"
             FROM cron_checkins
            WHERE org_id = $1 AND monitor_id = $2 AND at >= $3
              AND ($5::text IS NULL OR environment = $5)
            GROUP BY 1 ORDER BY 1"#,
        org.0,
        monitor.0,
        since,
        zone,
        environment
    )
    .fetch_all(db)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| {
            let counts = RunCounts {
                ok: row.ok,
                error: row.error,
                missed: row.missed,
                timeout: row.timeout,
                unknown: row.unknown,
                in_progress: row.in_progress,
            };
            Day { date: row.date, uptime_percent: counts.uptime(), counts }
        })
        .collect())
}

/// Totals of an organisation.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Overview {
    pub(crate) monitors: i64,
    pub(crate) active: i64,
    pub(crate) paused: i64,
    /// Monitors by the health of their environments; one that is well in one and not in another counts
    /// as not well.
    pub(crate) healthy: i64,
    pub(crate) late: i64,
    pub(crate) failing: i64,
    pub(crate) missed: i64,
    pub(crate) timeout: i64,
    pub(crate) unknown: i64,
    pub(crate) open_incidents: i64,
    pub(crate) checkins_24h: i64,
    pub(crate) failures_24h: i64,
    /// Of the last 24 hours; null without runs.
    pub(crate) uptime_percent: Option<f64>,
    /// The last 24 hours, one by one, of UTC; those without runs are absent.
    pub(crate) hours: Vec<Hour>,
}

/// What became of the runs of an hour.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = CronHour)]
pub(crate) struct Hour {
    pub(crate) at: DateTime<Utc>,
    pub(crate) ok: i64,
    /// Failed, missed or timed out.
    pub(crate) failed: i64,
}

pub(crate) async fn overview(
    db: &mut PgConnection,
    org: OrgId,
    now: DateTime<Utc>,
) -> Result<Overview> {
    let monitors = sqlx::query!(
        r#"WITH worst AS (
               SELECT m.id, m.paused_at IS NOT NULL AS paused,
                      coalesce(bool_or(e.health IN ('healthy', 'unknown') AND e.due_at IS NOT NULL
                                       AND e.expected_at < $2), false) AS late,
                      bool_or(e.health = 'failing') AS failing, bool_or(e.health = 'missed') AS missed,
                      bool_or(e.health = 'timeout') AS timeout, bool_or(e.health = 'healthy') AS healthy,
                      count(e.incident_id) AS incidents
                 FROM cron_monitors m LEFT JOIN cron_environments e ON e.monitor_id = m.id
                WHERE m.org_id = $1 GROUP BY m.id)
           SELECT count(*) AS "all!", count(*) FILTER (WHERE paused) AS "paused!",
                  count(*) FILTER (WHERE failing) AS "failing!",
                  count(*) FILTER (WHERE missed AND NOT failing) AS "missed!",
                  count(*) FILTER (WHERE timeout AND NOT missed AND NOT failing) AS "timeout!",
                  count(*) FILTER (WHERE late AND NOT (failing OR missed OR timeout)) AS "late!",
                  count(*) FILTER (WHERE healthy AND NOT (failing OR missed OR timeout OR late)) AS "healthy!",
                  coalesce(sum(incidents), 0)::bigint AS "incidents!"
             FROM worst"#,
        org.0,
        now
    )
    .fetch_one(&mut *db)
    .await?;
    let runs = sqlx::query!(
        r#"SELECT date_trunc('hour', at, 'UTC') AS "hour!",
                  count(*) FILTER (WHERE source <> 'system') AS "told!",
                  count(*) FILTER (WHERE status = 'ok') AS "ok!",
                  count(*) FILTER (WHERE status IN ('error', 'missed', 'timeout')) AS "failed!"
             FROM cron_checkins WHERE org_id = $1 AND at >= $2 GROUP BY 1 ORDER BY 1"#,
        org.0,
        now - TimeDelta::hours(24)
    )
    .fetch_all(db)
    .await?;
    let ok: i64 = runs.iter().map(|hour| hour.ok).sum();
    let failed: i64 = runs.iter().map(|hour| hour.failed).sum();
    let known = ok + failed;
    Ok(Overview {
        monitors: monitors.all,
        active: monitors.all - monitors.paused,
        paused: monitors.paused,
        healthy: monitors.healthy,
        late: monitors.late,
        failing: monitors.failing,
        missed: monitors.missed,
        timeout: monitors.timeout,
        unknown: monitors.all
            - monitors.healthy
            - monitors.late
            - monitors.failing
            - monitors.missed
            - monitors.timeout,
        open_incidents: monitors.incidents,
        checkins_24h: runs.iter().map(|hour| hour.told).sum(),
        failures_24h: failed,
        uptime_percent: (known > 0).then(|| ok as f64 * 100.0 / known as f64),
        hours: runs
            .into_iter()
            .map(|hour| Hour { at: hour.hour, ok: hour.ok, failed: hour.failed })
            .collect(),
    })
}
