//! The first admin.

use std::time::Duration;

use loom_testkit::{Setup, smtp::SmtpServer};

use super::{me, signed_in_by_mail, token_of, with};

#[tokio::test]
async fn the_set_up_link_makes_one_admin_once() {
    let app = Setup::default().manual_clock().start().await;
    let auth = &app.running.features.auth;
    let expired = token_of(&auth.setup_link().await.unwrap().unwrap());
    app.clock.advance(Duration::from_secs(24 * 3600));
    let link = auth.setup_link().await.unwrap().unwrap();
    let spare = token_of(&auth.setup_link().await.unwrap().unwrap());
    let token = token_of(&link);
    assert!(link.starts_with("http://localhost:"), "{link}");

    let browser = app.browser();
    for bad in ["", "x", &"A".repeat(43), &expired] {
        browser.get(&format!("/auth/setup?token={bad}")).await.expect(400);
        let fields = [("token", bad), ("email", "eve@example.com")];
        browser.submit("/auth/setup", &fields).await.expect(400);
    }
    for _ in 0..2 {
        browser.get(&format!("/auth/setup?token={token}")).await.expect(200);
    }
    let wrong = browser.submit("/auth/setup", &[("token", &token), ("email", "nonsense")]).await;
    assert!(wrong.expect(422).text.contains("is not an e-mail address"));
    let foreign = [("sec-fetch-site", "cross-site"), ("origin", "https://evil.example")];
    let fields = [("token", token.as_str()), ("email", "ada@example.com")];
    browser.submit_with("/auth/setup", &fields, &foreign).await.expect(403);

    let done = browser.submit("/auth/setup", &fields).await.expect(303);
    assert_eq!(done.location(), "/", "the dashboard, with what to do first");
    let ada = me(&browser).await.unwrap();
    assert_eq!(ada["user"]["is_system_admin"], true);
    // No second one: not with the same link, not with another, and none is made any more.
    for used in [&token, &spare] {
        browser.get(&format!("/auth/setup?token={used}")).await.expect(400);
        let fields = [("token", used.as_str()), ("email", "eve@example.com")];
        app.browser().submit("/auth/setup", &fields).await.expect(400);
    }
    assert!(auth.setup_link().await.unwrap().is_none());
    assert_eq!(app.rows("SELECT * FROM users").await.len(), 1);
}

#[tokio::test]
async fn of_many_who_have_links_at_the_same_moment_one_becomes_the_admin() {
    let app = Setup::default().start().await;
    let auth = &app.running.features.auth;
    let mut links = Vec::new();
    for _ in 0..8 {
        links.push(token_of(&auth.setup_link().await.unwrap().unwrap()));
    }
    let tries = links.iter().enumerate().map(|(n, token)| {
        let (browser, email) = (app.browser(), format!("admin-{n}@example.com"));
        async move {
            let fields = [("token", token.as_str()), ("email", email.as_str())];
            browser.submit("/auth/setup", &fields).await.status.as_u16()
        }
    });
    let statuses = futures::future::join_all(tries).await;
    assert_eq!(statuses.iter().filter(|status| **status == 303).count(), 1, "{statuses:?}");
    assert_eq!(app.rows("SELECT * FROM users WHERE is_system_admin").await.len(), 1);
}

#[tokio::test]
async fn an_admin_made_on_the_command_line_closes_it_and_enters_by_mail() {
    let smtp = SmtpServer::start();
    let app = with(Setup::default(), smtp.settings()).start().await;
    let auth = &app.running.features.auth;
    let token = token_of(&auth.setup_link().await.unwrap().unwrap());
    auth.create_admin("chief@elsewhere.org").await.unwrap();
    app.browser().get(&format!("/auth/setup?token={token}")).await.expect(400);
    assert!(auth.setup_link().await.unwrap().is_none());
    let browser = signed_in_by_mail(&app, &smtp, "chief@elsewhere.org", 1).await;
    assert_eq!(me(&browser).await.unwrap()["user"]["is_system_admin"], true);
}
