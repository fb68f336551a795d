//! `doctor`, by the real binary, against what is there and what is not.

use std::{fs, net::TcpListener, os::unix::fs::PermissionsExt, path::Path};

use loom_testkit::{
    TestApp, TestDatabase, app::UPSTREAM_KEY, eventually, idp::Idp, kubernetes::FakeKubernetes,
    smtp::SmtpServer,
};
use serde_json::Value;

use crate::{
    cli::{Cli, Done, empty_database},
    cli_serve::OpenDirectory,
};

/// A port at which nobody is.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// With nothing of this machine that a test cannot know.
fn cli(database: &TestDatabase, data: &Path) -> Cli {
    Cli::on(database)
        .set("LOOM_SERVER_DATA_DIR", data.to_str().unwrap())
        .set("LOOM_SERVER_HOST", "127.0.0.1")
        .set("LOOM_SERVER_PORT", &free_port().to_string())
        .set("LOOM_SERVER_HEALTH_DISK_FREE_PERCENT", "0")
        .set("LOOM_SERVER_HEALTH_DISK_FREE_MIB", "0")
        .set("LOOM_SERVER_HEALTH_MEMORY_PERCENT", "100")
        .set("PATH", std::env::var_os("PATH").unwrap_or_default().to_str().unwrap())
}

/// What it says of one thing, as (status, message and advice).
fn said(report: &Value, check: &str) -> Vec<(String, String)> {
    let checks = report["checks"].as_array().unwrap().iter();
    let of = checks.filter(|found| found["check"] == check);
    of.map(|found| {
        let text = |name: &str| found[name].as_str().unwrap_or_default().to_owned();
        (text("status"), format!("{} {}", text("message"), text("advice")))
    })
    .collect()
}

#[track_caller]
fn assert_said(report: &Value, check: &str, status: &str, words: &str) {
    let all = said(report, check);
    let is_there = all.iter().any(|(said, text)| said == status && text.contains(words));
    assert!(is_there, "{check} {status} {words}: {all:?}");
}

fn json(done: &Done) -> Value {
    serde_json::from_str(&done.out).unwrap_or_else(|error| panic!("{error}: {done:?}"))
}

#[tokio::test]
async fn where_all_is_well_it_says_so_and_changes_nothing() {
    let database = TestDatabase::new().await;
    let dir = OpenDirectory::new();
    let data = dir.join("data");
    let cli = cli(&database, &data);
    // A machine that is very busy may be slow to look at.
    let report = eventually(async || {
        let report = json(&cli.run(&["doctor", "--json"]).await);
        (report["status"] == "ok").then_some(report)
    })
    .await;
    for (check, status, words) in [
        ("settings", "ok", "sound"),
        ("data directory", "ok", "is made at the first start"),
        ("disk", "ok", "MiB free"),
        ("master key", "ok", "made at the first start"),
        ("server", "skipped", "none runs at 127.0.0.1:"),
        ("database", "ok", "PostgreSQL "),
        ("schema", "ok", "that of this version"),
        ("privileges", "ok", "all that is needed"),
        ("clock", "ok", "agrees with the database's"),
        ("mail", "skipped", "no mail server"),
        ("sign-in", "skipped", "no provider"),
        ("models", "skipped", "no provider has a key"),
        ("weavers", "skipped", "off"),
    ] {
        assert_said(&report, check, status, words);
    }
    assert!(!data.exists(), "it left something behind");
    let shown = cli.run(&["doctor"]).await.exits(0);
    assert!(shown.out.contains("ok       settings"), "{shown:?}");
    // Of a directory that is there it looks at more.
    fs::create_dir_all(data.join("artifacts")).unwrap();
    let report = json(&cli.run(&["doctor", "--json"]).await.exits(0));
    assert_said(&report, "git", "ok", "version 2");
    assert_said(&report, "artifacts", "ok", "takes and gives");
    fs::set_permissions(&data, fs::Permissions::from_mode(0o777)).unwrap();
    let report = json(&cli.run(&["doctor", "--json"]).await.exits(0));
    assert_said(&report, "data directory", "warning", "chmod go-w");
}

