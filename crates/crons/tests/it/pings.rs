//! Healthchecks' documented calls, one by one.

use reqwest::Method;
use serde_json::json;

use crate::support::{checkins, monitor, ping, ping_path, statuses, world};

const RID: &str = "0189f0e2-6c2a-4b5e-8f9d-0d1f7c3b2a11";

#[tokio::test]
async fn every_method_pings_and_the_answer_is_in_the_surfaces_own_words() {
    let (app, ada) = world().await;
    let path = ping_path(&monitor(&ada, "backup", json!({})).await);
    let anybody = app.anonymous();
    for method in ["GET", "POST", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS"] {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let answer = anybody.send(anybody.request(method.clone(), &path)).await.expect(200);
        assert_eq!(answer.text, if method == Method::HEAD { "" } else { "OK" });
        assert_eq!(answer.header("ping-body-limit"), Some("10000"));
        assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
    }
    assert_eq!(checkins(&ada, "backup").await.len(), 7);
}

#[tokio::test]
async fn start_success_fail_log_and_exit_status_are_told_apart() {
    let (app, ada) = world().await;
    let path = ping_path(&monitor(&ada, "backup", json!({})).await);
    ping(&app, &format!("{path}/start")).await.expect(200);
    assert_eq!(statuses(&ada, "backup").await, ["in_progress"]);
    app.clock.advance(std::time::Duration::from_secs(90));
    ping(&app, &path).await.expect(200);
    let runs = checkins(&ada, "backup").await;
    assert_eq!(runs.len(), 1, "the end belongs to the start");
    assert_eq!((&runs[0]["status"], &runs[0]["duration_ms"]), (&json!("ok"), &json!(90_000)));
    for (action, status) in
        [("fail", "error"), ("log", "log"), ("0", "ok"), ("1", "error"), ("255", "error")]
    {
        app.clock.advance(std::time::Duration::from_secs(1));
        let answer = ping(&app, &format!("{path}/{action}")).await.expect(200);
        assert_eq!(answer.text, "OK");
        assert_eq!(checkins(&ada, "backup").await[0]["status"], status, "{action}");
    }
    assert_eq!(checkins(&ada, "backup").await[0]["exit_code"], 255);
}

#[tokio::test]
async fn concurrent_runs_are_told_apart_by_their_run_ids() {
    let (app, ada) = world().await;
    let path = ping_path(&monitor(&ada, "backup", json!({})).await);
    let other = "0189f0e2-6c2a-4b5e-8f9d-0d1f7c3b2a12";
    ping(&app, &format!("{path}/start?rid={RID}")).await.expect(200);
    app.clock.advance(std::time::Duration::from_secs(10));
    ping(&app, &format!("{path}/start?rid={other}")).await.expect(200);
    app.clock.advance(std::time::Duration::from_secs(10));
    ping(&app, &format!("{path}?rid={RID}")).await.expect(200);
    app.clock.advance(std::time::Duration::from_secs(10));
    ping(&app, &format!("{path}/7?rid={other}")).await.expect(200);
    let runs = checkins(&ada, "backup").await;
    let facts: Vec<_> =
        runs.iter().map(|r| (r["status"].clone(), r["duration_ms"].clone())).collect();
    assert_eq!(facts, [(json!("error"), json!(20_000)), (json!("ok"), json!(20_000))]);
    // Told again, nothing changes: neither the end nor the start.
    for action in ["", "/fail", "/start"] {
        ping(&app, &format!("{path}{action}?rid={RID}")).await.expect(200);
    }
    assert_eq!(checkins(&ada, "backup").await, runs);
}

#[tokio::test]
async fn an_end_that_overtakes_its_start_is_one_run_with_it() {
    let (app, ada) = world().await;
    let path = ping_path(&monitor(&ada, "backup", json!({})).await);
    let began = (app.clock.now() - chrono::TimeDelta::seconds(30)).timestamp();
    ping(&app, &format!("{path}?rid={RID}")).await.expect(200);
    ping(&app, &format!("{path}/start?rid={RID}&at={began}")).await.expect(200);
    let runs = checkins(&ada, "backup").await;
    assert_eq!(runs.len(), 1);
    assert_eq!((&runs[0]["status"], &runs[0]["duration_ms"]), (&json!("ok"), &json!(30_000)));
}

