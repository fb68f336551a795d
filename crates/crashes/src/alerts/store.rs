//! The SQL of alerts.

use chrono::{DateTime, Utc};
use loom_core::{
    Error, Result,
    id::{AlertRuleId, DeliveryId, IssueId, OrgId, ProjectId},
};
use sqlx::{PgConnection, PgPool, types::Json};
use uuid::Uuid;

use super::model::{
    CrashAlertAction as Action, CrashAlertCondition as Condition, CrashAlertFilters as Filters,
    CrashAlertRule as Rule,
};

/// A rule as it is stored.
struct Row {
    id: Uuid,
    project_id: Uuid,
    name: String,
    condition: Json<Condition>,
    filters: Json<Filters>,
    actions: Json<Vec<Action>>,
    min_interval_minutes: i32,
    enabled: bool,
    snoozed_until: Option<DateTime<Utc>>,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

impl From<Row> for Rule {
    fn from(row: Row) -> Self {
        Self {
            id: AlertRuleId(row.id),
            project_id: ProjectId(row.project_id),
            name: row.name,
            condition: row.condition.0,
            filters: row.filters.0,
            actions: row.actions.0,
            min_interval_minutes: row.min_interval_minutes,
            enabled: row.enabled,
            snoozed_until: row.snoozed_until,
            created_at: row.created_at,
            updated_at: row.updated_at,
        }
    }
}

pub(super) async fn list(
    db: &mut PgConnection,
    org: OrgId,
    project: ProjectId,
) -> Result<Vec<Rule>> {
    let rows = sqlx::query_as!(
        Row,
        r#"SELECT id, project_id, name, condition AS "condition: Json<Condition>", filters AS "filters: Json<Filters>",
                  actions AS "actions: Json<Vec<Action>>", min_interval_minutes, enabled, snoozed_until, created_at, updated_at
             FROM crash_alert_rules WHERE org_id = $1 AND project_id = $2 ORDER BY created_at, id LIMIT 200"#,
        org.0,
        project.0
    )
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(Rule::from).collect())
}

pub(super) async fn find(
    db: &mut PgConnection,
    org: OrgId,
    project: ProjectId,
    id: AlertRuleId,
) -> Result<Rule> {
    sqlx::query_as!(
        Row,
        r#"SELECT id, project_id, name, condition AS "condition: Json<Condition>", filters AS "filters: Json<Filters>",
                  actions AS "actions: Json<Vec<Action>>", min_interval_minutes, enabled, snoozed_until, created_at, updated_at
             FROM crash_alert_rules WHERE org_id = $1 AND project_id = $2 AND id = $3 FOR UPDATE"#,
        org.0,
        project.0,
        id.0
    )
    .fetch_optional(db)
    .await?
    .map(Rule::from)
    .ok_or_else(|| Error::not_found("alert"))
}

pub(super) async fn put(db: &mut PgConnection, org: OrgId, rule: &Rule) -> Result<()> {
    sqlx::query!(
        "INSERT INTO crash_alert_rules (id, org_id, project_id, name, condition, kind, filters, actions,
                min_interval_minutes, enabled, snoozed_until, created_at, updated_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
         ON CONFLICT (id) DO UPDATE SET name = $4, condition = $5, kind = $6, filters = $7, actions = $8,
                min_interval_minutes = $9, enabled = $10, snoozed_until = $11, updated_at = $13",
        rule.id.0,
        org.0,
        rule.project_id.0,
        rule.name,
        Json(&rule.condition) as _,
        rule.condition.kind(),
        Json(&rule.filters) as _,
        Json(&rule.actions) as _,
        rule.min_interval_minutes,
        rule.enabled,
        rule.snoozed_until,
        rule.created_at,
        rule.updated_at
    )
    .execute(db)
    .await?;
    Ok(())
}

pub(super) async fn delete(db: &mut PgConnection, org: OrgId, id: AlertRuleId) -> Result<()> {
    sqlx::query!("DELETE FROM crash_alert_rules WHERE org_id = $1 AND id = $2", org.0, id.0)
        .execute(db)
        .await?;
    Ok(())
}

/// What an issue did.
pub(super) struct Signal {
    pub(super) org: OrgId,
    pub(super) project: ProjectId,
    pub(super) issue: IssueId,
    pub(super) event: Uuid,
    pub(super) kind: String,
}

/// Takes the oldest for this transaction; they are gone when it commits, and back when it does not.
pub(super) async fn take(db: &mut PgConnection, most: i64) -> Result<Vec<Signal>> {
    let rows = sqlx::query!(
        "DELETE FROM crash_alert_signals WHERE id IN (
             SELECT id FROM crash_alert_signals ORDER BY id LIMIT $1 FOR UPDATE SKIP LOCKED)
         RETURNING id, org_id, project_id, issue_id, event_id, kind",
        most
    )
    .fetch_all(db)
    .await?;
    let mut signals: Vec<_> = rows
        .into_iter()
        .map(|row| {
            let signal = Signal {
                org: OrgId(row.org_id),
                project: ProjectId(row.project_id),
                issue: IssueId(row.issue_id),
                event: row.event_id,
                kind: row.kind,
            };
            (row.id, signal)
        })
        .collect();
    // All lock the budgets of projects in this order.
    signals.sort_by_key(|(id, signal)| (signal.project, *id));
    Ok(signals.into_iter().map(|(_, signal)| signal).collect())
}

