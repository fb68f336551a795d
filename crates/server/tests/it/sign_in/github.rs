//! Signing in with GitHub, and what can go wrong with OAuth 2.0 whoever the provider is.

use std::time::Duration;

use loom_testkit::idp::{Idp, Person};

use super::{ada, app_with, email_of, me, open, verify, with};

#[tokio::test]
async fn somebody_signs_up_with_github_and_in_again_and_is_the_same_user() {
    let idp = Idp::start();
    let app = app_with(&idp, &["github"]).await;
    idp.sign_in_as(ada());
    let browser = app.browser();
    let done = browser.sign_in_with("github").await.expect(303);
    assert_eq!(done.location(), "/");
    let first = me(&browser).await.unwrap();
    assert_eq!(first["user"]["email"], "ada@example.com");
    assert_eq!(first["user"]["name"], "Ada Lovelace");
    assert_eq!(first["via"]["kind"], "session");
    let other = app.browser();
    other.sign_in_with("github").await.expect(303);
    let second = me(&other).await.unwrap();
    assert_eq!(second["user"]["id"], first["user"]["id"]);
    assert_ne!(second["via"]["id"], first["via"]["id"]);
    let cookies = browser.seen.lock().unwrap().clone();
    let session = cookies.iter().find(|line| line.starts_with("loom_session=")).unwrap();
    for part in ["Path=/", "HttpOnly", "SameSite=Lax"] {
        assert!(session.contains(part), "{session}");
    }
}

#[tokio::test]
async fn both_callback_paths_work_and_the_redirect_is_followed() {
    let idp = Idp::start();
    let app = app_with(&idp, &["github"]).await;
    idp.sign_in_as(ada());
    let browser = app.browser();
    let gone = browser.get("/auth/login/github?redirect=/device%3Fuser_code%3DBCDF-GHJK").await;
    let back = browser.get(&gone.expect(302).location()).await.expect(303).location();
    let other_path = back.replace("/auth/github/callback", "/auth/callback/github");
    assert_ne!(back, other_path);
    let done = browser.get(&other_path).await.expect(303);
    assert_eq!(done.location(), "/device?user_code=BCDF-GHJK");
}

#[tokio::test]
async fn a_foreign_redirect_leads_home() {
    let idp = Idp::start();
    let app = app_with(&idp, &["github"]).await;
    idp.sign_in_as(ada());
    for target in [
        "//evil.example",
        "https://evil.example/",
        "/%5Cevil.example",
        "%2F%09%2Fevil.example",
        "javascript:alert(1)",
    ] {
        let browser = app.browser();
        let gone = browser.get(&format!("/auth/login/github?redirect={target}")).await.expect(302);
        assert!(gone.location().starts_with(&idp.url()));
        let back = browser.get(&gone.location()).await.expect(303).location();
        assert_eq!(browser.get(&back).await.expect(303).location(), "/", "{target}");
    }
}

#[tokio::test]
async fn several_tabs_may_sign_in_at_once() {
    let idp = Idp::start();
    let app = app_with(&idp, &["github"]).await;
    idp.sign_in_as(ada());
    let browser = app.browser();
    let first = browser.to_provider_and_back("github").await;
    let second = browser.to_provider_and_back("github").await;
    browser.get(&first).await.expect(303);
    browser.get(&second).await.expect(303);
    assert!(me(&browser).await.is_some());
}

