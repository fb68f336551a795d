//! Keys that change, end on every replica, and are reported; the tokens of weavers.

use std::time::Duration;

use loom_core::{
    id::WeaverId,
    port::{WeaverGrant, WeaverTokens},
    principal::{OrgRole, Scope},
};
use loom_testkit::{Setup, TestApp, User, eventually};
use serde_json::{Value, json};

async fn make(user: &User, new: Value) -> Value {
    user.post(&format!("/api/orgs/{}/api-keys", user.org), &new).await.expect(201).json()
}

fn one(user: &User, key: &Value) -> String {
    format!("/api/orgs/{}/api-keys/{}", user.org, key["id"].as_str().unwrap())
}

#[tokio::test]
async fn a_key_is_read_renamed_and_given_another_end_and_budget() {
    let app = Setup::default().manual_clock().start().await;
    let ada = app.user("ada@example.com").await;
    let new = json!({"name": "laptop", "kind": "personal", "scopes": ["threads:read"], "monthly_budget_usd": 12.5});
    let made = make(&ada, new).await;
    let path = one(&ada, &made);
    let shown = ada.get(&path).await.expect(200).json();
    assert_eq!((&shown["monthly_budget_usd"], &shown["name"]), (&json!(12.5), &json!("laptop")));
    assert!(shown.get("secret").is_none());
    let key = ada.with_key(made["secret"].as_str().unwrap());
    key.get("/api/threads").await.expect(200);
    let changed =
        ada.patch(&path, &json!({"name": "desk", "expires_in_secs": 60})).await.expect(200).json();
    assert_eq!((&changed["name"], &changed["monthly_budget_usd"]), (&json!("desk"), &json!(12.5)));
    key.get("/api/threads").await.expect(200);
    app.clock.advance(Duration::from_secs(60));
    key.get("/api/threads").await.expect(401);
    let change = json!({"expires_in_secs": null, "monthly_budget_usd": null});
    let changed = ada.patch(&path, &change).await.expect(200).json();
    assert_eq!(
        (&changed["expires_at"], &changed["monthly_budget_usd"]),
        (&Value::Null, &Value::Null)
    );
    key.get("/api/threads").await.expect(200);
    for wrong in [
        json!({"name": ""}),
        json!({"expires_in_secs": 0}),
        json!({"expires_in_secs": 40_000_000}),
        json!({"monthly_budget_usd": -1}),
        json!({"monthly_budget_usd": 1e10}),
    ] {
        ada.patch(&path, &wrong).await.expect(422);
    }
    // No credential lengthens the life of one that may do more.
    let narrow = app.with_scopes(&ada, &[Scope::AdminRead, Scope::AdminWrite]).await;
    narrow.patch(&path, &json!({"name": "x"})).await.expect(403);
    ada.delete(&path).await.expect(204);
    ada.get(&path).await.expect(404);
    ada.patch(&path, &json!({"name": "x"})).await.expect(404);
}

#[tokio::test]
async fn a_key_revoked_on_one_replica_is_refused_on_the_other_by_word_not_by_age() {
    let app = TestApp::start().await;
    let other = app.replica().await;
    let ada = app.user("ada@example.com").await;
    let made =
        make(&ada, json!({"name": "k", "kind": "service", "scopes": ["threads:read"]})).await;
    let key = ada.with_key(made["secret"].as_str().unwrap());
    key.at(&other).get("/api/threads").await.expect(200);
    key.get("/api/threads").await.expect(200);
    ada.delete(&one(&ada, &made)).await.expect(204);
    key.get("/api/threads").await.expect(401);
    let refused =
        eventually(async || (key.at(&other).get("/api/threads").await.status == 401).then_some(()));
    // It takes milliseconds; without word it would be believed for ten seconds.
    tokio::time::timeout(Duration::from_secs(5), refused).await.unwrap();
    other.shut_down().await;
}