/// Projects that have rules about what repeats.
pub(super) async fn with_counting_rules(pool: &PgPool) -> Result<Vec<(OrgId, ProjectId)>> {
    let rows = sqlx::query!(
        "SELECT DISTINCT r.org_id, r.project_id FROM crash_alert_rules r
           JOIN crash_projects p ON p.org_id = r.org_id AND p.id = r.project_id AND p.deleted_at IS NULL
          WHERE r.enabled AND r.kind IN ('frequency', 'session_share')"
    )
    .fetch_all(pool)
    .await?;
    Ok(rows.into_iter().map(|row| (OrgId(row.org_id), ProjectId(row.project_id))).collect())
}

/// Of one issue, or of a project, an issue that stands for it.
pub(super) struct Counted {
    pub(super) issue: IssueId,
    pub(super) events: i64,
}

/// Issues of one look.
pub(super) const MOST_COUNTED: i64 = 1000;

/// Events that the filters let through, by issue, those with most first, behind `after`; of one event, or
/// since a time. At most [`MOST_COUNTED`], of `least` events or more.
pub(super) async fn counted(
    db: &mut PgConnection,
    (org, project): (OrgId, ProjectId),
    since: DateTime<Utc>,
    event: Option<Uuid>,
    (least, after): (i64, Option<&Counted>),
    filters: &Filters,
) -> Result<Vec<Counted>> {
    let levels: Vec<String> =
        filters.levels.iter().map(|level| level.as_str().to_owned()).collect();
    let rows = sqlx::query!(
        r#"SELECT issue_id, count(*) AS "events!" FROM crash_events
            WHERE org_id = $1 AND project_id = $2 AND received_at > $3 AND ($4::uuid IS NULL OR event_id = $4)
              AND (cardinality($5::text[]) = 0 OR level = ANY ($5))
              AND (cardinality($6::text[]) = 0 OR environment = ANY ($6))
              AND (cardinality($7::text[]) = 0 OR release = ANY ($7))
              AND tags @> $8
            GROUP BY issue_id
           HAVING count(*) >= $9 AND ($10::bigint IS NULL OR (-count(*), issue_id) > (-$10, $11::uuid))
            ORDER BY count(*) DESC, issue_id LIMIT $12"#,
        org.0,
        project.0,
        since,
        event,
        &levels,
        &filters.environments,
        &filters.releases,
        Json(&filters.tags) as _,
        least,
        after.map(|after| after.events),
        after.map(|after| after.issue.0),
        MOST_COUNTED
    )
    .fetch_all(db)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| Counted { issue: IssueId(row.issue_id), events: row.events })
        .collect())
}

/// As [`counted`], all of the project.
pub(super) async fn counted_of_project(
    db: &mut PgConnection,
    (org, project): (OrgId, ProjectId),
    since: DateTime<Utc>,
    filters: &Filters,
) -> Result<i64> {
    let levels: Vec<String> =
        filters.levels.iter().map(|level| level.as_str().to_owned()).collect();
    Ok(sqlx::query_scalar!(
        r#"SELECT count(*) AS "events!" FROM crash_events
            WHERE org_id = $1 AND project_id = $2 AND received_at > $3
              AND (cardinality($4::text[]) = 0 OR level = ANY ($4))
              AND (cardinality($5::text[]) = 0 OR environment = ANY ($5))
              AND (cardinality($6::text[]) = 0 OR release = ANY ($6))
              AND tags @> $7"#,
        org.0,
        project.0,
        since,
        &levels,
        &filters.environments,
        &filters.releases,
        Json(&filters.tags) as _
    )
    .fetch_one(db)
    .await?)
}

/// What is told of an issue.
pub(super) struct Issue {
    pub(super) short_id: String,
    pub(super) title: String,
    pub(super) culprit: Option<String>,
    pub(super) level: String,
    pub(super) events: i64,
    pub(super) users: i64,
    pub(super) release: Option<String>,
    pub(super) project: String,
}

pub(super) async fn issue(db: &mut PgConnection, org: OrgId, id: IssueId) -> Result<Option<Issue>> {
    let row = sqlx::query!(
        "SELECT p.short_prefix, p.name, i.number, i.title, i.culprit, i.level, i.event_count, i.user_count, i.last_release
           FROM crash_issues i JOIN crash_projects p ON p.org_id = i.org_id AND p.id = i.project_id
          WHERE i.org_id = $1 AND i.id = $2 AND i.status <> 'ignored' AND p.deleted_at IS NULL",
        org.0,
        id.0
    )
    .fetch_optional(db)
    .await?;
    Ok(row.map(|row| Issue {
        short_id: format!("{}-{}", row.short_prefix, row.number),
        title: row.title,
        culprit: row.culprit,
        level: row.level,
        events: row.event_count,
        users: row.user_count,
        release: row.last_release,
        project: row.name,
    }))
}

