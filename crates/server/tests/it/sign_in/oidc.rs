//! Signing in with Google and any OpenID issuer: the ID token is what decides.

use loom_testkit::{
    browser::Browser,
    idp::{Attack, Idp, Person},
};

use super::{ada, app_with, email_of, me, open, with};

#[tokio::test]
async fn google_and_any_issuer_let_the_person_of_the_id_token_in() {
    let idp = Idp::start();
    let app = app_with(&idp, &["google", "oidc"]).await;
    for (provider, id) in [("google", "g-1"), ("oidc", "o-1")] {
        idp.sign_in_as(Person::new(id, &format!("{provider}@example.com")));
        let browser = app.browser();
        browser.sign_in_with(provider).await.expect(303);
        assert_eq!(email_of(&browser).await.unwrap(), format!("{provider}@example.com"));
    }
    let identities =
        app.rows("SELECT provider, issuer, subject FROM identities ORDER BY provider").await;
    assert_eq!(identities[0]["subject"], "g-1");
    assert_eq!(identities[1]["issuer"], idp.url());
}

async fn refused(browser: &Browser, provider: &str, what: &str) {
    let page = browser.sign_in_with(provider).await;
    assert!(matches!(page.status.as_u16(), 400 | 502), "{what}: {} {}", page.status, page.text);
    assert!(me(browser).await.is_none(), "{what}");
}

#[tokio::test]
async fn an_id_token_that_is_not_for_this_sign_in_lets_nobody_in() {
    let idp = Idp::start();
    let app = app_with(&idp, &["google", "oidc"]).await;
    idp.sign_in_as(ada());
    for attack in [
        Attack::WrongNonce,
        Attack::NoNonce,
        Attack::WrongAudience,
        Attack::WrongIssuer,
        Attack::Expired,
        Attack::AlgNone,
        Attack::HmacWithPublicKey,
        Attack::HmacWithClientSecret,
        Attack::WrongKey,
        Attack::UnknownKey,
        Attack::Tampered,
        Attack::NoIdToken,
        Attack::ForeignUserInfo,
        Attack::Flood,
        Attack::Redirect,
    ] {
        idp.attack(attack);
        for provider in ["google", "oidc"] {
            refused(&app.browser(), provider, &format!("{attack:?} {provider}")).await;
        }
    }
    assert!(app.rows("SELECT * FROM users").await.is_empty());
    idp.attack(None);
    app.browser().sign_in_with("google").await.expect(303);
}

#[tokio::test]
async fn a_new_key_is_fetched_and_unknown_ones_do_not_make_us_ask_again_and_again() {
    let idp = Idp::start();
    let app = app_with(&idp, &["google"]).await;
    idp.sign_in_as(ada());
    app.browser().sign_in_with("google").await.expect(303);
    assert_eq!(idp.asked("/keys"), 1);
    app.browser().sign_in_with("google").await.expect(303);
    assert_eq!((idp.asked("/keys"), idp.asked("/.well-known/openid-configuration")), (1, 1));
    idp.rotate_key();
    app.browser().sign_in_with("google").await.expect(303);
    assert_eq!(idp.asked("/keys"), 2);
    // As Google signs.
    idp.rotate_to_rsa();
    let fresh = app_with(&idp, &["google"]).await;
    fresh.browser().sign_in_with("google").await.expect(303);
    for attack in [Attack::Tampered, Attack::WrongKey, Attack::HmacWithPublicKey] {
        idp.attack(attack);
        fresh.browser().sign_in_with("google").await.expect(400);
    }
    idp.rotate_key();
    let asked = idp.asked("/keys");
    idp.attack(Attack::UnknownKey);
    for _ in 0..5 {
        app.browser().sign_in_with("google").await.expect(400);
    }
    // On a slow machine ten seconds may have gone by.
    assert!(idp.asked("/keys") <= asked + 1);
}

#[tokio::test]
async fn an_address_that_the_issuer_has_not_verified_opens_nothing() {
    let idp = Idp::start();
    let app = app_with(&idp, &["google", "oidc"]).await;
    for provider in ["google", "oidc"] {
        for person in [
            Person { email_verified: false, ..ada() },
            Person { email: None, ..ada() },
            Person { email: Some("not an address".to_owned()), ..ada() },
        ] {
            idp.sign_in_as(person);
            app.browser().sign_in_with(provider).await.expect(403);
        }
    }
    assert!(app.rows("SELECT * FROM users").await.is_empty());
}

#[tokio::test]
async fn google_accounts_of_other_organisations_stay_out_when_one_is_named() {
    let idp = Idp::start();
    let setup = open().set("LOOM_SERVER_GOOGLE_HOSTED_DOMAINS", "example.com");
    let app = with(setup, idp.settings("google")).start().await;
    for domain in [None, Some("evil.example"), Some("notexample.com")] {
        idp.sign_in_as(Person { hosted_domain: domain.map(str::to_owned), ..ada() });
        let page = app.browser().sign_in_with("google").await.expect(403);
        assert!(page.text.contains("does not belong to an organisation"), "{}", page.text);
    }
    idp.sign_in_as(Person { hosted_domain: Some("example.com".to_owned()), ..ada() });
    app.browser().sign_in_with("google").await.expect(303);
}

#[tokio::test]
async fn an_address_that_changed_hands_at_google_does_not_open_the_old_account() {
    let idp = Idp::start();
    let app = app_with(&idp, &["google"]).await;
    idp.sign_in_as(ada());
    app.browser().sign_in_with("google").await.expect(303);
    // The domain was sold: same address, same `hd`, another subject.
    idp.sign_in_as(Person::new("another subject", "ada@example.com"));
    let browser = app.browser();
    browser.sign_in_with("google").await.expect(409);
    assert!(me(&browser).await.is_none());
}

#[tokio::test]
async fn the_same_subject_at_another_issuer_is_somebody_else() {
    let (one, other) = (Idp::start(), Idp::start());
    let setup = with(with(open(), one.settings("google")), other.settings("oidc"));
    let app = setup.start().await;
    one.sign_in_as(Person::new("1", "ada@example.com"));
    other.sign_in_as(Person::new("1", "eve@example.com"));
    let (ada, eve) = (app.browser(), app.browser());
    ada.sign_in_with("google").await.expect(303);
    eve.sign_in_with("oidc").await.expect(303);
    assert_ne!(email_of(&ada).await, email_of(&eve).await);
}
