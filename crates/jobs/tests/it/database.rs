//! What these tests ask of their database beyond its pool.

use sqlx::{
    ConnectOptions, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};

pub(crate) struct TestDatabase {
    pool: PgPool,
    options: PgConnectOptions,
    // Last: it drops the database, and waits for nobody.
    database: loom_testkit::TestDatabase,
}

impl TestDatabase {
    pub(crate) async fn new() -> Self {
        let database = loom_testkit::TestDatabase::new().await;
        let options: PgConnectOptions = database.url().expose().parse().unwrap();
        let pool = PgPoolOptions::new()
            .max_connections(8)
            .connect_with(options.clone().application_name("jobs"))
            .await
            .unwrap();
        Self { pool, options, database }
    }

    pub(crate) fn pool(&self) -> &PgPool {
        &self.pool
    }

    pub(crate) fn url(&self) -> &loom_common_secret::SecretString {
        self.database.url()
    }

    /// A pool that cannot connect.
    pub(crate) fn broken_pool(&self) -> PgPool {
        let nowhere = self.options.clone().socket("/nonexistent").host("/nonexistent");
        PgPoolOptions::new().connect_lazy_with(nowhere)
    }

    /// When the pool's connections last began a statement; the asking is done on another one.
    pub(crate) async fn last_statement(&self) -> chrono::DateTime<chrono::Utc> {
        let mut other = self.options.clone().application_name("observer").connect().await.unwrap();
        sqlx::query_scalar(
            "SELECT max(query_start) FROM pg_stat_activity
              WHERE datname = current_database() AND application_name = 'jobs'",
        )
        .fetch_one(&mut other)
        .await
        .unwrap()
    }
}
