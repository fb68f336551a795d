//! A database for each test, copied from one that has been migrated.

use std::path::Path;

use loom_core::{Clock, id::new_uuid};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, PgPool, postgres::PgPoolOptions};
use tokio::sync::OnceCell;

static TEMPLATE: OnceCell<String> = OnceCell::const_new();

pub(crate) struct TestDatabase(PgPool);

impl TestDatabase {
    pub(crate) async fn new() -> Self {
        let template = TEMPLATE.get_or_init(make_template).await;
        let name = unique_name();
        execute(&format!("CREATE DATABASE {name} TEMPLATE {template}")).await;
        let pool = PgPoolOptions::new().max_connections(10).connect(&url_of(&name)).await.unwrap();
        Self(pool)
    }

    pub(crate) fn pool(&self) -> &PgPool {
        &self.0
    }
}

async fn make_template() -> String {
    let name = unique_name();
    execute(&format!("CREATE DATABASE {name}")).await;
    let migrations = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../migrations");
    let migrator = sqlx::migrate::Migrator::new(migrations).await.unwrap();
    let mut connection = PgConnection::connect(&url_of(&name)).await.unwrap();
    migrator.run(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    name
}

fn unique_name() -> String {
    format!("t_{}", new_uuid(Clock::system().now()).simple())
}

#[expect(clippy::disallowed_methods, reason = "a test learns from it where its PostgreSQL is")]
fn server() -> String {
    std::env::var("LOOM_TEST_DATABASE_URL").expect("LOOM_TEST_DATABASE_URL names a PostgreSQL")
}

/// The same server, another database.
fn url_of(database: &str) -> String {
    let server = server();
    let (before, query) = server.split_once('?').unwrap_or((&server, ""));
    let scheme = before.find("://").map_or(0, |at| at + 3);
    let host = before[scheme..].find('/').map_or(before, |at| &before[..scheme + at]);
    format!("{host}/{database}?{query}")
}

async fn execute(sql: &str) {
    let mut connection = PgConnection::connect(&server()).await.unwrap();
    connection.execute(AssertSqlSafe(sql)).await.unwrap();
    connection.close().await.unwrap();
}