#[tokio::test]
async fn a_state_that_is_replayed_foreign_swapped_made_up_or_missing_is_a_clear_page() {
    let idp = Idp::start();
    let app = app_with(&idp, &["github", "oidc"]).await;
    idp.sign_in_as(ada());

    // Replayed: by the browser itself, and by one that saw the URL.
    let browser = app.browser();
    let back = browser.to_provider_and_back("github").await;
    browser.get(&back).await.expect(303);
    let again = browser.get(&back).await.expect(400);
    assert!(again.text.contains("This link is no longer good"), "{}", again.text);
    assert_eq!(again.header("content-type"), Some("text/html; charset=utf-8"));

    // Foreign: an attacker's answer put into another browser, with and without a sign-in of its own.
    let attacker = app.browser();
    let bait = attacker.to_provider_and_back("github").await;
    let victim = app.browser();
    victim.get(&bait).await.expect(400);
    let victim = app.browser();
    victim.to_provider_and_back("github").await;
    victim.get(&bait).await.expect(400);
    assert!(me(&victim).await.is_none());

    // Swapped: the attacker's code with the victim's state. The verifier does not fit.
    let attacker = app.browser();
    let bait = attacker.to_provider_and_back("github").await;
    let victim = app.browser();
    let own = victim.to_provider_and_back("github").await;
    let part = |url: &str, name: &str| {
        let url: reqwest::Url = url.parse().unwrap();
        url.query_pairs().find(|(key, _)| key == name).unwrap().1.into_owned()
    };
    let (code, state) = (part(&bait, "code"), part(&own, "state"));
    victim.get(&format!("/auth/github/callback?code={code}&state={state}")).await.expect(400);
    assert!(me(&victim).await.is_none());

    // Mixed up: an answer of one provider at the callback of another.
    let browser = app.browser();
    let back = browser.to_provider_and_back("github").await;
    browser.get(&back.replace("/auth/github/", "/auth/oidc/")).await.expect(400);
    browser.get(&back).await.expect(400);
    assert!(me(&browser).await.is_none());

    let browser = app.browser();
    browser.to_provider_and_back("github").await;
    let made_up = "A".repeat(43);
    for query in [
        "",
        "?code=x",
        "?state=",
        &format!("?code=x&state={made_up}"),
        "?code=x&state=%27%20OR%201=1",
    ] {
        browser.get(&format!("/auth/github/callback{query}")).await.expect(400);
    }
}

#[tokio::test]
async fn a_state_lives_ten_minutes_and_the_job_removes_it() {
    let idp = Idp::start();
    let app = with(open(), idp.settings("github")).manual_clock().start().await;
    idp.sign_in_as(ada());
    let browser = app.browser();
    let back = browser.to_provider_and_back("github").await;
    app.clock.advance(Duration::from_secs(599));
    browser.get(&back).await.expect(303);
    let late = browser.to_provider_and_back("github").await;
    browser.to_provider_and_back("github").await;
    app.clock.advance(Duration::from_secs(600));
    browser.get(&late).await.expect(400);
    assert_eq!(app.rows("SELECT * FROM oauth_states").await.len(), 1);
    app.running.features.jobs.run_now("oauth-state-cleanup").await.unwrap();
    assert!(app.rows("SELECT * FROM oauth_states").await.is_empty());
}

#[tokio::test]
async fn a_code_is_traded_once_and_only_with_our_redirect_uri_and_verifier() {
    let idp = Idp::start();
    let app = app_with(&idp, &["github"]).await;
    idp.sign_in_as(ada());
    // The provider of the tests refuses any other redirect URI, client or verifier, so that this is it.
    let browser = app.browser();
    let back = browser.to_provider_and_back("github").await;
    browser.get(&back).await.expect(303);
    assert_eq!(idp.asked("/login/oauth/access_token"), 1);
    // The same code with a state of its own.
    let code: String =
        back.split("code=").nth(1).unwrap().chars().take_while(|c| *c != '&').collect();
    let next = browser.to_provider_and_back("github").await;
    let state: String =
        next.split("state=").nth(1).unwrap().chars().take_while(|c| *c != '&').collect();
    let reused = browser.get(&format!("/auth/github/callback?code={code}&state={state}")).await;
    reused.expect(400);
    assert_eq!(idp.asked("/login/oauth/access_token"), 2);
}

#[tokio::test]
async fn an_answer_that_names_another_issuer_is_refused() {
    let idp = Idp::start();
    let app = app_with(&idp, &["github", "oidc"]).await;
    idp.sign_in_as(ada());
    for provider in ["github", "oidc"] {
        idp.announce(Some("https://evil.example"));
        let browser = app.browser();
        browser.sign_in_with(provider).await.expect(400);
        assert!(me(&browser).await.is_none());
        idp.announce(Some(&idp.url()));
        let fresh = app.browser();
        fresh.sign_in_with(provider).await;
    }
    assert_eq!(idp.asked("/token"), 1, "no code goes to a provider that did not give it");
}

#[tokio::test]
async fn who_calls_it_off_is_told_so() {
    let idp = Idp::start();
    let app = app_with(&idp, &["github"]).await;
    let browser = app.browser();
    let page = browser.sign_in_with("github").await.expect(403);
    assert!(page.text.contains("called off"), "{}", page.text);
}