#[tokio::test]
async fn wrong_settings_are_told_with_what_may_have_been_meant_and_no_secret() {
    let cli = Cli::new()
        .set("LOOM_SERVER_PORT", "eighty")
        .set("LOOM_SERVER_LOG_LEVL", "debug")
        .set("LOOM_SERVER_MASTER_KEY", "hunter2-is-no-key");
    let done = cli.run(&["doctor", "--json"]).await.exits(1);
    let report = json(&done);
    assert_said(&report, "settings", "problem", "must be a number from 0 to 65535");
    assert_said(&report, "settings", "problem", "LOOM_SERVER_MASTER_KEY: must be 32 random bytes");
    assert_said(&report, "settings", "warning", "Is LOOM_SERVER_LOG_LEVEL meant?");
    assert_said(&report, "everything else", "skipped", "does not start");
    assert!(!done.out.contains("hunter2"), "{done:?}");
    let open = Cli::new()
        .set("LOOM_SERVER_AUTH_DEV_MODE", "true")
        .set("LOOM_SERVER_PORT", &free_port().to_string());
    let report = json(&open.run(&["doctor", "--json"]).await);
    assert_said(
        &report,
        "settings",
        "warning",
        "development mode is on, on an address that others reach",
    );
}

#[tokio::test]
async fn what_is_away_or_refuses_is_told_with_what_to_do_and_in_bounded_time() {
    let dir = OpenDirectory::new();
    let gone = free_port();
    let secret = "hunter2-of-the-database";
    let hanging = TcpListener::bind("127.0.0.1:0").unwrap();
    let smtp = hanging.local_addr().unwrap().port().to_string();
    let models = format!("http://127.0.0.1:{gone}/v1");
    let idp = Idp::start();
    idp.set_down(true);
    let mut cli = Cli::new()
        .set("LOOM_SERVER_DATA_DIR", dir.join("data").to_str().unwrap())
        .set("LOOM_SERVER_PORT", &free_port().to_string())
        .set("DATABASE_URL", &format!("postgres://loom:{secret}@127.0.0.1:{gone}/loom"))
        .set("LOOM_SERVER_SMTP_HOST", "127.0.0.1")
        .set("LOOM_SERVER_SMTP_PORT", &smtp)
        .set("LOOM_SERVER_SMTP_TLS", "none")
        .set("LOOM_SERVER_SMTP_FROM_ADDRESS", "loom@example.com")
        .set("LOOM_SERVER_OPENAI_API_KEY", UPSTREAM_KEY)
        .set("LOOM_SERVER_OPENAI_BASE_URL", &models)
        .set("LOOM_SERVER_WEAVER_ENABLED", "true")
        .set("LOOM_SERVER_WEAVER_KUBECONFIG", "/nonexistent/kubeconfig");
    for (name, value) in idp.settings("oidc") {
        cli = cli.set(&name, &value);
    }
    let done = cli.run(&["doctor", "--json"]).await.exits(1);
    let report = json(&done);
    assert_said(&report, "database", "problem", "no database at loom@127.0.0.1");
    assert_said(&report, "mail", "problem", "no answer within");
    assert_said(&report, "models", "problem", "openai");
    assert_said(&report, "sign-in", "problem", "oidc: ");
    assert_said(&report, "weavers", "problem", "LOOM_SERVER_WEAVER_KUBECONFIG");
    for secret in [secret, UPSTREAM_KEY] {
        assert!(!done.out.contains(secret) && !done.err.contains(secret), "{done:?}");
    }
}

