//! Whom to tell when something is wrong with the installation.

use loom_core::{
    Result,
    port::{AdminDirectory, BoxFuture},
};
use sqlx::PgPool;

/// The system admins, for whoever has something to tell them.
pub struct Admins {
    pool: PgPool,
}

impl Admins {
    pub fn new(pool: PgPool) -> Self {
        Self { pool }
    }
}

impl AdminDirectory for Admins {
    fn admin_addresses(&self) -> BoxFuture<'_, Result<Vec<String>>> {
        Box::pin(async {
            Ok(sqlx::query_scalar!(
                "SELECT email FROM users WHERE is_system_admin AND disabled_at IS NULL ORDER BY email LIMIT 100"
            )
            .fetch_all(&self.pool)
            .await?)
        })
    }
}
