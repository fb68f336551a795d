//! Signing in, end to end: a browser, a provider, a mail server, and those who attack them.

mod account;
mod chromium;
mod device;
pub(crate) mod dump;
mod ended;
mod github;
mod magic_link;
mod oidc;
mod pages;
mod scanner;
mod sessions;
mod setup;

use loom_testkit::{
    Setup, TestApp,
    browser::Browser,
    idp::{Idp, Person},
    smtp::SmtpServer,
};
use serde_json::Value;

/// Anybody at example.com may sign up.
pub(crate) fn open() -> Setup {
    Setup::default()
        .set("LOOM_SERVER_SIGN_UP", "domains")
        .set("LOOM_SERVER_SIGN_UP_DOMAINS", "example.com")
}

pub(crate) fn with(setup: Setup, settings: Vec<(impl AsRef<str>, String)>) -> Setup {
    settings.into_iter().fold(setup, |setup, (name, value)| setup.set(name.as_ref(), value))
}

/// A server that knows the provider under these names.
async fn app_with(idp: &Idp, providers: &[&str]) -> TestApp {
    let setup = providers.iter().fold(open(), |setup, name| with(setup, idp.settings(name)));
    setup.start().await
}

fn ada() -> Person {
    Person::new("1815", "ada@example.com")
}

/// Who the browser is signed in as.
async fn me(browser: &Browser) -> Option<Value> {
    let answer = browser.get("/auth/me").await;
    match answer.status.as_u16() {
        200 => Some(answer.json()),
        401 => None,
        other => panic!("{other}: {}", answer.text),
    }
}

async fn email_of(browser: &Browser) -> Option<String> {
    Some(me(browser).await?["user"]["email"].as_str().unwrap().to_owned())
}

/// The link and the code in a mail.
fn link_and_code(mail: &loom_testkit::smtp::Received) -> (String, String) {
    let text = mail.text();
    let link =
        text.split_whitespace().find(|word| word.starts_with("http://") && word.contains("token="));
    let is_code = |word: &&str| {
        word.len() == 9
            && word
                .chars()
                .enumerate()
                .all(|(at, c)| if at == 4 { c == '-' } else { c.is_ascii_uppercase() })
    };
    let code = text.split_whitespace().find(is_code).expect("a code");
    (link.expect("a link").to_owned(), code.to_owned())
}

fn path_of(url: &str) -> String {
    let url: reqwest::Url = url.parse().unwrap();
    format!("{}?{}", url.path(), url.query().unwrap_or_default())
}

fn token_of(url: &str) -> String {
    url.split_once("token=").unwrap().1.to_owned()
}

async fn verify(app: &TestApp, email: &str) {
    sqlx::query("UPDATE users SET email_verified_at = now() WHERE email = $1")
        .bind(email)
        .execute(app.database.pool())
        .await
        .unwrap();
}

/// A browser that signed in by mail; `n` is the number of the mail.
pub(crate) async fn signed_in_by_mail(
    app: &TestApp,
    smtp: &SmtpServer,
    email: &str,
    n: usize,
) -> Browser {
    let browser = app.browser();
    browser.submit("/auth/magic-link", &[("email", email)]).await.expect(202);
    let (link, _) = link_and_code(&smtp.mail(n).await);
    browser.submit("/auth/magic-link/verify", &[("token", &token_of(&link))]).await.expect(303);
    browser
}
