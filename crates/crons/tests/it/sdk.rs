//! The cron helpers of the vendors' SDKs, as they are, and curl: what they tell makes monitors and runs.

use std::path::Path;

use loom_testkit::{
    TestApp, User, eventually,
    sdk::{node, python},
};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::support::{checkins, monitor, read, statuses};

pub(crate) async fn run(command: &mut Command) -> String {
    let output = command
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sdk"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("NO_PROXY", "*")
        .env_remove("NODE_OPTIONS")
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}\n{told}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

/// A server by the machine's clock, and a project with its DSN.
pub(crate) async fn shop() -> (TestApp, User, Value) {
    let app = TestApp::start().await;
    let ada = app.user("ada@example.com").await;
    let shop = ada.post("/api/crash/projects", &json!({"name": "Shop"})).await.expect(201).json();
    (app, ada, shop)
}

/// The runs of a monitor once there are so many that have ended.
pub(crate) async fn ended(ada: &User, slug: &str, count: usize) -> Vec<Value> {
    eventually(async || {
        if ada.get(&format!("/api/crons/monitors/{slug}")).await.status != 200 {
            return None;
        }
        let runs = checkins(ada, slug).await;
        let over = runs.iter().filter(|run| run["status"] != "in_progress").count();
        (over == count && runs.len() == count).then_some(runs)
    })
    .await
}

fn assert_config(monitor: &Value, project: &Value) {
    let expected = json!({
        "schedule": {"type": "crontab", "expression": "30 2 * * *"}, "timezone": "Europe/Berlin",
        "checkin_margin_minutes": 10.0, "max_runtime_minutes": 60.0, "failure_threshold": 2,
        "recovery_threshold": 3, "made_by": "sdk", "project_id": project["id"],
    });
    for (name, value) in expected.as_object().unwrap() {
        assert_eq!(&monitor[name], value, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pythons_monitor_makes_monitors_and_tells_of_runs_that_end_well_and_badly() {
    let (_app, ada, shop) = shop().await;
    let dsn = shop["dsn"].as_str().unwrap();
    let trace = run(Command::new(python()).args(["-W", "ignore", "nightly.py", dsn])).await;
    for (slug, status) in
        [("decorated", "ok"), ("asynchronous", "ok"), ("block", "ok"), ("failing", "error")]
    {
        let runs = ended(&ada, slug, 1).await;
        let one = &runs[0];
        assert_eq!((&one["status"], &one["source"]), (&json!(status), &json!("sdk")), "{slug}");
        assert_eq!(one["release"], "shop@1.2.3", "{slug}");
        assert!(one["duration_ms"].is_i64() && one["started_at"].is_string(), "{one}");
    }
    assert_config(&read(&ada, "decorated").await, &shop);
    assert_eq!(
        read(&ada, "block").await["schedule"],
        json!({"type": "interval", "value": 2, "unit": "hour"})
    );
    assert_eq!(checkins(&ada, "block").await[0]["trace_id"], trace.trim());
    // The error of the same run is found from it.
    let failed = checkins(&ada, "failing").await[0]["id"].as_str().unwrap().to_owned();
    assert!(checkins(&ada, "failing").await[0]["trace_id"].is_string());
    let linked = eventually(async || {
        let run = ada.get(&format!("/api/crons/checkins/{failed}")).await.expect(200).json();
        run["events"].as_array().is_some_and(|events| !events.is_empty()).then_some(run)
    })
    .await;
    assert_eq!(linked["events"].as_array().unwrap().len(), 1, "{linked}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_monitor_and_its_instrumentation_of_schedulers_tell_of_runs() {
    let (_app, ada, shop) = shop().await;
    let folder = node();
    let dsn = shop["dsn"].as_str().unwrap();
    let mut command = Command::new(folder.join("node"));
    run(command.args(["nightly.mjs", dsn]).env("LOOM_NODE_SDKS", &folder)).await;
    for (slug, status) in [
        ("simple", "ok"),
        ("asynchronous", "ok"),
        ("failing", "error"),
        ("node-cron", "ok"),
        ("node-schedule", "ok"),
        ("cron", "ok"),
    ] {
        ended(&ada, slug, 1).await;
        assert_eq!(statuses(&ada, slug).await, [status], "{slug}");
    }
    assert_config(&read(&ada, "simple").await, &shop);
    let by_name = read(&ada, "node-cron").await;
    assert_eq!(by_name["schedule"]["expression"], "15 3 * 1 1");
    assert_eq!(by_name["timezone"], "Europe/Berlin");
    assert_eq!(read(&ada, "cron").await["timezone"], "Europe/London");
}

#[tokio::test(flavor = "multi_thread")]
async fn curl_pings_as_the_guide_says() {
    let (_app, ada, _) = shop().await;
    let made = monitor(&ada, "backup", json!({})).await;
    let url = made["ping_url"].as_str().unwrap();
    let script = r#"set -e
        curl -fsS --retry 5 --retry-connrefused "$PING_URL/start"
        set +e
        sh -c 'exit 3' > log 2>&1
        curl -fsS --retry 5 --retry-connrefused --data-binary 'disk full' "$PING_URL/$?""#;
    let folder = tempfile::tempdir().unwrap();
    let mut shell = Command::new("sh");
    let output = shell
        .args(["-c", script])
        .env("PING_URL", url)
        .env("NO_PROXY", "*")
        .current_dir(&folder)
        .output()
        .await
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "OKOK", "{output:?}");
    let runs = checkins(&ada, "backup").await;
    assert_eq!((runs.len(), &runs[0]["exit_code"]), (1, &json!(3)));
    let id = runs[0]["id"].as_str().unwrap();
    let run = ada.get(&format!("/api/crons/checkins/{id}")).await.expect(200).json();
    assert_eq!(run["output"], "disk full");
}
