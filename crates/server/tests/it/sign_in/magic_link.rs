//! Signing in by mail.

use std::time::Duration;

use loom_testkit::{TestApp, smtp::SmtpServer};
use serde_json::json;

use super::{email_of, link_and_code, me, open, path_of, signed_in_by_mail, token_of, with};

async fn app() -> (TestApp, SmtpServer) {
    let smtp = SmtpServer::start();
    (with(open(), smtp.settings()).start().await, smtp)
}

#[tokio::test]
async fn the_link_signs_in_by_a_button_in_the_browser_that_asked() {
    let (app, smtp) = app().await;
    let browser = app.browser();
    let sent = browser
        .submit("/auth/magic-link", &[("email", " Ada@Example.com "), ("redirect", "/device")])
        .await
        .expect(202);
    assert!(sent.text.contains("Look at your mail"));
    let mail = smtp.mail(1).await;
    assert_eq!(mail.subject(), "Sign in to Loom");
    assert!(mail.html().unwrap().contains("token="));
    let (link, code) = link_and_code(&mail);
    assert!(mail.html().unwrap().contains(&code));
    let page = browser.get(&path_of(&link)).await.expect(200);
    assert!(page.text.contains("Sign in as ada@example.com?"), "{}", page.text);
    assert!(!page.text.contains(&code));
    assert!(me(&browser).await.is_none(), "looking at it consumes nothing");
    let token = token_of(&link);
    let done = browser.submit("/auth/magic-link/verify", &[("token", &token)]).await.expect(303);
    assert_eq!(done.location(), "/device");
    assert_eq!(email_of(&browser).await.as_deref(), Some("ada@example.com"));
    // Single use, both ways.
    browser.get(&path_of(&link)).await.expect(400);
    browser.submit("/auth/magic-link/verify", &[("token", &token)]).await.expect(400);
    browser.submit("/auth/magic-link/verify", &[("code", &code)]).await.expect(400);
}

#[tokio::test]
async fn another_browser_sees_the_code_and_cannot_sign_in() {
    let (app, smtp) = app().await;
    let (desk, phone) = (app.browser(), app.browser());
    desk.submit("/auth/magic-link", &[("email", "ada@example.com")]).await.expect(202);
    let (link, code) = link_and_code(&smtp.mail(1).await);
    let page = phone.get(&path_of(&link)).await.expect(200);
    assert!(page.text.contains(&code) && page.text.contains("Firefox on Linux"), "{}", page.text);
    assert!(!page.text.contains("<form"), "there is nothing to press: {}", page.text);
    for proof in [("token", token_of(&link)), ("code", code.clone())] {
        phone.submit("/auth/magic-link/verify", &[(proof.0, &proof.1)]).await.expect(400);
    }
    // One that has a browser cookie of its own neither.
    phone.submit("/auth/magic-link", &[("email", "eve@example.com")]).await.expect(202);
    for proof in [("token", token_of(&link)), ("code", code.clone())] {
        phone.submit("/auth/magic-link/verify", &[(proof.0, &proof.1)]).await.expect(400);
    }
    assert!(me(&phone).await.is_none());
    let typed = code.to_lowercase().replace('-', " ");
    desk.submit("/auth/magic-link/verify", &[("code", &typed)]).await.expect(303);
    assert_eq!(email_of(&desk).await.as_deref(), Some("ada@example.com"));
}

