//! `loom-server cron exec`: a command between two check-ins.

use std::{os::unix::process::ExitStatusExt as _, path::Path, process::Stdio};

use loom_testkit::{TestApp, eventually};
use serde_json::{Value, json};
use tokio::process::Command;

fn exec(url: &str, queue: &Path, command: &[&str]) -> Command {
    let mut exec = Command::new(env!("CARGO_BIN_EXE_loom-server"));
    exec.args(["cron", "exec", "--queue"]).arg(queue).arg(url).arg("--").args(command);
    exec.stdin(Stdio::null());
    exec
}

async fn world() -> (TestApp, loom_testkit::User, String, tempfile::TempDir) {
    let app = TestApp::start().await;
    let ada = app.user("ada@example.com").await;
    let monitor =
        json!({"slug": "backup", "schedule": {"type": "crontab", "expression": "@yearly"}});
    let made = ada.post("/api/crons/monitors", &monitor).await.expect(201).json();
    let url = made["ping_url"].as_str().unwrap().to_owned();
    (app, ada, url, tempfile::tempdir().unwrap())
}

async fn runs(ada: &loom_testkit::User) -> Vec<Value> {
    let answer = ada.get("/api/crons/monitors/backup/checkins").await.expect(200);
    answer.json()["checkins"].as_array().unwrap().clone()
}

#[tokio::test]
async fn a_command_runs_between_its_check_ins_and_its_status_is_ours() {
    let (_app, ada, url, queue) = world().await;
    for (script, code, status) in [("exit 0", 0, "ok"), ("exit 3", 3, "error")] {
        let ended = exec(&url, queue.path(), &["sh", "-c", script]).status().await.unwrap();
        assert_eq!(ended.code(), Some(code));
        let run = &runs(&ada).await[0];
        assert_eq!((&run["status"], &run["exit_code"]), (&json!(status), &json!(code)));
        assert!(run["started_at"].is_string() && run["duration_ms"].is_i64(), "{run}");
    }
    assert_eq!(runs(&ada).await.len(), 2);
    let missing = exec(&url, queue.path(), &["/no/such/command"]).status().await.unwrap();
    assert_eq!(missing.code(), Some(127));
    assert_eq!(runs(&ada).await[0]["exit_code"], 127);
}

#[tokio::test]
async fn a_signal_reaches_the_command() {
    let (_app, ada, url, queue) = world().await;
    let script = "trap 'exit 7' TERM; while :; do sleep 0.05; done";
    let mut child = exec(&url, queue.path(), &["sh", "-c", script]).spawn().unwrap();
    eventually(async || runs(&ada).await.first().cloned()).await;
    let id = nix::unistd::Pid::from_raw(child.id().unwrap() as i32);
    nix::sys::signal::kill(id, nix::sys::signal::Signal::SIGTERM).unwrap();
    let ended = child.wait().await.unwrap();
    assert_eq!((ended.code(), ended.signal()), (Some(7), None));
    assert_eq!(runs(&ada).await[0]["exit_code"], 7);
}

#[tokio::test]
async fn what_cannot_be_sent_is_kept_and_sent_with_the_next_run() {
    let (_app, ada, url, queue) = world().await;
    // The same key, where nobody listens.
    let nowhere = format!("http://127.0.0.1:9{}", &url[url.find("/ping/").unwrap()..]);
    let ended = exec(&nowhere, queue.path(), &["sh", "-c", "exit 4"]).status().await.unwrap();
    assert_eq!(ended.code(), Some(4));
    let kept: Vec<_> =
        std::fs::read_dir(queue.path()).unwrap().map(|e| e.unwrap().path()).collect();
    assert_eq!(kept.len(), 2);
    // The server has come to where it should be.
    for file in &kept {
        let text = std::fs::read_to_string(file).unwrap();
        let there = &url[..url.find("/ping/").unwrap()];
        std::fs::write(file, text.replace("http://127.0.0.1:9", there)).unwrap();
    }
    exec(&url, queue.path(), &["true"]).status().await.unwrap();
    let runs = runs(&ada).await;
    assert_eq!(runs.len(), 2);
    let late = runs.iter().find(|run| run["exit_code"] == 4).unwrap();
    assert_eq!(late["status"], "error");
    assert!(late["started_at"].is_string(), "{late}");
    assert_eq!(std::fs::read_dir(queue.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn what_waits_for_a_server_that_is_gone_does_not_keep_back_the_rest() {
    let (_app, ada, url, queue) = world().await;
    let dead = "http://127.0.0.1:9/ping/0189f0e2-6c2a-4b5e-8f9d-0d1f7c3b2a11/1?at=1";
    for n in 0..150 {
        std::fs::write(queue.path().join(format!("{n:015}-a-1.url")), dead).unwrap();
    }
    let at = loom_core::Clock::system().now().timestamp() - 60;
    let waits = format!("{url}/5?rid=0189f0e2-6c2a-4b5e-8f9d-0d1f7c3b2a12&at={at}");
    std::fs::write(queue.path().join("000000000000999-b-5.url"), waits).unwrap();
    exec(&url, queue.path(), &["true"]).status().await.unwrap();
    assert!(runs(&ada).await.iter().any(|run| run["exit_code"] == 5));
    assert_eq!(std::fs::read_dir(queue.path()).unwrap().count(), 150);
}
