//! Incidents: opened and closed by thresholds, told once, by every way that is set.

use loom_testkit::{Setup, eventually, smtp::SmtpServer, webhook::WebhookReceiver};
use serde_json::json;

use crate::support::{minutes, monitor, ping, ping_path, read, world, world_of};

async fn queued(app: &loom_testkit::TestApp, kind: &str) -> usize {
    app.rows(&format!("SELECT 1 FROM deliveries WHERE kind = '{kind}' AND channel = 'mail'"))
        .await
        .len()
}

#[tokio::test]
async fn an_incident_opens_and_closes_by_its_thresholds_and_is_told_once() {
    let (app, ada) = world().await;
    let thresholds = json!({"failure_threshold": 2, "recovery_threshold": 2});
    let path = ping_path(&monitor(&ada, "backup", thresholds).await);
    let incident = async || read(&ada, "backup").await["environments"][0]["incident_id"].clone();
    ping(&app, &format!("{path}/fail")).await.expect(200);
    assert!(incident().await.is_null());
    minutes(&app, 1).await;
    ping(&app, &format!("{path}/fail")).await.expect(200);
    assert!(incident().await.is_string());
    minutes(&app, 1).await;
    ping(&app, &format!("{path}/fail")).await.expect(200);
    // Whoever made it is told.
    assert_eq!((queued(&app, "cron.failing").await, queued(&app, "cron.recovered").await), (1, 0));
    minutes(&app, 1).await;
    ping(&app, &path).await.expect(200);
    assert!(incident().await.is_string());
    assert_eq!(read(&ada, "backup").await["health"], "failing");
    minutes(&app, 1).await;
    ping(&app, &path).await.expect(200);
    assert!(incident().await.is_null());
    assert_eq!((queued(&app, "cron.failing").await, queued(&app, "cron.recovered").await), (1, 1));
    let incidents = ada.get("/api/crons/monitors/backup/incidents").await.expect(200).json();
    assert!(incidents["incidents"][0]["closed_at"].is_string());
}

#[tokio::test]
async fn alerts_wait_while_muted_and_remind_while_it_lasts() {
    let (app, ada) = world().await;
    let until = json!({"muted_until": "2027-01-15T09:20:00Z"});
    monitor(&ada, "backup", until).await;
    let alerts = json!({"emails": ["ops@example.com"], "reminder_minutes": 30});
    ada.put("/api/crons/monitors/backup/alerts", &alerts).await.expect(200);
    minutes(&app, 79).await;
    assert_eq!(read(&ada, "backup").await["health"], "missed", "it is watched all the same");
    assert_eq!(queued(&app, "cron.failing").await, 0);
    minutes(&app, 3).await;
    assert_eq!(queued(&app, "cron.failing").await, 1);
    minutes(&app, 31).await;
    assert_eq!(queued(&app, "cron.failing").await, 2);
}

#[tokio::test]
async fn a_webhook_is_called_with_a_signature_and_its_secret_is_shown_once() {
    let receiver = WebhookReceiver::start();
    let setup = Setup::default().set("LOOM_SERVER_OUTBOUND_ALLOW", "127.0.0.0/8");
    let (app, ada) = world_of(setup).await;
    let path = ping_path(&monitor(&ada, "backup", json!({})).await);
    let alerts = json!({"emails": [], "webhook_url": receiver.url("/hook")});
    let answer = ada.put("/api/crons/monitors/backup/alerts", &alerts).await.expect(200).json();
    let secret = answer["webhook_secret"].as_str().unwrap().to_owned();
    assert!(!ada.get("/api/crons/monitors/backup/alerts").await.expect(200).text.contains(&secret));
    ping(&app, &format!("{path}/fail")).await.expect(200);
    let call = eventually(async || receiver.calls().first().cloned()).await;
    let body = call.json();
    assert_eq!(
        (&body["type"], &body["data"]["monitor"]["slug"]),
        (&json!("cron.failing"), &json!("backup"))
    );
    assert!(call.headers.contains_key("webhook-signature"), "{:?}", call.headers);
}

#[tokio::test]
async fn a_mail_reaches_whoever_is_named() {
    let smtp = SmtpServer::start();
    let settings = smtp.settings().into_iter();
    let setup = settings.fold(Setup::default(), |setup, (name, value)| setup.set(name, value));
    let (app, ada) = world_of(setup).await;
    let path = ping_path(&monitor(&ada, "backup", json!({"name": "Nightly backup"})).await);
    ping(&app, &format!("{path}/fail")).await.expect(200);
    let mail = eventually(async || smtp.mails().first().cloned()).await;
    assert_eq!(mail.subject(), "Nightly backup (production) failed");
    assert_eq!(mail.to, ["ada@example.com"]);
}