#[tokio::test]
async fn programs_speak_json() {
    let (app, smtp) = app().await;
    let browser = app.browser();
    let asked = browser
        .post_json("/auth/magic-link", &json!({"email": "ada@example.com", "redirect": "/device"}))
        .await
        .expect(202);
    assert_eq!(asked.json()["expires_in"], 600);
    let (link, _) = link_and_code(&smtp.mail(1).await);
    let done = browser
        .post_json("/auth/magic-link/verify", &json!({"token": token_of(&link)}))
        .await
        .expect(200);
    assert_eq!(done.json(), json!({"redirect": "/device"}));
    assert!(me(&browser).await.is_some());
    let wrong = browser.post_json("/auth/magic-link/verify", &json!({"code": "BCDF-GHJK"})).await;
    assert_eq!(wrong.expect(400).code(), "wrong_code");
    for email in ["", "ada", "a b@example.com", "a@b@example.com", "a\r\nbcc: x@example.com"] {
        browser.post_json("/auth/magic-link", &json!({"email": email})).await.expect(422);
    }
}

#[tokio::test]
async fn known_and_unknown_addresses_get_the_same_answer_and_only_the_known_a_mail() {
    let (app, smtp) = app().await;
    app.user("ada@elsewhere.org").await;
    app.user("gone@elsewhere.org").await;
    let disable = "UPDATE users SET disabled_at = now() WHERE email LIKE 'gone%'";
    sqlx::query(disable).execute(app.database.pool()).await.unwrap();
    let mut answers = Vec::new();
    for email in ["nobody@elsewhere.org", "gone@elsewhere.org", "ada@elsewhere.org"] {
        let answer =
            app.browser().post_json("/auth/magic-link", &json!({"email": email})).await.expect(202);
        answers.push(answer.text);
    }
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
    smtp.mail(1).await;
    assert_eq!(smtp.mails()[0].to, ["ada@elsewhere.org"]);
    let mails = app.rows("SELECT target FROM deliveries").await;
    assert_eq!(mails.len(), 1, "{mails:?}");
    // What is left behind is the same too.
    assert_eq!(app.rows("SELECT * FROM magic_links").await.len(), 3);
}

#[tokio::test]
async fn a_link_lives_ten_minutes_and_a_newer_one_voids_it() {
    let smtp = SmtpServer::start();
    let app = with(open(), smtp.settings()).manual_clock().start().await;
    let browser = app.browser();
    browser.submit("/auth/magic-link", &[("email", "ada@example.com")]).await.expect(202);
    let (first, first_code) = link_and_code(&smtp.mail(1).await);
    app.clock.advance(Duration::from_secs(60));
    browser.submit("/auth/magic-link", &[("email", "ada@example.com")]).await.expect(202);
    let (second, second_code) = link_and_code(&smtp.mail(2).await);
    assert_ne!(first_code, second_code);
    browser.get(&path_of(&first)).await.expect(400);
    for proof in [("token", token_of(&first)), ("code", first_code)] {
        browser.submit("/auth/magic-link/verify", &[(proof.0, &proof.1)]).await.expect(400);
    }
    app.clock.advance(Duration::from_secs(600));
    browser.get(&path_of(&second)).await.expect(400);
    for proof in [("token", token_of(&second)), ("code", second_code)] {
        browser.submit("/auth/magic-link/verify", &[(proof.0, &proof.1)]).await.expect(400);
    }
    assert!(me(&browser).await.is_none());
}

#[tokio::test]
async fn five_wrong_codes_void_a_link_also_when_they_come_at_once() {
    let (app, smtp) = app().await;
    let browser = app.browser();
    let ask = async || {
        browser.submit("/auth/magic-link", &[("email", "ada@example.com")]).await.expect(202);
    };
    let try_code = async |code: &str| {
        browser.submit("/auth/magic-link/verify", &[("code", code)]).await.status.as_u16()
    };
    ask().await;
    let (_, code) = link_and_code(&smtp.mail(1).await);
    for _ in 0..4 {
        assert_eq!(try_code("BCDF-GHJK").await, 400);
    }
    assert_eq!(try_code(&code).await, 303, "the fifth may still be right");

    ask().await;
    let (link, code) = link_and_code(&smtp.mail(2).await);
    let tries = (0..20).map(|_| try_code("ZZZZ-ZZZZ"));
    assert!(futures::future::join_all(tries).await.iter().all(|status| *status == 400));
    assert_eq!(try_code(&code).await, 400);
    browser.get(&path_of(&link)).await.expect(400);
    browser.submit("/auth/magic-link/verify", &[("token", &token_of(&link))]).await.expect(400);
}

