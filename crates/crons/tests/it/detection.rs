//! Runs that did not come, in time and never falsely.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{checkins, minutes, monitor, ping, ping_path, read, statuses, sweep, world};

const RID: &str = "0189f0e2-6c2a-4b5e-8f9d-0d1f7c3b2a11";

#[tokio::test]
async fn a_missed_run_is_found_in_the_minute_after_its_margin_and_dated_when_it_was_expected() {
    let (app, ada) = world().await;
    let path = ping_path(&monitor(&ada, "backup", json!({})).await);
    // Expected at 09:00, with five minutes to spare.
    minutes(&app, 60).await;
    assert_eq!(read(&ada, "backup").await["health"], "unknown");
    minutes(&app, 4).await;
    assert_eq!(read(&ada, "backup").await["health"], "late");
    for (health, found) in [("late", 1), ("unknown", 0)] {
        let page =
            ada.get(&format!("/api/crons/monitors?health={health}")).await.expect(200).json();
        assert_eq!(page["monitors"].as_array().unwrap().len(), found, "{health}");
    }
    let all = ada.get("/api/crons/overview").await.expect(200).json();
    assert_eq!((&all["late"], &all["healthy"], &all["unknown"]), (&json!(1), &json!(0), &json!(0)));
    assert!(checkins(&ada, "backup").await.is_empty());
    minutes(&app, 2).await;
    let monitor = read(&ada, "backup").await;
    assert_eq!(monitor["health"], "missed");
    assert_eq!(monitor["next_expected_at"], "2027-01-15T10:00:00.000Z");
    let runs = checkins(&ada, "backup").await;
    assert_eq!(runs.len(), 1);
    assert_eq!(runs[0]["at"], "2027-01-15T09:00:00.000Z");
    assert_eq!((&runs[0]["status"], &runs[0]["source"]), (&json!("missed"), &json!("system")));
    // The next is on time, and one that is a little early is that one.
    minutes(&app, 53).await;
    app.clock.advance(Duration::from_secs(45));
    ping(&app, &path).await.expect(200);
    app.clock.advance(Duration::from_secs(15));
    minutes(&app, 30).await;
    let monitor = read(&ada, "backup").await;
    assert_eq!(
        (&monitor["health"], &monitor["next_expected_at"]),
        (&json!("healthy"), &json!("2027-01-15T11:00:00.000Z"))
    );
}

#[tokio::test]
async fn a_run_past_its_time_is_a_timeout_and_a_late_end_is_told_apart_from_none() {
    let (app, ada) = world().await;
    let path = ping_path(&monitor(&ada, "backup", json!({"max_runtime_minutes": 10})).await);
    ping(&app, &format!("{path}/start?rid={RID}")).await.expect(200);
    minutes(&app, 10).await;
    assert_eq!(statuses(&ada, "backup").await, ["in_progress"]);
    minutes(&app, 1).await;
    assert_eq!(statuses(&ada, "backup").await, ["timeout: no_sign"]);
    assert_eq!(read(&ada, "backup").await["health"], "timeout");
    minutes(&app, 4).await;
    ping(&app, &format!("{path}?rid={RID}")).await.expect(200);
    let run = &checkins(&ada, "backup").await[0];
    assert_eq!(
        (&run["status"], &run["late"], &run["duration_ms"]),
        (&json!("timeout"), &json!(true), &json!(900_000))
    );
}

#[tokio::test]
async fn a_sign_of_life_gives_a_run_its_whole_time_anew() {
    let (app, ada) = world().await;
    let path = ping_path(&monitor(&ada, "backup", json!({"max_runtime_minutes": 10})).await);
    for _ in 0..4 {
        ping(&app, &format!("{path}/start?rid={RID}")).await.expect(200);
        minutes(&app, 9).await;
    }
    assert_eq!(statuses(&ada, "backup").await, ["in_progress"]);
    ping(&app, &format!("{path}?rid={RID}")).await.expect(200);
    assert_eq!(statuses(&ada, "backup").await, ["ok"]);
    assert_eq!(checkins(&ada, "backup").await[0]["duration_ms"], 36 * 60_000);
}

#[tokio::test]
async fn a_run_that_succeeds_too_fast_has_failed() {
    let (app, ada) = world().await;
    let path = ping_path(&monitor(&ada, "backup", json!({"min_runtime_minutes": 2})).await);
    ping(&app, &format!("{path}/start")).await.expect(200);
    minutes(&app, 1).await;
    ping(&app, &path).await.expect(200);
    assert_eq!(statuses(&ada, "backup").await, ["error: too_short"]);
    assert_eq!(read(&ada, "backup").await["health"], "failing");
}

