//! The SQL of alerts.

use chrono::{DateTime, Utc};
use loom_core::{
    Result,
    id::{AlertRuleId, OrgId, ProjectId, UserId, WebhookId},
};
use serde::{Deserialize, Serialize};
use sqlx::{PgConnection, PgPool};
use utoipa::ToSchema;

/// What a rule looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, sqlx::Type, ToSchema)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "text", rename_all = "snake_case")]
#[schema(as = AppSessionAlertKind)]
pub(crate) enum Kind {
    /// Fewer of the sessions than the threshold did without a crash.
    CrashFreeSessions,
    /// The same of users.
    CrashFreeUsers,
    /// A release crashes more often than the one before it, as sure as the threshold says.
    Regression,
}

impl Kind {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::CrashFreeSessions => "crash_free_sessions",
            Self::CrashFreeUsers => "crash_free_users",
            Self::Regression => "regression",
        }
    }
}

/// A rule.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = AppSessionAlertRule)]
pub(crate) struct Alert {
    pub(crate) id: AlertRuleId,
    #[serde(skip)]
    pub(crate) org_id: OrgId,
    pub(crate) project_id: ProjectId,
    pub(crate) name: String,
    pub(crate) kind: Kind,
    /// Per cent; of a regression the confidence that is wanted.
    pub(crate) threshold: f64,
    /// Fewer say nothing.
    pub(crate) min_sessions: i32,
    pub(crate) window_minutes: i32,
    /// Null: each release by itself.
    pub(crate) release: Option<String>,
    /// Null: all together.
    pub(crate) environment: Option<String>,
    pub(crate) emails: Vec<String>,
    pub(crate) webhook_id: Option<WebhookId>,
    pub(crate) enabled: bool,
    pub(crate) created_by: Option<UserId>,
    #[serde(serialize_with = "loom_core::clock::millis")]
    pub(crate) created_at: DateTime<Utc>,
    #[serde(serialize_with = "loom_core::clock::millis")]
    pub(crate) updated_at: DateTime<Utc>,
}

/// What was told and holds.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = AppSessionAlertFiring)]
pub(crate) struct Firing {
    pub(crate) release: String,
    #[serde(serialize_with = "loom_core::clock::millis")]
    pub(crate) since: DateTime<Utc>,
    /// As it was then.
    pub(crate) value: f64,
}

/// Those of a project, or all that are switched on of all projects.
pub(crate) async fn list(
    pool: &PgPool,
    of: Option<(OrgId, ProjectId)>,
    after: Option<(DateTime<Utc>, AlertRuleId)>,
    limit: i64,
) -> Result<Vec<Alert>> {
    let (org, project) = of.unzip();
    let (after_at, after_id) = after.unzip();
    Ok(sqlx::query_as!(
        Alert,
        r#"SELECT id AS "id: AlertRuleId", org_id AS "org_id: OrgId", project_id AS "project_id: ProjectId",
                  name, kind AS "kind: Kind", threshold, min_sessions, window_minutes, release, environment,
                  emails, webhook_id AS "webhook_id: WebhookId", enabled,
                  created_by AS "created_by: UserId", created_at, updated_at
             FROM app_session_alerts
            WHERE ($1::uuid IS NULL AND enabled OR org_id = $1 AND project_id = $2)
              AND ($3::timestamptz IS NULL OR (created_at, id) > ($3, $4))
            ORDER BY created_at, id LIMIT $5"#,
        org.map(|org| org.0),
        project.map(|project| project.0),
        after_at,
        after_id.map(|id| id.0),
        limit,
    )
    .fetch_all(pool)
    .await?)
}

pub(crate) async fn find(
    db: &mut PgConnection,
    org: OrgId,
    id: AlertRuleId,
) -> Result<Option<Alert>> {
    Ok(sqlx::query_as!(
        Alert,
        r#"SELECT id AS "id: AlertRuleId", org_id AS "org_id: OrgId", project_id AS "project_id: ProjectId",
                  name, kind AS "kind: Kind", threshold, min_sessions, window_minutes, release, environment,
                  emails, webhook_id AS "webhook_id: WebhookId", enabled,
                  created_by AS "created_by: UserId", created_at, updated_at
             FROM app_session_alerts WHERE org_id = $1 AND id = $2 FOR UPDATE"#,
        org.0,
        id.0,
    )
    .fetch_optional(db)
    .await?)
}

