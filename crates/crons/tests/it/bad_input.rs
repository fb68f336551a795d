//! What nobody should send, and somebody does.

use serde_json::json;

use crate::support::{monitor, ping, ping_path, read, world};

#[tokio::test]
async fn a_ping_that_is_not_one_is_refused_in_the_surfaces_words() {
    let (app, ada) = world().await;
    let path = ping_path(&monitor(&ada, "backup", json!({})).await);
    let made = ada.post("/api/crons/ping-keys", &json!({"name": "hosts"})).await.expect(201).json();
    let key = made["key"].as_str().unwrap();
    let long_ago = (app.clock.now() - chrono::TimeDelta::days(400)).timestamp();
    for (path, status, text) in [
        (format!("{path}/256"), 400, "invalid url format"),
        (format!("{path}/-1"), 400, "invalid url format"),
        (format!("{path}/stop"), 400, "invalid url format"),
        (format!("{path}?rid=nonsense"), 400, "invalid uuid format"),
        (format!("{path}?at=2099-01-01T00:00:00Z"), 400, "invalid time"),
        (format!("{path}?at={long_ago}"), 400, "invalid time"),
        (format!("{path}?at=yesterday"), 400, "invalid time"),
        (format!("/ping/{key}/Backup"), 400, "invalid url format"),
        (format!("/ping/{key}/start?create=1"), 400, "invalid url format"),
        (format!("/ping/{key}/unknown"), 404, "not found"),
        ("/ping/00000000-0000-4000-8000-000000000000".to_owned(), 404, "not found"),
        ("/ping/nonsense".to_owned(), 404, "not found"),
        ("/ping/nonsense/backup".to_owned(), 404, "not found"),
    ] {
        let answer = ping(&app, &path).await;
        assert_eq!((answer.status.as_u16(), answer.text.as_str()), (status, text), "{path}");
    }
    assert!(crate::support::checkins(&ada, "backup").await.is_empty());
}

#[tokio::test]
async fn a_monitor_that_cannot_be_watched_is_refused_with_the_reason() {
    let (_app, ada) = world().await;
    let cron = |expression: &str| json!({"type": "crontab", "expression": expression});
    for (more, field) in [
        (json!({"slug": "start"}), "slug"),
        (json!({"slug": "Backup"}), "slug"),
        (json!({"slug": "123"}), "slug"),
        (json!({"timezone": "Mars/Base"}), "timezone"),
        (json!({"schedule": cron("* * * * * * *")}), "schedule.expression"),
        (json!({"schedule": cron("* * * * * *")}), "schedule.expression"),
        (json!({"schedule": cron("0 0 31 2 *")}), "schedule.expression"),
        (json!({"schedule": {"type": "interval", "value": 0, "unit": "minute"}}), "schedule.value"),
        (json!({"checkin_margin_minutes": 0}), "checkin_margin_minutes"),
        (json!({"max_runtime_minutes": 1e9}), "max_runtime_minutes"),
        (json!({"min_runtime_minutes": 5, "max_runtime_minutes": 4}), "min_runtime_minutes"),
        (json!({"failure_threshold": 0}), "failure_threshold"),
        (json!({"environments": ["a/b"]}), "environments[0]"),
        (json!({"mute_windows": [{"from": "25:00", "to": "06:00"}]}), "mute_windows[0]"),
        (json!({"project_id": "nonsense"}), "project_id"),
    ] {
        let mut body = json!({"slug": "backup", "schedule": cron("0 * * * *")});
        for (name, value) in more.as_object().unwrap() {
            body[name] = value.clone();
        }
        let answer = ada.post("/api/crons/monitors", &body).await.expect(422);
        assert_eq!(answer.json()["errors"][0]["path"], field, "{more}: {}", answer.text);
    }
    assert_eq!(ada.get("/api/crons/monitors").await.expect(200).json()["monitors"], json!([]));
}

#[tokio::test]
async fn a_check_in_that_cannot_be_is_refused() {
    let (_app, ada) = world().await;
    monitor(&ada, "backup", json!({})).await;
    for more in [
        json!({"at": "2099-01-01T00:00:00Z"}),
        json!({"at": "2020-01-01T00:00:00Z"}),
        json!({"duration_ms": -1}),
        json!({"trace_id": "nonsense"}),
        json!({"environment": "a/b"}),
        json!({"exit_code": 256}),
    ] {
        let mut body = json!({"status": "ok"});
        for (name, value) in more.as_object().unwrap() {
            body[name] = value.clone();
        }
        let path = "/api/crons/monitors/backup/checkins";
        ada.post(path, &body).await.expect(422);
    }
    let odd = json!({"status": "ok", "output": "a\u{0}b"});
    ada.post("/api/crons/monitors/backup/checkins", &odd).await.expect(422);
    assert_eq!(read(&ada, "backup").await["health"], "unknown");
}
