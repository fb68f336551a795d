//! Who I am, organisations, and which of them a request acts in.

use loom_core::principal::{OrgRole, Scope};
use loom_testkit::{Caller, TestApp};
use serde_json::{Value, json};

use crate::document::NOBODY;

async fn acts_in(caller: &Caller) -> Value {
    caller.get("/auth/me").await.expect(200).json()["org_id"].clone()
}

fn new(slug: &str) -> Value {
    json!({"slug": slug, "name": "Engines"})
}

#[tokio::test]
async fn me_is_the_user_with_organisations_credential_and_scopes() {
    let app = TestApp::start().await;
    let ada = app.user("ada@example.com").await;
    let me = ada.get("/auth/me").await.expect(200).json();
    assert_eq!(me["user"]["id"], ada.id.to_string());
    assert_eq!(me["user"]["email"], "ada@example.com");
    assert_eq!(me["user"]["is_system_admin"], false);
    assert_eq!((&me["org_id"], &me["role"]), (&json!(ada.org), &json!("owner")));
    assert_eq!(me["organisations"].as_array().unwrap().len(), 1);
    assert_eq!(me["organisations"][0]["is_personal"], true);
    assert_eq!(me["via"]["kind"], "api_key");
    assert_eq!(me["scopes"].as_array().unwrap().len(), Scope::ALL.len());
    let narrow = app.with_scopes(&ada, &[Scope::ThreadsRead, Scope::LlmUse]).await;
    let me = narrow.get("/auth/me").await.expect(200).json();
    assert_eq!(me["scopes"], json!(["llm:use", "threads:read"]));
}

#[tokio::test]
async fn an_organisation_is_made_with_its_maker_as_owner_and_listed_after_the_personal_one() {
    let app = TestApp::start().await;
    let ada = app.user("ada@example.com").await;
    let made = ada.post("/api/orgs", &new("engines")).await.expect(201);
    let org = made.json();
    let id = org["id"].as_str().unwrap();
    assert_eq!(made.header("location"), Some(format!("/api/orgs/{id}").as_str()));
    assert_eq!((&org["slug"], &org["role"]), (&json!("engines"), &json!("owner")));
    assert_eq!((&org["name"], &org["is_personal"]), (&json!("Engines"), &json!(false)));
    let list = ada.get("/api/orgs").await.expect(200).json();
    assert_eq!(list["orgs"].as_array().unwrap().len(), 2);
    assert_eq!(list["orgs"][0]["is_personal"], true);
    assert_eq!(list["orgs"][1], org);
}

#[tokio::test]
async fn a_slug_that_cannot_stand_in_a_url_or_looks_like_an_id_is_a_422() {
    let app = TestApp::start().await;
    let ada = app.user("ada@example.com").await;
    let long = "a".repeat(64);
    for slug in ["", "-a", "a-", "-", "A", "a_b", "a b", "a/b", "ä", "a.b", "u-mine", NOBODY, &long]
    {
        let answer = ada.post("/api/orgs", &new(slug)).await.expect(422);
        assert_eq!(answer.json()["errors"][0]["path"], "slug", "{slug}");
    }
    let uuid_without_dashes = NOBODY.replace('-', "");
    ada.post("/api/orgs", &new(&uuid_without_dashes)).await.expect(422);
    for slug in ["a", "7", "a--b", &long[..63], "u2"] {
        ada.post("/api/orgs", &new(slug)).await.expect(201);
    }
    for name in ["", "two\nlines", &"n".repeat(201)] {
        let answer = ada.post("/api/orgs", &json!({"slug": "ok", "name": name})).await.expect(422);
        assert_eq!(answer.json()["errors"][0]["path"], "name");
    }
    // And Loom's own.
    assert_eq!(app.rows("SELECT 1 FROM organisations").await.len(), 7);
}

#[tokio::test]
async fn a_taken_slug_is_a_409_also_when_two_want_it_at_once() {
    let app = TestApp::start().await;
    let (ada, bob) = (app.user("ada@example.com").await, app.user("bob@example.com").await);
    let slug = new("engines");
    let (a, b) = tokio::join!(ada.post("/api/orgs", &slug), bob.post("/api/orgs", &slug));
    let mut statuses = [a.status.as_u16(), b.status.as_u16()];
    statuses.sort_unstable();
    assert_eq!(statuses, [201, 409]);
    let refused = if a.status == 409 { a } else { b };
    assert_eq!(refused.code(), "slug_taken");
    assert_eq!(app.rows("SELECT 1 FROM organisations WHERE slug = 'engines'").await.len(), 1);
    assert_eq!(
        app.rows("SELECT 1 FROM audit_log WHERE action = 'organisation.create'").await.len(),
        1
    );
}

