//! What every page has in common: no script, nothing from elsewhere, no trace of a secret left behind.

use loom_testkit::{
    browser::Browser,
    idp::{Idp, Person},
    smtp::SmtpServer,
};
use reqwest::Method;

use super::{link_and_code, open, path_of, signed_in_by_mail, token_of, with};

#[track_caller]
fn assert_strict(page: &loom_testkit::Answer, what: &str) {
    let header = |name: &str| page.header(name).unwrap_or_else(|| panic!("{what}: no {name}"));
    assert_eq!(header("content-type"), "text/html; charset=utf-8", "{what}");
    let policy = header("content-security-policy");
    for part in [
        "default-src 'none'",
        "style-src 'sha256-",
        "form-action 'self'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
    ] {
        assert!(policy.contains(part), "{what}: {policy}");
    }
    assert!(!policy.contains("unsafe"), "{what}: {policy}");
    assert_eq!(header("referrer-policy"), "same-origin", "{what}");
    assert_eq!(header("cache-control"), "no-store", "{what}");
    assert_eq!(header("x-content-type-options"), "nosniff", "{what}");
    let text = &page.text;
    for banned in ["<script", " onclick", "javascript:", " style=", "src=\"http"] {
        assert!(!text.contains(banned), "{what} has {banned}: {text}");
    }
    assert!(text.contains("<html lang=\"en\">") && text.contains("name=\"viewport\""), "{what}");
    assert_eq!(text.matches("<h1").count(), 1, "{what}");
    // Whatever can be typed into has a label.
    for input in text.split("<input").skip(1).map(|rest| rest.split('>').next().unwrap()) {
        if input.contains("type=\"hidden\"") {
            continue;
        }
        let id = input.split("id=\"").nth(1).unwrap().split('"').next().unwrap();
        assert!(text.contains(&format!("for=\"{id}\"")), "{what}: {input} has no label");
    }
}

#[tokio::test]
async fn every_page_is_strict() {
    let (smtp, idp) = (SmtpServer::start(), Idp::start());
    let setup = with(with(open(), smtp.settings()), idp.settings("github"));
    let app = setup.start().await;
    let stranger = app.browser();
    let page = async |browser: &Browser, path: &str| browser.get(path).await;
    assert_strict(&page(&stranger, "/auth/sign-in?redirect=%22%3E%3Cscript%3E").await, "sign-in");
    assert_strict(&page(&stranger, "/auth/sign-in?redirect=/a%26b").await, "sign-in with a path");
    let link = app.running.features.auth.setup_link().await.unwrap().unwrap();
    assert_strict(&page(&stranger, &path_of(&link)).await, "set-up");
    let wrong = stranger.submit("/auth/magic-link", &[("email", "\"><script>@example.com")]).await;
    let wrong = wrong.expect(422);
    assert_strict(&wrong, "not an address");
    assert!(wrong.text.contains("This is not an e-mail address."), "{}", wrong.text);
    let sent = stranger.submit("/auth/magic-link", &[("email", "ada&co@example.com")]).await;
    assert_strict(&sent.expect(202), "sent");
    let (link, _) = link_and_code(&smtp.mail(1).await);
    assert_strict(&page(&stranger, &path_of(&link)).await, "confirm");
    assert_strict(&page(&app.browser(), &path_of(&link)).await, "elsewhere");
    let wrong = stranger.submit("/auth/magic-link/verify", &[("code", "\"><script>")]).await;
    assert_strict(&wrong.expect(400), "wrong code");
    let stale = page(&stranger, &format!("/auth/magic-link/verify?token={}", "A".repeat(43))).await;
    assert_strict(&stale, "stale");
    let token = token_of(&link);
    let done = stranger.submit("/auth/magic-link/verify", &[("token", &token)]).await.expect(303);
    assert_eq!(done.header("referrer-policy"), Some("same-origin"));
    assert_strict(&page(&stranger, "/account").await, "account");
    assert_strict(&page(&stranger, "/device").await, "device");
    assert_strict(
        &stranger.submit("/device", &[("user_code", "<b>")]).await.expect(404),
        "no code",
    );
    let connect = stranger.submit("/account/connect/github", &[]).await.expect(200);
    assert_strict(&connect, "connect");
    assert_strict(&page(&stranger, "/auth/login/google").await.expect(501), "not configured");
    assert_strict(
        &page(&stranger, "/auth/github/callback?error=%3Cscript%3E&state=x").await,
        "error",
    );
    let unsigned = app
        .browser()
        .submit("/account/sessions/0193a1b2-0000-7000-8000-000000000000/end", &[])
        .await;
    assert_eq!(unsigned.status, 401);
    assert_strict(&unsigned, "signed out");
}

#[tokio::test]
async fn the_account_page_lists_sessions_and_ends_one_without_script() {
    let smtp = SmtpServer::start();
    let app = with(open(), smtp.settings()).start().await;
    let here = signed_in_by_mail(&app, &smtp, "ada@example.com", 1).await;
    let there = signed_in_by_mail(&app, &smtp, "ada@example.com", 2).await;
    let page = here.get("/account").await.expect(200);
    let action = page.text.split("action=\"/account/sessions/").nth(1).expect("one to end");
    let action = format!("/account/sessions/{}", action.split('"').next().unwrap());
    assert_eq!(page.text.matches("/account/sessions/").count(), 1, "not the one in use");
    let foreign = [("sec-fetch-site", "cross-site"), ("origin", "https://evil.example")];
    here.submit_with(&action, &[], &foreign).await.expect(403);
    there.get("/auth/me").await.expect(200);
    here.submit(&action, &[]).await.expect(303);
    there.get("/auth/me").await.expect(401);
    let out = here.submit("/account/sign-out", &[]).await.expect(303);
    assert_eq!(out.location(), "/auth/sign-in");
    assert_eq!(
        here.get("/account").await.expect(303).location(),
        "/auth/sign-in?redirect=%2Faccount"
    );
}

#[tokio::test]
async fn names_from_a_provider_are_text_and_nothing_else() {
    let idp = Idp::start();
    let app = with(open(), idp.settings("github")).start().await;
    idp.sign_in_as(Person {
        login: "<img src=x onerror=alert(1)>".to_owned(),
        name: "<script>alert(1)</script>\u{0}\u{1b}[31m".to_owned(),
        ..Person::new("1", "ada@example.com")
    });
    let browser = app.browser();
    let done = browser.sign_in_with("github").await;
    assert!(done.status.as_u16() < 500, "{}", done.text);
    if done.status == 303 {
        let page = browser.get("/account").await.expect(200);
        assert!(!page.text.contains("<img") && !page.text.contains("<script>"), "{}", page.text);
    }
    browser.send(Method::HEAD, "/account", None, &[]).await;
}
