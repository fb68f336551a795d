//! Events are sent over many connections while the server is killed, its database crashes, or is cut off:
//! afterwards what was acknowledged is there, and counted once. `LOOM_CHAOS=long` plays more rounds.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use loom_core::{Clock, id::new_uuid};
use loom_testkit::{
    TestDatabase,
    app::install_crypto,
    chaos::{Ledger, Process, is_long},
    eventually,
};
use serde_json::{Value, json};
use tokio::task::JoinSet;

const CONNECTIONS: usize = 32;
const PROGRAM: &str = env!("CARGO_BIN_EXE_loom-server");

fn rounds() -> usize {
    if is_long() { 15 } else { 2 }
}

struct Rig {
    database: TestDatabase,
    data_dir: tempfile::TempDir,
    env: BTreeMap<&'static str, String>,
    url: String,
    http: reqwest::Client,
    acknowledged: Ledger<uuid::Uuid>,
    stop: AtomicBool,
}

impl Rig {
    async fn behind(database: TestDatabase, database_url: &str) -> Arc<Self> {
        install_crypto();
        let data_dir = tempfile::tempdir().unwrap();
        let from = 32_000 - std::process::id() % 20_000;
        let port = (10_000..from)
            .rev()
            .find(|port| std::net::TcpListener::bind(format!("127.0.0.1:{port}")).is_ok())
            .unwrap();
        let env = BTreeMap::from([
            ("DATABASE_URL", database_url.to_owned()),
            ("LOOM_SERVER_HOST", "127.0.0.1".to_owned()),
            ("LOOM_SERVER_PORT", port.to_string()),
            ("LOOM_SERVER_DATA_DIR", data_dir.path().display().to_string()),
            ("LOOM_SERVER_LOG_LEVEL", "warn".to_owned()),
            ("RUST_LOG", String::new()),
        ]);
        Arc::new(Self {
            database,
            data_dir,
            env,
            url: format!("http://127.0.0.1:{port}"),
            http: reqwest::Client::builder()
                .no_proxy()
                .timeout(Duration::from_secs(20))
                .build()
                .unwrap(),
            acknowledged: Ledger::new(),
            stop: AtomicBool::new(false),
        })
    }

    async fn start(&self) -> Process {
        let log = self.data_dir.path().join("server.log");
        let env = self.env.iter().map(|(name, value)| (*name, value.as_str()));
        let mut process = Process::spawn(Path::new(PROGRAM), &["serve"], env, &log).unwrap();
        let ready = format!("{}/health/ready", self.url);
        process.wait_ready(&ready, Duration::from_secs(30)).await.unwrap();
        process
    }

    /// A project, and the key that is sent with.
    async fn project(&self) -> String {
        let dsn = self.dsn().await;
        dsn.split("://").nth(1).unwrap().split('@').next().unwrap().to_owned()
    }

    async fn dsn(&self) -> String {
        let output = tokio::process::Command::new(PROGRAM)
            .args(["admin", "create", "chaos@example.com"])
            .envs(&self.env)
            .output()
            .await
            .unwrap();
        assert!(output.status.success(), "{:?}", output.stderr);
        let key = String::from_utf8(output.stdout).unwrap().trim().to_owned();
        let request = self.http.post(format!("{}/api/crash/projects", self.url));
        let project: Value = request
            .bearer_auth(key)
            .json(&json!({"name": "Chaos"}))
            .send()
            .await
            .unwrap()
            .json()
            .await
            .unwrap();
        project["dsn"].as_str().unwrap().to_owned()
    }

