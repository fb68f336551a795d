//! What other features ask of ours: organisations by the names that stand in their paths, and what an API
//! key may spend.

use loom_core::{
    Error, Principal, Result,
    id::{ApiKeyId, OrgId},
    port::{BoxFuture, KeyBudgets, OrgDirectory},
    text,
};

use crate::Auth;

/// The longest of both: a slug has 63 bytes, an id 36.
const MAX_NAME: usize = 63;
/// The slug of the organisation of what is the installation's own.
pub(crate) const INTERNAL: &str = "loom-internal";

impl OrgDirectory for Auth {
    fn org_id<'a>(&'a self, id_or_slug: &'a str) -> BoxFuture<'a, Result<Option<OrgId>>> {
        Box::pin(async move {
            if !text::is_plain_line(id_or_slug, MAX_NAME) {
                return Ok(None);
            }
            let id = id_or_slug.parse::<OrgId>().ok();
            Ok(sqlx::query_scalar!(
                r#"SELECT id AS "id: OrgId" FROM organisations WHERE id = $1 OR slug = $2"#,
                id.map(|id| id.0),
                id_or_slug
            )
            .fetch_optional(&self.pool)
            .await?)
        })
    }

    fn acting_in<'a>(
        &'a self,
        principal: &'a Principal,
        path: &'a str,
    ) -> BoxFuture<'a, Result<Principal>> {
        Box::pin(Self::acting_in(self, principal, path))
    }

    fn org_slug(&self, org: OrgId) -> BoxFuture<'_, Result<String>> {
        Box::pin(async move {
            let slug = sqlx::query_scalar!("SELECT slug FROM organisations WHERE id = $1", org.0)
                .fetch_optional(&self.pool)
                .await?;
            Ok(slug.unwrap_or_else(|| org.to_string()))
        })
    }

    fn internal_org(&self) -> BoxFuture<'_, Result<OrgId>> {
        Box::pin(async move {
            if let Some(id) = self.org_id(INTERNAL).await? {
                return Ok(id);
            }
            let now = self.clock.now();
            sqlx::query!(
                "INSERT INTO organisations (id, slug, name, is_personal, created_at)
                 VALUES ($1, $2, 'Loom itself', false, $3) ON CONFLICT (slug) DO NOTHING",
                OrgId::new(now).0,
                INTERNAL,
                now
            )
            .execute(&self.pool)
            .await?;
            let id = self.org_id(INTERNAL).await?;
            id.ok_or_else(|| Error::internal("the organisation of the installation is gone"))
        })
    }
}

impl KeyBudgets for Auth {
    fn monthly_nanousd(&self, key: ApiKeyId) -> BoxFuture<'_, Result<Option<i64>>> {
        Box::pin(crate::keys::store::budget(&self.pool, key))
    }
}
