//! A little of everything that a server keeps, and whether it is still there afterwards.

use std::path::Path;

use loom_testkit::{
    TestApp,
    app::{Caller, UPSTREAM_KEY},
    eventually,
};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::process::Command;

use crate::cli::Cli;

pub(crate) const THREAD: &str = "T-0198a5a0-0000-7000-8000-00000000000a";
pub(crate) const EVENT: &str = "9ec79c33ec9942ab8353589fcb2e04dc";
pub(crate) const EMAIL: &str = "ada@example.com";

/// Larger than what lies in the database.
fn attachment() -> String {
    "0123456789".repeat(20_000)
}

/// A user with a key, a thread, an event with an attachment, a monitor, a stored key of a provider, and with
/// `folder` a repository with a commit. Returns the key.
pub(crate) async fn make(app: &TestApp, cli: &Cli, folder: Option<&Path>) -> String {
    let key = cli.run(&["admin", "create", EMAIL]).await.exits(0).out.trim().to_owned();
    let ada = app.anonymous().with_key(&key);
    let thread = json!({"title": "Kept", "messages": [{"role": "user", "content": "Remember me"}]});
    ada.put(&format!("/api/threads/{THREAD}"), &thread).await.expect(201);
    let project = json!({"name": "Shop", "slug": "shop", "platform": "python"});
    let project = ada.post("/api/crash/projects", &project).await.expect(201).json();
    send_event(&ada, &project).await;
    let monitor = json!({"name": "Nightly", "slug": "nightly", "schedule": {"type": "crontab", "expression": "0 3 * * *"}});
    ada.post("/api/crons/monitors", &monitor).await.expect(201);
    let credential = json!({"name": "kept", "secret": UPSTREAM_KEY});
    let path = "/api/admin/llm/providers/openai/credentials";
    ada.post(path, &credential).await.expect(201);
    if let Some(folder) = folder {
        ada.post("/api/repos", &json!({"name": "engine"})).await.expect(201);
        let url = clone_url(&ada).await;
        git(folder, &["clone", "-q", &url, "work"]).await;
        let work = folder.join("work");
        git(&work, &["checkout", "-q", "-B", "fix#12"]).await;
        std::fs::write(work.join("a.txt"), "one").unwrap();
        git(&work, &["add", "."]).await;
        git(&work, &["commit", "-q", "-m", "Kept"]).await;
        git(&work, &["push", "-q", "origin", "HEAD"]).await;
    }
    key
}

async fn send_event(ada: &Caller, project: &Value) {
    let dsn = project["dsn"].as_str().unwrap();
    let key = dsn.split("://").nth(1).unwrap().split('@').next().unwrap();
    let number = dsn.rsplit('/').next().unwrap();
    let large = attachment();
    let event = json!({"event_id": EVENT, "message": "It broke"});
    let head = json!({"type": "attachment", "filename": "large.log", "length": large.len()});
    let body =
        format!("{{\"event_id\":\"{EVENT}\"}}\n{{\"type\":\"event\"}}\n{event}\n{head}\n{large}\n");
    let path = format!("/api/{number}/envelope/?sentry_key={key}");
    let request = ada.request(Method::POST, &path).body(body);
    ada.send(request.header("content-type", "application/x-sentry-envelope")).await.expect(200);
    let path = format!("/api/crash/projects/shop/events/{EVENT}");
    eventually(async || (ada.get(&path).await.status == 200).then_some(())).await;
}

/// What is in the database.
pub(crate) async fn check_rows(caller: &Caller) {
    let me = caller.get("/auth/me").await.expect(200).json();
    assert_eq!(me["user"]["email"], EMAIL);
    let thread = caller.get(&format!("/api/threads/{THREAD}")).await.expect(200).json();
    assert_eq!(thread["title"], "Kept");
    assert!(thread["messages"].to_string().contains("Remember me"), "{thread}");
    let path = format!("/api/crash/projects/shop/events/{EVENT}");
    let event = caller.get(&path).await.expect(200).json();
    assert!(event.to_string().contains("It broke"), "{event}");
    let monitors = caller.get("/api/crons/monitors").await.expect(200).json();
    assert!(monitors.to_string().contains("Nightly"), "{monitors}");
    // And it takes more.
    let new = loom_core::id::new_uuid(loom_core::Clock::system().now());
    let more = json!({"title": "New", "messages": []});
    caller.put(&format!("/api/threads/T-{new}"), &more).await.expect(201);
}

/// What lies in files.
pub(crate) async fn check_files(caller: &Caller, folder: &Path) {
    let path = format!("/api/crash/projects/shop/events/{EVENT}/attachments");
    let list = caller.get(&path).await.expect(200).json();
    let id = list["attachments"][0]["id"].as_str().unwrap().to_owned();
    assert_eq!(caller.get(&format!("{path}/{id}")).await.expect(200).text, attachment());
    let url = clone_url(caller).await;
    git(folder, &["clone", "-q", "-b", "fix#12", &url, "again"]).await;
    assert_eq!(std::fs::read_to_string(folder.join("again/a.txt")).unwrap(), "one");
}

/// The stored key opens: the provider takes it.
pub(crate) async fn check_secret(cli: &Cli) {
    let done = cli.run(&["llm", "credential", "test", "openai"]).await.exits(0);
    assert!(done.out.starts_with("ok") && done.out.contains("kept"), "{done:?}");
}

async fn clone_url(caller: &Caller) -> String {
    let repos = caller.get("/api/repos").await.expect(200).json();
    let org = repos["repositories"][0]["org_id"].as_str().unwrap().to_owned();
    let host = caller.url.replace("http://", "");
    format!("http://git:{}@{host}/git/{org}/engine", caller.key.as_ref().unwrap())
}

async fn git(dir: &Path, arguments: &[&str]) {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let done = Command::new("git")
        .current_dir(dir)
        .args(arguments)
        .env_clear()
        .env("PATH", path)
        .envs([
            ("HOME", "/nonexistent"),
            ("GIT_CONFIG_NOSYSTEM", "1"),
            ("GIT_CONFIG_GLOBAL", "/dev/null"),
            ("GIT_TERMINAL_PROMPT", "0"),
            ("GIT_AUTHOR_NAME", "Ada"),
            ("GIT_AUTHOR_EMAIL", EMAIL),
            ("GIT_COMMITTER_NAME", "Ada"),
            ("GIT_COMMITTER_EMAIL", EMAIL),
        ])
        .output()
        .await
        .unwrap();
    assert!(done.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
}
