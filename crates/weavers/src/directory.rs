//! Weavers as the rest of the server sees them: whose they are, and what they may spend.

use loom_core::{
    Result,
    id::{OrgId, UserId, WeaverId},
    port::{BoxFuture, WeaverDirectory, WeaverFacts},
};
use sqlx::PgPool;

/// Reads what never changes of a weaver. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Directory(PgPool);

impl Directory {
    pub fn new(pool: PgPool) -> Self {
        Self(pool)
    }
}

impl WeaverDirectory for Directory {
    fn weaver(&self, org: OrgId, id: WeaverId) -> BoxFuture<'_, Result<Option<WeaverFacts>>> {
        Box::pin(async move {
            let row = sqlx::query!(
                r#"SELECT owner_id AS "owner: UserId", budget_nanousd FROM weavers WHERE org_id = $1 AND id = $2"#,
                org.0,
                id.0
            )
            .fetch_optional(&self.0)
            .await?;
            Ok(row.map(|row| WeaverFacts { owner: row.owner, budget_nanousd: row.budget_nanousd }))
        })
    }
}
