//! Who did what to an issue.

use chrono::{DateTime, Utc};
use loom_core::{
    Principal, Result,
    id::{IssueId, OrgId},
    principal::Actor,
};
use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

use super::model::{Activity, ActorRef};

/// Writes down what was done to issues; without a principal it was the server.
pub(crate) async fn record(
    db: &mut PgConnection,
    org: OrgId,
    issues: &[Uuid],
    by: Option<&Principal>,
    action: &str,
    details: &Value,
    now: DateTime<Utc>,
) -> sqlx::Result<()> {
    sqlx::query!(
        "INSERT INTO crash_issue_activity (org_id, issue_id, at, action, actor_id, actor_name, details)
         SELECT $2, issue, $3, $4, $5, $6, $7 FROM unnest($1::uuid[]) AS issue",
        issues,
        org.0,
        now,
        action,
        by.map(actor_id),
        by.map(|by| by.name.to_string()),
        details,
    )
    .execute(db)
    .await?;
    Ok(())
}

fn actor_id(by: &Principal) -> Uuid {
    match by.actor {
        Actor::User(id) => id.0,
        Actor::Service(id) => id.0,
        Actor::Weaver(id) => id.0,
    }
}

/// The newest first.
pub(super) async fn list(
    db: &mut PgConnection,
    org: OrgId,
    issue: IssueId,
    after: Option<i64>,
    limit: i64,
) -> Result<Vec<Activity>> {
    let found = sqlx::query!(
        "SELECT id, at, action, actor_id, actor_name, details FROM crash_issue_activity
          WHERE org_id = $1 AND issue_id = $2 AND ($3::bigint IS NULL OR id < $3)
          ORDER BY id DESC LIMIT $4",
        org.0,
        issue.0,
        after,
        limit,
    )
    .fetch_all(db)
    .await?;
    let shown = found.into_iter().map(|row| Activity {
        id: row.id,
        at: row.at,
        action: row.action,
        actor: row.actor_id.map(|id| ActorRef { id, name: row.actor_name.unwrap_or_default() }),
        details: row.details,
    });
    Ok(shown.collect())
}
