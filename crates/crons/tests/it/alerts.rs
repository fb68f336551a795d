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
    let alerts = json!({"emails": ["ada@example.com"], "reminder_minutes": 30});
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

#[tokio::test]
async fn mail_goes_to_members_only_and_to_nobody_who_has_left() {
    let (app, ada) = world().await;
    let path = ping_path(&monitor(&ada, "backup", json!({})).await);
    let place = "/api/crons/monitors/backup/alerts";
    let strangers = json!({"emails": ["Ada@Example.com", "victim@example.org", "nobody"]});
    let refused = ada.put(place, &strangers).await.expect(422).json();
    let paths: Vec<_> = refused["errors"].as_array().unwrap().iter().map(|e| &e["path"]).collect();
    assert_eq!(paths, [&json!("emails[1]"), &json!("emails[2]")]);
    let bob = app.user("bob@example.com").await;
    app.join(bob.id, ada.org, loom_core::principal::OrgRole::Member).await;
    let both = json!({"emails": ["ada@example.com", "bob@example.com"]});
    ada.put(place, &both).await.expect(200);
    sqlx::query("DELETE FROM organisation_members WHERE org_id = $1 AND user_id = $2")
        .bind(ada.org.0)
        .bind(bob.id.0)
        .execute(app.database.pool())
        .await
        .unwrap();
    ping(&app, &format!("{path}/fail")).await.expect(200);
    let mails = app.rows("SELECT target, org_id FROM deliveries WHERE kind = 'cron.failing'").await;
    assert_eq!(mails.len(), 1);
    assert_eq!(mails[0]["target"], "ada@example.com");
    assert_eq!(mails[0]["org_id"], ada.org.to_string(), "it counts as the organisation's");
}

#[tokio::test]
async fn what_fails_and_recovers_by_turns_is_told_once_in_five_minutes() {
    let (app, ada) = world().await;
    let path = ping_path(&monitor(&ada, "backup", json!({})).await);
    let told = async || (queued(&app, "cron.failing").await, queued(&app, "cron.recovered").await);
    for _ in 0..3 {
        ping(&app, &format!("{path}/fail")).await.expect(200);
        app.clock.advance(std::time::Duration::from_secs(20));
        ping(&app, &path).await.expect(200);
        app.clock.advance(std::time::Duration::from_secs(20));
    }
    assert_eq!(told().await, (1, 1));
    // It stays as it is: then that is told.
    ping(&app, &format!("{path}/fail")).await.expect(200);
    minutes(&app, 2).await;
    assert_eq!(told().await, (1, 1));
    minutes(&app, 3).await;
    assert_eq!(told().await, (2, 1));
    assert_eq!(
        app.rows("SELECT 1 FROM cron_incidents").await.len(),
        4,
        "all of them are written down"
    );
}

#[tokio::test]
async fn an_alert_that_there_is_no_room_for_is_told_when_there_is() {
    let (app, ada) = world().await;
    let path = ping_path(&monitor(&ada, "backup", json!({})).await);
    let fill =
        "INSERT INTO deliveries (id, org_id, kind, channel, target, subject, due_at, created_at)
                SELECT gen_random_uuid(), $1, 'other', 'mail', 'ada@example.com', 'x', $2, $2
                  FROM generate_series(1, 1000)";
    sqlx::query(fill)
        .bind(ada.org.0)
        .bind(app.clock.now() + std::time::Duration::from_secs(3600))
        .execute(app.database.pool())
        .await
        .unwrap();
    ping(&app, &format!("{path}/fail")).await.expect(200);
    let incident = async || {
        let answer = ada.get("/api/crons/monitors/backup/incidents").await.expect(200).json();
        answer["incidents"][0].clone()
    };
    assert!(incident().await["told_at"].is_null());
    // Another organisation's mail is not kept out.
    let bob = app.user("bob@example.com").await;
    let of_bob = ping_path(&monitor(&bob, "backup", json!({})).await);
    ping(&app, &format!("{of_bob}/fail")).await.expect(200);
    assert_eq!(queued(&app, "cron.failing").await, 1);
    sqlx::query("DELETE FROM deliveries WHERE kind = 'other'")
        .execute(app.database.pool())
        .await
        .unwrap();
    minutes(&app, 6).await;
    assert!(incident().await["told_at"].is_string());
    assert_eq!(queued(&app, "cron.failing").await, 2);
}

#[tokio::test]
async fn what_opened_and_was_told_to_nobody_before_a_pause_is_told_after_it() {
    let (app, ada) = world().await;
    let until = json!({"muted_until": "2027-01-15T08:10:00Z"});
    let path = ping_path(&monitor(&ada, "backup", until).await);
    ping(&app, &format!("{path}/fail")).await.expect(200);
    let at = "/api/crons/monitors/backup";
    ada.post(&format!("{at}/pause"), &json!({})).await.expect(200);
    minutes(&app, 20).await;
    assert_eq!(queued(&app, "cron.failing").await, 0);
    ada.post(&format!("{at}/resume"), &json!({})).await.expect(200);
    minutes(&app, 1).await;
    assert_eq!(queued(&app, "cron.failing").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_incident_becomes_an_issue_of_the_monitors_project_once() {
    let (app, ada, shop) = crate::sdk::shop().await;
    let of_shop = json!({"project_id": shop["slug"]});
    let path = ping_path(&monitor(&ada, "backup", of_shop).await);
    ping(&app, &format!("{path}/fail")).await.expect(200);
    for _ in 0..2 {
        app.running.features.jobs.run_now("cron-missed").await.unwrap();
    }
    let place = format!("/api/crash/projects/{}/issues", shop["slug"].as_str().unwrap());
    let issues = eventually(async || {
        let issues = ada.get(&place).await.expect(200).json()["issues"].clone();
        issues.as_array().is_some_and(|issues| !issues.is_empty()).then_some(issues)
    })
    .await;
    assert_eq!(issues.as_array().unwrap().len(), 1);
    assert!(issues[0]["title"].as_str().unwrap().contains("Cron: backup failed"), "{issues}");
    assert_eq!(issues[0]["event_count"], 1);
}
