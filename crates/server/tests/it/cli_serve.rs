//! Servers as processes of their own: together on one database, alone with a private one, and stopped.

use std::{
    fs,
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use loom_core::{Clock, id::new_uuid};
use loom_testkit::{TestDatabase, chaos::Process, eventually};
use serde_json::Value;

use crate::cli::{BINARY, Cli, empty_database};

const PATIENCE: Duration = Duration::from_secs(60);

/// A directory that another user can enter, as the private PostgreSQL of root has to. Goes with the test.
pub(crate) struct OpenDirectory(PathBuf);

impl OpenDirectory {
    pub(crate) fn new() -> Self {
        let name = format!("loom-cli-{}", new_uuid(Clock::system().now()).simple());
        let path = Path::new("/tmp").join(name);
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        Self(path)
    }

    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for OpenDirectory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub(crate) struct Server {
    pub(crate) process: Process,
    pub(crate) url: String,
}

impl Server {
    pub(crate) fn spawn(database_url: &str, data: &Path, log: &Path) -> Process {
        let data = data.to_str().unwrap();
        let env = [
            // Empty is absent, whatever the environment of the tests has.
            ("DATABASE_URL", database_url),
            ("LOOM_SERVER_DATA_DIR", data),
            ("LOOM_SERVER_HOST", "127.0.0.1"),
            ("LOOM_SERVER_PORT", "0"),
            ("LOOM_SERVER_LOG_FORMAT", "json"),
            ("RUST_LOG", ""),
        ];
        Process::spawn(Path::new(BINARY), &["serve"], env, log).unwrap()
    }

    /// Returns once it says where it listens and is ready there.
    pub(crate) async fn ready(mut process: Process) -> Self {
        let line = eventually(async || {
            let ended = process.wait(Duration::ZERO).await;
            assert!(ended.is_err(), "ended with {ended:?}:\n{}", process.log());
            line_of(&process, "ready")
        })
        .await;
        let url = format!("http://{}", line["address"].as_str().unwrap());
        process.wait_ready(&format!("{url}/health/ready"), PATIENCE).await.unwrap();
        Self { process, url }
    }

    pub(crate) async fn end(&mut self) {
        let status = self.process.terminate(PATIENCE).await.unwrap();
        assert_eq!(status.code(), Some(0), "{}", self.process.log());
    }
}

/// The log's line with this message.
fn line_of(process: &Process, message: &str) -> Option<Value> {
    process
        .log()
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .find(|line| line["message"] == message)
}

/// They hold half again as much memory as is in use; nothing else would tell that they are back.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_server_has_no_huge_pages() {
    let database = empty_database().await;
    let dir = OpenDirectory::new();
    let url = database.url().expose();
    let mut server = Server::ready(Server::spawn(url, &dir.join("data"), &dir.join("log"))).await;
    let status = fs::read_to_string(format!("/proc/{}/status", server.process.pid())).unwrap();
    let huge = status.lines().find_map(|line| line.strip_prefix("THP_enabled:"));
    // A kernel before 5.0 does not tell.
    assert_eq!(huge.map_or("0", str::trim), "0");
    server.end().await;
}

#[tokio::test]
async fn two_servers_started_together_on_an_empty_database_both_become_ready() {
    let database = empty_database().await;
    let dir = OpenDirectory::new();
    let url = database.url().expose();
    let [one, two] = ["one", "two"]
        .map(|name| Server::spawn(url, &dir.join(name), &dir.join(&format!("{name}.log"))));
    let (mut one, mut two) = tokio::join!(Server::ready(one), Server::ready(two));
    assert_ne!(one.url, two.url);
    let (applied, distinct): (i64, i64) = sqlx::query_as(
        "SELECT count(*), count(DISTINCT version) FROM _sqlx_migrations WHERE success",
    )
    .fetch_one(database.pool())
    .await
    .unwrap();
    assert!(applied >= 4 && applied == distinct, "{applied} {distinct}");
    let migrated = [&one, &two]
        .into_iter()
        .filter(|server| line_of(&server.process, "migrated the database").is_some())
        .count();
    assert_eq!(migrated, 1, "the migrations ran once");
    one.end().await;
    // The other one does not mind.
    let still = two.process.wait_ready(&format!("{}/health", two.url), PATIENCE).await;
    still.unwrap();
    two.end().await;
}

#[tokio::test]
async fn a_server_that_nobody_administers_prints_a_link_that_opens_until_there_is_an_admin() {
    let database = empty_database().await;
    let dir = OpenDirectory::new();
    let spawn = |name: &str| {
        Server::spawn(database.url().expose(), &dir.join("data"), &dir.join(&format!("{name}.log")))
    };
    let link = |server: &Server| {
        let log = server.process.log();
        log.split_whitespace().find(|word| word.contains("/auth/setup?token=")).map(str::to_owned)
    };
    let mut server = Server::ready(spawn("first")).await;
    let printed = eventually(async || link(&server)).await;
    // In the log, which is kept and shown, it does not stand.
    assert!(server.process.log().lines().any(|line| line.trim() == printed), "{printed}");
    let port = server.url.rsplit(':').next().unwrap();
    assert!(printed.starts_with(&format!("http://localhost:{port}/")), "{printed}");
    let status = async || reqwest::get(&printed).await.unwrap().status().as_u16();
    loom_testkit::app::install_crypto();
    assert_eq!(status().await, 200);
    let says_so = async || {
        let page = reqwest::get(format!("{}/auth/sign-in", server.url)).await.unwrap();
        page.text().await.unwrap().contains("Nobody administers this server yet")
    };
    assert!(says_so().await);
    let data = dir.join("data");
    let cli = Cli::on(&database).set("LOOM_SERVER_DATA_DIR", data.to_str().unwrap());
    let admin = cli.run(&["admin", "create", "ada@example.com"]).await;
    assert_eq!(admin.code, Some(0), "{}", admin.err);
    assert_eq!(status().await, 400);
    assert!(!says_so().await);
    server.end().await;
    let mut server = Server::ready(spawn("second")).await;
    server.end().await;
    assert_eq!(link(&server), None);
}

fn postmaster(dir: &Path) -> Option<PathBuf> {
    for entry in fs::read_dir(dir).ok()?.flatten() {
        let path = entry.path();
        if path.file_name().is_some_and(|name| name == "postmaster.pid") {
            return Some(path);
        }
        if path.is_dir()
            && let Some(found) = postmaster(&path)
        {
            return Some(found);
        }
    }
    None
}

#[tokio::test]
async fn without_a_database_url_the_server_runs_a_postgres_of_its_own_and_ends_it() {
    let dir = OpenDirectory::new();
    let data = dir.join("data");
    let mut key = String::new();
    for start in ["first", "second"] {
        let log = dir.join(&format!("{start}.log"));
        let mut server = Server::ready(Server::spawn("", &data, &log)).await;
        let said = line_of(&server.process, "ready").unwrap();
        assert_eq!(said["data"], data.to_str().unwrap());

        let pid_file = postmaster(&data).expect("PostgreSQL runs in the data directory");
        let pid = fs::read_to_string(&pid_file).unwrap();
        let pid = pid.lines().next().unwrap().trim().to_owned();
        assert!(Path::new("/proc").join(&pid).exists());

        if start == "first" {
            let cli = Cli::new().set("LOOM_SERVER_DATA_DIR", data.to_str().unwrap());
            let done = cli.run(&["admin", "create", "ada@example.com"]).await.exits(0);
            key = done.out.trim().to_owned();
        }
        // The second time the user is there still.
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let me = client.get(format!("{}/auth/me", server.url)).bearer_auth(&key).send().await;
        let me: Value = me.unwrap().json().await.unwrap();
        assert_eq!(me["user"]["email"], "ada@example.com", "{start}: {me}");

        server.end().await;
        assert!(!pid_file.exists(), "{start}: PostgreSQL did not end in order");
        assert!(!Path::new("/proc").join(&pid).exists(), "{start}: PostgreSQL is running still");
    }
}

#[tokio::test]
async fn the_demonstration_says_where_its_database_is_and_what_to_do_first() {
    let dir = OpenDirectory::new();
    let (data, log) = (dir.join("data"), dir.join("log"));
    let env = [
        ("DATABASE_URL", ""),
        ("LOOM_SERVER_DATA_DIR", data.to_str().unwrap()),
        ("LOOM_SERVER_PORT", "0"),
        ("RUST_LOG", ""),
    ];
    let mut process = Process::spawn(Path::new(BINARY), &["serve", "--demo"], env, &log).unwrap();
    let place = format!("a private PostgreSQL in {}", data.display());
    let said = eventually(async || Some(process.log()).filter(|log| log.contains(&place))).await;
    for told in ["Loom is ready at http://127.0.0.1:", "loom-demo", "curl http://127.0.0.1:"] {
        assert!(said.contains(told), "{told}: {said}");
    }
    assert_eq!(process.terminate(PATIENCE).await.unwrap().code(), Some(0));
}

#[tokio::test]
async fn a_port_that_is_taken_is_told_clearly_before_anything_is_started() {
    let database = TestDatabase::new().await;
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let cli =
        Cli::on(&database).set("LOOM_SERVER_HOST", "127.0.0.1").set("LOOM_SERVER_PORT", &port);
    let done = cli.run(&["serve"]).await.exits(1);
    assert!(done.err.contains(&format!("cannot listen on 127.0.0.1:{port}")), "{done:?}");
    assert!(done.err.contains("LOOM_SERVER_PORT"), "{done:?}");
}

#[tokio::test]
async fn development_mode_in_production_does_not_start() {
    let database = TestDatabase::new().await;
    let cli = Cli::on(&database)
        .set("LOOM_SERVER_ENV", "production")
        .set("LOOM_SERVER_AUTH_DEV_MODE", "true");
    let done = cli.run(&["serve"]).await.exits(78);
    assert!(done.err.contains("LOOM_SERVER_AUTH_DEV_MODE"), "{done:?}");
    let production = Cli::new().set("LOOM_SERVER_ENV", "production");
    let done = production.run(&["serve"]).await.exits(78);
    assert!(done.err.contains("DATABASE_URL: is needed in production"), "{done:?}");
}

#[tokio::test]
async fn an_error_of_the_server_becomes_an_event_of_its_own_project_and_makes_no_others() {
    let database = empty_database().await;
    let dir = OpenDirectory::new();
    let url = database.url().expose();
    let mut server = Server::ready(Server::spawn(url, &dir.join("data"), &dir.join("log"))).await;
    sqlx::query("ALTER TABLE thread_shares RENAME TO gone").execute(database.pool()).await.unwrap();
    let link = format!("{}/api/threads/shared/{}", server.url, "ab".repeat(24));
    for _ in 0..2 {
        assert_eq!(reqwest::get(&link).await.unwrap().status(), 500);
    }
    let issues = "SELECT i.title, i.value, i.event_count, p.slug
         FROM crash_issues i JOIN crash_projects p ON p.id = i.project_id
        WHERE i.org_id = '00000000-0000-7000-8000-000000000001'";
    let found: (String, Option<String>, i64, String) = eventually(async || {
        let row = sqlx::query_as(issues).fetch_optional(database.pool()).await.unwrap();
        row.filter(|(_, _, count, _): &(_, _, i64, _)| *count == 2)
    })
    .await;
    assert!(found.1.as_ref().is_some_and(|value| value.contains("thread_shares")), "{found:?}");
    assert_eq!(found.3, "loom-server");
    server.end().await;
    // Nothing that came of it: two events are all there are.
    let all: i64 = sqlx::query_scalar("SELECT count(*) FROM crash_raw")
        .fetch_one(database.pool())
        .await
        .unwrap();
    assert_eq!(all, 2);
}