#[tokio::test]
async fn a_ping_key_reaches_every_monitor_by_its_slug_and_makes_it_when_asked() {
    let (app, ada) = world().await;
    monitor(&ada, "backup", json!({})).await;
    let made = ada.post("/api/crons/ping-keys", &json!({"name": "hosts"})).await.expect(201).json();
    let key = made["key"].as_str().unwrap();
    assert_eq!(ping(&app, &format!("/ping/{key}/backup")).await.expect(200).text, "OK");
    for action in ["/start", "/fail", "/log", "/3"] {
        ping(&app, &format!("/ping/{key}/backup{action}")).await.expect(200);
    }
    assert_eq!(ping(&app, &format!("/ping/{key}/restore")).await.expect(404).text, "not found");
    assert_eq!(ping(&app, &format!("/ping/{key}/restore?create=0")).await.status, 404);
    let created = ping(&app, &format!("/ping/{key}/restore?create=1")).await.expect(201);
    assert_eq!(created.text, "Created");
    assert_eq!(ping(&app, &format!("/ping/{key}/restore?create=1")).await.expect(200).text, "OK");
    let restore = crate::support::read(&ada, "restore").await;
    assert_eq!(restore["schedule"], json!({"type": "interval", "value": 1, "unit": "day"}));
    assert_eq!((&restore["made_by"], &restore["health"]), (&json!("ping"), &json!("healthy")));
    // Shown once, and ended at once.
    let keys = ada.get("/api/crons/ping-keys").await.expect(200);
    assert!(!keys.text.contains(key));
    let id = made["id"].as_str().unwrap();
    ada.delete(&format!("/api/crons/ping-keys/{id}")).await.expect(204);
    ping(&app, &format!("/ping/{key}/backup")).await.expect(404);
}

#[tokio::test]
async fn a_body_is_kept_to_the_limit_without_secrets_and_never_refused() {
    let (app, ada) = world().await;
    let path = ping_path(&monitor(&ada, "backup", json!({})).await);
    let anybody = app.anonymous();
    let secret = "ghp_0123456789abcdefABCDEF0123456789abcd";
    let body = format!("done, token {secret}\n{}", "x".repeat(10 << 20));
    let answer = anybody.send(anybody.request(Method::POST, &path).body(body)).await.expect(200);
    assert_eq!(answer.text, "OK");
    let id = checkins(&ada, "backup").await[0]["id"].as_str().unwrap().to_owned();
    let run = ada.get(&format!("/api/crons/checkins/{id}")).await.expect(200).json();
    let output = run["output"].as_str().unwrap();
    assert!(output.starts_with("done, token") && output.len() <= 10_000, "{}", output.len());
    assert!(!output.contains(secret));
    // Bytes that are no text, too.
    let request = anybody.request(Method::POST, &path).body(vec![0u8, 255, 254, b'a']);
    anybody.send(request).await.expect(200);
}

#[tokio::test]
async fn a_rotated_key_is_known_and_the_old_one_is_not() {
    let (app, ada) = world().await;
    let old = ping_path(&monitor(&ada, "backup", json!({})).await);
    ping(&app, &old).await.expect(200);
    let view = ada.post("/api/crons/monitors/backup/rotate-key", &json!({})).await.expect(200);
    let new = ping_path(&view.json());
    assert_eq!(ping(&app, &old).await.expect(404).text, "not found");
    ping(&app, &new).await.expect(200);
}

#[tokio::test]
async fn a_slash_at_the_end_changes_nothing() {
    let (app, ada) = world().await;
    let path = ping_path(&monitor(&ada, "backup", json!({})).await);
    let key = ada.post("/api/crons/ping-keys", &json!({"name": "fleet"})).await.expect(201).json();
    let by_slug = format!("/ping/{}/backup", key["key"].as_str().unwrap());
    for path in [&path, &by_slug] {
        for (action, status) in [("/", "ok"), ("/fail/", "error"), ("/3/", "error")] {
            app.clock.advance(std::time::Duration::from_secs(1));
            assert_eq!(ping(&app, &format!("{path}{action}")).await.expect(200).text, "OK");
            assert_eq!(checkins(&ada, "backup").await[0]["status"], status, "{action}");
        }
    }
}