#[tokio::test]
async fn a_master_key_that_opens_nothing_of_what_is_stored_is_told() {
    let database = TestDatabase::new().await;
    let dir = OpenDirectory::new();
    let data = dir.join("data");
    let key = dir.join("key");
    fs::write(&key, UPSTREAM_KEY).unwrap();
    let with = |master_key: &str| {
        cli(&database, &data).set("LOOM_SERVER_MASTER_KEY", &master_key.repeat(16))
    };
    let add = ["llm", "credential", "add", "openai", "--name", "first", "--file"];
    let add = [&add[..], &[key.to_str().unwrap()]].concat();
    with("0a1b").run(&add).await.exits(0);
    let report = json(&with("0c1d").run(&["doctor", "--json"]).await.exits(1));
    assert_said(
        &report,
        "models",
        "problem",
        "openai, key `first`: what is stored cannot be opened",
    );
}

#[tokio::test]
async fn a_server_that_runs_and_its_peers_are_looked_at_beside_it() {
    let app = TestApp::start().await;
    let smtp = SmtpServer::start();
    let idp = Idp::start();
    let cluster = FakeKubernetes::start();
    let mut cli = cli(&app.database, app.data_dir())
        .set("LOOM_SERVER_PORT", &app.running.address.port().to_string())
        .set("LOOM_SERVER_OPENAI_API_KEY", UPSTREAM_KEY)
        .set("LOOM_SERVER_OPENAI_BASE_URL", &format!("{}/v1", app.mock.url()))
        .set("LOOM_SERVER_ANTHROPIC_API_KEY", "sk-wrong-of-a-colleague")
        .set("LOOM_SERVER_ANTHROPIC_BASE_URL", &app.mock.url())
        .set("LOOM_SERVER_GITHUB_REDIRECT_URI", "https://old.example.com/auth/github/callback")
        .set("LOOM_SERVER_WEAVER_ENABLED", "true")
        .set("LOOM_SERVER_WEAVER_KUBECONFIG", cluster.kubeconfig().to_str().unwrap());
    for (name, value) in smtp.settings() {
        cli = cli.set(name, &value);
    }
    for (name, value) in idp.settings("github") {
        cli = cli.set(&name, &value);
    }
    let arguments = ["doctor", "--json", "--send-test-mail", "ada@example.com"];
    let done = cli.run(&arguments).await.exits(1);
    let report = json(&done);
    assert!(said(&report, "server")[0].1.contains("of revision"), "{report:#}");
    assert_said(&report, "master key", "ok", "master.key");
    assert_said(&report, "mail", "ok", "takes the sign-in");
    assert_said(&report, "mail", "ok", "took a test mail to ada@example.com");
    assert_eq!(smtp.mail(1).await.subject(), "Test mail of Loom");
    assert_said(&report, "sign-in", "ok", "github answers");
    assert_said(&report, "sign-in", "warning", "sends people back to https://old.example.com");
    assert_said(&report, "models", "ok", "openai, key");
    assert_said(&report, "models", "problem", "anthropic, key");
    assert_said(&report, "weavers", "ok", "the cluster answers");
    let others = report["checks"].as_array().unwrap().iter();
    let problems: Vec<_> =
        others.filter(|found| found["status"] == "problem").map(|found| &found["check"]).collect();
    assert_eq!(problems, ["models"], "{report:#}");
    for secret in idp.secrets().iter().map(String::as_str).chain([UPSTREAM_KEY]) {
        assert!(!done.out.contains(secret), "{done:?}");
    }
}

#[tokio::test]
async fn a_database_that_does_not_fit_is_told() {
    let dir = OpenDirectory::new();
    let empty = empty_database().await;
    let report = json(&cli(&empty, &dir.join("data")).run(&["doctor", "--json"]).await.exits(0));
    assert_said(&report, "schema", "ok", "the first start fills it");
    let edited = TestDatabase::new().await;
    sqlx::query(r"UPDATE _sqlx_migrations SET checksum = '\x00' WHERE version = 2")
        .execute(edited.pool())
        .await
        .unwrap();
    let report = json(&cli(&edited, &dir.join("data")).run(&["doctor", "--json"]).await.exits(1));
    assert_said(&report, "schema", "problem", "migration 2 has been edited");
}
