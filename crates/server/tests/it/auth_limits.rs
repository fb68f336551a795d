//! Limits by address, whose address a request has, and keys that are good from some networks only.

use std::time::Duration;

use loom_testkit::{Setup, TestApp};
use serde_json::{Value, json};

#[tokio::test]
async fn a_flood_on_auth_is_refused_by_address_and_others_go_on() {
    let app = Setup::default()
        .manual_clock()
        .set("LOOM_SERVER_AUTH_REQUESTS_PER_MINUTE", "3")
        .set("LOOM_SERVER_TRUSTED_PROXIES", "127.0.0.0/8")
        .start()
        .await;
    let ada = app.user("ada@example.com").await;
    let from = |ip: &str| ada.with("x-forwarded-for", ip);
    for n in 1..=3 {
        from(&format!("2001:db8:0:1::{n}")).get("/auth/me").await.expect(200);
    }
    let refused = from("2001:db8:0:1:ffff::1").get("/auth/me").await.expect(429);
    assert_eq!(
        (refused.code().as_str(), refused.header("retry-after")),
        ("rate_limited", Some("20"))
    );
    from("2001:db8:0:2::1").get("/auth/me").await.expect(200);
    from("198.51.100.7").get("/auth/me").await.expect(200);
    // Nothing but /auth is behind this gate.
    from("2001:db8:0:1::1").get("/api/threads").await.expect(200);
    app.clock.advance(Duration::from_secs(20));
    from("2001:db8:0:1::1").get("/auth/me").await.expect(200);
    from("2001:db8:0:1::1").get("/auth/me").await.expect(429);
}

#[tokio::test]
async fn guesses_are_refused_by_address_before_they_cost_a_query_and_good_keys_pass() {
    let app = Setup::default()
        .manual_clock()
        .set("LOOM_SERVER_TRUSTED_PROXIES", "127.0.0.1")
        .start()
        .await;
    let ada = app.user("ada@example.com").await;
    let guesser = app.anonymous().with("x-forwarded-for", "198.51.100.7");
    ada.with("x-forwarded-for", "198.51.100.7").get("/api/threads").await.expect(200);
    // Well-formed ones, which have to be looked up.
    let mut keys = Vec::new();
    for _ in 0..121 {
        let key =
            app.running.features.auth.key_for(&ada.email, Default::default(), None).await.unwrap();
        keys.push(key.secret.expose().to_owned());
    }
    sqlx::query("DELETE FROM api_keys WHERE scopes = '{}'")
        .execute(app.database.pool())
        .await
        .unwrap();
    for key in &keys[..120] {
        guesser.with_key(key).get("/api/threads").await.expect(401);
    }
    guesser.with_key(&keys[120]).get("/api/threads").await.expect(429);
    // One that is known to be nothing is refused as such, and a good one that is known passes.
    guesser.with_key(&keys[0]).get("/api/threads").await.expect(401);
    ada.with("x-forwarded-for", "198.51.100.7").get("/api/threads").await.expect(200);
    app.anonymous()
        .with("x-forwarded-for", "198.51.100.8")
        .with_key(&keys[120])
        .get("/api/threads")
        .await
        .expect(401);
}

async fn limited_key(app: &TestApp, networks: Value) -> (loom_testkit::User, Value) {
    let ada = app.user("ada@example.com").await;
    let new = json!({"name": "k", "kind": "personal", "scopes": ["threads:read"], "allowed_networks": networks});
    let made = ada.post(&format!("/api/orgs/{}/api-keys", ada.org), &new).await.expect(201).json();
    (ada, made)
}

#[tokio::test]
async fn a_key_is_good_from_its_networks_only_at_each_request() {
    let app = Setup::default().set("LOOM_SERVER_TRUSTED_PROXIES", "127.0.0.1").start().await;
    let networks = json!(["198.51.100.0/24", "2001:db8::/32", "203.0.113.9", "198.51.100.77/24"]);
    let (ada, made) = limited_key(&app, networks).await;
    assert_eq!(
        made["allowed_networks"],
        json!(["198.51.100.0/24", "2001:db8::/32", "203.0.113.9/32"])
    );
    let key = ada.with_key(made["secret"].as_str().unwrap());
    for (ip, status) in [
        ("198.51.100.200", 200),
        ("198.51.101.1", 401),
        ("2001:db8:9::1", 200),
        ("203.0.113.9", 200),
        ("203.0.113.8", 401),
        // What the client writes before the proxy's own word counts for nothing.
        ("198.51.100.200, 203.0.113.8", 401),
    ] {
        key.with("x-forwarded-for", ip).get("/api/threads").await.expect(status);
    }
    key.get("/api/threads").await.expect(401);
    let one = format!("/api/orgs/{}/api-keys/{}", ada.org, made["id"].as_str().unwrap());
    let changed =
        ada.patch(&one, &json!({"allowed_networks": ["203.0.113.8"]})).await.expect(200).json();
    assert_eq!(changed["allowed_networks"], json!(["203.0.113.8/32"]));
    key.with("x-forwarded-for", "203.0.113.8").get("/api/threads").await.expect(200);
    key.with("x-forwarded-for", "203.0.113.9").get("/api/threads").await.expect(401);
}

#[tokio::test]
async fn a_forwarding_header_from_an_untrusted_peer_is_not_believed() {
    let app = TestApp::start().await;
    let (ada, made) = limited_key(&app, json!(["198.51.100.7"])).await;
    let key = ada.with_key(made["secret"].as_str().unwrap());
    key.with("x-forwarded-for", "198.51.100.7").get("/api/threads").await.expect(401);
    key.with("forwarded", "for=198.51.100.7").get("/api/threads").await.expect(401);
    for wrong in
        [json!(["1.2.3.4/33"]), json!(["example.com"]), json!([""]), json!(vec!["10.0.0.1"; 51])]
    {
        let new = json!({"name": "k", "kind": "personal", "scopes": ["threads:read"], "allowed_networks": wrong});
        ada.post(&format!("/api/orgs/{}/api-keys", ada.org), &new).await.expect(422);
    }
}
