//! Alerts: who is told of what, when, and how often.

use std::time::Duration;

use loom_core::principal::OrgRole;
use loom_testkit::{Setup, TestApp, User, eventually, webhook::WebhookReceiver};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

const ALERTS: &str = "/api/crash/projects/shop/alerts";

async fn app(budget: &str) -> (TestApp, User) {
    let app = Setup::default()
        .manual_clock()
        .set("LOOM_SERVER_OUTBOUND_ALLOW", "127.0.0.0/8")
        .set("LOOM_SERVER_CRASHES_ALERTS_PER_HOUR", budget)
        .start()
        .await;
    let ada = app.user("ada@example.com").await;
    ada.post("/api/crash/projects", &json!({"name": "Shop"})).await.expect(201);
    (app, ada)
}

async fn capture(ada: &User, event: &Value) -> Value {
    let mut event = event.clone();
    event["project_id"] = "shop".into();
    ada.post("/api/crash/capture", &event).await.expect(200).json()
}

fn error(kind: &str) -> Value {
    json!({"exception_type": kind, "exception_value": "it broke", "environment": "production", "tags": {"team": "cart"}})
}

async fn rule(ada: &User, condition: Value, filters: Value, actions: Value) -> Value {
    let new =
        json!({"name": "Cart", "condition": condition, "filters": filters, "actions": actions});
    ada.post(ALERTS, &new).await.expect(201).json()
}

fn webhook(hooks: &WebhookReceiver) -> Value {
    json!([{"type": "webhook", "url": hooks.url("/alert")}])
}

async fn log(ada: &User) -> Vec<Value> {
    let page = ada.get(&format!("{ALERTS}/deliveries")).await.expect(200).json();
    page["deliveries"].as_array().unwrap().clone()
}

/// So many alerts, of which these were sent.
async fn logged(ada: &User, count: usize) -> Vec<Value> {
    eventually(async || Some(log(ada).await).filter(|log| log.len() >= count)).await
}

async fn look(app: &TestApp) {
    app.running.features.jobs.run_now("crash-alerts").await.unwrap();
}

/// HMAC by its definition (RFC 2104).
fn hmac(key: &[u8], text: &[u8]) -> String {
    let pad = |with: u8| -> Vec<u8> {
        (0..64).map(|i| key.get(i).copied().unwrap_or_default() ^ with).collect()
    };
    let inner = Sha256::new().chain_update(pad(0x36)).chain_update(text).finalize();
    hex::encode(Sha256::new().chain_update(pad(0x5c)).chain_update(inner).finalize())
}

#[tokio::test]
async fn a_new_issue_is_told_once_and_signed() {
    let (_app, ada) = app("20").await;
    let hooks = WebhookReceiver::start();
    let made = rule(&ada, json!({"type": "new_issue"}), json!({}), webhook(&hooks)).await;
    let (id, secret) = made["secrets"].as_object().unwrap().iter().next().unwrap();
    assert_eq!(made["actions"][0]["webhook_id"], **id);
    let issue = capture(&ada, &error("ValueError")).await;
    capture(&ada, &error("ValueError")).await;
    let call = hooks.call(1).await;
    let body = call.json();
    assert_eq!(body["type"], "crash.issue.new");
    assert_eq!(body["data"]["issue"]["id"], issue["issue_id"]);
    assert_eq!(body["data"]["issue"]["short_id"], issue["short_id"]);
    let signature = hmac(secret.as_str().unwrap().as_bytes(), call.body.as_bytes());
    assert_eq!(call.header("x-loom-signature-256"), format!("sha256={signature}"));
    capture(&ada, &error("KeyError")).await;
    let log = logged(&ada, 2).await;
    assert_eq!(log.len(), 2, "{log:?}");
    assert!(log.iter().all(|told| told["outcome"] == "sent"));
    // Nobody is told the secret again.
    let read = ada.get(&format!("{ALERTS}/{}", made["id"].as_str().unwrap())).await.expect(200);
    assert!(!read.json().to_string().contains("whsec_"));
}