#[tokio::test]
async fn nothing_alarms_after_this_server_was_down_and_the_outage_is_shown_as_unknown() {
    let (app, ada) = world().await;
    let every_ten = json!({"schedule": {"type": "crontab", "expression": "*/10 * * * *"}, "max_runtime_minutes": 5});
    let path = ping_path(&monitor(&ada, "backup", every_ten).await);
    minutes(&app, 10).await;
    // One run begins right before the lights go out; its end, and four more runs, reach nobody.
    ping(&app, &format!("{path}/start?rid={RID}")).await.expect(200);
    app.clock.advance(Duration::from_secs(47 * 60));
    sweep(&app).await;
    minutes(&app, 4).await;
    // The run at 09:00 is on time again.
    ping(&app, &path).await.expect(200);
    minutes(&app, 8).await;
    let runs = statuses(&ada, "backup").await;
    assert!(runs.iter().all(|run| run == "ok" || run == "unknown: server_down"), "{runs:?}");
    let monitor = read(&ada, "backup").await;
    assert_eq!(
        (&monitor["health"], &monitor["environments"][0]["incident_id"]),
        (&json!("healthy"), &Value::Null)
    );
    let stats = ada.get("/api/crons/monitors/backup/stats?period=day").await.expect(200).json();
    assert_eq!(stats["outages"].as_array().unwrap().len(), 1);
    assert_eq!(stats["environments"][0]["uptime_percent"], 100.0);
    assert!(stats["environments"][0]["counts"]["unknown"].as_i64().unwrap() >= 1);
    // And a run that then does not come is missed as ever.
    minutes(&app, 20).await;
    assert_eq!(read(&ada, "backup").await["health"], "missed");
}

#[tokio::test]
async fn a_report_that_comes_late_of_a_run_in_time_takes_the_missed_one_away() {
    let (app, ada) = world().await;
    let path = ping_path(&monitor(&ada, "backup", json!({})).await);
    minutes(&app, 70).await;
    assert_eq!(statuses(&ada, "backup").await, ["missed: not_started"]);
    // It ran at 09:01, and had no network.
    let path = format!("{path}?at=2027-01-15T09:01:00Z&duration_ms=20000");
    ping(&app, &path).await.expect(200);
    assert_eq!(statuses(&ada, "backup").await, ["ok"]);
    assert_eq!(read(&ada, "backup").await["health"], "healthy");
}

#[tokio::test]
async fn nothing_is_expected_of_a_monitor_that_is_paused() {
    let (app, ada) = world().await;
    let path = ping_path(&monitor(&ada, "backup", json!({})).await);
    ada.post("/api/crons/monitors/backup/pause", &json!({})).await.expect(200);
    minutes(&app, 70).await;
    ping(&app, &format!("{path}/fail")).await.expect(200);
    let paused = read(&ada, "backup").await;
    assert_eq!((&paused["status"], &paused["health"]), (&json!("paused"), &json!("unknown")));
    ada.post("/api/crons/monitors/backup/resume", &json!({})).await.expect(200);
    let resumed = read(&ada, "backup").await;
    assert_eq!(resumed["next_expected_at"], "2027-01-15T10:00:00.000Z");
    assert_eq!(statuses(&ada, "backup").await, ["error"]);
}

#[tokio::test]
async fn each_environment_is_judged_by_itself() {
    let (app, ada) = world().await;
    let both = json!({"environments": ["production", "staging"]});
    let path = ping_path(&monitor(&ada, "backup", both).await);
    minutes(&app, 61).await;
    ping(&app, &format!("{path}?env=staging")).await.expect(200);
    minutes(&app, 10).await;
    let monitor = read(&ada, "backup").await;
    let health: Vec<_> = monitor["environments"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| (&e["name"], &e["health"]))
        .collect();
    assert_eq!(
        health,
        [(&json!("production"), &json!("missed")), (&json!("staging"), &json!("healthy"))]
    );
    assert_eq!(monitor["health"], "missed");
}

#[tokio::test]
async fn a_run_that_hangs_is_told_of_though_another_ends_before_anybody_looks() {
    let (app, ada) = world().await;
    let path = ping_path(&monitor(&ada, "backup", json!({"max_runtime_minutes": 10})).await);
    ping(&app, &format!("{path}/start?rid={RID}")).await.expect(200);
    minutes(&app, 10).await;
    app.clock.advance(Duration::from_secs(30));
    // A second run, after the deadline of the first.
    ping(&app, &path).await.expect(200);
    app.clock.advance(Duration::from_secs(30));
    sweep(&app).await;
    assert!(statuses(&ada, "backup").await.contains(&"timeout: no_sign".to_owned()));
    let monitor = read(&ada, "backup").await;
    assert_eq!(monitor["health"], "timeout");
    assert!(monitor["environments"][0]["incident_id"].is_string());
}