#[tokio::test]
async fn a_person_is_their_number_whatever_becomes_of_login_and_address() {
    let idp = Idp::start();
    let app = app_with(&idp, &["github"]).await;
    idp.sign_in_as(ada());
    let browser = app.browser();
    browser.sign_in_with("github").await.expect(303);
    let ada_id = me(&browser).await.unwrap()["user"]["id"].clone();

    // She has another login and another address: the same user, whose address here stays.
    idp.sign_in_as(Person {
        login: "countess".to_owned(),
        ..Person::new("1815", "lovelace@example.com")
    });
    let browser = app.browser();
    browser.sign_in_with("github").await.expect(303);
    let user = me(&browser).await.unwrap()["user"].clone();
    assert_eq!((&user["id"], &user["email"]), (&ada_id, &"ada@example.com".into()));

    // Her old login was given to somebody else: another user.
    idp.sign_in_as(Person {
        login: "ada".to_owned(),
        ..Person::new("1999", "mallory@example.com")
    });
    let browser = app.browser();
    browser.sign_in_with("github").await.expect(303);
    assert_ne!(me(&browser).await.unwrap()["user"]["id"], ada_id);

    // And somebody who has got hold of her address at GitHub does not become her.
    idp.sign_in_as(Person::new("2000", "ada@example.com"));
    let browser = app.browser();
    let page = browser.sign_in_with("github").await.expect(409);
    assert!(page.text.contains("Sign in the way you did before"), "{}", page.text);
    assert!(me(&browser).await.is_none());
}

#[tokio::test]
async fn an_address_links_only_when_both_sides_have_verified_it() {
    let idp = Idp::start();
    let app = app_with(&idp, &["github"]).await;
    let ada_here = app.user("ada@example.com").await;

    idp.sign_in_as(Person { email_verified: false, ..ada() });
    let page = app.browser().sign_in_with("github").await.expect(403);
    assert!(page.text.contains("vouches for no e-mail address"), "{}", page.text);

    // Verified there, not here.
    idp.sign_in_as(ada());
    app.browser().sign_in_with("github").await.expect(409);
    assert!(app.rows("SELECT * FROM identities").await.is_empty());

    verify(&app, "ada@example.com").await;
    let browser = app.browser();
    browser.sign_in_with("github").await.expect(303);
    assert_eq!(me(&browser).await.unwrap()["user"]["id"], ada_here.id.to_string());
    let acts =
        app.rows("SELECT action, details FROM audit_log WHERE action = 'identity.connect'").await;
    assert_eq!(acts[0]["details"]["subject"], "1815");
    let mails =
        app.rows("SELECT kind, target FROM deliveries WHERE kind = 'identity_connected'").await;
    assert_eq!(
        (&mails[0]["kind"], &mails[0]["target"]),
        (&"identity_connected".into(), &"ada@example.com".into())
    );
}

#[tokio::test]
async fn nobody_signs_up_uninvited() {
    let idp = Idp::start();
    let app = app_with(&idp, &["github"]).await;
    for email in [
        "eve@elsewhere.org",
        "eve@sub.example.com",
        "eve@notexample.com",
        "eve@example.com.evil.org",
    ] {
        idp.sign_in_as(Person::new("666", email));
        let browser = app.browser();
        let page = browser.sign_in_with("github").await.expect(403);
        assert!(page.text.contains("You have no account here yet"), "{email}: {}", page.text);
        assert!(email_of(&browser).await.is_none());
    }
    assert!(app.rows("SELECT * FROM users").await.is_empty());
    let closed = with(open().set("LOOM_SERVER_SIGNUPS_DISABLED", "true"), idp.settings("github"));
    let closed = closed.start().await;
    idp.sign_in_as(ada());
    closed.browser().sign_in_with("github").await.expect(403);
}

#[tokio::test]
async fn who_is_invited_may_sign_up_while_the_invitation_is_open() {
    let idp = Idp::start();
    let app = with(loom_testkit::Setup::default(), idp.settings("github")).start().await;
    let chief = app.admin("chief@example.com").await;
    let team = serde_json::json!({"slug": "engines", "name": "Engines"});
    chief.post("/api/orgs", &team).await.expect(201);
    idp.sign_in_as(ada());
    app.browser().sign_in_with("github").await.expect(403);
    let invitation = serde_json::json!({"email": "Ada@Example.com", "role": "member"});
    chief.post("/api/orgs/engines/invitations", &invitation).await.expect(201);
    let browser = app.browser();
    browser.sign_in_with("github").await.expect(303);
    assert_eq!(email_of(&browser).await.as_deref(), Some("ada@example.com"));
}