#[tokio::test]
async fn one_address_gets_no_flood_of_mails_and_nobody_learns_of_it() {
    let (app, smtp) = app().await;
    for _ in 0..8 {
        let asked = json!({"email": "ada@example.com"});
        app.browser().post_json("/auth/magic-link", &asked).await.expect(202);
    }
    smtp.mail(5).await;
    assert_eq!(app.rows("SELECT * FROM deliveries").await.len(), 5);
    // One browser may not ask for ever either, whatever the addresses.
    let browser = app.browser();
    let mut last = 0;
    for n in 0..12 {
        let email = format!("nobody-{n}@elsewhere.org");
        last = browser.submit("/auth/magic-link", &[("email", &email)]).await.status.as_u16();
    }
    assert_eq!(last, 429);
}

#[tokio::test]
async fn who_asks_for_an_address_that_gets_no_more_mails_does_not_void_its_link() {
    let (app, smtp) = app().await;
    let browser = app.browser();
    let asked = json!({"email": "ada@example.com"});
    for n in 1..=4 {
        app.browser().post_json("/auth/magic-link", &asked).await.expect(202);
        smtp.mail(n).await;
    }
    browser.post_json("/auth/magic-link", &asked).await.expect(202);
    let (_, code) = link_and_code(&smtp.mail(5).await);
    app.browser().post_json("/auth/magic-link", &asked).await.expect(202);
    browser.submit("/auth/magic-link/verify", &[("code", &code)]).await.expect(303);
}

#[tokio::test]
async fn who_asks_too_often_keeps_the_last_mail_that_came() {
    let (app, smtp) = app().await;
    let browser = app.browser();
    let asked = [("email", "ada@example.com")];
    for n in 1..=5 {
        browser.submit("/auth/magic-link", &asked).await.expect(202);
        smtp.mail(n).await;
    }
    let (link, code) = link_and_code(&smtp.mail(5).await);
    // No mail comes of it.
    browser.submit("/auth/magic-link", &asked).await.expect(202);
    assert_eq!(app.rows("SELECT * FROM deliveries").await.len(), 5);
    browser.get(&path_of(&link)).await.expect(200);
    browser.submit("/auth/magic-link/verify", &[("code", &code)]).await.expect(303);
}

#[tokio::test]
async fn a_link_does_not_sign_in_another_account_over_a_session_without_ending_it() {
    let (app, smtp) = app().await;
    let browser = signed_in_by_mail(&app, &smtp, "ada@example.com", 1).await;
    let before = browser.cookie("loom_session").unwrap();
    browser.submit("/auth/magic-link", &[("email", "eve@example.com")]).await.expect(202);
    let (link, _) = link_and_code(&smtp.mail(2).await);
    browser.submit("/auth/magic-link/verify", &[("token", &token_of(&link))]).await.expect(303);
    assert_eq!(email_of(&browser).await.as_deref(), Some("eve@example.com"));
    let stolen = app.browser();
    stolen.set_cookie("loom_session", &before);
    assert!(
        me(&stolen).await.is_none(),
        "a session fixed before the sign-in is worth nothing after it"
    );
}

#[tokio::test]
async fn without_a_mail_server_in_production_it_says_so() {
    let app = open()
        .set("LOOM_SERVER_ENV", "production")
        .set("LOOM_SERVER_BASE_URL", "https://loom.example.com")
        .start()
        .await;
    let asked = json!({"email": "ada@example.com"});
    let answer = app.anonymous().post("/auth/magic-link", &asked).await.expect(501);
    assert_eq!(answer.code(), "mail_not_configured");
    assert!(answer.text.contains("LOOM_SERVER_SMTP_HOST"));
}
