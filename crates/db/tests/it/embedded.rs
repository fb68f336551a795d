//! The private PostgreSQL, from an empty directory to one that somebody left in disorder.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use loom_common_secret::SecretString;
use loom_db::{
    Config, Database,
    embedded::{Options, PrivateError, PrivatePostgres},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use sqlx::{Connection as _, Executor as _, PgConnection};

use crate::support::Directory;

fn options(dir: &Path) -> Options {
    Options { durable: false, ..Options::new(dir) }
}

async fn start(dir: &Path) -> Result<PrivatePostgres, PrivateError> {
    PrivatePostgres::start(options(dir)).await
}

async fn numbers(url: &SecretString) -> i64 {
    let mut connection = PgConnection::connect(url.expose()).await.unwrap();
    // What is acknowledged must have been written, or a kill may rightly lose it.
    connection.execute("SET synchronous_commit = on").await.unwrap();
    connection.execute("CREATE TABLE IF NOT EXISTS numbers (n int)").await.unwrap();
    connection.execute("INSERT INTO numbers VALUES (1)").await.unwrap();
    let count = sqlx::query_scalar("SELECT count(*) FROM numbers").fetch_one(&mut connection).await;
    connection.close().await.unwrap();
    count.unwrap()
}

fn pid_file(dir: &Path) -> std::path::PathBuf {
    dir.join("postgres/data/postmaster.pid")
}

/// A server of its own process, which can be killed.
fn serve(dir: &Path) -> (Child, SecretString) {
    let mut server = Command::new(env!("CARGO_BIN_EXE_test-postgres"))
        .args(["--serve", &std::process::id().to_string()])
        .arg(dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = String::new();
    BufReader::new(server.stdout.take().unwrap()).read_line(&mut said).unwrap();
    let url = said.trim().strip_prefix("ready ").unwrap_or_else(|| panic!("{said}"));
    (server, SecretString::from(url))
}

#[tokio::test]
async fn starts_from_nothing_and_again_and_keeps_its_data() {
    let dir = Directory::new("again");
    let database = Config {
        url: None,
        direct_url: None,
        max_connections: 5,
        statement_timeout: Duration::from_secs(30),
        wait: Duration::from_secs(5),
        pg_bin: None,
        data_dir: dir.path().to_owned(),
    };
    let opened = Database::open(&database).await.unwrap();
    assert!(opened.is_private());
    let mut transaction = opened.begin().await.unwrap();
    transaction.execute("CREATE TABLE kept ()").await.unwrap();
    transaction.commit().await.unwrap();
    opened.close().await;
    assert!(!pid_file(dir.path()).exists());

    let begun = Instant::now();
    let opened = Database::open(&database).await.unwrap();
    let took = begun.elapsed();
    opened.pool().execute("SELECT FROM kept").await.unwrap();
    let upper: String = sqlx::query_scalar("SELECT upper('é') || lower('Ä')")
        .fetch_one(opened.pool())
        .await
        .unwrap();
    assert_eq!(upper, "Éä");
    opened.close().await;
    // 1 s on an idle machine; the tests beside this one are given something.
    assert!(took < Duration::from_secs(3), "{took:?}");
}

#[tokio::test]
async fn a_second_server_is_turned_away() {
    let dir = Directory::new("lock");
    let first = start(dir.path()).await.unwrap();
    let error = start(dir.path()).await.unwrap_err();
    assert!(matches!(error, PrivateError::Locked { .. }), "{error:?}");
    assert!(error.to_string().contains(&format!("(process {})", std::process::id())), "{error}");
    first.stop().await;
}

#[tokio::test]
async fn a_killed_server_does_no_harm() {
    let dir = Directory::new("killed");
    for round in 1..=3 {
        let (mut server, url) = serve(dir.path());
        assert_eq!(numbers(&url).await, round);
        server.kill().unwrap();
        server.wait().unwrap();
    }
    let next = start(dir.path()).await.unwrap();
    assert_eq!(numbers(&next.url()).await, 4);
    next.stop().await;
    assert!(!pid_file(dir.path()).exists());
}

#[tokio::test]
async fn a_killed_postgres_does_no_harm() {
    let dir = Directory::new("crashed");
    let (mut server, url) = serve(dir.path());
    assert_eq!(numbers(&url).await, 1);
    let mut busy = PgConnection::connect(url.expose()).await.unwrap();
    let busy = tokio::spawn(async move { busy.execute("SELECT pg_sleep(1)").await.map(drop) });
    let mut observer = PgConnection::connect(url.expose()).await.unwrap();
    let is_busy = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'SELECT pg_sleep%'";
    while sqlx::query_scalar::<_, i64>(is_busy).fetch_one(&mut observer).await.unwrap() == 0 {}
    let file = fs::read_to_string(pid_file(dir.path())).unwrap();
    let postmaster = Pid::from_raw(file.lines().next().unwrap().parse().unwrap());
    kill(postmaster, Signal::SIGKILL).unwrap();
    server.kill().unwrap();
    server.wait().unwrap();

    let next = start(dir.path()).await.unwrap();
    assert_eq!(numbers(&next.url()).await, 2);
    next.stop().await;
    drop(busy.await.unwrap());
}

#[tokio::test]
async fn one_that_was_left_running_is_adopted() {
    let dir = Directory::new("adopted");
    let first = start(dir.path()).await.unwrap();
    assert_eq!(numbers(&first.url()).await, 1);
    let before = fs::read_to_string(pid_file(dir.path())).unwrap();
    let pid = before.lines().next().unwrap().to_owned();
    // Forgotten, not dropped, and with the lock given up: as without a signal at the parent's death.
    std::mem::forget(first);
    fs::remove_file(dir.path().join("postgres.lock")).unwrap();

    let second = start(dir.path()).await.unwrap();
    assert_eq!(numbers(&second.url()).await, 2);
    assert_eq!(fs::read_to_string(pid_file(dir.path())).unwrap().lines().next(), Some(&*pid));
    second.stop().await;
    assert!(!pid_file(dir.path()).exists());
}

#[tokio::test]
async fn leftovers_are_cleared_away() {
    let dir = Directory::new("leftovers");
    start(dir.path()).await.unwrap().stop().await;
    // The number belongs to another process now: this one.
    fs::write(pid_file(dir.path()), format!("{}\n", std::process::id())).unwrap();
    // An initdb that was interrupted.
    let half = dir.path().join("postgres/new-1");
    fs::create_dir(&half).unwrap();
    fs::rename(dir.path().join("postgres/data"), dir.path().join("postgres/moved")).unwrap();
    start(dir.path()).await.unwrap().stop().await;
    assert!(!half.exists());

    fs::remove_dir_all(dir.path().join("postgres/data")).unwrap();
    fs::rename(dir.path().join("postgres/moved"), dir.path().join("postgres/data")).unwrap();
    start(dir.path()).await.unwrap().stop().await;
}

#[tokio::test]
async fn a_long_and_odd_path_has_its_socket_elsewhere() {
    let dir = Directory::new(&format!("{} 'ü,\"&", "long".repeat(25)));
    let postgres = start(dir.path()).await.unwrap();
    assert_eq!(numbers(&postgres.url()).await, 1);
    let url = postgres.url();
    let (_, socket_dir) = url.expose().split_once("?host=").unwrap();
    assert!(socket_dir.starts_with("/tmp/loom-"), "{socket_dir}");
    let socket_dir = socket_dir.to_owned();
    postgres.stop().await;
    fs::remove_dir(socket_dir).unwrap();
}

#[tokio::test]
async fn another_major_is_refused_with_advice() {
    let dir = Directory::new("major");
    let data = dir.path().join("postgres/data");
    fs::create_dir_all(&data).unwrap();
    fs::write(data.join("PG_VERSION"), "9\n").unwrap();
    if nix::unistd::geteuid().is_root() {
        std::os::unix::fs::chown(&data, Some(65_534), Some(65_534)).unwrap();
    }
    let error = start(dir.path()).await.unwrap_err();
    assert!(matches!(error, PrivateError::OtherMajor { cluster: 9, .. }), "{error:?}");
    assert!(error.to_string().contains("pg_upgrade"), "{error}");
}

#[tokio::test]
async fn one_that_cannot_start_shows_its_log_at_once() {
    let dir = Directory::new("broken");
    start(dir.path()).await.unwrap().stop().await;
    let conf = dir.path().join("postgres/data/postgresql.auto.conf");
    fs::write(&conf, "no_such_setting = 1\n").unwrap();
    let begun = Instant::now();
    let error = start(dir.path()).await.unwrap_err();
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert!(matches!(error, PrivateError::Start { .. }), "{error:?}");
    assert!(error.to_string().contains("no_such_setting"), "{error}");
}
