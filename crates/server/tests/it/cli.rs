//! The command line of the real binary: what it does, what it says, how it exits.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
};

use loom_server::health;
use loom_testkit::{TestApp, TestDatabase};
use tempfile::TempDir;
use tokio::process::Command;

pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_loom-server");

/// An empty directory to run the binary in, without any settings but those given.
pub(crate) struct Cli {
    dir: TempDir,
    vars: Vec<(String, String)>,
}

/// What a command gave back.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Done {
    #[track_caller]
    pub(crate) fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self:?}");
        self
    }
}

impl Cli {
    pub(crate) fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), vars: Vec::new() }
    }

    pub(crate) fn on(database: &TestDatabase) -> Self {
        Self::new().set("DATABASE_URL", database.url().expose())
    }

    pub(crate) fn set(mut self, name: &str, value: &str) -> Self {
        self.vars.push((name.to_owned(), value.to_owned()));
        self
    }

    fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    pub(crate) async fn run(&self, arguments: &[&str]) -> Done {
        let output = Command::new(BINARY)
            .args(arguments)
            .env_clear()
            .env("LOOM_SERVER_DATA_DIR", self.data_dir())
            .envs(self.vars.iter().map(|(name, value)| (name, value)))
            .current_dir(self.dir.path())
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Done { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }
}

