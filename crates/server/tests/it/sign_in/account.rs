//! The ways into an account: connecting and disconnecting.

use loom_testkit::{
    TestApp,
    browser::Browser,
    idp::{Idp, Person},
    smtp::SmtpServer,
};
use reqwest::Method;
use serde_json::Value;

use super::{ada, email_of, me, open, signed_in_by_mail, with};

async fn with_both() -> (TestApp, SmtpServer, Idp) {
    let (smtp, idp) = (SmtpServer::start(), Idp::start());
    let setup = with(with(open(), smtp.settings()), idp.settings("github"));
    (with(setup, idp.settings("google")).start().await, smtp, idp)
}

async fn ways(browser: &Browser) -> Value {
    browser.get("/api/account/identities").await.expect(200).json()
}

async fn connect(browser: &Browser, provider: &str) -> loom_testkit::Answer {
    let path = format!("/api/account/identities/{provider}/connect");
    let begun = browser.send(Method::POST, &path, None, &[]).await.expect(200);
    let back = browser.get(begun.json()["location"].as_str().unwrap()).await.expect(303).location();
    browser.get(&back).await
}

#[tokio::test]
async fn a_user_has_the_name_that_they_give_themselves() {
    let (app, smtp, _idp) = with_both().await;
    let browser = signed_in_by_mail(&app, &smtp, "ada@example.com", 1).await;
    let rename = async |name: &str| {
        let body = serde_json::json!({ "name": name }).to_string();
        browser.send(Method::PATCH, "/api/account", Some(("application/json", body)), &[]).await
    };
    assert_eq!(rename(" Ada Lovelace ").await.expect(200).json()["name"], "Ada Lovelace");
    assert_eq!(me(&browser).await.unwrap()["user"]["name"], "Ada Lovelace");
    rename(&"x".repeat(101)).await.expect(422);
    rename("two\nlines").await.expect(422);
    rename("").await.expect(200);
    assert_eq!(me(&browser).await.unwrap()["user"]["name"], "");
}

#[tokio::test]
async fn a_signed_in_user_connects_an_identity_with_any_address_and_enters_with_it() {
    let (app, smtp, idp) = with_both().await;
    let browser = signed_in_by_mail(&app, &smtp, "ada@example.com", 1).await;
    let before = browser.cookie("loom_session").unwrap();
    idp.sign_in_as(Person { email_verified: false, ..Person::new("7", "private@elsewhere.org") });
    assert_eq!(connect(&browser, "github").await.expect(303).location(), "/settings/profile");
    let known = ways(&browser).await;
    assert_eq!(known["magic_link"], true);
    assert_eq!(known["identities"][0]["provider"], "github");
    assert_eq!(known["identities"][0]["login"], "private");
    assert_ne!(
        browser.cookie("loom_session").unwrap(),
        before,
        "the session's secret is a new one"
    );
    let other = app.browser();
    other.sign_in_with("github").await.expect(303);
    assert_eq!(email_of(&other).await.as_deref(), Some("ada@example.com"));
    // A page for people.
    let page = browser.get("/account").await.expect(200);
    assert!(page.text.contains("GitHub") && page.text.contains("private"), "{}", page.text);
}

#[tokio::test]
async fn an_identity_of_somebody_else_is_not_taken_over() {
    let (app, smtp, idp) = with_both().await;
    idp.sign_in_as(Person::new("7", "eve@example.com"));
    app.browser().sign_in_with("github").await.expect(303);
    let browser = signed_in_by_mail(&app, &smtp, "ada@example.com", 1).await;
    let page = connect(&browser, "github").await.expect(409);
    assert!(page.text.contains("belongs to another account"), "{}", page.text);
    assert!(ways(&browser).await["identities"].as_array().unwrap().is_empty());
}

#[tokio::test]
async fn connecting_is_finished_only_by_who_began_it() {
    let (app, smtp, idp) = with_both().await;
    let browser = signed_in_by_mail(&app, &smtp, "ada@example.com", 1).await;
    idp.sign_in_as(Person::new("666", "mallory@example.com"));
    let begin = "/api/account/identities/github/connect";
    let begun = browser.send(Method::POST, begin, None, &[]).await.expect(200).json();
    let back = browser.get(begun["location"].as_str().unwrap()).await.expect(303).location();
    // Signed out meanwhile: nobody is connected, and nobody is signed in by it.
    browser.submit("/account/sign-out", &[]).await.expect(303);
    browser.get(&back).await.expect(409);
    assert!(me(&browser).await.is_none());
    assert!(app.rows("SELECT * FROM identities").await.is_empty());
    // A page of another site cannot begin it, nor can a key.
    let browser = signed_in_by_mail(&app, &smtp, "ada@example.com", 2).await;
    let foreign = [("sec-fetch-site", "cross-site"), ("origin", "https://evil.example")];
    browser.send(Method::POST, begin, None, &foreign).await.expect(403);
    browser.submit_with("/account/connect/github", &[], &foreign).await.expect(403);
    let key = app.user("key@example.com").await;
    key.send(key.request(Method::POST, begin)).await.expect(403);
}

#[tokio::test]
async fn the_last_way_in_stays() {
    let idp = Idp::start();
    // In production and without mail, so that GitHub is all there is.
    let setup = with(with(open(), idp.settings("github")), idp.settings("google"));
    let app = setup
        .set("LOOM_SERVER_ENV", "production")
        .set("LOOM_SERVER_BASE_URL", "http://localhost:1")
        .start()
        .await;
    let here = format!("http://localhost:{}", app.running.address.port());
    let browser = app.browser();
    let sign_in = async |browser: &Browser, provider: &str| {
        let back = browser.to_provider_and_back(provider).await;
        browser.get(&back.replace("http://localhost:1", &here)).await
    };
    idp.sign_in_as(ada());
    sign_in(&browser, "github").await.expect(303);
    let known = ways(&browser).await;
    assert_eq!(known["magic_link"], false);
    let path =
        format!("/api/account/identities/{}", known["identities"][0]["id"].as_str().unwrap());
    assert_eq!(browser.delete(&path).await.expect(409).code(), "last_way_in");
    assert_eq!(ways(&browser).await["identities"].as_array().unwrap().len(), 1);
    // Google links by the address, and then GitHub may go.
    idp.sign_in_as(Person::new("g-1", "ada@example.com"));
    sign_in(&browser, "google").await.expect(303);
    browser.delete(&path).await.expect(204);
    browser.delete(&path).await.expect(404);
    let left = ways(&browser).await;
    assert_eq!(left["identities"][0]["provider"], "google");
}

#[tokio::test]
async fn with_a_verified_address_every_identity_may_go() {
    let (app, _smtp, idp) = with_both().await;
    idp.sign_in_as(ada());
    let browser = app.browser();
    browser.sign_in_with("github").await.expect(303);
    let id = ways(&browser).await["identities"][0]["id"].as_str().unwrap().to_owned();
    browser.submit(&format!("/account/identities/{id}/disconnect"), &[]).await.expect(303);
    assert!(ways(&browser).await["identities"].as_array().unwrap().is_empty());
    // Nobody removes those of others.
    let stranger = app.user("eve@example.com").await;
    browser.sign_in_with("github").await.expect(303);
    let id = ways(&browser).await["identities"][0]["id"].as_str().unwrap().to_owned();
    stranger.delete(&format!("/api/account/identities/{id}")).await.expect(404);
}
