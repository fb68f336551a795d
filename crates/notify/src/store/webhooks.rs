//! The SQL of webhooks.

use loom_core::{
    Result,
    id::{OrgId, WebhookId},
};
use sqlx::PgConnection;

/// Whom to call.
pub(crate) struct Target {
    pub(crate) id: WebhookId,
    pub(crate) url: String,
}

/// The webhooks that want to hear of `kind`: of the organisation, or of the installation.
pub(crate) async fn wanting(
    db: &mut PgConnection,
    org: Option<OrgId>,
    kind: &str,
) -> Result<Vec<Target>> {
    Ok(sqlx::query_as!(
        Target,
        r#"SELECT id AS "id: WebhookId", url FROM webhooks
            WHERE org_id IS NOT DISTINCT FROM $1 AND enabled
              AND (kinds = '{}' OR $2 = ANY (kinds))
            ORDER BY created_at, id LIMIT 100"#,
        org.map(|org| org.0),
        kind
    )
    .fetch_all(db)
    .await?)
}