#[tokio::test]
async fn making_an_organisation_needs_its_scope_and_a_user() {
    let app = TestApp::start().await;
    let ada = app.user("ada@example.com").await;
    let narrow = app.with_scopes(&ada, &[Scope::AdminRead, Scope::ThreadsWrite]).await;
    let answer = narrow.post("/api/orgs", &new("engines")).await.expect(403);
    assert!(answer.text.contains("admin:write"), "{}", answer.text);
    let robot = service_key(&ada, &ada.org.to_string(), &["admin:write"]).await;
    assert_eq!(robot.post("/api/orgs", &new("engines")).await.expect(403).code(), "forbidden");
    // And Loom's own.
    assert_eq!(app.rows("SELECT 1 FROM organisations").await.len(), 2);
}

async fn service_key(owner: &Caller, org: &str, scopes: &[&str]) -> Caller {
    let key = json!({"name": "robot", "kind": "service", "scopes": scopes});
    let made = owner.post(&format!("/api/orgs/{org}/api-keys"), &key).await.expect(201).json();
    owner.with_key(made["secret"].as_str().unwrap())
}

#[tokio::test]
async fn a_request_acts_in_the_organisation_it_names_and_else_in_the_personal_one() {
    let app = TestApp::start().await;
    let ada = app.user("ada@example.com").await;
    let (own, before) = (json!(ada.org), acts_in(&ada).await);
    assert_eq!(before, own);
    // At once, though the key was used before the organisation was there.
    let team = ada.post("/api/orgs", &new("engines")).await.expect(201).json()["id"].clone();
    let id = team.as_str().unwrap().to_owned();
    for name in ["engines", &id, &id.to_uppercase()] {
        assert_eq!(acts_in(&ada.with("x-loom-org", name)).await, team, "{name}");
        let me = ada.get(&format!("/auth/me?x=1&org={name}")).await.expect(200).json();
        assert_eq!(me["org_id"], team, "{name}");
    }
    assert_eq!(acts_in(&ada.with("x-loom-org", &ada.org.to_string())).await, own);
    assert_eq!(acts_in(&ada).await, own);
    // The header comes before the query.
    let me = ada.with("x-loom-org", &ada.org.to_string()).get("/auth/me?org=engines").await;
    assert_eq!(me.expect(200).json()["org_id"], own);
}

#[tokio::test]
async fn where_one_is_no_member_there_is_no_organisation() {
    let app = TestApp::start().await;
    let (ada, bob) = (app.user("ada@example.com").await, app.user("bob@example.com").await);
    let team = ada.post("/api/orgs", &new("engines")).await.expect(201).json()["id"].clone();
    for name in ["engines", team.as_str().unwrap(), &ada.org.to_string(), NOBODY, "nowhere", ""] {
        let answer = bob.with("x-loom-org", name).get("/auth/me").await.expect(404);
        assert_eq!(answer.code(), "not_found", "{name}");
    }
    bob.get("/auth/me?org=engines").await.expect(404);
    app.join(bob.id, team.as_str().unwrap().parse().unwrap(), OrgRole::Member).await;
    let me = bob.get("/auth/me?org=engines").await.expect(200).json();
    assert_eq!((&me["org_id"], &me["role"]), (&team, &json!("member")));
}

#[tokio::test]
async fn a_service_key_acts_in_its_organisation_and_in_no_other() {
    let app = TestApp::start().await;
    let ada = app.user("ada@example.com").await;
    let team = ada.post("/api/orgs", &new("engines")).await.expect(201).json()["id"].clone();
    let robot = service_key(&ada, "engines", &["threads:read", "admin:read"]).await;
    let me = robot.get("/auth/me").await.expect(200).json();
    assert_eq!((&me["org_id"], &me["role"]), (&team, &json!("member")));
    assert_eq!(me["user"], Value::Null);
    assert_eq!(me["organisations"].as_array().unwrap().len(), 1);
    assert_eq!(me["scopes"], json!(["threads:read", "admin:read"]));
    for name in ["engines", team.as_str().unwrap()] {
        assert_eq!(acts_in(&robot.with("x-loom-org", name)).await, team);
    }
    // Not even in that of the user who made it.
    robot.with("x-loom-org", &ada.org.to_string()).get("/auth/me").await.expect(404);
    robot.get(&format!("/auth/me?org={}", ada.org)).await.expect(404);
    assert_eq!(robot.get("/api/orgs").await.expect(403).code(), "forbidden");
    // What it makes belongs to the organisation.
    assert_eq!(robot.get("/api/orgs/engines/api-keys").await.expect(403).code(), "forbidden");
}

#[tokio::test]
async fn making_an_organisation_is_in_the_audit() {
    let app = TestApp::start().await;
    let ada = app.user("ada@example.com").await;
    let made = ada.with("x-request-id", "req-7").post("/api/orgs", &new("engines")).await;
    let org = made.expect(201).json()["id"].clone();
    let rows = app
        .rows("SELECT org_id, actor_kind, actor_id, actor_name, via, target, outcome, ip, request_id, details FROM audit_log WHERE action = 'organisation.create'")
        .await;
    let expected = json!({
        "org_id": org, "actor_kind": "user", "actor_id": ada.id, "actor_name": "ada@example.com",
        "via": "api_key", "target": org, "outcome": "success", "ip": "127.0.0.1",
        "request_id": "req-7", "details": {"slug": "engines"},
    });
    assert_eq!(rows, [expected]);
}
