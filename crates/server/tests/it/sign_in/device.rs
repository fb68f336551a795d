//! Signing in a command-line client (RFC 8628).

use std::time::Duration;

use loom_testkit::{TestApp, browser::Browser, eventually, smtp::SmtpServer};
use serde_json::{Value, json};

use super::{open, signed_in_by_mail, with};

async fn app() -> (TestApp, SmtpServer) {
    let smtp = SmtpServer::start();
    (with(open(), smtp.settings()).manual_clock().start().await, smtp)
}

async fn start(app: &TestApp) -> Value {
    let client = json!({"client_name": "loom-cli on workbench"});
    app.anonymous().post("/auth/device/start", &client).await.expect(200).json()
}

/// The word of RFC 8628, or the token.
async fn poll(app: &TestApp, started: &Value) -> Result<String, String> {
    let device_code = json!({"device_code": started["device_code"]});
    let answer = app.anonymous().post("/auth/device/poll", &device_code).await;
    match answer.status.as_u16() {
        200 => Ok(answer.json()["access_token"].as_str().unwrap().to_owned()),
        400 => Err(answer.json()["error"].as_str().unwrap().to_owned()),
        other => panic!("{other}: {}", answer.text),
    }
}

async fn answer(browser: &Browser, code: &str, approve: &str) -> u16 {
    let fields = [("user_code", code), ("approve", approve)];
    browser.submit("/auth/device/complete", &fields).await.status.as_u16()
}

#[tokio::test]
async fn a_client_is_let_in_by_a_person_who_sees_who_asks() {
    let (app, smtp) = app().await;
    let started = start(&app).await;
    assert_eq!((&started["expires_in"], &started["interval"]), (&600.into(), &5.into()));
    let code = started["user_code"].as_str().unwrap();
    assert_eq!(code.len(), 9);
    assert!(started["verification_uri"].as_str().unwrap().ends_with("/device"));
    let complete = started["verification_uri_complete"].as_str().unwrap();
    assert!(complete.ends_with(&format!("/device?user_code={code}")));
    assert_eq!(poll(&app, &started).await, Err("authorization_pending".to_owned()));

    // Who is not signed in is sent there first, and back with the code.
    let stranger = app.browser().get(&format!("/device?user_code={code}")).await.expect(303);
    assert_eq!(
        stranger.location(),
        format!("/auth/sign-in?redirect=%2Fdevice%3Fuser_code%3D{code}")
    );

    let browser = signed_in_by_mail(&app, &smtp, "ada@example.com", 1).await;
    let page = browser.get(&format!("/device?user_code={code}")).await.expect(200);
    assert!(page.text.contains(code) && page.text.contains("they would be signed in as you"));
    let page = browser.submit("/device", &[("user_code", &code.to_lowercase())]).await.expect(200);
    for word in [
        "loom-cli on workbench",
        "127.0.0.1",
        "ada@example.com",
        "Only if you started this yourself",
    ] {
        assert!(page.text.contains(word), "{word}: {}", page.text);
    }
    app.clock.advance(Duration::from_secs(5));
    assert_eq!(poll(&app, &started).await, Err("authorization_pending".to_owned()));
    assert_eq!(answer(&browser, code, "true").await, 200);
    app.clock.advance(Duration::from_secs(5));
    let token = poll(&app, &started).await.unwrap();
    assert!(token.starts_with("loom_cli_") && token.len() == 45, "{token}");
    let client = app.anonymous().with_key(&token);
    let me = client.get("/auth/me").await.expect(200).json();
    assert_eq!(
        (&me["user"]["email"], &me["via"]["kind"]),
        (&"ada@example.com".into(), &"session".into())
    );
    // It makes no further way in: neither another client nor an identity.
    let other = start(&app).await;
    let approve = json!({"user_code": other["user_code"], "approve": true});
    client.post("/auth/device/complete", &approve).await.expect(403);
    client.get("/device").await.expect(403);
    client.post("/device", &json!({"user_code": other["user_code"]})).await.expect(403);
    client.post("/api/account/identities/github/connect", &json!({})).await.expect(403);
    // Nor does the token of a WebSocket that stands for it.
    let token = client.get("/auth/ws-token").await.expect(200).json();
    let path = format!("/auth/device/complete?token={}", token["token"].as_str().unwrap());
    app.anonymous().with("upgrade", "websocket").post(&path, &approve).await.expect(403);
    let mail = smtp.mail(2).await;
    assert!(mail.text().contains("loom-cli on workbench"), "{}", mail.text());
    // The device code is used up, and the session is listed and can be ended.
    assert_eq!(poll(&app, &started).await, Err("expired_token".to_owned()));
    let list = browser.get("/api/sessions").await.expect(200).json();
    let session =
        list["sessions"].as_array().unwrap().iter().find(|s| s["kind"] == "cli").unwrap().clone();
    assert_eq!(session["device"], "loom-cli on workbench");
    browser.delete(&format!("/api/sessions/{}", session["id"].as_str().unwrap())).await.expect(204);
    client.get("/auth/me").await.expect(401);
}

