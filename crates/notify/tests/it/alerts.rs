//! Alerts: who hears of them.

use loom_notify::Alert;
use loom_testkit::{TestApp, eventually, smtp::SmtpServer, webhook::WebhookReceiver};
use serde_json::json;

use crate::{mail, send, setup};

pub(crate) fn alert() -> Alert {
    Alert {
        kind: "job.failing",
        key: "session-cleanup".to_owned(),
        title: "The job session-cleanup fails\r\nBcc: eve@example.com".to_owned(),
        text: "It failed three times: password=hunter2hunter2".to_owned(),
        page: "/jobs?job=session-cleanup".to_owned(),
    }
}

async fn raise(app: &TestApp, alert: &Alert) {
    let mut db = loom_db::begin(app.database.pool()).await.unwrap();
    app.running.features.notify.alert(&mut db, alert).await.unwrap();
    db.commit().await.unwrap();
}

#[tokio::test]
async fn an_alert_reaches_every_admin_and_every_webhook_that_wants_it() {
    let (smtp, hooks) = (SmtpServer::start(), WebhookReceiver::start());
    let app = setup(&smtp).start().await;
    let ada = app.admin("ada@example.com").await;
    app.admin("bob@example.com").await;
    app.user("nobody@example.com").await;
    let gone = app.admin("gone@example.com").await;
    sqlx::query("UPDATE users SET disabled_at = now() WHERE id = $1")
        .bind(gone.id)
        .execute(app.database.pool())
        .await
        .unwrap();
    for (path, kinds, enabled) in [
        ("/all", json!([]), true),
        ("/this", json!(["llm.down", "job.failing"]), true),
        ("/other", json!(["llm.down"]), true),
        ("/off", json!([]), false),
    ] {
        let new = json!({"name": path, "url": hooks.url(path), "kinds": kinds, "enabled": enabled});
        ada.post("/api/admin/webhooks", &new).await.expect(201);
    }
    raise(&app, &alert()).await;
    app.running.features.notify.wake();
    smtp.mail(2).await;
    hooks.call(2).await;
    eventually(async || {
        let left = app.rows("SELECT id FROM deliveries WHERE state <> 'delivered'").await;
        left.is_empty().then_some(())
    })
    .await;
    let mut to: Vec<_> = smtp.mails().into_iter().flat_map(|mail| mail.to).collect();
    to.sort();
    assert_eq!(to, ["ada@example.com", "bob@example.com"]);
    let mail = smtp.mail(1).await;
    assert_eq!(mail.subject(), "The job session-cleanup fails  Bcc: eve@example.com");
    assert_eq!(mail.header("Bcc"), None);
    assert!(mail.text().contains("failed three times") && !mail.text().contains("hunter2"));
    let page = "https://loom.example/jobs?job=session-cleanup";
    assert!(mail.text().contains(page), "{}", mail.text());
    let mut paths: Vec<_> = hooks.calls().into_iter().map(|call| call.path).collect();
    paths.sort();
    assert_eq!(paths, ["/all", "/this"]);
    let body = hooks.call(1).await.json();
    assert_eq!(body["type"], "job.failing");
    assert_eq!(
        (&body["data"]["key"], &body["data"]["url"]),
        (&json!("session-cleanup"), &json!(page))
    );
    assert!(!body.to_string().contains("hunter2"));
}

#[tokio::test]
async fn while_an_alert_waits_a_further_one_about_the_same_is_not_queued() {
    let smtp = SmtpServer::start();
    let setup = setup(&smtp).set("LOOM_SERVER_ALERT_EMAILS", "ops@example.com,sre@example.com");
    let app = setup.start().await;
    // Not an addressee when there is a list.
    app.admin("ada@example.com").await;
    let mut db = loom_db::begin(app.database.pool()).await.unwrap();
    let notify = &app.running.features.notify;
    for _ in 0..3 {
        notify.alert(&mut db, &alert()).await.unwrap();
    }
    notify.alert(&mut db, &Alert { key: "another".to_owned(), ..alert() }).await.unwrap();
    db.commit().await.unwrap();
    notify.wake();
    smtp.mail(4).await;
    eventually(async || {
        let left = app.rows("SELECT id FROM deliveries WHERE state <> 'delivered'").await;
        left.is_empty().then_some(())
    })
    .await;
    // It was sent: the next one is news again.
    raise(&app, &alert()).await;
    notify.wake();
    smtp.mail(6).await;
    // Nothing more is on its way: what is queued now comes next.
    send(&app, &mail("last@example.com")).await;
    assert_eq!(smtp.mail(7).await.to, ["last@example.com"]);
    let to: Vec<_> = smtp.mails().into_iter().flat_map(|mail| mail.to).collect();
    for address in ["ops@example.com", "sre@example.com"] {
        assert_eq!(to.iter().filter(|to| *to == address).count(), 3);
    }
}