#[tokio::test]
async fn a_resolved_issue_that_is_back_is_told() {
    let (app, ada) = app("20").await;
    let hooks = WebhookReceiver::start();
    rule(&ada, json!({"type": "regression"}), json!({}), webhook(&hooks)).await;
    let issue = capture(&ada, &error("ValueError")).await;
    capture(&ada, &error("ValueError")).await;
    let resolve =
        "UPDATE crash_issues SET status = 'resolved', resolved_at = now() - interval '1 minute'";
    sqlx::query(resolve).execute(app.database.pool()).await.unwrap();
    assert_eq!(capture(&ada, &error("ValueError")).await["is_regression"], true);
    let body = hooks.call(1).await.json();
    assert_eq!(body["type"], "crash.issue.regressed");
    assert_eq!(body["data"]["issue"]["id"], issue["issue_id"]);
    capture(&ada, &error("ValueError")).await;
    look(&app).await;
    assert_eq!(log(&ada).await.len(), 1, "of the new issue nobody wanted to hear");
}

#[tokio::test]
async fn only_events_that_the_filters_let_through_are_told() {
    let (_app, ada) = app("20").await;
    let hooks = WebhookReceiver::start();
    for filters in [
        json!({"environments": ["staging"]}),
        json!({"levels": ["fatal"]}),
        json!({"releases": ["2.0"]}),
        json!({"tags": {"team": "search"}}),
    ] {
        rule(&ada, json!({"type": "new_issue"}), filters, webhook(&hooks)).await;
    }
    let filters =
        json!({"environments": ["production"], "levels": ["error"], "tags": {"team": "cart"}});
    let matching = rule(&ada, json!({"type": "new_issue"}), filters, webhook(&hooks)).await;
    capture(&ada, &error("ValueError")).await;
    hooks.call(1).await;
    let log = logged(&ada, 1).await;
    assert_eq!(log.len(), 1);
    assert_eq!(log[0]["rule_id"], matching["id"]);
}

#[tokio::test]
async fn frequent_events_are_told_and_not_again_within_the_interval() {
    let (app, ada) = app("20").await;
    let hooks = WebhookReceiver::start();
    let often = json!({"type": "frequency", "events": 3, "minutes": 10});
    rule(&ada, often, json!({}), webhook(&hooks)).await;
    for _ in 0..2 {
        capture(&ada, &error("ValueError")).await;
    }
    capture(&ada, &error("KeyError")).await;
    look(&app).await;
    assert_eq!(log(&ada).await.len(), 0, "of no issue three");
    let issue = capture(&ada, &error("ValueError")).await;
    look(&app).await;
    look(&app).await;
    let told = log(&ada).await;
    assert_eq!(told.len(), 1);
    assert_eq!(told[0]["issue_id"], issue["issue_id"]);
    assert_eq!(hooks.call(1).await.json()["data"]["facts"]["events_in_window"], 3);
    // The interval is over, and so are the minutes.
    app.clock.advance(Duration::from_secs(31 * 60));
    look(&app).await;
    assert_eq!(log(&ada).await.len(), 1);
    for _ in 0..3 {
        capture(&ada, &error("ValueError")).await;
    }
    look(&app).await;
    assert_eq!(log(&ada).await.len(), 2);
}

#[tokio::test]
async fn many_issues_do_not_break_the_budget_and_are_told_once() {
    let (app, ada) = app("3").await;
    let hooks = WebhookReceiver::start();
    rule(&ada, json!({"type": "new_issue"}), json!({}), webhook(&hooks)).await;
    for n in 0..8 {
        capture(
            &ada,
            &json!({"exception_type": format!("E{}x", "z".repeat(n + 1)), "exception_value": "v"}),
        )
        .await;
    }
    let log = logged(&ada, 8).await;
    let sent = log.iter().filter(|told| told["outcome"] == "sent").count();
    assert_eq!((sent, log.len()), (3, 8));
    hooks.call(4).await;
    let calls = hooks.calls();
    let kinds: Vec<_> = calls.iter().map(|call| call.json()["type"].clone()).collect();
    assert_eq!(
        kinds.iter().filter(|kind| **kind == "crash.alerts.held_back").count(),
        1,
        "{kinds:?}"
    );
    assert_eq!(kinds.len(), 4);
    // The next hour has its own.
    app.clock.advance(Duration::from_secs(3600));
    capture(&ada, &error("Later")).await;
    assert_eq!(logged(&ada, 9).await[0]["outcome"], "sent");
}

