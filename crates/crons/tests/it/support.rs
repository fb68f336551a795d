//! What the tests share: a monitor, a ping, minutes that pass.

use std::time::Duration;

use loom_testkit::{Answer, Setup, TestApp, User};
use serde_json::{Value, json};

/// A server whose clock stands at 2027-01-15T08:00:00Z until the test moves it, and somebody there.
pub(crate) async fn world() -> (TestApp, User) {
    world_of(Setup::default()).await
}

pub(crate) async fn world_of(setup: Setup) -> (TestApp, User) {
    let app = setup.manual_clock().start().await;
    let ada = app.user("ada@example.com").await;
    // The first look, from which gaps are counted.
    sweep(&app).await;
    (app, ada)
}

pub(crate) async fn sweep(app: &TestApp) {
    let jobs = &app.running.features.jobs;
    for job in ["cron-missed", "cron-timeout"] {
        let outcome = jobs.run_now(job).await.unwrap();
        assert_eq!(outcome.error, None, "{job}");
    }
}

/// Minutes pass, and the server looks after the monitors in each.
pub(crate) async fn minutes(app: &TestApp, count: u32) {
    for _ in 0..count {
        app.clock.advance(Duration::from_secs(60));
        sweep(app).await;
    }
}

/// Hourly, with a margin of five minutes, unless `more` says otherwise.
pub(crate) async fn monitor(ada: &User, slug: &str, more: Value) -> Value {
    let mut body = json!({
        "slug": slug, "schedule": {"type": "crontab", "expression": "0 * * * *"}, "timezone": "UTC",
    });
    for (name, value) in more.as_object().unwrap() {
        body[name] = value.clone();
    }
    ada.post("/api/crons/monitors", &body).await.expect(201).json()
}

/// The path of a monitor's ping URL.
pub(crate) fn ping_path(monitor: &Value) -> String {
    let url = monitor["ping_url"].as_str().unwrap();
    url[url.find("/ping/").unwrap()..].to_owned()
}

pub(crate) async fn read(ada: &User, slug: &str) -> Value {
    ada.get(&format!("/api/crons/monitors/{slug}")).await.expect(200).json()
}

pub(crate) async fn checkins(ada: &User, slug: &str) -> Vec<Value> {
    let answer = ada.get(&format!("/api/crons/monitors/{slug}/checkins")).await.expect(200);
    answer.json()["checkins"].as_array().unwrap().clone()
}

/// Status and reason of each, the newest first.
pub(crate) async fn statuses(ada: &User, slug: &str) -> Vec<String> {
    checkins(ada, slug)
        .await
        .iter()
        .map(|one| {
            let status = one["status"].as_str().unwrap();
            one["reason"]
                .as_str()
                .map_or_else(|| status.to_owned(), |why| format!("{status}: {why}"))
        })
        .collect()
}

pub(crate) async fn ping(app: &TestApp, path: &str) -> Answer {
    app.anonymous().get(path).await
}
