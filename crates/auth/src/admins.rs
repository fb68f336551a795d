//! Whom to tell when something is wrong with the installation.

use loom_core::{
    Result,
    port::{AdminDirectory, BoxFuture},
};

use crate::Auth;

impl AdminDirectory for Auth {
    fn admin_addresses(&self) -> BoxFuture<'_, Result<Vec<String>>> {
        Box::pin(async {
            let addresses = sqlx::query_scalar!(
                "SELECT email FROM users WHERE is_system_admin AND disabled_at IS NULL
                  ORDER BY created_at, id LIMIT 100"
            )
            .fetch_all(&self.pool)
            .await?;
            Ok(addresses)
        })
    }
}