#[tokio::test]
async fn a_snoozed_rule_says_nothing_until_it_is_over() {
    let (app, ada) = app("20").await;
    let hooks = WebhookReceiver::start();
    let made = rule(&ada, json!({"type": "new_issue"}), json!({}), webhook(&hooks)).await;
    let path = format!("{ALERTS}/{}", made["id"].as_str().unwrap());
    ada.post(&format!("{path}/snooze"), &json!({"minutes": 60})).await.expect(200);
    capture(&ada, &error("ValueError")).await;
    look(&app).await;
    assert_eq!(log(&ada).await.len(), 0);
    app.clock.advance(Duration::from_secs(3601));
    capture(&ada, &error("KeyError")).await;
    assert_eq!(logged(&ada, 1).await.len(), 1);
    ada.post(&format!("{path}/snooze"), &json!({"minutes": -1})).await.expect(422);
}

#[tokio::test]
async fn members_get_mail_and_slack_its_blocks() {
    let (app, ada) = app("20").await;
    let grace = app.user("grace@example.com").await;
    app.join(grace.id, ada.org, OrgRole::Member).await;
    let hooks = WebhookReceiver::start();
    let actions =
        json!([{"type": "email"}, {"type": "slack", "url": hooks.url("/services/T0/secret-path")}]);
    let made = rule(&ada, json!({"type": "new_issue"}), json!({}), actions).await;
    assert_eq!(made["actions"][1]["host"], hooks.url(""), "its path is a secret");
    assert!(made.get("secrets").is_none());
    capture(&ada, &json!({"exception_type": "ValueError", "exception_value": "<!channel> & more"}))
        .await;
    let body = hooks.call(1).await.json();
    assert!(body["text"].as_str().unwrap().contains("&lt;!channel&gt; &amp; more"), "{body}");
    assert_eq!(body["blocks"][0]["type"], "section");
    let log = logged(&ada, 1).await;
    let mut targets: Vec<_> = log[0]["deliveries"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|delivery| delivery["channel"] == "mail")
        .map(|delivery| delivery["target"].as_str().unwrap().to_owned())
        .collect();
    targets.sort_unstable();
    assert_eq!(targets, ["ada@example.com", "grace@example.com"]);
}

#[tokio::test]
async fn where_a_webhook_leads_is_sealed_also_when_it_was_made_before() {
    let (app, ada) = app("20").await;
    let hooks = WebhookReceiver::start();
    let actions = json!([{"type": "slack", "url": hooks.url("/services/T0/secret-path")}]);
    rule(&ada, json!({"type": "new_issue"}), json!({}), actions).await;
    let clear = async || {
        let rows = app
            .rows("SELECT url FROM webhooks UNION ALL SELECT actions::text FROM crash_alert_rules")
            .await;
        rows.iter().any(|row| row.to_string().contains("secret-path"))
    };
    assert!(!clear().await);
    // As it was before; the next server that starts seals it.
    sqlx::query("UPDATE webhooks SET url = $1, sealed_url = NULL")
        .bind(hooks.url("/services/T0/secret-path"))
        .execute(app.database.pool())
        .await
        .unwrap();
    assert!(clear().await);
    let other = app.replica().await;
    eventually(async || (!clear().await).then_some(())).await;
    capture(&ada, &error("ValueError")).await;
    assert_eq!(hooks.call(1).await.path, "/services/T0/secret-path");
    other.shut_down().await;
}

