//! What weavers have spent, for whoever runs them.

use std::collections::HashMap;

use loom_core::{
    Result,
    id::{OrgId, WeaverId},
    port::{BoxFuture, Spend, Spent},
};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{LlmProxy, ledger::Row};

impl Spend for LlmProxy {
    fn of_weavers<'a>(
        &'a self,
        org: OrgId,
        weavers: &'a [WeaverId],
    ) -> BoxFuture<'a, Result<HashMap<WeaverId, Spent>>> {
        Box::pin(async move {
            let ids: Vec<Uuid> = weavers.iter().map(|id| id.0).collect();
            let rows = sqlx::query!(
                r#"SELECT weaver_id AS "weaver: WeaverId", nanousd, last_at FROM llm_weaver_costs
                    WHERE org_id = $1 AND weaver_id = ANY($2)"#,
                org.0,
                &ids
            )
            .fetch_all(&self.pool)
            .await?;
            let spent = rows.into_iter();
            let spent =
                spent.map(|row| (row.weaver, Spent { nanousd: row.nanousd, last_at: row.last_at }));
            Ok(spent.collect())
        })
    }
}

/// Adds rows to what their weavers have spent, in the transaction that stores them.
pub(crate) async fn add(db: &mut PgConnection, rows: &[Row]) -> Result<(), sqlx::Error> {
    // In one order everywhere: two batches that add to the same weavers do not wait for each other in a ring.
    let mut sums = std::collections::BTreeMap::new();
    for row in rows {
        let Some(weaver) = row.weaver_id else { continue };
        let sum = sums.entry((row.org_id, weaver)).or_insert((0_i64, 0_i64, row.started_at));
        sum.0 += 1;
        sum.1 = sum.1.saturating_add(row.cost_nanousd.unwrap_or_default());
        sum.2 = sum.2.max(row.started_at);
    }
    if sums.is_empty() {
        return Ok(());
    }
    let column = |get: fn(&(Uuid, Uuid)) -> Uuid| sums.keys().map(get).collect::<Vec<_>>();
    let (orgs, weavers) = (column(|key| key.0), column(|key| key.1));
    let requests: Vec<i64> = sums.values().map(|sum| sum.0).collect();
    let costs: Vec<i64> = sums.values().map(|sum| sum.1).collect();
    let times: Vec<_> = sums.values().map(|sum| sum.2).collect();
    sqlx::query!(
        "INSERT INTO llm_weaver_costs AS c (org_id, weaver_id, requests, nanousd, last_at)
         SELECT * FROM UNNEST($1::uuid[], $2::uuid[], $3::bigint[], $4::bigint[], $5::timestamptz[])
         ON CONFLICT ON CONSTRAINT llm_weaver_costs_pkey DO UPDATE
            SET requests = c.requests + excluded.requests, nanousd = c.nanousd + excluded.nanousd,
                last_at = greatest(c.last_at, excluded.last_at)",
        &orgs,
        &weavers,
        &requests,
        &costs,
        &times
    )
    .execute(db)
    .await?;
    Ok(())
}
