//! The SQL of routes.

use chrono::{DateTime, Utc};
use loom_core::{Error, Result, id::OrgId};
use sqlx::{PgConnection, PgPool, types::Json};

use super::model::{Route, RouteDraft, RouteTarget};

pub(super) const MAX_ROUTES: i64 = 100;

/// The routes of an organisation, by name.
pub(super) async fn list(db: &PgPool, org: OrgId) -> Result<Vec<Route>> {
    let rows = sqlx::query!(
        r#"SELECT name, enabled, targets AS "targets: Json<Vec<RouteTarget>>", created_at, updated_at
             FROM llm_routes WHERE org_id = $1 ORDER BY name"#,
        org.0
    )
    .fetch_all(db)
    .await?;
    let route = rows.into_iter().map(|row| Route {
        name: row.name,
        enabled: row.enabled,
        targets: row.targets.0,
        created_at: row.created_at,
        updated_at: row.updated_at,
    });
    Ok(route.collect())
}

/// The routes that are switched on, of an organisation or of all.
pub(super) async fn in_force(
    db: &PgPool,
    org: Option<OrgId>,
) -> Result<Vec<(OrgId, String, Vec<RouteTarget>)>> {
    let rows = sqlx::query!(
        r#"SELECT org_id AS "org_id: OrgId", name, targets AS "targets: Json<Vec<RouteTarget>>"
             FROM llm_routes WHERE enabled AND ($1::uuid IS NULL OR org_id = $1)"#,
        org as Option<OrgId>
    )
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(|row| (row.org_id, row.name, row.targets.0)).collect())
}

/// Creates or replaces one, and tells every replica when the transaction commits. Is it new, and when was
/// it created?
///
/// # Errors
/// 429 `quota_exceeded`.
pub(super) async fn put(
    db: &mut PgConnection,
    org: OrgId,
    name: &str,
    draft: &RouteDraft,
    now: DateTime<Utc>,
) -> Result<(bool, DateTime<Utc>)> {
    // One at a time in an organisation, so that the count holds.
    sqlx::query!(
        "SELECT pg_advisory_xact_lock(hashtextextended('llm_routes ' || $1, 0))",
        org.0.to_string()
    )
    .execute(&mut *db)
    .await?;
    let there = sqlx::query!(
        r#"SELECT count(*) AS "count!", coalesce(bool_or(name = $2), false) AS "exists!"
             FROM llm_routes WHERE org_id = $1"#,
        org.0,
        name
    )
    .fetch_one(&mut *db)
    .await?;
    if !there.exists && there.count >= MAX_ROUTES {
        let detail =
            format!("the organisation has {MAX_ROUTES} routes, which is as many as it may");
        return Err(Error::new(http::StatusCode::TOO_MANY_REQUESTS, "quota_exceeded", detail));
    }
    let created_at = sqlx::query_scalar!(
        r#"INSERT INTO llm_routes (org_id, name, enabled, targets, created_at, updated_at)
           VALUES ($1, $2, $3, $4, $5, $5)
           ON CONFLICT ON CONSTRAINT llm_routes_pkey
           DO UPDATE SET enabled = excluded.enabled, targets = excluded.targets, updated_at = excluded.updated_at
           RETURNING created_at"#,
        org.0,
        name,
        draft.enabled,
        Json(&draft.targets) as _,
        now
    )
    .fetch_one(&mut *db)
    .await?;
    tell(db, org).await?;
    Ok((!there.exists, created_at))
}

/// Was it there?
pub(super) async fn delete(db: &mut PgConnection, org: OrgId, name: &str) -> Result<bool> {
    let deleted =
        sqlx::query!("DELETE FROM llm_routes WHERE org_id = $1 AND name = $2", org.0, name)
            .execute(&mut *db)
            .await?;
    tell(db, org).await?;
    Ok(deleted.rows_affected() > 0)
}

async fn tell(db: &mut PgConnection, org: OrgId) -> Result<()> {
    sqlx::query!(
        r#"SELECT pg_notify($1, $2) AS "said: ()""#,
        crate::CHANNEL,
        format!("{} {org}", super::WORD)
    )
    .fetch_one(db)
    .await?;
    Ok(())
}
