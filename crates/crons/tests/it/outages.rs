//! Our own outages: short ones, those of one server of several, and what was under way in them.

use std::time::Duration;

use loom_core::Clock;
use loom_testkit::{Setup, TestApp, User, chaos::TcpProxy, eventually};
use serde_json::json;

use crate::support::{checkins, minutes, monitor, ping, ping_path, read, statuses, sweep, world};

const RID: &str = "0189f0e2-6c2a-4b5e-8f9d-0d1f7c3b2a11";

/// The server is down for so long.
async fn down_for(app: TestApp, ada: &User, secs: u64) -> (TestApp, User) {
    let clock = app.clock.clone();
    let database = app.stop().await;
    clock.advance(Duration::from_secs(secs));
    let app = Setup::default().clock(clock).start_on(database).await;
    let caller = ada.caller.at(&app.running);
    let ada = User { id: ada.id, org: ada.org, email: ada.email.clone(), caller };
    (app, ada)
}

#[tokio::test]
async fn a_restart_of_a_minute_raises_no_false_alarm_and_is_shown() {
    let (app, ada) = world().await;
    let often = json!({"schedule": {"type": "crontab", "expression": "* * * * *"}, "checkin_margin_minutes": 1});
    let path = ping_path(&monitor(&ada, "often", often).await);
    for _ in 0..3 {
        minutes(&app, 1).await;
        ping(&app, &path).await.expect(200);
    }
    // The run of this minute finds nobody.
    let (app, ada) = Box::pin(down_for(app, &ada, 79)).await;
    sweep(&app).await;
    for _ in 0..4 {
        app.clock.advance(Duration::from_secs(41));
        ping(&app, &path).await.expect(200);
        app.clock.advance(Duration::from_secs(19));
        sweep(&app).await;
    }
    let runs = statuses(&ada, "often").await;
    assert!(runs.iter().all(|run| run == "ok" || run == "unknown: server_down"), "{runs:?}");
    assert_eq!(read(&ada, "often").await["health"], "healthy");
    assert!(app.rows("SELECT 1 FROM cron_incidents").await.is_empty());
    let stats = ada.get("/api/crons/monitors/often/stats").await.expect(200).json();
    let outage = &stats["outages"][0];
    assert_eq!(
        (&outage["from"], &outage["to"]),
        (&json!("2027-01-15T08:03:00.000Z"), &json!("2027-01-15T08:04:19.000Z"))
    );
    // And whoever does not come afterwards is missed as ever.
    minutes(&app, 3).await;
    assert_eq!(read(&ada, "often").await["health"], "missed");
}

#[tokio::test]
async fn as_long_as_one_server_stays_nothing_is_unknown() {
    let (app, ada) = world().await;
    let path = ping_path(&monitor(&ada, "backup", json!({})).await);
    ping(&app, &path).await.expect(200);
    for _ in 0..3 {
        let other = app.replica().await;
        minutes(&app, 1).await;
        assert_eq!(other.features.crons.sweep().await.unwrap(), 0);
        other.shut_down().await;
        minutes(&app, 1).await;
    }
    assert!(app.rows("SELECT 1 FROM cron_gaps").await.is_empty());
}

#[tokio::test]
async fn an_end_that_was_told_again_after_an_outage_is_not_too_late() {
    let (app, ada) = world().await;
    let path = ping_path(&monitor(&ada, "backup", json!({"max_runtime_minutes": 1})).await);
    ping(&app, &format!("{path}/start?rid={RID}")).await.expect(200);
    let (app, ada) = Box::pin(down_for(app, &ada, 90)).await;
    // Before anybody looks.
    ping(&app, &format!("{path}?rid={RID}")).await.expect(200);
    assert_eq!(statuses(&ada, "backup").await, ["ok"]);
    // Without an outage it would be.
    let other = "0189f0e2-6c2a-4b5e-8f9d-0d1f7c3b2a12";
    ping(&app, &format!("{path}/start?rid={other}")).await.expect(200);
    app.clock.advance(Duration::from_secs(90));
    ping(&app, &format!("{path}?rid={other}")).await.expect(200);
    assert_eq!(statuses(&ada, "backup").await, ["timeout: too_long", "ok"]);
}

#[tokio::test]
async fn a_server_says_by_itself_that_it_is_there() {
    let app = TestApp::start().await;
    let beats = async || app.rows("SELECT alive_at FROM cron_presence").await.first().cloned();
    let first = eventually(beats).await;
    eventually(async || beats().await.filter(|now| *now != first)).await;
    assert!(app.rows("SELECT 1 FROM cron_gaps").await.is_empty());
    // As after a while in which none was.
    sqlx::query("UPDATE cron_presence SET alive_at = alive_at - interval '30 s'")
        .execute(app.database.pool())
        .await
        .unwrap();
    eventually(async || app.rows("SELECT 1 FROM cron_gaps").await.first().cloned()).await;
}

/// Reports through a connection that is cut between the commit and the word of it.
async fn cut_at_commit(app: &TestApp, proxy: &TcpProxy, path: &str, committed: &'static str) {
    proxy.delay(Duration::from_millis(300));
    let pinging = app.anonymous();
    let path = path.to_owned();
    let ping = tokio::spawn(async move { pinging.get(&path).await });
    eventually(async || app.rows(committed).await.first().cloned()).await;
    proxy.cut();
    proxy.delay(Duration::ZERO);
    assert_eq!(ping.await.unwrap().expect(200).text, "OK");
}

#[tokio::test]
async fn a_failure_whose_commit_was_not_heard_counts_once() {
    let database = loom_testkit::TestDatabase::new().await;
    let (proxy, url) = database.proxied().await;
    let clock = Clock::manual("2027-01-15T08:00:00Z".parse().unwrap());
    let app = Setup::default().clock(clock).set("DATABASE_URL", url).start_on(database).await;
    let ada = app.user("ada@example.com").await;
    sweep(&app).await;
    let path = ping_path(&monitor(&ada, "backup", json!({"failure_threshold": 2})).await);
    // The monitor is known by now.
    ping(&app, &format!("{path}/log")).await.expect(200);
    let fail = format!("{path}/fail");
    cut_at_commit(&app, &proxy, &fail, "SELECT 1 FROM cron_checkins WHERE status = 'error'").await;
    let backup = read(&ada, "backup").await;
    assert_eq!(backup["environments"][0]["consecutive_failures"], 1);
    assert!(app.rows("SELECT 1 FROM cron_incidents").await.is_empty());
    // An end that belongs to a start which had no id is not a further run.
    app.clock.advance(Duration::from_secs(5));
    ping(&app, &format!("{path}/start")).await.expect(200);
    app.clock.advance(Duration::from_secs(5));
    cut_at_commit(&app, &proxy, &path, "SELECT 1 FROM cron_checkins WHERE status = 'ok'").await;
    let ended = checkins(&ada, "backup").await;
    assert_eq!(ended.iter().filter(|run| run["status"] == "ok").count(), 1, "{ended:?}");
    assert_eq!(ended.iter().find(|run| run["status"] == "ok").unwrap()["duration_ms"], 5000);
}
