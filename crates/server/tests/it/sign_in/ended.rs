//! Sign-ins that somebody else ends: whoever found their token, and those who run the installation.

use std::time::Duration;

use loom_testkit::{TestApp, eventually, smtp::SmtpServer};
use serde_json::{Value, json};

use super::{me, open, signed_in_by_mail, with};

async fn app() -> (TestApp, SmtpServer) {
    let smtp = SmtpServer::start();
    (with(open(), smtp.settings()).manual_clock().start().await, smtp)
}

async fn id_of(app: &TestApp, email: &str) -> String {
    let rows = app.rows(&format!("SELECT id FROM users WHERE email = '{email}'")).await;
    rows[0]["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_reported_token_of_a_command_line_client_ends_and_its_user_is_told() {
    let (app, smtp) = app().await;
    let browser = signed_in_by_mail(&app, &smtp, "ada@example.com", 1).await;
    let started = app.anonymous().post("/auth/device/start", &json!({})).await.expect(200).json();
    let code = started["user_code"].as_str().unwrap();
    let fields = [("user_code", code), ("approve", "true")];
    browser.submit("/auth/device/complete", &fields).await.expect(200);
    app.clock.advance(Duration::from_secs(5));
    let device_code = json!({"device_code": started["device_code"]});
    let polled = app.anonymous().post("/auth/device/poll", &device_code).await.expect(200).json();
    let token = polled["access_token"].as_str().unwrap();
    let client = app.anonymous().with_key(token);
    client.get("/auth/me").await.expect(200);
    app.anonymous().post("/auth/tokens/report", &json!({ "token": token })).await.expect(202);
    client.get("/auth/me").await.expect(401);
    let mail = eventually(async || {
        let subject = "A sign-in of yours was found and ended";
        smtp.mails().into_iter().find(|mail| mail.subject() == subject)
    })
    .await;
    assert!(!mail.text().contains(token));
    // The browser is another sign-in.
    assert!(me(&browser).await.is_some());
}

#[tokio::test]
async fn who_is_disabled_or_gets_other_roles_is_signed_out_at_once() {
    let (app, smtp) = app().await;
    let chief = app.admin("chief@example.com").await;
    let browser = signed_in_by_mail(&app, &smtp, "ada@example.com", 1).await;
    let id = id_of(&app, "ada@example.com").await;
    let roles = format!("/api/admin/users/{id}/roles");
    // Nothing changes: nothing ends.
    chief.patch(&roles, &json!({"auditor": false})).await.expect(200);
    assert!(me(&browser).await.is_some());
    chief.patch(&roles, &json!({"auditor": true})).await.expect(200);
    assert!(me(&browser).await.is_none());
    app.clock.advance(Duration::from_secs(3600));
    let browser = signed_in_by_mail(&app, &smtp, "ada@example.com", 2).await;
    let shown: Value = me(&browser).await.unwrap();
    assert_eq!(shown["user"]["is_auditor"], true);
    chief.post(&format!("/api/admin/users/{id}/disable"), &json!({})).await.expect(200);
    assert!(me(&browser).await.is_none());
    chief.post(&format!("/api/admin/users/{id}/enable"), &json!({})).await.expect(200);
    assert!(me(&browser).await.is_none());
    assert!(app.rows("SELECT 1 FROM user_sessions").await.is_empty());
}
