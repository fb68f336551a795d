//! The SQL of monitors.

use chrono::{DateTime, Utc};
use loom_core::{
    Error, Result,
    id::{MonitorId, OrgId, ProjectId},
};
use sqlx::{PgConnection, PgPool, Postgres, QueryBuilder};
use uuid::Uuid;

use crate::{
    model::{Health, Monitor},
    schedule::{Plan, Schedule},
};

/// A row of `cron_monitors`.
#[derive(sqlx::FromRow)]
pub(crate) struct MonitorRow {
    id: Uuid,
    org_id: Uuid,
    project_id: Option<Uuid>,
    slug: String,
    name: String,
    description: Option<String>,
    schedule: serde_json::Value,
    timezone: String,
    margin_secs: i32,
    max_runtime_secs: Option<i32>,
    min_runtime_secs: Option<i32>,
    failure_threshold: i32,
    recovery_threshold: i32,
    tags: Vec<String>,
    paused_at: Option<DateTime<Utc>>,
    muted_until: Option<DateTime<Utc>>,
    mute_windows: serde_json::Value,
    alerts: serde_json::Value,
    ping_key: Uuid,
    badge_key: String,
    made_by: String,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

impl TryFrom<MonitorRow> for Monitor {
    type Error = Error;

    fn try_from(row: MonitorRow) -> Result<Self> {
        let json = Error::internal;
        let schedule: Schedule = serde_json::from_value(row.schedule).map_err(json)?;
        // It was checked when it was stored.
        let plan = Plan::of(&schedule, &row.timezone, row.updated_at)
            .map_err(|(_, why)| Error::internal(format!("the monitor {}: {why}", row.id)))?;
        Ok(Self {
            id: MonitorId(row.id),
            org: OrgId(row.org_id),
            project: row.project_id.map(ProjectId),
            slug: row.slug,
            name: row.name,
            description: row.description,
            schedule,
            timezone: row.timezone,
            plan,
            margin_secs: row.margin_secs,
            max_runtime_secs: row.max_runtime_secs,
            min_runtime_secs: row.min_runtime_secs,
            failure_threshold: row.failure_threshold,
            recovery_threshold: row.recovery_threshold,
            tags: row.tags,
            paused_at: row.paused_at,
            muted_until: row.muted_until,
            mute_windows: serde_json::from_value(row.mute_windows).map_err(json)?,
            alerts: serde_json::from_value(row.alerts).map_err(json)?,
            ping_key: row.ping_key,
            badge_key: row.badge_key,
            made_by: row.made_by,
            created_at: row.created_at,
            updated_at: row.updated_at,
        })
    }
}

pub(crate) async fn by_ping_key(pool: &PgPool, key: Uuid) -> Result<Option<Monitor>> {
    let row = sqlx::query_as!(MonitorRow, "SELECT * FROM cron_monitors WHERE ping_key = $1", key)
        .fetch_optional(pool)
        .await?;
    row.map(Monitor::try_from).transpose()
}

pub(crate) async fn by_badge_key(pool: &PgPool, key: &str) -> Result<Option<Monitor>> {
    let row = sqlx::query_as!(MonitorRow, "SELECT * FROM cron_monitors WHERE badge_key = $1", key)
        .fetch_optional(pool)
        .await?;
    row.map(Monitor::try_from).transpose()
}

pub(crate) async fn find(db: &mut PgConnection, org: OrgId, slug: &str) -> Result<Option<Monitor>> {
    let row = sqlx::query_as!(
        MonitorRow,
        "SELECT * FROM cron_monitors WHERE org_id = $1 AND slug = $2",
        org.0,
        slug
    )
    .fetch_optional(db)
    .await?;
    row.map(Monitor::try_from).transpose()
}

/// As [`find`], until the end of the transaction nobody else changes it.
pub(crate) async fn lock(db: &mut PgConnection, org: OrgId, slug: &str) -> Result<Option<Monitor>> {
    let row = sqlx::query_as!(
        MonitorRow,
        "SELECT * FROM cron_monitors WHERE org_id = $1 AND slug = $2 FOR NO KEY UPDATE",
        org.0,
        slug
    )
    .fetch_optional(db)
    .await?;
    row.map(Monitor::try_from).transpose()
}

/// Those of these ids that are there, whosever they are: for our own work on what is due.
pub(crate) async fn by_ids(db: &mut PgConnection, ids: &[Uuid]) -> Result<Vec<Monitor>> {
    let rows = sqlx::query_as!(MonitorRow, "SELECT * FROM cron_monitors WHERE id = ANY ($1)", ids)
        .fetch_all(db)
        .await?;
    rows.into_iter().map(Monitor::try_from).collect()
}

pub(crate) async fn count(db: &mut PgConnection, org: OrgId) -> Result<i64> {
    Ok(sqlx::query_scalar!(
        r#"SELECT count(*) AS "count!" FROM cron_monitors WHERE org_id = $1"#,
        org.0
    )
    .fetch_one(db)
    .await?)
}

/// False: the organisation has one of this slug.
pub(crate) async fn insert(db: &mut PgConnection, monitor: &Monitor) -> Result<bool> {
    let schedule = serde_json::to_value(&monitor.schedule).map_err(Error::internal)?;
    let windows = serde_json::to_value(&monitor.mute_windows).map_err(Error::internal)?;
    let alerts = serde_json::to_value(&monitor.alerts).map_err(Error::internal)?;
    let done = sqlx::query!(
        "INSERT INTO cron_monitors (id, org_id, project_id, slug, name, description, schedule, timezone,
                margin_secs, max_runtime_secs, min_runtime_secs, failure_threshold, recovery_threshold,
                tags, paused_at, muted_until, mute_windows, alerts, ping_key, badge_key, made_by,
                created_at, updated_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19,
                $20, $21, $22, $22)
         ON CONFLICT ON CONSTRAINT cron_monitors_slug_key DO NOTHING",
        monitor.id.0,
        monitor.org.0,
        monitor.project.map(|project| project.0),
        monitor.slug,
        monitor.name,
        monitor.description,
        schedule,
        monitor.timezone,
        monitor.margin_secs,
        monitor.max_runtime_secs,
        monitor.min_runtime_secs,
        monitor.failure_threshold,
        monitor.recovery_threshold,
        &monitor.tags,
        monitor.paused_at,
        monitor.muted_until,
        windows,
        alerts,
        monitor.ping_key,
        monitor.badge_key,
        monitor.made_by,
        monitor.created_at,
    )
    .execute(db)
    .await?;
    Ok(done.rows_affected() == 1)
}