#[tokio::test]
async fn a_reported_key_ends_at_once_and_its_owner_is_told() {
    let app = TestApp::start().await;
    let (ada, bob) = (app.user("ada@example.com").await, app.user("bob@example.com").await);
    let personal =
        make(&ada, json!({"name": "mine", "kind": "personal", "scopes": ["threads:read"]})).await;
    let service =
        make(&bob, json!({"name": "robot", "kind": "service", "scopes": ["threads:read"]})).await;
    let report = async |token: &str| {
        app.anonymous().post("/auth/tokens/report", &json!({ "token": token })).await
    };
    for key in [&personal, &service] {
        let secret = key["secret"].as_str().unwrap();
        let caller = ada.with_key(secret);
        caller.get("/api/threads").await.expect(200);
        let answer = report(&format!(" {secret}\n")).await.expect(202);
        caller.get("/api/threads").await.expect(401);
        // Nothing tells a token that was one from another.
        let again = report(secret).await.expect(202);
        let fake = report("loom_pat_000000000000000000000000000000000000").await.expect(202);
        let nonsense = report("hunter2").await.expect(202);
        for other in [&again, &fake, &nonsense] {
            assert_eq!(other.text, answer.text);
        }
    }
    let mails = app.rows("SELECT target FROM deliveries ORDER BY target").await;
    assert_eq!(mails, [json!({"target": "ada@example.com"}), json!({"target": "bob@example.com"})]);
    let acts = app
        .rows("SELECT actor_kind, target, ip, org_id FROM audit_log WHERE action = 'credential.report' ORDER BY at, id")
        .await;
    assert_eq!(acts.len(), 2);
    assert_eq!(
        acts[0],
        json!({"actor_kind": "system", "target": personal["id"], "ip": "127.0.0.1", "org_id": ada.org})
    );
    let because =
        app.rows("SELECT revoked_because FROM api_keys WHERE revoked_at IS NOT NULL").await;
    assert_eq!(
        because,
        [json!({"revoked_because": "reported"}), json!({"revoked_because": "reported"})]
    );
}

#[tokio::test]
async fn reports_are_limited_by_address() {
    let app = Setup::default().manual_clock().start().await;
    let body = json!({"token": "hunter2"});
    for _ in 0..30 {
        app.anonymous().post("/auth/tokens/report", &body).await.expect(202);
    }
    let limited = app.anonymous().post("/auth/tokens/report", &body).await.expect(429);
    assert_eq!(limited.header("retry-after"), Some("2"));
}

#[tokio::test]
async fn a_weaver_acts_by_its_token_in_its_organisation_until_it_ends() {
    let app = Setup::default().manual_clock().start().await;
    let (ada, bob) = (app.user("ada@example.com").await, app.user("bob@example.com").await);
    let team = json!({"slug": "engines", "name": "Engines"});
    let team = ada.post("/api/orgs", &team).await.expect(201).json()["id"].clone();
    let team = team.as_str().unwrap().to_owned();
    app.join(bob.id, team.parse().unwrap(), OrgRole::Member).await;
    let auth = &app.running.features.auth;
    let weaver = WeaverId::new(app.clock.now());
    let grant = WeaverGrant {
        weaver,
        org: team.parse().unwrap(),
        owner: Some(bob.id),
        scopes: [Scope::ThreadsRead].into_iter().collect(),
        expires_at: app.clock.now() + Duration::from_secs(3600),
    };
    let secret = auth.issue(grant).await.unwrap();
    assert!(secret.expose().starts_with("loom_wvr_"));
    let caller = app.anonymous().with_key(secret.expose());
    let me = caller.get("/auth/me").await.expect(200).json();
    assert_eq!((&me["org_id"], &me["role"]), (&json!(team), &json!("member")));
    assert_eq!(me["via"], json!({"kind": "weaver_token", "id": weaver}));
    assert_eq!(me["scopes"], json!(["threads:read"]));
    caller.get("/api/threads").await.expect(200);
    caller.post("/api/orgs", &json!({"slug": "x", "name": "x"})).await.expect(403);
    caller.get(&format!("/api/threads?org={}", ada.org)).await.expect(404);

    // Its owner leaves.
    let second = auth.issue(WeaverGrant { owner: Some(ada.id), ..grant }).await.unwrap();
    let second = app.anonymous().with_key(second.expose());
    second.get("/api/threads").await.expect(200);
    bob.delete(&format!("/api/orgs/{team}/members/{}", bob.id)).await.expect(204);
    caller.get("/api/threads").await.expect(401);
    second.get("/api/threads").await.expect(200);
    auth.revoke(grant.org, weaver).await.unwrap();
    second.get("/api/threads").await.expect(401);

    let third = auth.issue(WeaverGrant { owner: Some(ada.id), ..grant }).await.unwrap();
    let token = third.expose().to_owned();
    let third = app.anonymous().with_key(&token);
    third.get("/api/threads").await.expect(200);
    app.anonymous().post("/auth/tokens/report", &json!({ "token": token })).await.expect(202);
    third.get("/api/threads").await.expect(401);
    let fourth = auth.issue(WeaverGrant { owner: None, ..grant }).await.unwrap();
    let fourth = app.anonymous().with_key(fourth.expose());
    fourth.get("/api/threads").await.expect(200);
    app.clock.advance(Duration::from_secs(3600));
    fourth.get("/api/threads").await.expect(401);
    auth.issue(grant).await.unwrap_err();
}
