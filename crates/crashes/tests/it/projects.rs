//! Projects and their keys.

use loom_core::principal::OrgRole;
use loom_testkit::TestApp;
use serde_json::json;

#[tokio::test]
async fn a_project_is_made_with_a_key_and_found_by_id_number_and_slug() {
    let app = TestApp::start().await;
    let ada = app.user("ada@example.com").await;
    let made = ada.post("/api/crash/projects", &json!({"name": "Web shop (EU)"})).await.expect(201);
    let project = made.json();
    assert_eq!(project["slug"], "web-shop-eu");
    assert_eq!(project["short_prefix"], "WEB-SHOP-EU");
    assert_eq!(project["allowed_origins"], json!(["*"]));
    let dsn = project["dsn"].as_str().unwrap();
    let (scheme, rest) = dsn.split_once("://").unwrap();
    let (key, rest) = rest.split_once('@').unwrap();
    let (_, number) = rest.rsplit_once('/').unwrap();
    assert_eq!(scheme, "http");
    assert_eq!(key.len(), 32);
    assert_eq!(number, project["number"].to_string());
    for named in [project["id"].as_str().unwrap(), "web-shop-eu", number] {
        let read = ada.get(&format!("/api/crash/projects/{named}")).await.expect(200).json();
        assert_eq!(read, project, "{named}");
    }
    assert_eq!(
        made.header("location").unwrap(),
        format!("/api/crash/projects/{}", project["id"].as_str().unwrap())
    );
    let list = ada.get("/api/crash/projects").await.expect(200).json();
    assert_eq!(list["projects"], json!([project]));
    let again =
        ada.post("/api/crash/projects", &json!({"name": "Other", "slug": "web-shop-eu"})).await;
    assert_eq!(again.expect(409).code(), "slug_taken");
}

#[tokio::test]
async fn what_is_changed_of_a_project_is_checked_and_kept() {
    let app = TestApp::start().await;
    let ada = app.user("ada@example.com").await;
    ada.post("/api/crash/projects", &json!({"name": "API"})).await.expect(201);
    let path = "/api/crash/projects/api";
    for (body, field) in [
        (json!({"retention_days": 0}), "retention_days"),
        (json!({"slug": "42"}), "slug"),
        (json!({"name": ""}), "name"),
        (json!({"allowed_origins": ["https://a/b"]}), "allowed_origins[0]"),
        (json!({"grouping_rules": "x"}), "grouping_rules"),
        (json!({"new_issues_per_hour": 0}), "new_issues_per_hour"),
    ] {
        let refused = ada.patch(path, &body).await.expect(422).json();
        assert_eq!(refused["errors"][0]["path"], field, "{refused}");
    }
    let patch = json!({"platform": "python", "retention_days": 7, "slug": "backend",
        "allowed_origins": ["https://example.com"]});
    ada.patch(path, &patch).await.expect(200);
    // The old name is nobody's, at once.
    ada.get(path).await.expect(404);
    let project = ada.get("/api/crash/projects/backend").await.expect(200).json();
    assert_eq!(project["platform"], "python");
    assert_eq!(project["retention_days"], 7);
    let cleared = ada.patch("/api/crash/projects/backend", &json!({"platform": null})).await;
    assert_eq!(cleared.expect(200).json()["platform"], json!(null));
}

#[tokio::test]
async fn a_deleted_project_is_gone_at_once_and_its_slug_is_free() {
    let app = TestApp::start().await;
    let ada = app.user("ada@example.com").await;
    let first = ada.post("/api/crash/projects", &json!({"name": "API"})).await.expect(201).json();
    ada.get("/api/crash/projects/api").await.expect(200);
    ada.delete("/api/crash/projects/api").await.expect(204);
    ada.get("/api/crash/projects/api").await.expect(404);
    ada.delete("/api/crash/projects/api").await.expect(404);
    let second = ada.post("/api/crash/projects", &json!({"name": "API"})).await.expect(201).json();
    assert_ne!(first["number"], second["number"]);
}

#[tokio::test]
async fn keys_are_made_limited_disabled_and_deleted() {
    let app = TestApp::start().await;
    let ada = app.user("ada@example.com").await;
    let project = ada.post("/api/crash/projects", &json!({"name": "API"})).await.expect(201).json();
    let path = "/api/crash/projects/api/keys";
    let new = json!({"name": "Mobile", "limit": {"count": 10, "window_secs": 60}});
    let key = ada.post(path, &new).await.expect(201).json();
    assert_eq!(key["limit"], new["limit"]);
    let keys = ada.get(path).await.expect(200).json();
    assert_eq!(keys["keys"].as_array().unwrap().len(), 2);
    assert_eq!(keys["keys"][0]["dsn"], project["dsn"]);
    let page = ada.get(&format!("{path}?limit=1")).await.expect(200).json();
    let next = page["next_cursor"].as_str().unwrap();
    let page = ada.get(&format!("{path}?limit=1&cursor={next}")).await.expect(200).json();
    assert_eq!(page["keys"][0]["id"], key["id"]);
    assert_eq!(page["next_cursor"], json!(null));

    let first = format!("{path}/{}", keys["keys"][0]["id"].as_str().unwrap());
    let disabled = ada.patch(&first, &json!({"enabled": false})).await.expect(200).json();
    assert_eq!(disabled["enabled"], false);
    // The project is reached by the other one now.
    let read = ada.get("/api/crash/projects/api").await.expect(200).json();
    assert_eq!(read["dsn"], key["dsn"]);
    let bad = json!({"limit": {"count": 0, "window_secs": 60}});
    ada.patch(&first, &bad).await.expect(422);
    let unlimited = format!("{path}/{}", key["id"].as_str().unwrap());
    let patched = ada.patch(&unlimited, &json!({"limit": null})).await.expect(200).json();
    assert_eq!(patched["limit"], json!(null));
    ada.delete(&unlimited).await.expect(204);
    ada.delete(&unlimited).await.expect(404);
}

#[tokio::test]
async fn members_read_and_admins_manage() {
    let app = TestApp::start().await;
    let ada = app.user("ada@example.com").await;
    let grace = app.user("grace@example.com").await;
    app.join(grace.id, ada.org, OrgRole::Member).await;
    ada.post("/api/crash/projects", &json!({"name": "API"})).await.expect(201);
    let grace = grace.caller.with("x-loom-org", &ada.org.to_string());
    grace.get("/api/crash/projects/api").await.expect(200);
    grace.get("/api/crash/projects/api/keys").await.expect(200);
    grace.post("/api/crash/projects", &json!({"name": "Mine"})).await.expect(403);
    grace.patch("/api/crash/projects/api", &json!({"name": "Mine"})).await.expect(403);
    grace.delete("/api/crash/projects/api").await.expect(403);
    grace.post("/api/crash/projects/api/keys", &json!({})).await.expect(403);
}
