//! Administration: who sees users and changes their roles, and the admin who always remains.

use std::time::Duration;

use loom_core::port::AdminDirectory;
use loom_testkit::{TestApp, User, eventually};
use serde_json::{Value, json};

fn roles(user: &User) -> String {
    format!("/api/admin/users/{}/roles", user.id)
}

async fn make_auditor(admin: &User, user: &User) {
    admin.patch(&roles(user), &json!({"auditor": true})).await.expect(200);
}

#[tokio::test]
async fn users_are_listed_searched_and_shown_to_admins_and_auditors() {
    let app = TestApp::start().await;
    let chief = app.admin("chief@example.com").await;
    let eve = app.user("eve@example.com").await;
    for name in ["ada", "bob", "cleo"] {
        app.user(&format!("{name}@100%.example.org")).await;
    }
    eve.get("/api/admin/users").await.expect(403);
    eve.get(&format!("/api/admin/users/{}", chief.id)).await.expect(403);
    make_auditor(&chief, &eve).await;
    for who in [&chief, &eve] {
        let found = async |query: &str| -> Vec<Value> {
            let page = who.get(&format!("/api/admin/users?{query}")).await.expect(200).json();
            page["users"].as_array().unwrap().iter().map(|user| user["email"].clone()).collect()
        };
        assert_eq!(found("").await.len(), 5);
        assert_eq!(found("q=ADA").await, ["ada@100%.example.org"]);
        assert_eq!(found("q=100%25").await.len(), 3);
        // Nothing of it is a pattern.
        assert!(found("q=a%25a").await.is_empty() && found("q=_da").await.is_empty());
        let mut seen = Vec::new();
        let mut query = "limit=2".to_owned();
        loop {
            let page = who.get(&format!("/api/admin/users?{query}")).await.expect(200).json();
            seen.extend(page["users"].as_array().unwrap().iter().map(|u| u["id"].to_string()));
            let Some(cursor) = page["next_cursor"].as_str() else { break };
            query = format!("limit=2&cursor={cursor}");
        }
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), 5);
        let one = who.get(&format!("/api/admin/users/{}", eve.id)).await.expect(200).json();
        assert_eq!(one["is_auditor"], true);
        assert_eq!(one["organisations"][0]["id"], json!(eve.org));
    }
    // To see is not to change.
    eve.patch(&roles(&eve), &json!({"system_admin": true})).await.expect(403);
    eve.post(&format!("/api/admin/users/{}/disable", chief.id), &json!({})).await.expect(403);
}

#[tokio::test]
async fn roles_are_given_and_taken_at_once_and_one_admin_remains() {
    let app = TestApp::start().await;
    let (chief, ada) = (app.admin("chief@example.com").await, app.user("ada@example.com").await);
    let answer = chief.patch(&roles(&chief), &json!({"system_admin": false})).await.expect(409);
    assert_eq!(answer.code(), "last_admin");
    let disable = |user: &User| format!("/api/admin/users/{}/disable", user.id);
    assert_eq!(chief.post(&disable(&chief), &json!({})).await.expect(409).code(), "last_admin");
    ada.get("/api/admin/users").await.expect(403);
    chief.patch(&roles(&ada), &json!({"system_admin": true})).await.expect(200);
    ada.get("/api/admin/users").await.expect(200);
    let directory = loom_auth::Admins::new(app.database.pool().clone());
    let addresses = directory.admin_addresses().await.unwrap();
    assert_eq!(addresses, ["ada@example.com", "chief@example.com"]);
    ada.patch(&roles(&chief), &json!({"system_admin": false})).await.expect(200);
    chief.get("/api/admin/users").await.expect(403);
    assert_eq!(directory.admin_addresses().await.unwrap(), ["ada@example.com"]);
    let acts = app
        .rows("SELECT actor_name, target, details FROM audit_log WHERE action = 'user.change_roles' ORDER BY at, id")
        .await;
    assert_eq!(acts.len(), 2);
    assert_eq!(acts[1]["actor_name"], "ada@example.com");
    assert_eq!(acts[1]["details"]["system_admin"], json!({"from": true, "to": false}));
}

#[tokio::test]
async fn of_admins_who_all_go_at_once_one_remains() {
    let app = TestApp::start().await;
    let a = app.admin("a@example.com").await;
    let b = app.admin("b@example.com").await;
    let c = app.admin("c@example.com").await;
    for _ in 0..5 {
        let no_more = json!({"system_admin": false});
        let (pa, pb) = (roles(&a), roles(&b));
        let disable = format!("/api/admin/users/{}/disable", c.id);
        let nothing = json!({});
        let (x, y, z) = tokio::join!(
            a.patch(&pa, &no_more),
            b.patch(&pb, &no_more),
            c.post(&disable, &nothing)
        );
        let refused = [&x, &y, &z].iter().filter(|answer| answer.status == 409).count();
        assert_eq!(refused, 1, "{x:?} {y:?} {z:?}");
        let left = "SELECT id FROM users WHERE is_system_admin AND disabled_at IS NULL";
        assert_eq!(app.rows(left).await.len(), 1);
        // As before; the key of `c` may have ended with it.
        let reset = "UPDATE users SET is_system_admin = true, disabled_at = NULL; \
                     UPDATE api_keys SET revoked_at = NULL; NOTIFY loom_auth_revoked, 'all'";
        sqlx::raw_sql(reset).execute(app.database.pool()).await.unwrap();
        eventually(async || {
            let mut all = true;
            for user in [&a, &b, &c] {
                all &= user.get("/api/admin/users?limit=1").await.status == 200;
            }
            all.then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn a_disabled_user_is_out_at_once_on_every_replica_and_their_keys_stay_ended() {
    let app = TestApp::start().await;
    let other = app.replica().await;
    let (chief, ada) = (app.admin("chief@example.com").await, app.user("ada@example.com").await);
    let there = ada.at(&other);
    ada.get("/auth/me").await.expect(200);
    there.get("/auth/me").await.expect(200);
    let path = |what: &str| format!("/api/admin/users/{}/{what}", ada.id);
    let shown = chief.post(&path("disable"), &json!({})).await.expect(200).json();
    assert!(shown["disabled_at"].is_string());
    ada.get("/auth/me").await.expect(401);
    let out = eventually(async || (there.get("/auth/me").await.status == 401).then_some(()));
    tokio::time::timeout(Duration::from_secs(5), out).await.unwrap();
    // A key that is made for one who is disabled opens nothing either.
    let late = app.with_scopes(&ada, &[loom_core::principal::Scope::AdminRead]).await;
    late.get("/auth/me").await.expect(401);
    let shown = chief.post(&path("enable"), &json!({})).await.expect(200).json();
    assert_eq!(shown["disabled_at"], Value::Null);
    ada.get("/auth/me").await.expect(401);
    late.get("/auth/me").await.expect(200);
    chief
        .post(&format!("/api/admin/users/{}/disable", uuid::Uuid::nil()), &json!({}))
        .await
        .expect(404);
    other.shut_down().await;
}