    /// Sends events until it is told to stop; each as often as it takes to be acknowledged.
    async fn send(self: Arc<Self>, key: String, worker: usize) {
        while !self.stop.load(Ordering::SeqCst) {
            let id = new_uuid(Clock::system().now());
            let event = json!({
                "event_id": id, "exception_type": "KeyError", "exception_value": "total",
                "platform": "python", "user": {"id": worker.to_string()},
                "stacktrace": {"frames": [{"module": "shop", "in_app": true,
                    "function": format!("{}_total", ["first", "second", "third"][worker % 3])}]},
            });
            loop {
                let request = self.http.post(format!("{}/api/crash/capture", self.url));
                let answer = request.header("x-crash-api-key", &key).json(&event).send().await;
                if answer.is_ok_and(|answer| answer.status().is_success()) {
                    self.acknowledged.acknowledge(id);
                    break;
                }
                if self.stop.load(Ordering::SeqCst) {
                    return;
                }
                // Whoever is refused does not run.
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }

    /// Sends its part of a burst as an SDK does: the answer says that an event is stored, not what became
    /// of it.
    async fn burst(&self, url: &str, worker: usize, left: &AtomicUsize) {
        let take = |left: usize| left.checked_sub(1);
        while left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take).is_ok() {
            let id = new_uuid(Clock::system().now());
            let event = json!({
                "event_id": id.simple().to_string(), "platform": "python",
                "exception": {"values": [{"type": "KeyError", "value": "total", "stacktrace": {
                    "frames": [{"module": "shop", "in_app": true,
                        "function": format!("{}_total", ["first", "second", "third"][worker % 3])}]}}]},
            });
            let answer = self.http.post(url).json(&event).send().await.unwrap();
            assert_eq!(answer.status().as_u16(), 200);
            self.acknowledged.acknowledge(id);
        }
    }

    async fn reach(&self, more: usize) {
        let wanted = self.acknowledged.len() + more;
        eventually(async || (self.acknowledged.len() >= wanted).then_some(())).await;
    }

    async fn one<T>(&self, query: &'static str) -> T
    where
        T: Send + Unpin + for<'r> sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
    {
        sqlx::query_scalar(query).fetch_one(self.database.pool()).await.unwrap()
    }

    /// Nothing waits any more; what a server had that was killed is anybody's.
    async fn drained(&self) {
        sqlx::query("UPDATE crash_queue SET claimed_until = now() WHERE claimed_until IS NOT NULL")
            .execute(self.database.pool())
            .await
            .unwrap();
        let mut before = i64::MAX;
        while before > 0 {
            // However many there are, it goes on.
            before = eventually(async || {
                let waiting: i64 = self.one("SELECT count(*) FROM crash_queue").await;
                (waiting < before).then_some(waiting)
            })
            .await;
        }
    }

    /// What was acknowledged is there, once, and counted once. (The server's own faults are elsewhere.)
    async fn assert_exact(&self) {
        const HERE: &str =
            "WHERE project_id = (SELECT id FROM crash_projects WHERE slug = 'chaos')";
        let number = async |what: &str| -> i64 {
            let query = sqlx::AssertSqlSafe(format!("SELECT {what} {HERE}"));
            sqlx::query_scalar(query).fetch_one(self.database.pool()).await.unwrap()
        };
        let query = sqlx::AssertSqlSafe(format!("SELECT event_id FROM crash_events {HERE}"));
        let ids: Vec<uuid::Uuid> =
            sqlx::query_scalar(query).fetch_all(self.database.pool()).await.unwrap();
        let there = i64::try_from(ids.len()).unwrap();
        let compared = self.acknowledged.compare(ids);
        assert!(compared.is_exact(), "{compared:?}");
        assert_eq!(number("sum(event_count)::bigint FROM crash_issues").await, there);
        assert_eq!(number("sum(events)::bigint FROM crash_issue_hours").await, there);
        assert_eq!(number("count(*) FROM crash_issues").await, 3);
        assert_eq!(number("count(*) FROM crash_raw").await, there);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn chaos_events_that_were_acknowledged_are_there_once_when_the_server_is_killed() {
    let database = TestDatabase::new().await;
    let url = database.url().expose().to_owned();
    let rig = Rig::behind(database, &url).await;
    let mut server = rig.start().await;
    let key = rig.project().await;
    let mut workers = JoinSet::new();
    for worker in 0..CONNECTIONS {
        workers.spawn(Arc::clone(&rig).send(key.clone(), worker));
    }
    for _ in 0..rounds() {
        rig.reach(500).await;
        server.kill9().await.unwrap();
        server = rig.start().await;
    }
    rig.reach(200).await;
    rig.stop.store(true, Ordering::SeqCst);
    while workers.join_next().await.is_some() {}
    rig.drained().await;
    rig.assert_exact().await;
    assert!(server.terminate(Duration::from_secs(40)).await.unwrap().success());
}

/// One that writes to disk before it answers; it is ended in immediate mode, and has to recover.
#[tokio::test(flavor = "multi_thread")]
async fn chaos_events_that_were_acknowledged_are_there_once_when_the_database_crashes() {
    let database = TestDatabase::on_its_own().await;
    let url = database.url().expose().to_owned();
    let rig = Rig::behind(database, &url).await;
    let mut server = rig.start().await;
    let key = rig.project().await;
    let mut workers = JoinSet::new();
    for worker in 0..CONNECTIONS {
        workers.spawn(Arc::clone(&rig).send(key.clone(), worker));
    }
    for _ in 0..rounds() {
        rig.reach(300).await;
        rig.database.crash().await;
    }
    rig.reach(200).await;
    rig.stop.store(true, Ordering::SeqCst);
    while workers.join_next().await.is_some() {}
    rig.drained().await;
    rig.assert_exact().await;
    assert!(server.terminate(Duration::from_secs(40)).await.unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn chaos_events_that_were_acknowledged_are_there_once_when_the_database_goes_away() {
    let database = TestDatabase::new().await;
    let (proxy, url) = database.proxied().await;
    let rig = Rig::behind(database, &url).await;
    let mut server = rig.start().await;
    let key = rig.project().await;
    let mut workers = JoinSet::new();
    for worker in 0..CONNECTIONS {
        workers.spawn(Arc::clone(&rig).send(key.clone(), worker));
    }
    for _ in 0..rounds() {
        rig.reach(300).await;
        proxy.refuse().await;
        proxy.cut();
        tokio::time::sleep(Duration::from_millis(500)).await;
        proxy.resume().unwrap();
        rig.reach(200).await;
        proxy.cut();
    }
    rig.reach(200).await;
    rig.stop.store(true, Ordering::SeqCst);
    while workers.join_next().await.is_some() {}
    rig.drained().await;
    rig.assert_exact().await;
    assert!(server.terminate(Duration::from_secs(40)).await.unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn chaos_events_that_were_acknowledged_are_there_once_when_postgresql_crashes() {
    let database = TestDatabase::on_its_own().await;
    let url = database.url().expose().to_owned();
    let rig = Rig::behind(database, &url).await;
    let mut server = rig.start().await;
    let key = rig.project().await;
    let mut workers = JoinSet::new();
    for worker in 0..CONNECTIONS {
        workers.spawn(Arc::clone(&rig).send(key.clone(), worker));
    }
    for _ in 0..rounds() {
        rig.reach(300).await;
        rig.database.crash().await;
    }
    rig.reach(300).await;
    rig.stop.store(true, Ordering::SeqCst);
    while workers.join_next().await.is_some() {}
    rig.drained().await;
    rig.assert_exact().await;
    assert!(server.terminate(Duration::from_secs(40)).await.unwrap().success());
}

/// A hundred thousand, as an application sends them that fails at each request; 5,000 unless it is long.
#[tokio::test(flavor = "multi_thread")]
async fn chaos_a_burst_is_taken_before_it_is_digested_and_loses_nothing() {
    let database = TestDatabase::new().await;
    let url = database.url().expose().to_owned();
    let rig = Rig::behind(database, &url).await;
    let mut server = rig.start().await;
    let dsn = rig.dsn().await;
    let (key, place) = dsn.split("://").nth(1).unwrap().split_once('@').unwrap();
    let number = place.split_once('/').unwrap().1;
    let url = format!("{}/api/{number}/store/?sentry_key={key}", rig.url);
    let all: usize = if is_long() { 100_000 } else { 5_000 };
    let left = Arc::new(AtomicUsize::new(all));
    let began = std::time::Instant::now();
    let mut workers = JoinSet::new();
    for worker in 0..CONNECTIONS {
        let (rig, url, left) = (Arc::clone(&rig), url.clone(), Arc::clone(&left));
        workers.spawn(async move { rig.burst(&url, worker, &left).await });
    }
    while let Some(done) = workers.join_next().await {
        done.unwrap();
    }
    let taken = began.elapsed();
    assert_eq!(rig.acknowledged.len(), all);
    let waiting: i64 = rig.one("SELECT count(*) FROM crash_queue").await;
    rig.drained().await;
    let digested = began.elapsed();
    rig.assert_exact().await;
    println!(
        "{all} events taken in {taken:?}, {waiting} of them waited then; digested after {digested:?}"
    );
    assert!(server.terminate(Duration::from_secs(40)).await.unwrap().success());
}