/// Did the rule speak of this since then?
pub(super) async fn spoke_since(
    db: &mut PgConnection,
    rule: AlertRuleId,
    issue: Option<IssueId>,
    since: DateTime<Utc>,
) -> Result<bool> {
    Ok(sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT FROM crash_alerts WHERE rule_id = $1 AND issue_id IS NOT DISTINCT FROM $2
              AND at > $3 AND outcome <> 'test') AS "spoke!""#,
        rule.0,
        issue.map(|issue| issue.0),
        since
    )
    .fetch_one(db)
    .await?)
}

/// How many alerts the project has had in this hour, with this one. Whoever else counts waits.
pub(super) async fn spend(
    db: &mut PgConnection,
    org: OrgId,
    project: ProjectId,
    hour: DateTime<Utc>,
) -> Result<i32> {
    Ok(sqlx::query_scalar!(
        "INSERT INTO crash_alert_budgets AS b (org_id, project_id, hour, used) VALUES ($1, $2, $3, 1)
         ON CONFLICT (project_id, hour) DO UPDATE SET used = b.used + 1 RETURNING used",
        org.0,
        project.0,
        hour
    )
    .fetch_one(db)
    .await?)
}

/// An alert for the log.
pub(super) struct Telling<'a> {
    pub(super) org: OrgId,
    pub(super) rule: &'a Rule,
    pub(super) issue: Option<IssueId>,
    pub(super) title: &'a str,
    pub(super) outcome: &'a str,
    pub(super) deliveries: &'a [DeliveryId],
    pub(super) at: DateTime<Utc>,
}

pub(super) async fn log(db: &mut PgConnection, telling: &Telling<'_>) -> Result<()> {
    let deliveries: Vec<_> = telling.deliveries.iter().map(|id| id.0).collect();
    sqlx::query!(
        "INSERT INTO crash_alerts (id, org_id, project_id, rule_id, issue_id, title, outcome, deliveries, at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        loom_core::id::new_uuid(telling.at),
        telling.org.0,
        telling.rule.project_id.0,
        telling.rule.id.0,
        telling.issue.map(|issue| issue.0),
        telling.title,
        telling.outcome,
        &deliveries,
        telling.at
    )
    .execute(db)
    .await?;
    Ok(())
}

/// A row of the log.
pub(super) struct Logged {
    pub(super) id: Uuid,
    pub(super) rule: AlertRuleId,
    pub(super) issue: Option<IssueId>,
    pub(super) title: String,
    pub(super) outcome: String,
    pub(super) deliveries: Vec<DeliveryId>,
    pub(super) at: DateTime<Utc>,
}

pub(super) async fn logged(
    db: &mut PgConnection,
    (org, project): (OrgId, ProjectId),
    after: Option<(DateTime<Utc>, Uuid)>,
    limit: i64,
) -> Result<Vec<Logged>> {
    let (at, id) = after.unzip();
    let rows = sqlx::query!(
        "SELECT id, rule_id, issue_id, title, outcome, deliveries, at FROM crash_alerts
          WHERE org_id = $1 AND project_id = $2 AND ($3::timestamptz IS NULL OR (at, id) < ($3, $4))
          ORDER BY at DESC, id DESC LIMIT $5",
        org.0,
        project.0,
        at,
        id,
        limit
    )
    .fetch_all(db)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| Logged {
            id: row.id,
            rule: AlertRuleId(row.rule_id),
            issue: row.issue_id.map(IssueId),
            title: row.title,
            outcome: row.outcome,
            deliveries: row.deliveries.into_iter().map(DeliveryId).collect(),
            at: row.at,
        })
        .collect())
}

/// The log and the budgets are kept for a while only.
pub(super) async fn sweep(pool: &PgPool, before: DateTime<Utc>) -> Result<u64> {
    let gone = sqlx::query!("DELETE FROM crash_alerts WHERE at < $1", before).execute(pool).await?;
    sqlx::query!("DELETE FROM crash_alert_budgets WHERE hour < $1", before).execute(pool).await?;
    Ok(gone.rows_affected())
}

/// What was counted and not told.
pub(super) async fn unspend(
    db: &mut PgConnection,
    project: ProjectId,
    hour: DateTime<Utc>,
) -> Result<()> {
    sqlx::query!(
        "UPDATE crash_alert_budgets SET used = used - 1 WHERE project_id = $1 AND hour = $2",
        project.0,
        hour
    )
    .execute(db)
    .await?;
    Ok(())
}
