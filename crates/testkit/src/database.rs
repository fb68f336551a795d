//! A database of its own for each test, copied from a template that has been migrated once.

use std::{
    fs::Permissions, os::unix::fs::PermissionsExt as _, sync::OnceLock, thread, time::Duration,
};

use loom_common_secret::SecretString;
use loom_core::{Clock, id::new_uuid};
use loom_db::{
    embedded::{Options, PrivatePostgres},
    migrate,
    pool::Limits,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection, PgPool};
use tokio::sync::Mutex;

use crate::{
    chaos::{TcpProxy, Upstream},
    eventually,
};

const VARIABLE: &str = "LOOM_TEST_DATABASE_URL";
/// Any number: the lock under which the template is made.
const LOCK: i64 = 0x7465_7374;
/// The same of what is filled beside it.
const FILL_LOCK: i64 = 0x7465_7375;

const LIMITS: Limits = Limits {
    max_connections: 10,
    statement_timeout: Duration::from_secs(30),
    wait: Duration::from_secs(10),
};

/// Dropped when the test has passed; kept, and its name printed, when it panics.
pub struct TestDatabase {
    name: String,
    url: SecretString,
    pool: PgPool,
    own: Option<OwnPostgres>,
}

/// A PostgreSQL for one test.
struct OwnPostgres {
    dir: tempfile::TempDir,
    running: Mutex<Option<PrivatePostgres>>,
}

impl TestDatabase {
    /// Needs the server that the setup script of nextest starts, or one in `LOOM_TEST_DATABASE_URL`.
    pub async fn new() -> Self {
        Self::copy_of(template().await).await
    }

    async fn copy_of(template: &str) -> Self {
        let name = format!("t_{}", new_uuid(Clock::system().now()).simple());
        execute(&format!("CREATE DATABASE {name} TEMPLATE {template}")).await;
        let url = url_of(&name);
        let pool = loom_db::connect(&url, &LIMITS).await.unwrap();
        Self { name, url, pool, own: None }
    }

    /// A copy of what `fill` has made of an empty one, once for all tests of a run.
    pub async fn filled(name: &str, fill: impl AsyncFnOnce(&SecretString)) -> Self {
        let template = template().await;
        let filled = format!("{template}_{name}");
        make_once(&filled, FILL_LOCK, async |half| {
            execute(&format!("CREATE DATABASE {half} TEMPLATE {template}")).await;
            fill(&url_of(half)).await;
        })
        .await;
        Self::copy_of(&filled).await
    }

    /// On a PostgreSQL of its own, which the test may [`TestDatabase::crash`].
    pub async fn on_its_own() -> Self {
        let dir = tempfile::tempdir_in("/tmp").unwrap();
        // PostgreSQL of root runs as another user.
        std::fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
        let running = PrivatePostgres::start(Options::new(dir.path())).await.unwrap();
        let url = running.url();
        migrate::run(&url, Duration::ZERO).await.unwrap();
        let pool = loom_db::connect(&url, &LIMITS).await.unwrap();
        let own = OwnPostgres { dir, running: Mutex::new(Some(running)) };
        Self { name: "its own".to_owned(), url, pool, own: Some(own) }
    }

