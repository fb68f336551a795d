//! A database for each test, with the whole schema, on the server that `LOOM_TEST_DATABASE_URL`
//! names.

use std::{fs, path::Path};

use loom_core::{Clock, id::new_uuid};
use sqlx::{
    AssertSqlSafe, ConnectOptions, Connection, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};

pub(crate) struct TestDatabase {
    pool: PgPool,
    options: PgConnectOptions,
}

impl TestDatabase {
    pub(crate) async fn new() -> Self {
        let server = server();
        let name = format!("loom_jobs_test_{}", new_uuid(Clock::system().now()).simple());
        let mut admin = server.connect().await.unwrap();
        sqlx::raw_sql(AssertSqlSafe(format!("CREATE DATABASE {name}")))
            .execute(&mut admin)
            .await
            .unwrap();
        admin.close().await.unwrap();
        let options = server.database(&name);
        let pool = PgPoolOptions::new()
            .max_connections(8)
            .connect_with(options.clone().application_name("jobs"))
            .await
            .unwrap();
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../migrations");
        let mut files: Vec<_> =
            fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.retain(|path| path.extension().is_some_and(|extension| extension == "sql"));
        files.sort();
        for file in files {
            let sql = fs::read_to_string(file).unwrap();
            sqlx::raw_sql(AssertSqlSafe(sql)).execute(&pool).await.unwrap();
        }
        Self { pool, options }
    }

    pub(crate) fn pool(&self) -> &PgPool {
        &self.pool
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

fn server() -> PgConnectOptions {
    #[expect(clippy::disallowed_methods, reason = "tests have no configuration")]
    let url = std::env::var("LOOM_TEST_DATABASE_URL");
    url.expect("LOOM_TEST_DATABASE_URL names a PostgreSQL server for tests").parse().unwrap()
}
