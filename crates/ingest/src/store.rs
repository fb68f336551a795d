//! The SQL of client reports.

use std::collections::BTreeMap;

use chrono::NaiveDate;
use loom_core::{
    Result,
    id::{OrgId, ProjectId},
};
use sqlx::PgPool;

use crate::{model::DiscardedItems, reports::Row};

/// Adds to the counts. The rows come in the order of the key, so that two who add do not block each other.
pub(crate) async fn add_reports(
    pool: &PgPool,
    sums: &BTreeMap<Row, i64>,
) -> Result<(), sqlx::Error> {
    let orgs: Vec<_> = sums.keys().map(|row| row.org.0).collect();
    let projects: Vec<_> = sums.keys().map(|row| row.project.0).collect();
    let days: Vec<NaiveDate> = sums.keys().map(|row| row.day).collect();
    let categories: Vec<String> = sums.keys().map(|row| row.category.to_owned()).collect();
    let reasons: Vec<String> = sums.keys().map(|row| row.reason.to_owned()).collect();
    let quantities: Vec<i64> = sums.values().copied().collect();
    sqlx::query!(
        r#"INSERT INTO ingest_client_reports AS counted
               (org_id, project_id, day, category, reason, quantity)
           SELECT org_id, project_id, day, category, reason, quantity
           FROM unnest($1::uuid[], $2::uuid[], $3::date[], $4::text[], $5::text[], $6::bigint[])
               AS new (org_id, project_id, day, category, reason, quantity)
           WHERE true
           ON CONFLICT (project_id, day, category, reason) DO UPDATE
               SET quantity = counted.quantity + excluded.quantity"#,
        &orgs,
        &projects,
        &days,
        &categories,
        &reasons,
        &quantities
    )
    .execute(pool)
    .await?;
    Ok(())
}

/// What clients of a project did not send since a day, newest day first.
pub(crate) async fn discarded(
    pool: &PgPool,
    org: OrgId,
    project: ProjectId,
    since: NaiveDate,
) -> Result<Vec<DiscardedItems>> {
    let rows = sqlx::query_as!(
        DiscardedItems,
        "SELECT day, category, reason, quantity FROM ingest_client_reports
         WHERE org_id = $1 AND project_id = $2 AND day >= $3
         ORDER BY day DESC, quantity DESC, category, reason",
        org.0,
        project.0,
        since
    )
    .fetch_all(pool)
    .await?;
    Ok(rows)
}

/// Deletes counts of days before this one.
pub(crate) async fn delete_before(pool: &PgPool, day: NaiveDate) -> Result<u64> {
    let deleted =
        sqlx::query!("DELETE FROM ingest_client_reports WHERE day < $1", day).execute(pool).await?;
    Ok(deleted.rows_affected())
}