#[tokio::test]
async fn an_address_that_only_folds_into_that_of_an_account_does_not_open_it() {
    let idp = Idp::start();
    let app = app_with(&idp, &["github", "oidc"]).await;
    app.user("mike@example.com").await;
    verify(&app, "mike@example.com").await;
    // The Kelvin sign, whose small letter is `k`.
    idp.sign_in_as(Person::new("666", "mi\u{212a}e@example.com"));
    for provider in ["github", "oidc"] {
        let browser = app.browser();
        browser.sign_in_with(provider).await.expect(403);
        assert_eq!(email_of(&browser).await, None);
    }
    assert!(app.rows("SELECT * FROM identities").await.is_empty());
}

#[tokio::test]
async fn an_invitation_of_somebody_who_may_invite_no_more_lets_nobody_sign_up() {
    let idp = Idp::start();
    let app = with(loom_testkit::Setup::default(), idp.settings("github")).start().await;
    let chief = app.admin("chief@example.com").await;
    let mallory = app.user("mallory@example.com").await;
    let team = serde_json::json!({"slug": "engines", "name": "Engines"});
    let team = chief.post("/api/orgs", &team).await.expect(201).json();
    let org = team["id"].as_str().unwrap().parse().unwrap();
    app.join(mallory.id, org, loom_core::principal::OrgRole::Admin).await;
    let own = serde_json::json!({"slug": "lair", "name": "Lair"});
    mallory.post("/api/orgs", &own).await.expect(201);
    let invite = |email: &str| serde_json::json!({"email": email, "role": "member"});
    mallory.post("/api/orgs/engines/invitations", &invite("ada@example.com")).await.expect(201);
    mallory.post("/api/orgs/lair/invitations", &invite("bob@example.com")).await.expect(201);
    let member = format!("/api/orgs/engines/members/{}", mallory.id);
    let demoted = serde_json::json!({"role": "member"});
    chief.patch(&member, &demoted).await.expect(204);
    idp.sign_in_as(ada());
    app.browser().sign_in_with("github").await.expect(403);
    let disable = format!("/api/admin/users/{}/disable", mallory.id);
    chief.post(&disable, &serde_json::json!({})).await.expect(200);
    idp.sign_in_as(Person::new("7", "bob@example.com"));
    app.browser().sign_in_with("github").await.expect(403);
    assert_eq!(app.rows("SELECT * FROM users").await.len(), 2);
}

#[tokio::test]
async fn a_disabled_user_is_not_let_in() {
    let idp = Idp::start();
    let app = app_with(&idp, &["github"]).await;
    idp.sign_in_as(ada());
    let browser = app.browser();
    browser.sign_in_with("github").await.expect(303);
    sqlx::query("UPDATE users SET disabled_at = now()").execute(app.database.pool()).await.unwrap();
    app.browser().sign_in_with("github").await.expect(403);
    assert_eq!(app.rows("SELECT * FROM user_sessions").await.len(), 1);
}

#[tokio::test]
async fn a_provider_that_is_not_configured_says_what_to_set() {
    let app = open().start().await;
    for (provider, name) in [("github", "GITHUB"), ("google", "GOOGLE"), ("oidc", "OIDC")] {
        for path in
            [format!("/auth/login/{provider}"), format!("/auth/{provider}/callback?code=x&state=y")]
        {
            let answer = app.anonymous().get(&path).await.expect(501);
            assert!(
                answer.text.contains(&format!("LOOM_SERVER_{name}_CLIENT_ID")),
                "{}",
                answer.text
            );
            app.browser().get(&path).await.expect(501);
        }
    }
    assert_eq!(app.anonymous().get("/auth/login/myspace").await.expect(404).code(), "not_found");
    let providers = app.anonymous().get("/auth/providers").await.expect(200).json();
    let configured: Vec<_> = providers["providers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|provider| {
            (provider["id"].as_str().unwrap(), provider["configured"].as_bool().unwrap())
        })
        .collect();
    assert_eq!(
        configured,
        [("github", false), ("google", false), ("oidc", false), ("magic_link", true)]
    );
}

#[tokio::test]
async fn a_provider_that_is_down_is_told_as_such_and_by_health_without_making_it_unhealthy() {
    let idp = Idp::start();
    let app = app_with(&idp, &["github", "oidc"]).await;
    idp.sign_in_as(ada());
    idp.set_down(true);
    app.browser().get("/auth/login/oidc").await.expect(502);
    let health = app.anonymous().get("/health").await.expect(200).json();
    let part = &health["components"]["auth_providers"];
    assert_eq!(part["status"], "degraded", "{health}");
    idp.set_down(false);
    app.browser().sign_in_with("oidc").await.expect(303);
}