#[tokio::test]
async fn polling_too_fast_slows_down() {
    let (app, _smtp) = app().await;
    let started = start(&app).await;
    assert_eq!(poll(&app, &started).await, Err("authorization_pending".to_owned()));
    assert_eq!(poll(&app, &started).await, Err("slow_down".to_owned()));
    // Ten seconds now.
    app.clock.advance(Duration::from_secs(5));
    assert_eq!(poll(&app, &started).await, Err("slow_down".to_owned()));
    app.clock.advance(Duration::from_secs(15));
    assert_eq!(poll(&app, &started).await, Err("authorization_pending".to_owned()));
}

#[tokio::test]
async fn what_is_refused_expired_or_unknown_gives_no_token() {
    let (app, smtp) = app().await;
    let browser = signed_in_by_mail(&app, &smtp, "ada@example.com", 1).await;
    let refused = start(&app).await;
    assert_eq!(answer(&browser, refused["user_code"].as_str().unwrap(), "false").await, 200);
    assert_eq!(poll(&app, &refused).await, Err("access_denied".to_owned()));
    assert_eq!(poll(&app, &refused).await, Err("expired_token".to_owned()));
    let late = start(&app).await;
    app.clock.advance(Duration::from_secs(600));
    assert_eq!(answer(&browser, late["user_code"].as_str().unwrap(), "true").await, 404);
    assert_eq!(poll(&app, &late).await, Err("expired_token".to_owned()));
    assert_eq!(poll(&app, &json!({"device_code": "x"})).await, Err("expired_token".to_owned()));
    // Allowed, but by somebody who is disabled before the client asks again.
    let allowed = start(&app).await;
    assert_eq!(answer(&browser, allowed["user_code"].as_str().unwrap(), "true").await, 200);
    sqlx::query("UPDATE users SET disabled_at = now()").execute(app.database.pool()).await.unwrap();
    let device_code = json!({"device_code": allowed["device_code"]});
    app.anonymous().post("/auth/device/poll", &device_code).await.expect(403);
    assert!(app.rows("SELECT * FROM user_sessions WHERE kind = 'cli'").await.is_empty());
}

#[tokio::test]
async fn only_a_signed_in_browser_lets_a_device_in() {
    let (app, smtp) = app().await;
    let started = start(&app).await;
    let complete = json!({"user_code": started["user_code"], "approve": true});
    app.anonymous().post("/auth/device/complete", &complete).await.expect(401);
    let key = app.user("key@example.com").await;
    key.post("/auth/device/complete", &complete).await.expect(403);
    let browser = signed_in_by_mail(&app, &smtp, "ada@example.com", 1).await;
    let foreign = [("sec-fetch-site", "cross-site"), ("origin", "https://evil.example")];
    let code = started["user_code"].as_str().unwrap();
    let fields = [("user_code", code), ("approve", "true")];
    browser.submit_with("/auth/device/complete", &fields, &foreign).await.expect(403);
    assert_eq!(poll(&app, &started).await, Err("authorization_pending".to_owned()));
    let done = browser.post_json("/auth/device/complete", &complete).await.expect(200).json();
    assert_eq!(done, json!({"approved": true, "client_name": "loom-cli on workbench"}));
    assert_eq!(answer(&browser, code, "false").await, 404, "answered once");
}