/// A database without any table.
pub(crate) async fn empty_database() -> TestDatabase {
    let database = TestDatabase::new().await;
    sqlx::raw_sql("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
        .execute(database.pool())
        .await
        .unwrap();
    database
}

#[tokio::test]
async fn a_sound_configuration_is_said_to_be_sound() {
    let done = Cli::new().run(&["config", "check"]).await.exits(0);
    assert_eq!(done.out, "the configuration is sound\n");
    assert_eq!(done.err, "");
}

#[tokio::test]
async fn all_mistakes_of_a_configuration_are_named_at_once_and_no_secret_with_them() {
    let cli = Cli::new()
        .set("LOOM_SERVER_PORT", "eighty")
        .set("LOOM_SERVER_LOG_LEVEL", "loud")
        .set("LOOM_SERVER_MASTER_KEY", "hunter2-is-no-key")
        .set("DATABASE_URL", "mysql://root:hunter3@db/loom");
    // Also what would start with it refuses, before it does anything.
    for command in [&["config", "check"][..], &["serve"], &["migrate"], &["admin", "create", "a@b"]]
    {
        let done = cli.run(command).await.exits(78);
        assert!(done.err.contains("4 problems"), "{done:?}");
        for told in [
            "LOOM_SERVER_PORT = \"eighty\": must be a number from 0 to 65535",
            "LOOM_SERVER_LOG_LEVEL = \"loud\": must be one of error, warn, info, debug, trace",
            "LOOM_SERVER_MASTER_KEY: must be 32 random bytes",
            "DATABASE_URL: ",
        ] {
            assert!(done.err.contains(told), "{told}: {done:?}");
        }
        assert!(!done.err.contains("hunter") && done.out.is_empty(), "{done:?}");
    }
}

#[tokio::test]
async fn a_misspelt_setting_is_named() {
    let cli = Cli::new().set("LOOM_SERVER_PROT", "80");
    let done = cli.run(&["config", "check"]).await.exits(78);
    assert!(done.err.contains("LOOM_SERVER_PROT: nothing reads this"), "{done:?}");
    // Looking is not refused.
    let done = cli.run(&["config", "show"]).await.exits(0);
    assert!(done.err.contains("LOOM_SERVER_PROT: nothing reads this"), "{done:?}");
}

#[tokio::test]
async fn settings_are_shown_with_their_origin_and_secrets_are_not() {
    let cli = Cli::new()
        .set("DATABASE_URL", "postgres://loom:hunter2@db/loom")
        .set("LOOM_SERVER_OPENAI_API_KEY", "sk-hunter3")
        .set("LOOM_SERVER_PORT", "9090");
    let done = cli.run(&["config", "show"]).await.exits(0);
    let lines: Vec<&str> = done.out.lines().collect();
    for line in [
        "DATABASE_URL=[redacted]",
        "LOOM_SERVER_OPENAI_API_KEY=[redacted]",
        "LOOM_SERVER_ANTHROPIC_API_KEY=  (default)",
        "LOOM_SERVER_PORT=9090",
        "LOOM_SERVER_HOST=0.0.0.0  (default)",
    ] {
        assert!(lines.contains(&line), "{line}: {}", done.out);
    }
    assert!(!done.out.contains("hunter"), "{}", done.out);
}

#[tokio::test]
async fn settings_come_from_env_files_too_and_the_environment_wins() {
    let cli = Cli::new().set("LOOM_SERVER_PORT", "9090").set("LOOM_SERVER_HOST", "");
    let file = "LOOM_SERVER_PORT=7070\nLOOM_SERVER_HOST=127.0.0.9\n# LOOM_SERVER_ENV=x\n";
    std::fs::write(cli.dir.path().join(".env"), file).unwrap();
    let done = cli.run(&["config", "show"]).await.exits(0);
    assert!(done.out.contains("LOOM_SERVER_PORT=9090\n"), "{}", done.out);
    // Set to nothing is not set.
    assert!(done.out.contains("LOOM_SERVER_HOST=127.0.0.9\n"), "{}", done.out);
    std::fs::write(cli.dir.path().join(".env"), "no assignment here").unwrap();
    let done = cli.run(&["config", "show"]).await.exits(78);
    assert!(done.err.contains(".env"), "{done:?}");
}

#[tokio::test]
async fn the_openapi_document_is_printed_without_a_database_and_under_any_configuration() {
    let cli = Cli::new().set("LOOM_SERVER_PORT", "eighty");
    let done = cli.run(&["openapi"]).await.exits(0);
    assert_eq!(done.out, crate::document::text().await + "\n");
    assert!(!cli.data_dir().exists(), "it left something behind");
}

#[tokio::test]
async fn migrate_check_tells_what_is_to_do_and_migrate_does_it() {
    let database = empty_database().await;
    let cli = Cli::on(&database);
    let done = cli.run(&["migrate", "--check"]).await.exits(1);
    assert!(done.out.contains("to be applied: 001 organisations"), "{done:?}");
    assert!(done.out.contains("to be applied: 003 threads"), "{done:?}");
    let tables = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'";
    let count: i64 = sqlx::query_scalar(tables).fetch_one(database.pool()).await.unwrap();
    assert_eq!(count, 0, "a check changed something");
    cli.run(&["migrate"]).await.exits(0);
    let done = cli.run(&["migrate", "--check"]).await.exits(0);
    assert!(done.out.starts_with("nothing to do"), "{done:?}");
    cli.run(&["migrate"]).await.exits(0);
}

#[tokio::test]
async fn a_database_that_is_too_new_and_an_edited_migration_are_refused() {
    for (change, told) in [
        (
            "INSERT INTO _sqlx_migrations SELECT 9999, 'contract 9998 drop', installed_on, success, checksum, execution_time FROM _sqlx_migrations WHERE version = 1",
            "the database has migration 9999, which removed what this version of Loom still needs",
        ),
        (
            r"UPDATE _sqlx_migrations SET checksum = '\x00' WHERE version = 2",
            "migration 2 has been edited since it ran",
        ),
    ] {
        let database = TestDatabase::new().await;
        sqlx::query(change).execute(database.pool()).await.unwrap();
        let cli =
            Cli::on(&database).set("LOOM_SERVER_HOST", "127.0.0.1").set("LOOM_SERVER_PORT", "0");
        for command in [&["migrate", "--check"][..], &["migrate"], &["serve"]] {
            let done = cli.run(command).await.exits(1);
            assert!(done.err.contains(told), "{command:?}: {done:?}");
        }
    }
}

#[tokio::test]
async fn an_admin_and_keys_are_made_beside_a_running_server() {
    let app = TestApp::start().await;
    let cli = Cli::on(&app.database);
    let done = cli.run(&["admin", "create", " Ada@Example.com "]).await.exits(0);
    let key = done.out.trim();
    assert!(key.starts_with("loom_pat_") && done.out.lines().count() == 1, "{done:?}");
    assert!(done.err.contains("shown this once") && !done.err.contains(key), "{done:?}");
    let me = app.anonymous().with_key(key).get("/auth/me").await.expect(200).json();
    assert_eq!(me["user"]["email"], "ada@example.com");
    assert_eq!(me["user"]["is_system_admin"], true);

    // Again: the same user, another key.
    let again = cli.run(&["admin", "create", "ada@example.com"]).await.exits(0);
    assert_ne!(again.out.trim(), key);
    assert_eq!(app.rows("SELECT 1 FROM users").await.len(), 1);

    let scoped = ["--scope", "threads:read", "--scope", "llm:use", "--expires", "30d"];
    let arguments = [&["admin", "key", "ada@example.com"][..], &scoped].concat();
    let done = cli.run(&arguments).await.exits(0);
    let caller = app.anonymous().with_key(done.out.trim());
    let me = caller.get("/auth/me").await.expect(200).json();
    assert_eq!(me["scopes"], serde_json::json!(["llm:use", "threads:read"]));
    caller.get("/api/threads").await.expect(200);
    let lives = app
        .rows("SELECT extract(day FROM expires_at - created_at)::int AS days FROM api_keys WHERE expires_at IS NOT NULL")
        .await;
    assert_eq!(lives, [serde_json::json!({"days": 30})]);
    assert_eq!(app.rows("SELECT 1 FROM audit_log WHERE actor_kind = 'system'").await.len(), 3);
}

#[tokio::test]
async fn what_is_logged_on_the_way_is_not_in_the_answer_of_a_command() {
    let database = TestDatabase::new().await;
    // Worth a warning each time.
    let cli = Cli::on(&database).set("LOOM_SERVER_BASE_URL", "http://loom.example.com");
    let done = cli.run(&["admin", "create", "ada@example.com"]).await.exits(0);
    assert!(done.err.contains("browsers keep no session over plain http"), "{done:?}");
    assert!(done.out.starts_with("loom_pat_") && done.out.lines().count() == 1, "{done:?}");
    let done =
        cli.set("LOOM_SERVER_LOG_LEVEL", "debug").run(&["migrate", "--check"]).await.exits(0);
    assert!(done.out.starts_with("nothing to do") && done.out.lines().count() == 1, "{done:?}");
}

#[tokio::test]
async fn a_key_for_nobody_or_an_address_that_is_none_is_refused_clearly() {
    let database = TestDatabase::new().await;
    let cli = Cli::on(&database);
    let done = cli.run(&["admin", "key", "nobody@example.com"]).await.exits(1);
    assert!(done.err.contains("there is no such user") && done.out.is_empty(), "{done:?}");
    for address in ["", "ada", "@", "a b@example.com", "a@b@c"] {
        let done = cli.run(&["admin", "create", address]).await.exits(1);
        assert!(done.err.contains("is not an e-mail address"), "{done:?}");
    }
}

#[tokio::test]
async fn a_job_is_run_now_and_one_that_there_is_not_is_refused() {
    let database = TestDatabase::new().await;
    let cli = Cli::on(&database);
    let done = cli.run(&["job", "run", "job-history-cleanup"]).await.exits(0);
    assert!(done.out.starts_with("job-history-cleanup: succeeded, 0 items, "), "{done:?}");
    assert!(done.err.starts_with("job-history-cleanup: run 0"), "which run it is: {done:?}");
    let status: String = sqlx::query_scalar(
        "SELECT status FROM job_runs WHERE job_id = 'job-history-cleanup' AND trigger = 'manual'",
    )
    .fetch_one(database.pool())
    .await
    .unwrap();
    assert_eq!(status, "succeeded");
    let done = cli.run(&["job", "run", "job-of-nobody"]).await.exits(1);
    assert!(done.err.contains(r#"no job "job-of-nobody""#), "{done:?}");
    assert!(done.err.contains("job-history-cleanup, "), "it says which there are: {done:?}");
}

#[tokio::test]
async fn the_health_check_says_by_its_exit_code_whether_the_server_is_ready() {
    let app = TestApp::start().await;
    let cli = Cli::new();
    let url = app.url();
    let done = cli.run(&["healthcheck", "--url", &url]).await.exits(0);
    assert!(done.out.starts_with("ready: "), "{done:?}");
    let port = app.running.address.port().to_string();
    let by_config = Cli::new().set("LOOM_SERVER_PORT", &port);
    by_config.run(&["healthcheck"]).await.exits(0);
    app.running.health.drain();
    let done = cli.run(&["healthcheck", "--url", &format!("{url}/")]).await.exits(1);
    assert!(done.err.contains("503"), "{done:?}");
    app.stop().await;
    let done = cli.run(&["healthcheck", "--url", &url]).await.exits(1);
    assert!(done.err.contains("does not answer"), "{done:?}");
}

#[tokio::test]
async fn every_command_has_a_help_and_wrong_usage_exits_with_2() {
    let cli = Cli::new().set("LOOM_SERVER_PORT", "eighty");
    for command in [
        "",
        "serve",
        "migrate",
        "config",
        "config check",
        "config show",
        "doctor",
        "backup",
        "restore",
        "openapi",
        "healthcheck",
        "admin",
        "admin create",
        "admin key",
        "llm",
        "llm credential",
        "llm credential add",
        "llm credential list",
        "llm credential test",
        "job",
        "job run",
    ] {
        let mut arguments: Vec<&str> = command.split_whitespace().collect();
        arguments.push("--help");
        let done = cli.run(&arguments).await.exits(0);
        assert!(done.out.contains("Usage: loom-server"), "{done:?}");
    }
    let version = cli.run(&["--version"]).await.exits(0);
    assert!(version.out.contains(env!("CARGO_PKG_VERSION")), "{version:?}");
    let revision = health::version().git_sha;
    assert!(version.out.trim_end().ends_with(&format!("({revision})")), "{version:?}");
    for wrong in [
        &["dance"][..],
        &["config"],
        &["config", "dance"],
        &["backup"],
        &["restore"],
        &["admin", "create"],
        &["admin", "key", "a@example.com", "--scope", "threads:eat"],
        &["admin", "key", "a@example.com", "--expires", "soon"],
        &["admin", "key", "a@example.com", "--expires", "0d"],
        &["job", "run"],
        &["serve", "--dance"],
    ] {
        let done = cli.run(wrong).await.exits(2);
        assert!(done.out.is_empty() && !done.err.is_empty(), "{done:?}");
    }
    assert!(!Path::exists(&cli.data_dir()));
}
