//! What weavers spend: a request to a model is a sign of life, and a budget that is gone is the end.

use std::collections::BTreeMap;

use loom_core::{
    Result,
    id::{OrgId, WeaverId},
};

use crate::{
    Weavers,
    model::{Row, Status},
    store,
    view::usd,
};

impl Weavers {
    /// Looks at what all have spent that are not over. Gives how many end for it.
    pub(crate) async fn look_at_spending(&self) -> Result<u64> {
        let rows = store::live(&self.deps.pool, &self.installation).await?;
        let mut by_org: BTreeMap<OrgId, Vec<Row>> = BTreeMap::new();
        for row in rows.into_iter().filter(|row| row.ending.is_none()) {
            by_org.entry(row.org_id).or_default().push(row);
        }
        let mut ended = 0;
        for (org, rows) in by_org {
            let ids: Vec<WeaverId> = rows.iter().map(|row| row.id).collect();
            let spent = self.deps.spend.of_weavers(org, &ids).await?;
            for row in rows {
                let Some(spent) = spent.get(&row.id) else { continue };
                if spent.last_at > row.active_at {
                    let mut db = self.deps.pool.acquire().await?;
                    store::list::touch(&mut db, org, row.id, spent.last_at).await?;
                }
                let gone = row.budget_nanousd.filter(|budget| spent.nanousd >= *budget);
                if let Some(budget) = gone {
                    let why = format!("its budget of {} US dollars is spent", usd(budget));
                    ended += u64::from(self.have_end(&row, Status::Failed, "budget", &why).await?);
                }
            }
        }
        Ok(ended)
    }
}
