//! What other features ask of ours: organisations by the names that stand in their paths, and what an API
//! key may spend.

use loom_core::{
    Principal, Result,
    id::{ApiKeyId, OrgId, UserId},
    port::{BoxFuture, KeyBudgets, OrgDirectory},
    text,
};

use crate::Auth;

/// The longest of both: a slug has 63 bytes, an id 36.
const MAX_NAME: usize = 63;

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

    fn member_addresses<'a>(
        &'a self,
        org: OrgId,
        users: &'a [UserId],
    ) -> BoxFuture<'a, Result<Vec<String>>> {
        Box::pin(async move {
            let users: Vec<_> = users.iter().map(|user| user.0).collect();
            Ok(sqlx::query_scalar!(
                "SELECT u.email FROM organisation_members m JOIN users u ON u.id = m.user_id
                  WHERE m.org_id = $1 AND u.disabled_at IS NULL AND (cardinality($2::uuid[]) = 0 OR u.id = ANY ($2))
                  ORDER BY m.created_at, u.id LIMIT 100",
                org.0,
                &users
            )
            .fetch_all(&self.pool)
            .await?)
        })
    }

    fn members_among<'a>(
        &'a self,
        org: OrgId,
        emails: &'a [String],
    ) -> BoxFuture<'a, Result<Vec<String>>> {
        Box::pin(async move {
            Ok(sqlx::query_scalar!(
                r#"SELECT e.email AS "email!" FROM UNNEST($2::text[]) WITH ORDINALITY AS e (email, place)
                  WHERE EXISTS (SELECT FROM organisation_members m JOIN users u ON u.id = m.user_id
                                 WHERE m.org_id = $1 AND u.disabled_at IS NULL
                                   AND lower(u.email) = lower(e.email))
                  ORDER BY e.place"#,
                org.0,
                emails
            )
            .fetch_all(&self.pool)
            .await?)
        })
    }
}

impl KeyBudgets for Auth {
    fn monthly_nanousd(&self, key: ApiKeyId) -> BoxFuture<'_, Result<Option<i64>>> {
        Box::pin(crate::keys::store::budget(&self.pool, key))
    }
}
