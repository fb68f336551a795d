//! The admin routes: what they show, whom they let in, what they refuse.

use std::time::Duration;

use loom_core::principal::Scope;
use loom_testkit::{
    TestApp, User, eventually,
    smtp::{Answer, SmtpServer},
};
use serde_json::{Value, json};

use crate::{in_state, mail, send, setup};

async fn admin(app: &TestApp) -> User {
    app.admin("chief@example.com").await
}

#[tokio::test]
async fn the_log_tells_what_was_sent_page_by_page_and_never_what_was_in_it() {
    let smtp = SmtpServer::start();
    let app = setup(&smtp).start().await;
    let admin = admin(&app).await;
    smtp.enqueue(Answer::AtRecipient("550 no".to_owned()));
    send(&app, &mail("first@example.com")).await;
    in_state(&app, "failed").await;
    for n in 0..4 {
        app.clock.advance(Duration::from_millis(5));
        send(&app, &mail(&format!("user{n}@example.com"))).await;
    }
    smtp.mail(4).await;
    eventually(async || {
        let done = admin.get("/api/admin/deliveries?state=delivered").await.expect(200).json();
        (done["deliveries"].as_array().unwrap().len() == 4).then_some(())
    })
    .await;
    let failed = admin.get("/api/admin/deliveries?state=failed&channel=mail").await.expect(200);
    let failed = failed.json()["deliveries"].as_array().unwrap().clone();
    assert_eq!(failed.len(), 1);
    assert_eq!(failed[0]["target"], "first@example.com");
    assert_eq!(failed[0]["retriable"], true);
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = admin.get(&format!("/api/admin/deliveries?limit=2{cursor}")).await.expect(200);
        assert!(!page.text.contains(crate::SECRET));
        let page = page.json();
        let rows = page["deliveries"].as_array().unwrap().clone();
        seen.extend(rows.iter().map(|row| row["target"].as_str().unwrap().to_owned()));
        let Some(next) = page["next_cursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    let order =
        ["user3", "user2", "user1", "user0", "first"].map(|name| format!("{name}@example.com"));
    assert_eq!(seen, order);
    let none = admin.get("/api/admin/deliveries?channel=webhook").await.expect(200).json();
    assert_eq!(none["deliveries"], json!([]));
    let id = failed[0]["id"].as_str().unwrap();
    admin.post(&format!("/api/admin/deliveries/{id}/retry"), &Value::Null).await.expect(202);
    assert_eq!(smtp.mail(5).await.to, ["first@example.com"]);
}

#[tokio::test]
async fn a_test_mail_is_sent_and_audited() {
    let smtp = SmtpServer::start();
    let app = setup(&smtp).start().await;
    let admin = admin(&app).await;
    let to = json!({"to": "ada@example.com"});
    let queued = admin.post("/api/admin/mail/test", &to).await.expect(202).json();
    assert_eq!(smtp.mail(1).await.to, ["ada@example.com"]);
    let row = in_state(&app, "delivered").await;
    assert_eq!(row["id"], queued["delivery_id"]);
    let audit = app.rows("SELECT * FROM audit_log WHERE action = 'mail.test'").await;
    assert_eq!(audit[0]["target"], "ada@example.com");
    let metrics = app.anonymous().get("/metrics").await.expect(200).text;
    let counted = r#"loom_deliveries_total{channel="mail",outcome="delivered"} 1"#;
    assert!(metrics.contains(counted), "{metrics}");
    assert!(metrics.contains(r#"loom_deliveries_pending{channel="mail"}"#), "{metrics}");
}

#[tokio::test]
async fn the_secret_of_a_webhook_is_shown_once_and_kept_sealed_and_every_change_is_audited() {
    let smtp = SmtpServer::start();
    let app = setup(&smtp).start().await;
    let admin = admin(&app).await;
    let new = json!({"name": "ops", "url": "https://example.com/hook", "kinds": ["job.failing"]});
    let made = admin.post("/api/admin/webhooks", &new).await.expect(201).json();
    let secret = made["secret"].as_str().unwrap();
    assert!(secret.starts_with("whsec_") && secret.len() > 40);
    let path = format!("/api/admin/webhooks/{}", made["id"].as_str().unwrap());
    for read in [&path, "/api/admin/webhooks"] {
        let answer = admin.get(read).await.expect(200);
        assert!(answer.text.contains("https://example.com/hook"));
        assert!(!answer.text.contains("secret") && !answer.text.contains(secret));
    }
    let row = app.rows("SELECT t::text AS row FROM webhooks t").await;
    assert!(!row[0].to_string().contains(secret.strip_prefix("whsec_").unwrap()));
    let change = json!({"name": "on call", "kinds": []});
    let changed = admin.patch(&path, &change).await.expect(200).json();
    assert_eq!(changed["name"], "on call");
    assert_eq!(changed["url"], "https://example.com/hook");
    admin.delete(&path).await.expect(204);
    admin.delete(&path).await.expect(404);
    let audit = app
        .rows("SELECT action FROM audit_log WHERE action LIKE 'webhook.%' ORDER BY action")
        .await;
    let actions: Vec<_> = audit.iter().map(|row| row["action"].as_str().unwrap()).collect();
    assert_eq!(actions, ["webhook.create", "webhook.delete", "webhook.update"]);
}

#[tokio::test]
async fn bad_input_is_told_what_is_wrong_with_it() {
    let smtp = SmtpServer::start();
    let app = setup(&smtp).start().await;
    let admin = admin(&app).await;
    let url = "https://example.com/hook";
    for (new, field) in [
        (json!({"name": "", "url": url}), "name"),
        (json!({"name": "a\nb", "url": url}), "name"),
        (json!({"name": "a", "url": "example.com"}), "url"),
        (json!({"name": "a", "url": "ftp://example.com/"}), "url"),
        (json!({"name": "a", "url": "https://user:pass@example.com/"}), "url"),
        (json!({"name": "a", "url": format!("{url}/{}", "x".repeat(3000))}), "url"),
        (json!({"name": "a", "url": url, "kinds": ["Job failing"]}), "kinds[0]"),
        (json!({"name": "a", "url": url, "kinds": vec!["a"; 51]}), "kinds"),
        (json!({"name": "a", "url": url, "kinds": [1]}), "kinds[0]"),
        (json!({"name": "a"}), ""),
        (json!({"name": "a", "url": url, "secret": "mine"}), "secret"),
    ] {
        let answer = admin.post("/api/admin/webhooks", &new).await.expect(422);
        assert_eq!(answer.code(), "invalid_request");
        assert_eq!(answer.json()["errors"][0]["path"], field, "{}", answer.text);
    }
    for to in ["", "ada", "ada@example.com\r\nBcc: eve@example.com"] {
        let answer = admin.post("/api/admin/mail/test", &json!({"to": to})).await.expect(422);
        assert_eq!(answer.json()["errors"][0]["path"], "to");
    }
    for query in ["state=lost", "channel=pigeon", "limit=x"] {
        let answer = admin.get(&format!("/api/admin/deliveries?{query}")).await.expect(400);
        assert_eq!(answer.code(), "invalid_query");
    }
    assert_eq!(
        admin.get("/api/admin/deliveries?cursor=x").await.expect(400).code(),
        "invalid_cursor"
    );
    admin.get("/api/admin/deliveries?limit=0").await.expect(422);
    let unknown = uuid();
    for (method, path) in [
        ("GET", format!("/api/admin/webhooks/{unknown}")),
        ("GET", "/api/admin/webhooks/none".to_owned()),
        ("PATCH", format!("/api/admin/webhooks/{unknown}")),
        ("DELETE", format!("/api/admin/webhooks/{unknown}")),
        ("POST", format!("/api/admin/webhooks/{unknown}/test")),
        ("POST", format!("/api/admin/deliveries/{unknown}/retry")),
    ] {
        let request = admin.request(method.parse().unwrap(), &path).json(&json!({}));
        assert_eq!(admin.send(request).await.expect(404).code(), "not_found", "{method} {path}");
    }
}

fn uuid() -> String {
    loom_core::id::new_uuid(chrono::DateTime::from_timestamp(1_800_000_000, 0).unwrap()).to_string()
}

#[tokio::test]
async fn there_are_fifty_webhooks_at_most() {
    let smtp = SmtpServer::start();
    let app = setup(&smtp).start().await;
    let admin = admin(&app).await;
    let new = json!({"name": "ops", "url": "https://example.com/hook"});
    for _ in 0..50 {
        admin.post("/api/admin/webhooks", &new).await.expect(201);
    }
    let answer = admin.post("/api/admin/webhooks", &new).await.expect(409);
    assert_eq!(answer.code(), "too_many_webhooks");
}

#[tokio::test]
async fn only_system_admins_get_in_and_auditors_may_read_the_log() {
    let smtp = SmtpServer::start();
    let app = setup(&smtp).start().await;
    let admin = admin(&app).await;
    let reader = app.with_scopes(&admin, &[Scope::AdminRead]).await;
    let user = app.user("ada@example.com").await;
    let auditor = app.user("auditor@example.com").await;
    sqlx::query("UPDATE users SET is_auditor = true WHERE id = $1")
        .bind(auditor.id)
        .execute(app.database.pool())
        .await
        .unwrap();
    let id = uuid();
    let reads = ["/api/admin/webhooks".to_owned(), format!("/api/admin/webhooks/{id}")];
    for path in &reads {
        user.get(path).await.expect(403);
        auditor.get(path).await.expect(403);
    }
    user.get("/api/admin/deliveries").await.expect(403);
    auditor.get("/api/admin/deliveries").await.expect(200);
    reader.get("/api/admin/webhooks").await.expect(200);
    let webhook = json!({"name": "a", "url": "https://example.com/"});
    for (method, path, body) in [
        ("POST", "/api/admin/webhooks".to_owned(), webhook),
        ("PATCH", format!("/api/admin/webhooks/{id}"), json!({})),
        ("DELETE", format!("/api/admin/webhooks/{id}"), json!({})),
        ("POST", format!("/api/admin/webhooks/{id}/test"), json!({})),
        ("POST", format!("/api/admin/deliveries/{id}/retry"), json!({})),
        ("POST", "/api/admin/mail/test".to_owned(), json!({"to": "eve@example.com"})),
    ] {
        for caller in [&*user, &*auditor, &reader] {
            let request = caller.request(method.parse().unwrap(), &path).json(&body);
            assert_eq!(caller.send(request).await.expect(403).code(), "forbidden");
        }
    }
    assert!(app.rows("SELECT id FROM deliveries").await.is_empty());
    assert!(app.rows("SELECT id FROM webhooks").await.is_empty());
}

#[tokio::test]
async fn the_log_goes_after_a_month_and_what_failed_is_erased_after_a_week() {
    let smtp = SmtpServer::start();
    let app = setup(&smtp).start().await;
    smtp.enqueue(Answer::AtEnd("550 no".to_owned()));
    send(&app, &mail("ada@example.com")).await;
    let day = Duration::from_secs(24 * 3600);
    let clean = async || app.running.features.jobs.run_now("delivery-cleanup").await.unwrap();
    in_state(&app, "failed").await;
    app.clock.advance(6 * day);
    assert_eq!(clean().await.items_handled, 0);
    assert_ne!(in_state(&app, "failed").await["sealed_payload"], Value::Null);
    app.clock.advance(2 * day);
    assert_eq!(clean().await.items_handled, 1);
    assert_eq!(in_state(&app, "failed").await["sealed_payload"], Value::Null);
    app.clock.advance(23 * day);
    assert_eq!(clean().await.items_handled, 1);
    assert!(app.rows("SELECT id FROM deliveries").await.is_empty());
}