pub(crate) async fn update(db: &mut PgConnection, monitor: &Monitor) -> Result<()> {
    let schedule = serde_json::to_value(&monitor.schedule).map_err(Error::internal)?;
    let windows = serde_json::to_value(&monitor.mute_windows).map_err(Error::internal)?;
    let alerts = serde_json::to_value(&monitor.alerts).map_err(Error::internal)?;
    sqlx::query!(
        "UPDATE cron_monitors SET project_id = $3, name = $4, description = $5, schedule = $6,
                timezone = $7, margin_secs = $8, max_runtime_secs = $9, min_runtime_secs = $10,
                failure_threshold = $11, recovery_threshold = $12, tags = $13, paused_at = $14,
                muted_until = $15, mute_windows = $16, alerts = $17, ping_key = $18, updated_at = $19
          WHERE org_id = $1 AND id = $2",
        monitor.org.0,
        monitor.id.0,
        monitor.project.map(|project| project.0),
        monitor.name,
        monitor.description,
        schedule,
        monitor.timezone,
        monitor.margin_secs,
        monitor.max_runtime_secs,
        monitor.min_runtime_secs,
        monitor.failure_threshold,
        monitor.recovery_threshold,
        &monitor.tags,
        monitor.paused_at,
        monitor.muted_until,
        windows,
        alerts,
        monitor.ping_key,
        monitor.updated_at,
    )
    .execute(db)
    .await?;
    Ok(())
}

pub(crate) async fn delete(db: &mut PgConnection, org: OrgId, id: MonitorId) -> Result<()> {
    sqlx::query!("DELETE FROM cron_monitors WHERE org_id = $1 AND id = $2", org.0, id.0)
        .execute(&mut *db)
        .await?;
    Ok(())
}

/// What a list is narrowed to.
#[derive(Debug, Default)]
pub(crate) struct Filter {
    pub(crate) tag: Option<String>,
    pub(crate) project: Option<ProjectId>,
    pub(crate) paused: Option<bool>,
    /// In one environment at least, at a time.
    pub(crate) health: Option<(Health, DateTime<Utc>)>,
    pub(crate) text: Option<String>,
}

/// The newest first.
pub(crate) async fn list(
    db: &mut PgConnection,
    org: OrgId,
    filter: &Filter,
    after: Option<(DateTime<Utc>, Uuid)>,
    limit: i64,
) -> Result<Vec<Monitor>> {
    let mut sql = QueryBuilder::<Postgres>::new("SELECT * FROM cron_monitors m WHERE org_id = ");
    sql.push_bind(org.0);
    if let Some(tag) = &filter.tag {
        sql.push(" AND ").push_bind(tag.clone()).push(" = ANY (tags)");
    }
    if let Some(project) = filter.project {
        sql.push(" AND project_id = ").push_bind(project.0);
    }
    if let Some(paused) = filter.paused {
        sql.push(" AND (paused_at IS NOT NULL) = ").push_bind(paused);
    }
    if let Some(text) = &filter.text {
        sql.push(" AND (strpos(slug, lower(").push_bind(text.clone());
        sql.push(")) > 0 OR strpos(lower(name), lower(").push_bind(text.clone()).push(")) > 0)");
    }
    if let Some((health, now)) = filter.health {
        sql.push(" AND EXISTS (SELECT FROM cron_environments e WHERE e.monitor_id = m.id AND CASE WHEN e.health IN ('healthy', 'unknown') AND e.due_at IS NOT NULL AND e.expected_at < ");
        sql.push_bind(now).push(" THEN 'late' ELSE e.health END = ");
        sql.push_bind(health.as_str()).push(")");
    }
    if let Some((at, id)) = after {
        sql.push(" AND (created_at, id) < (").push_bind(at).push(", ").push_bind(id).push(")");
    }
    sql.push(" ORDER BY created_at DESC, id DESC LIMIT ").push_bind(limit);
    let rows: Vec<MonitorRow> = sql.build_query_as().fetch_all(db).await?;
    rows.into_iter().map(Monitor::try_from).collect()
}