#[tokio::test]
async fn what_is_wrong_with_the_rules_of_a_project_keeps_no_other_from_speaking() {
    let (app, ada) = app("20").await;
    let hooks = WebhookReceiver::start();
    let other = ada.post("/api/crash/projects", &json!({"name": "A broken one"})).await;
    let other = other.expect(201).json()["slug"].as_str().unwrap().to_owned();
    let often = json!({"type": "frequency", "events": 1, "minutes": 10});
    let new =
        json!({"name": "often", "condition": often, "filters": {}, "actions": webhook(&hooks)});
    for project in [other.as_str(), "shop"] {
        let path = format!("/api/crash/projects/{project}/alerts");
        ada.post(&path, &new).await.expect(201);
    }
    // One that no version has written.
    sqlx::query(
        "UPDATE crash_alert_rules r SET condition = '{}' FROM crash_projects p
          WHERE p.id = r.project_id AND p.slug = $1",
    )
    .bind(&other)
    .execute(app.database.pool())
    .await
    .unwrap();
    capture(&ada, &error("ValueError")).await;
    let _ = app.running.features.jobs.run_now("crash-alerts").await;
    assert_eq!(logged(&ada, 1).await.len(), 1);
}

#[tokio::test]
async fn rules_are_checked_changed_tried_and_deleted() {
    let (app, ada) = app("20").await;
    let wrong = json!({"name": "", "condition": {"type": "frequency", "events": 0, "minutes": 0},
        "actions": [{"type": "webhook", "url": "http://192.168.0.1/x"}], "min_interval_minutes": -1});
    let refused = ada.post(ALERTS, &wrong).await.expect(422).json();
    let paths: Vec<_> = refused["errors"].as_array().unwrap().iter().map(|e| &e["path"]).collect();
    assert_eq!(
        paths,
        ["name", "condition.events", "condition.minutes", "min_interval_minutes", "actions[0].url"]
    );
    let hooks = WebhookReceiver::start();
    let made = rule(&ada, json!({"type": "regression"}), json!({}), webhook(&hooks)).await;
    let path = format!("{ALERTS}/{}", made["id"].as_str().unwrap());
    let tested = ada.post(&format!("{path}/test"), &json!({})).await.expect(202).json();
    assert_eq!(tested["delivery_ids"].as_array().unwrap().len(), 1);
    assert_eq!(hooks.call(1).await.json()["type"], "crash.test");
    let kept = json!({"actions": [{"type": "webhook", "webhook_id": made["actions"][0]["webhook_id"]}, {"type": "email"}], "enabled": false});
    let changed = ada.patch(&path, &kept).await.expect(200).json();
    assert_eq!(changed["actions"][0], made["actions"][0]);
    assert_eq!(changed["enabled"], false);
    let strange = json!({"actions": [{"type": "webhook", "webhook_id": "0192f3c4-7d1e-7c3a-9b2f-8a1d5e6f7a8b"}]});
    ada.patch(&path, &strange).await.expect(422);
    // Members read; admins manage; others see nothing.
    let grace = app.user("grace@example.com").await;
    grace.get(&path).await.expect(404);
    ada.delete(&path).await.expect(204);
    ada.get(&path).await.expect(404);
    assert_eq!(app.rows("SELECT id FROM webhooks").await.len(), 0);
}

#[tokio::test]
async fn two_servers_tell_an_issue_once() {
    let (app, ada) = app("100").await;
    let replica = app.replica().await;
    let hooks = WebhookReceiver::start();
    rule(&ada, json!({"type": "new_issue"}), json!({}), webhook(&hooks)).await;
    let there = ada.at(&replica);
    for n in 0..10 {
        let event = json!({"project_id": "shop", "exception_type": format!("E{}x", "q".repeat(n + 1)), "exception_value": "v"});
        let (one, other) = tokio::join!(
            ada.post("/api/crash/capture", &event),
            there.post("/api/crash/capture", &event)
        );
        assert!(one.status.is_success() && other.status.is_success());
    }
    let log = logged(&ada, 10).await;
    look(&app).await;
    assert_eq!(log.len(), 10);
    assert_eq!(logged(&ada, 10).await.len(), 10);
}
