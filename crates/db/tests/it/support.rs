//! Empty databases on the PostgreSQL of this test run, and directories for private ones.

use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use loom_common_secret::SecretString;
use loom_db::pool::Limits;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};

static NUMBER: AtomicU32 = AtomicU32::new(0);

pub(crate) fn limits(max_connections: u32) -> Limits {
    Limits {
        max_connections,
        statement_timeout: Duration::from_secs(30),
        wait: Duration::from_secs(5),
    }
}

fn unique() -> String {
    format!("{}_{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed))
}

#[expect(clippy::disallowed_methods, reason = "the setup script of nextest speaks through it")]
fn server() -> String {
    std::env::var("LOOM_TEST_DATABASE_URL").expect("run the tests with cargo nextest")
}

/// The URL of another database on the same server.
pub(crate) fn url_of(database: &str) -> SecretString {
    let server = server();
    let (before, query) = server.split_once('?').unwrap_or((&server, ""));
    let (host, _) = before.rsplit_once('/').unwrap();
    SecretString::from(format!("{host}/{database}?{query}"))
}

pub(crate) struct EmptyDatabase {
    name: String,
}

impl EmptyDatabase {
    pub(crate) async fn new() -> Self {
        let name = format!("db_{}", unique());
        execute(format!("CREATE DATABASE {name}")).await;
        Self { name }
    }

    pub(crate) fn url(&self) -> SecretString {
        url_of(&self.name)
    }

    pub(crate) async fn drop(self) {
        execute(format!("DROP DATABASE {} WITH (FORCE)", self.name)).await;
    }
}

pub(crate) async fn execute(sql: String) {
    let mut connection = PgConnection::connect(&server()).await.unwrap();
    connection.execute(AssertSqlSafe(sql)).await.unwrap();
    connection.close().await.unwrap();
}

/// A directory that goes away with the test.
pub(crate) struct Directory(PathBuf);

impl Directory {
    pub(crate) fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("loom-it-{}-{name}", unique()));
        Self(dir)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
