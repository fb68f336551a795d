//! Webhooks: what arrives, signed; what is tried again; where nothing is ever sent.

use std::time::Duration;

use base64::{Engine, engine::general_purpose::STANDARD};
use chrono::{DateTime, Utc};
use loom_testkit::{Setup, TestApp, User, webhook::WebhookReceiver};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::{MINUTE, after_attempt, in_state, later};

/// HMAC by its definition (RFC 2104).
fn hmac(key: &[u8], text: &[u8]) -> Vec<u8> {
    let pad = |with: u8| -> Vec<u8> {
        (0..64).map(|i| key.get(i).copied().unwrap_or_default() ^ with).collect()
    };
    let inner = Sha256::new().chain_update(pad(0x36)).chain_update(text).finalize();
    Sha256::new().chain_update(pad(0x5c)).chain_update(inner).finalize().to_vec()
}

async fn app() -> (TestApp, User) {
    let setup = Setup::default().manual_clock().set("LOOM_SERVER_OUTBOUND_ALLOW", "127.0.0.0/8");
    let app = setup.start().await;
    let admin = app.admin("chief@example.com").await;
    (app, admin)
}

/// Makes a webhook; gives its id and secret.
async fn make(admin: &User, url: &str) -> (String, String) {
    let new = json!({"name": "ops", "url": url});
    let made = admin.post("/api/admin/webhooks", &new).await.expect(201).json();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    (text(&made["id"]), text(&made["secret"]))
}

async fn test(admin: &User, id: &str) {
    admin.post(&format!("/api/admin/webhooks/{id}/test"), &Value::Null).await.expect(202);
}

#[tokio::test]
async fn a_call_is_signed_so_that_its_receiver_can_tell() {
    let (app, admin) = app().await;
    let hooks = WebhookReceiver::start();
    let (id, secret) = make(&admin, &hooks.url("/hook?a=b")).await;
    test(&admin, &id).await;
    let call = hooks.call(1).await;
    let row = in_state(&app, "delivered").await;
    assert_eq!((&row["via"], &row["status_code"]), (&json!("http"), &json!(204)));
    assert_eq!(row["sealed_payload"], Value::Null);
    assert_eq!(row["target"], hooks.url(""));
    let (message, timestamp) = (call.header("webhook-id"), call.header("webhook-timestamp"));
    assert_eq!(timestamp, app.clock.now().timestamp().to_string());
    let key = STANDARD.decode(secret.strip_prefix("whsec_").unwrap()).unwrap();
    let signed = format!("{message}.{timestamp}.{}", call.body);
    let expected = format!("v1,{}", STANDARD.encode(hmac(&key, signed.as_bytes())));
    assert_eq!(call.header("webhook-signature"), expected);
    assert_eq!(call.header("content-type"), "application/json");
    let body = call.json();
    assert_eq!(body["type"], "webhook.test");
    assert!(body["timestamp"].as_str().unwrap().parse::<DateTime<Utc>>().is_ok());
    assert!(body["data"].is_object());
}

#[tokio::test]
async fn a_receiver_that_fails_is_called_again_with_the_same_id_and_when_it_asks_to_be() {
    let (app, admin) = app().await;
    let hooks = WebhookReceiver::start();
    let (id, _) = make(&admin, &hooks.url("/hook")).await;
    hooks.enqueue(500, None, "it broke, password=hunter2hunter2");
    hooks.enqueue(429, Some(("retry-after", "3000")), "");
    test(&admin, &id).await;
    let row = after_attempt(&app, 1).await;
    assert_eq!(row["status_code"], 500);
    let error = row["last_error"].as_str().unwrap();
    assert!(error.contains("it broke") && !error.contains("hunter2"), "{error}");
    later(&app, Duration::from_secs(10)).await;
    let row = after_attempt(&app, 2).await;
    let due: DateTime<Utc> = row["due_at"].as_str().unwrap().parse().unwrap();
    assert!(due >= app.clock.now() + Duration::from_secs(3000), "{due}");
    later(&app, 90 * MINUTE).await;
    in_state(&app, "delivered").await;
    let ids: Vec<_> =
        hooks.calls().iter().map(|call| call.header("webhook-id").to_owned()).collect();
    assert_eq!(ids.len(), 3);
    assert!(ids.iter().all(|id| *id == ids[0]));
    assert_eq!(hooks.calls()[0].body, hooks.calls()[2].body);
}

#[tokio::test]
async fn a_receiver_that_says_gone_is_called_no_more() {
    let (app, admin) = app().await;
    let hooks = WebhookReceiver::start();
    let (id, _) = make(&admin, &hooks.url("/hook")).await;
    hooks.enqueue(410, None, "");
    test(&admin, &id).await;
    in_state(&app, "failed").await;
    let path = format!("/api/admin/webhooks/{id}");
    let webhook = loom_testkit::eventually(async || {
        let webhook = admin.get(&path).await.expect(200).json();
        (webhook["enabled"] == false).then_some(webhook)
    })
    .await;
    assert!(webhook["disabled_reason"].as_str().unwrap().contains("410"));
    assert_eq!(webhook["failures"], 1);
    let again = admin.post(&format!("{path}/test"), &Value::Null).await.expect(409);
    assert_eq!(again.code(), "webhook_disabled");
    let on = admin.patch(&path, &json!({"enabled": true})).await.expect(200).json();
    assert_eq!((&on["disabled_reason"], &on["failures"]), (&Value::Null, &json!(0)));
    sqlx::query("DELETE FROM deliveries").execute(app.database.pool()).await.unwrap();
    test(&admin, &id).await;
    in_state(&app, "delivered").await;
}