#[tokio::test]
async fn guessing_user_codes_is_closed_after_five() {
    let (app, smtp) = app().await;
    let browser = signed_in_by_mail(&app, &smtp, "ada@example.com", 1).await;
    let started = start(&app).await;
    for _ in 0..5 {
        browser.submit("/device", &[("user_code", "ZZZZ-ZZZZ")]).await.expect(404);
    }
    let code = started["user_code"].as_str().unwrap();
    let closed = browser.submit("/device", &[("user_code", code)]).await.expect(429);
    assert!(closed.header("retry-after").is_some());
    assert_eq!(answer(&browser, code, "true").await, 429);
    app.clock.advance(Duration::from_secs(300));
    browser.submit("/device", &[("user_code", code)]).await.expect(200);
}

#[tokio::test]
async fn a_code_is_not_tried_while_the_last_wrong_one_is_being_counted() {
    let (app, smtp) = app().await;
    let browser = signed_in_by_mail(&app, &smtp, "ada@example.com", 1).await;
    let started = start(&app).await;
    let wrong = [("user_code", "ZZZZ-ZZZZ")];
    for _ in 0..4 {
        browser.submit("/device", &wrong).await.expect(404);
    }
    let mut count = loom_db::begin(app.database.pool()).await.unwrap();
    sqlx::query("SELECT 1 FROM rate_limits WHERE purpose = 'device code' FOR UPDATE")
        .execute(&mut *count)
        .await
        .unwrap();
    let waiting = async |n: usize| {
        let query = "SELECT pid FROM pg_stat_activity
                      WHERE datname = current_database() AND wait_event_type = 'Lock'";
        eventually(async || (app.rows(query).await.len() >= n).then_some(())).await;
    };
    let fifth = browser.submit("/device", &wrong);
    let sixth = async {
        waiting(1).await;
        browser.submit("/device", &[("user_code", started["user_code"].as_str().unwrap())]).await
    };
    let release = async {
        waiting(2).await;
        count.rollback().await.unwrap();
    };
    let (fifth, sixth, ()) = tokio::join!(fifth, sixth, release);
    assert_eq!((fifth.status.as_u16(), sixth.status.as_u16()), (404, 429));
}

#[tokio::test]
async fn the_token_of_a_device_lets_no_further_device_in_and_connects_no_identity() {
    let smtp = SmtpServer::start();
    let idp = loom_testkit::idp::Idp::start();
    let app = with(with(open(), smtp.settings()), idp.settings("github")).start().await;
    let browser = signed_in_by_mail(&app, &smtp, "ada@example.com", 1).await;
    let started = start(&app).await;
    assert_eq!(answer(&browser, started["user_code"].as_str().unwrap(), "true").await, 200);
    let token = poll(&app, &started).await.unwrap();
    let client = app.anonymous().with_key(&token);
    client.get("/auth/me").await.expect(200);
    let second = start(&app).await;
    let complete = json!({"user_code": second["user_code"], "approve": true});
    client.post("/auth/device/complete", &complete).await.expect(403);
    assert_eq!(poll(&app, &second).await, Err("authorization_pending".to_owned()));
    client.post("/api/account/identities/github/connect", &json!({})).await.expect(403);
}

#[tokio::test]
async fn a_client_cannot_write_markup_on_the_page() {
    let (app, smtp) = app().await;
    let name = "<script>alert(1)</script>\"'&\u{202e}\u{0}";
    let answer = app.anonymous().post("/auth/device/start", &json!({"client_name": name})).await;
    assert_eq!(answer.status, 422, "a NUL is told");
    let name = "<script>alert(1)</script>\"'&\u{7}";
    let started = app.anonymous().post("/auth/device/start", &json!({"client_name": name})).await;
    let code = started.expect(200).json()["user_code"].as_str().unwrap().to_owned();
    let browser = signed_in_by_mail(&app, &smtp, "ada@example.com", 1).await;
    let page = browser.submit("/device", &[("user_code", &code)]).await.expect(200);
    assert!(
        !page.text.contains("<script>") && page.text.contains("&lt;script&gt;"),
        "{}",
        page.text
    );
}
