//! Check-ins in our own words, and those of SDKs.

use std::time::Duration;

use bytes::Bytes;
use loom_core::{
    id::ProjectId,
    port::{CheckInSink, Delivery, Project, Taken},
};
use loom_testkit::{TestApp, User};
use serde_json::{Value, json};

use crate::support::{checkins, minutes, monitor, read, statuses, world};

const RUN: &str = "0189f0e2-6c2a-4b5e-8f9d-0d1f7c3b2a11";

#[tokio::test]
async fn a_run_is_told_in_two_steps_and_told_twice_it_is_one() {
    let (app, ada) = world().await;
    monitor(&ada, "backup", json!({})).await;
    let path = "/api/crons/monitors/backup/checkins";
    let begun = json!({"id": RUN, "status": "in_progress", "release": "1.2.0"});
    let first = ada.post(path, &begun).await.expect(201).json();
    let again = ada.post(path, &begun).await.expect(201).json();
    assert_eq!(first["id"], again["id"]);
    app.clock.advance(Duration::from_secs(5));
    let one = format!("/api/crons/checkins/{}", first["id"].as_str().unwrap());
    let end = json!({"status": "error", "exit_code": 3, "output": "disk full"});
    let ended = ada.patch(&one, &end).await.expect(200).json();
    assert_eq!((&ended["status"], &ended["duration_ms"]), (&json!("error"), &json!(5000)));
    assert_eq!((&ended["output"], &ended["release"]), (&json!("disk full"), &json!("1.2.0")));
    assert_eq!(ada.patch(&one, &json!({"status": "ok"})).await.expect(200).json(), ended);
    assert_eq!(ada.get(&one).await.expect(200).json()["exit_code"], 3);
    assert_eq!(checkins(&ada, "backup").await.len(), 1);
}

#[tokio::test]
async fn what_comes_late_is_placed_by_its_own_time_and_does_not_undo_what_is_newer() {
    let (app, ada) = world().await;
    monitor(&ada, "backup", json!({})).await;
    minutes(&app, 30).await;
    let path = "/api/crons/monitors/backup/checkins";
    ada.post(path, &json!({"status": "ok"})).await.expect(201);
    let old = json!({"status": "error", "at": "2027-01-15T08:10:00Z"});
    ada.post(path, &old).await.expect(201);
    assert_eq!(statuses(&ada, "backup").await, ["ok", "error"]);
    let monitor = read(&ada, "backup").await;
    assert_eq!(
        (&monitor["health"], &monitor["last_checkin"]["status"]),
        (&json!("healthy"), &json!("ok"))
    );
}

#[tokio::test]
async fn figures_are_of_what_ran() {
    let (app, ada) = world().await;
    monitor(&ada, "backup", json!({})).await;
    let path = "/api/crons/monitors/backup/checkins";
    for (status, ms) in [("ok", 1000), ("ok", 3000), ("error", 2000), ("ok", 10_000)] {
        minutes(&app, 1).await;
        ada.post(path, &json!({"status": status, "duration_ms": ms})).await.expect(201);
    }
    let stats = ada.get("/api/crons/monitors/backup/stats").await.expect(200).json();
    let figures = &stats["environments"][0];
    assert_eq!(figures["uptime_percent"], 75.0);
    assert_eq!(
        (&figures["p50_duration_ms"], &figures["max_duration_ms"]),
        (&json!(2500.0), &json!(10_000))
    );
    let days = ada.get("/api/crons/monitors/backup/calendar").await.expect(200).json();
    assert_eq!(days["days"].as_array().unwrap().len(), 1);
    assert_eq!(days["days"][0]["counts"]["ok"], 3);
    let overview = ada.get("/api/crons/overview").await.expect(200).json();
    assert_eq!(
        (&overview["monitors"], &overview["healthy"], &overview["checkins_24h"]),
        (&json!(1), &json!(1), &json!(4))
    );
    let sum = |name: &str| -> i64 {
        overview["hours"].as_array().unwrap().iter().map(|hour| hour[name].as_i64().unwrap()).sum()
    };
    assert_eq!((sum("ok"), sum("failed")), (3, 1));
    let badge = read(&ada, "backup").await["badge_url"].as_str().unwrap().to_owned();
    let badge = app.anonymous().get(&badge[badge.find("/api/").unwrap()..]).await.expect(200);
    assert_eq!(badge.header("content-type"), Some("image/svg+xml"));
    assert!(badge.text.contains("backup: up"), "{}", badge.text);
}

/// As ingest hands it over.
async fn item(app: &TestApp, ada: &User, payload: Value) -> Taken {
    let project = Project {
        id: ProjectId(uuid::Uuid::from_u128(7)),
        number: 7,
        org: ada.org,
        slug: "shop".into(),
        name: "Shop".into(),
        allowed_origins: vec!["*".into()],
    };
    // The row that it points to.
    sqlx::query(
        "INSERT INTO crash_projects (id, org_id, slug, name, short_prefix, created_at, updated_at)
         VALUES ($1, $2, 'shop', 'Shop', 'SHOP', now(), now()) ON CONFLICT DO NOTHING",
    )
    .bind(project.id.0)
    .bind(ada.org.0)
    .execute(app.database.pool())
    .await
    .unwrap();
    let now = app.clock.now();
    let delivery = Delivery {
        project: project.into(),
        key: None,
        received_at: now,
        sent_at: Some(now),
        client: None,
        user_agent: None,
        sdk: Some("sentry.python/2.1.0".into()),
    };
    let payload = Bytes::from(serde_json::to_vec(&payload).unwrap());
    app.running.features.crons.check_in(&delivery, payload).await.unwrap()
}