#[tokio::test]
async fn a_receiver_that_never_takes_it_is_given_up_after_eight_calls() {
    let (app, admin) = app().await;
    let hooks = WebhookReceiver::start();
    let (id, _) = make(&admin, &hooks.url("/hook")).await;
    for _ in 0..8 {
        hooks.enqueue(503, None, "");
    }
    test(&admin, &id).await;
    for attempt in 1..8 {
        after_attempt(&app, attempt).await;
        later(&app, 15 * 60 * MINUTE).await;
    }
    let row = in_state(&app, "failed").await;
    assert_eq!(row["attempt"], 8);
    assert_eq!(hooks.calls().len(), 8);
    // Somebody has mended it: sent once more by hand.
    let retry = format!("/api/admin/deliveries/{}/retry", row["id"].as_str().unwrap());
    admin.post(&retry, &Value::Null).await.expect(202);
    in_state(&app, "delivered").await;
    assert_eq!(hooks.calls().len(), 9);
    let answer = admin.post(&retry, &Value::Null).await.expect(409);
    assert_eq!(answer.code(), "delivery_not_retriable");
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let (app, admin) = app().await;
    let (hooks, elsewhere) = (WebhookReceiver::start(), WebhookReceiver::start());
    let (id, _) = make(&admin, &hooks.url("/hook")).await;
    hooks.enqueue(307, Some(("location", &elsewhere.url("/stolen"))), "");
    test(&admin, &id).await;
    assert_eq!(after_attempt(&app, 1).await["status_code"], 307);
    assert!(elsewhere.calls().is_empty());
}

#[tokio::test]
async fn no_call_goes_to_an_address_that_is_not_public() {
    let app = Setup::default().manual_clock().start().await;
    let admin = app.admin("chief@example.com").await;
    let hooks = WebhookReceiver::start();
    let port = hooks.addr().port();
    for host in ["127.0.0.1", "2130706433", "[::1]", "[::ffff:127.0.0.1]", "169.254.169.254", "0"] {
        let new = json!({"name": "ops", "url": format!("http://{host}:{port}/hook")});
        let answer = admin.post("/api/admin/webhooks", &new).await.expect(422);
        assert!(answer.text.contains("no public address"), "{}", answer.text);
    }
    // A name shows where it leads only when it is called.
    let (id, _) = make(&admin, &format!("http://localhost:{port}/hook")).await;
    test(&admin, &id).await;
    let row = in_state(&app, "failed").await;
    assert!(row["last_error"].as_str().unwrap().contains("no public address"), "{row}");
    assert!(hooks.calls().is_empty());
}

#[tokio::test]
async fn what_waits_for_a_webhook_is_given_up_with_it() {
    let (app, admin) = app().await;
    let hooks = WebhookReceiver::start();
    let (id, _) = make(&admin, &hooks.url("/hook")).await;
    hooks.enqueue(500, None, "");
    test(&admin, &id).await;
    after_attempt(&app, 1).await;
    admin.delete(&format!("/api/admin/webhooks/{id}")).await.expect(204);
    let row = in_state(&app, "failed").await;
    assert_eq!((&row["sealed_payload"], &row["webhook_id"]), (&Value::Null, &Value::Null));
    admin.get(&format!("/api/admin/webhooks/{id}")).await.expect(404);
}

#[tokio::test]
async fn an_event_reaches_the_webhooks_of_its_own_organisation_and_no_others() {
    let (app, admin) = app().await;
    let hooks = WebhookReceiver::start();
    make(&admin, &hooks.url("/installation")).await;
    let (ada, bob) = (app.user("ada@example.com").await, app.user("bob@example.com").await);
    for (path, org) in [("/ada", ada.org), ("/bob", bob.org)] {
        // One of an organisation, sealed for its own row, as features will make them.
        make(&admin, &hooks.url(path)).await;
        sqlx::query("UPDATE webhooks SET org_id = $1 WHERE url = $2")
            .bind(org)
            .bind(hooks.url(path))
            .execute(app.database.pool())
            .await
            .unwrap();
    }
    let notify = &app.running.features.notify;
    let mut db = loom_db::begin(app.database.pool()).await.unwrap();
    let data = json!({"issue": 7});
    let queued = notify.webhook(&mut db, Some(ada.org), "issue.new", &data).await.unwrap();
    assert_eq!(queued, 1);
    db.commit().await.unwrap();
    notify.wake();
    let call = hooks.call(1).await;
    assert_eq!((call.path.as_str(), &call.json()["data"]), ("/ada", &data));
    in_state(&app, "delivered").await;
    // Nor do the routes of the installation reach them.
    let listed = admin.get("/api/admin/webhooks").await.expect(200).json();
    assert_eq!(listed["webhooks"].as_array().unwrap().len(), 1);
}