    /// Ends its own PostgreSQL in immediate mode - nothing is rolled back or written, everybody is thrown
    /// out - and starts it again.
    pub async fn crash(&self) {
        let own = self.own.as_ref().expect("only one on a PostgreSQL of its own can be crashed");
        let mut running = own.running.lock().await;
        let file = own.dir.path().join("postgres/data/postmaster.pid");
        let file = std::fs::read_to_string(file).unwrap();
        let pid = Pid::from_raw(file.lines().next().unwrap().parse().unwrap());
        kill(pid, Signal::SIGQUIT).unwrap();
        // It is our child: gone when its handle has seen it.
        drop(running.take());
        eventually(async || kill(pid, None).is_err().then_some(())).await;
        *running = Some(PrivatePostgres::start(Options::new(own.dir.path())).await.unwrap());
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn url(&self) -> &SecretString {
        &self.url
    }

    /// A way to it that can be cut, and the URL of that.
    pub async fn proxied(&self) -> (TcpProxy, String) {
        let mut url: reqwest::Url = self.url.expose().parse().unwrap();
        let directory =
            url.query_pairs().find(|(name, _)| name == "host").map(|(_, dir)| dir.into_owned());
        let port = url.port().unwrap_or(5432);
        let upstream = match directory {
            Some(directory) => Upstream::Unix(format!("{directory}/.s.PGSQL.{port}").into()),
            None => {
                let host = url.host_str().unwrap_or("localhost").to_owned();
                let mut found = tokio::net::lookup_host((host, port)).await.unwrap();
                Upstream::Tcp(found.next().unwrap())
            }
        };
        let proxy = TcpProxy::start(upstream).unwrap();
        url.set_host(Some("127.0.0.1")).unwrap();
        url.set_port(Some(proxy.port())).unwrap();
        url.set_query(Some("sslmode=disable"));
        (proxy, url.into())
    }

    pub fn pool(&self) -> &PgPool {
        &self.pool
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        if self.own.is_some() {
            return;
        }
        if thread::panicking() {
            eprintln!("the database of this test is kept: {}", self.name);
            return;
        }
        // A drop cannot wait inside the runtime it was called from, so that it has one of its own.
        let drop = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name);
        let thread = thread::spawn(move || {
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            runtime.enable_all().build().unwrap().block_on(execute(&drop));
        });
        if thread.join().is_err() {
            eprintln!("the database {} could not be dropped", self.name);
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the setup script of nextest speaks through it")]
fn server() -> &'static str {
    static SERVER: OnceLock<String> = OnceLock::new();
    SERVER.get_or_init(|| {
        std::env::var(VARIABLE).ok().filter(|url| !url.is_empty()).unwrap_or_else(|| {
            panic!(
                "{VARIABLE} is not set: run the tests with `cargo nextest run`, which starts a \
                 PostgreSQL for them, or name a server whose user may create databases"
            )
        })
    })
}

/// The same server, another database.
fn url_of(database: &str) -> SecretString {
    let (before, query) = server().split_once('?').unwrap_or((server(), ""));
    let scheme = before.find("://").map_or(0, |at| at + 3);
    let host = before[scheme..].find('/').map_or(before, |at| &before[..scheme + at]);
    let mark = if query.is_empty() { "" } else { "?" };
    SecretString::from(format!("{host}/{database}{mark}{query}"))
}

async fn execute(sql: &str) {
    let mut connection = PgConnection::connect(server()).await.unwrap();
    connection.execute(AssertSqlSafe(sql)).await.unwrap();
    let _ = connection.close().await;
}

/// The template for the migrations of this build. It is made by the first test that needs it and not
/// by the setup script, whose binary may be older than the migrations.
async fn template() -> &'static str {
    static TEMPLATE: OnceLock<String> = OnceLock::new();
    static MAKING: Mutex<()> = Mutex::const_new(());
    let _one = MAKING.lock().await;
    if let Some(name) = TEMPLATE.get() {
        return name;
    }
    let name = make_template().await;
    TEMPLATE.get_or_init(|| name)
}

async fn make_template() -> String {
    let name = format!("loom_test_template_{}", migrate::fingerprint());
    make_once(&name, LOCK, async |half| {
        execute(&format!("CREATE DATABASE {half}")).await;
        migrate::run(&url_of(half), Duration::ZERO).await.unwrap();
    })
    .await;
    name
}

/// Makes a database that all tests of a run share, under another name until it is complete.
async fn make_once(name: &str, lock: i64, make: impl AsyncFnOnce(&str)) {
    let mut connection = PgConnection::connect(server()).await.unwrap();
    if !exists(&mut connection, name).await {
        sqlx::query("SELECT pg_advisory_lock($1)")
            .bind(lock)
            .execute(&mut connection)
            .await
            .unwrap();
        if !exists(&mut connection, name).await {
            let half = format!("half_{name}");
            let drop = format!("DROP DATABASE IF EXISTS {half} WITH (FORCE)");
            connection.execute(AssertSqlSafe(drop)).await.unwrap();
            make(&half).await;
            let rename = format!("ALTER DATABASE {half} RENAME TO {name}");
            connection.execute(AssertSqlSafe(rename)).await.unwrap();
        }
    }
    // Gives the lock back.
    let _ = connection.close().await;
}

async fn exists(connection: &mut PgConnection, database: &str) -> bool {
    sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)")
        .bind(database)
        .fetch_one(connection)
        .await
        .unwrap()
}