/// False: the project has `most` already.
pub(crate) async fn insert(db: &mut PgConnection, alert: &Alert, most: i64) -> Result<bool> {
    let done = sqlx::query!(
        "INSERT INTO app_session_alerts
             (id, org_id, project_id, name, kind, threshold, min_sessions, window_minutes, release,
              environment, emails, webhook_id, enabled, created_by, created_at, updated_at)
         SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $15
          WHERE (SELECT count(*) FROM app_session_alerts WHERE org_id = $2 AND project_id = $3) < $16",
        alert.id.0,
        alert.org_id.0,
        alert.project_id.0,
        alert.name,
        alert.kind.as_str(),
        alert.threshold,
        alert.min_sessions,
        alert.window_minutes,
        alert.release,
        alert.environment,
        &alert.emails,
        alert.webhook_id.map(|id| id.0),
        alert.enabled,
        alert.created_by.map(|user| user.0),
        alert.created_at,
        most,
    )
    .execute(db)
    .await?;
    Ok(done.rows_affected() == 1)
}

pub(crate) async fn update(db: &mut PgConnection, alert: &Alert) -> Result<()> {
    sqlx::query!(
        "UPDATE app_session_alerts
            SET name = $3, kind = $4, threshold = $5, min_sessions = $6, window_minutes = $7, release = $8,
                environment = $9, emails = $10, webhook_id = $11, enabled = $12, updated_at = $13
          WHERE org_id = $1 AND id = $2",
        alert.org_id.0,
        alert.id.0,
        alert.name,
        alert.kind.as_str(),
        alert.threshold,
        alert.min_sessions,
        alert.window_minutes,
        alert.release,
        alert.environment,
        &alert.emails,
        alert.webhook_id.map(|id| id.0),
        alert.enabled,
        alert.updated_at,
    )
    .execute(db)
    .await?;
    Ok(())
}

pub(crate) async fn delete(db: &mut PgConnection, org: OrgId, id: AlertRuleId) -> Result<()> {
    sqlx::query!("DELETE FROM app_session_alerts WHERE org_id = $1 AND id = $2", org.0, id.0)
        .execute(db)
        .await?;
    Ok(())
}

/// What was told of a rule and still holds.
pub(crate) async fn firing(db: &mut PgConnection, id: AlertRuleId) -> Result<Vec<Firing>> {
    Ok(sqlx::query_as!(
        Firing,
        "SELECT release, since, value FROM app_session_alert_states WHERE alert_id = $1
          ORDER BY since DESC, release LIMIT 1000",
        id.0,
    )
    .fetch_all(db)
    .await?)
}

/// Forgets what was told: of a rule that is another one now.
pub(crate) async fn forget(db: &mut PgConnection, id: AlertRuleId) -> Result<()> {
    sqlx::query!("DELETE FROM app_session_alert_states WHERE alert_id = $1", id.0)
        .execute(db)
        .await?;
    Ok(())
}

/// True: it was not known yet, and who calls tells it. A rule that is gone or has changed tells nothing.
pub(crate) async fn begin(
    db: &mut PgConnection,
    alert: &Alert,
    release: &str,
    now: DateTime<Utc>,
    value: f64,
) -> Result<bool> {
    let done = sqlx::query!(
        "INSERT INTO app_session_alert_states (alert_id, release, since, value)
         SELECT id, $2, $3, $4 FROM app_session_alerts
          WHERE id = $1 AND enabled AND updated_at = $5 FOR KEY SHARE
         ON CONFLICT (alert_id, release) DO NOTHING",
        alert.id.0,
        release,
        now,
        value,
        alert.updated_at,
    )
    .execute(db)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// True: it was known, and who calls tells that it is over.
pub(crate) async fn end(db: &mut PgConnection, alert: &Alert, release: &str) -> Result<bool> {
    let done = sqlx::query!(
        "DELETE FROM app_session_alert_states WHERE alert_id = $1 AND release = $2",
        alert.id.0,
        release,
    )
    .execute(db)
    .await?;
    Ok(done.rows_affected() == 1)
}