fn config() -> Value {
    json!({"schedule": {"type": "crontab", "value": "0 * * * *"}, "timezone": "Europe/Berlin",
           "checkin_margin": 5, "max_runtime": 10, "failure_issue_threshold": 2})
}

#[tokio::test]
async fn an_sdk_makes_its_monitor_and_changes_it_when_the_code_does() {
    let (app, ada) = world().await;
    let begun = json!({
        "check_in_id": RUN.replace('-', ""), "monitor_slug": "Nightly Backup", "status": "in_progress",
        "environment": "staging", "release": "1.0", "monitor_config": config(),
        "contexts": {"trace": {"trace_id": "0123456789abcdef0123456789abcdef"}},
        // As the SDK for Python adds them.
        "platform": "python", "event_id": "aa", "sdk": {"name": "sentry.python"},
    });
    assert_eq!(item(&app, &ada, begun).await, Taken::Stored);
    let made = read(&ada, "nightly-backup").await;
    assert_eq!((&made["made_by"], &made["timezone"]), (&json!("sdk"), &json!("Europe/Berlin")));
    assert_eq!(
        (&made["max_runtime_minutes"], &made["failure_threshold"]),
        (&json!(10.0), &json!(2))
    );
    assert_eq!(made["environments"][0]["name"], "staging");
    // The nil id is the newest that is in progress.
    app.clock.advance(Duration::from_secs(20));
    let end = json!({"check_in_id": "00000000000000000000000000000000", "monitor_slug": "nightly-backup",
                     "status": "ok", "environment": "staging"});
    assert_eq!(item(&app, &ada, end).await, Taken::Stored);
    let runs = checkins(&ada, "nightly-backup").await;
    assert_eq!(
        (runs.len(), &runs[0]["status"], &runs[0]["duration_ms"]),
        (1, &json!("ok"), &json!(20_000))
    );
    assert_eq!(runs[0]["trace_id"], "0123456789abcdef0123456789abcdef");
    let mut changed = config();
    changed["schedule"] = json!({"type": "interval", "value": 2, "unit": "hour"});
    let next = json!({"monitor_slug": "nightly-backup", "status": "ok", "duration": 1.5,
                      "environment": "staging", "monitor_config": changed});
    assert_eq!(item(&app, &ada, next).await, Taken::Stored);
    let schedule = &read(&ada, "nightly-backup").await["schedule"];
    assert_eq!(*schedule, json!({"type": "interval", "value": 2, "unit": "hour"}));
    assert_eq!(checkins(&ada, "nightly-backup").await[0]["duration_ms"], 1500);
}

#[tokio::test]
async fn an_sdk_does_not_change_a_monitor_that_somebody_else_made() {
    let (app, ada) = world().await;
    let by_api = monitor(&ada, "backup", json!({"checkin_margin_minutes": 7})).await;
    let mut often = config();
    often["schedule"]["value"] = json!("* * * * *");
    let report = json!({"monitor_slug": "backup", "status": "error", "monitor_config": often});
    // Its report counts all the same.
    assert_eq!(item(&app, &ada, report).await, Taken::Stored);
    let now = read(&ada, "backup").await;
    for field in ["schedule", "timezone", "checkin_margin_minutes", "project_id", "made_by"] {
        assert_eq!(now[field], by_api[field], "{field}");
    }
    assert_eq!(now["health"], "failing");
}

#[tokio::test]
async fn an_item_that_cannot_be_taken_is_rejected_with_the_reason() {
    let (app, ada) = world().await;
    let mut bad_zone = config();
    bad_zone["timezone"] = json!("Mars/Base");
    for (payload, reason) in [
        (json!({"monitor_slug": "unknown", "status": "ok"}), "no such monitor"),
        (json!({"monitor_slug": "a", "status": "done"}), "status"),
        (json!({"monitor_slug": "a", "status": "ok", "check_in_id": "x"}), "check_in_id"),
        (json!({"status": "ok"}), "monitor_slug"),
        (json!({"monitor_slug": "a", "status": "ok", "monitor_config": bad_zone}), "Mars/Base"),
    ] {
        match item(&app, &ada, payload.clone()).await {
            Taken::Rejected(why) => assert!(why.contains(reason), "{payload}: {why}"),
            Taken::Stored => panic!("{payload} was taken"),
        }
    }
}

#[tokio::test]
async fn sentry_cli_gets_its_list() {
    let (_app, ada) = world().await;
    for slug in ["backup", "restore"] {
        monitor(&ada, slug, json!({})).await;
    }
    let answer =
        ada.get(&format!("/api/0/organizations/{}/monitors/?cursor=", ada.org)).await.expect(200);
    assert_eq!(answer.json().as_array().unwrap().len(), 2);
    assert_eq!(answer.json()[0]["config"]["schedule"], "0 * * * *");
    assert!(answer.header("link").unwrap().contains("results=\"false\""));
}
