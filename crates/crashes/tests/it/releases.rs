//! Releases, their commits and deploys, and who is suspected.

use loom_core::{
    port::{CrashDirectory, ProjectDirectory},
    principal::OrgRole,
};
use loom_testkit::{TestApp, User};
use serde_json::{Value, json};

use crate::artifacts::{project, source_map, upload};

const RELEASES: &str = "/api/crash/projects/shop/releases";

async fn capture(user: &User, body: Value) -> Value {
    let mut event =
        json!({"project_id": "shop", "exception_type": "TypeError", "exception_value": "no"});
    event.as_object_mut().unwrap().extend(body.as_object().unwrap().clone());
    user.post("/api/crash/capture", &event).await.expect(200).json()
}

#[tokio::test]
async fn a_release_is_made_changed_finalised_and_deleted() {
    let app = TestApp::start().await;
    let ada = app.user("ada@example.com").await;
    project(&ada, "Shop").await;
    let new = json!({"version": "shop@1.0.0", "url": "https://ci.example.com/1", "ref": "main"});
    let made = ada.post(RELEASES, &new).await.expect(201);
    let path = made.header("location").unwrap().to_owned();
    assert_eq!(made.json()["released_at"], json!(null));
    assert_eq!(made.json()["ref"], "main");
    assert_eq!(ada.post(RELEASES, &new).await.expect(409).code(), "release_exists");
    let out = json!({"released_at": "2026-11-01T12:00:00Z"});
    let changed = ada.patch(&path, &out).await.expect(200).json();
    assert_eq!(changed["released_at"], "2026-11-01T12:00:00.000Z");
    assert_eq!(changed["url"], "https://ci.example.com/1");
    assert_eq!(ada.get(&path).await.expect(200).json(), changed);
    for version in ["a/b", "a\\b", "", " a", "latest", "..", "a\nb", &"x".repeat(251)] {
        let refused = ada.post(RELEASES, &json!({"version": version})).await.expect(422);
        assert_eq!(refused.json()["errors"][0]["path"], "version", "{version}");
    }
    ada.delete(&path).await.expect(204);
    ada.get(&path).await.expect(404);
    ada.delete(&path).await.expect(404);
}

#[tokio::test]
async fn an_event_makes_its_release_and_counts_its_issues() {
    let app = TestApp::start().await;
    let ada = app.user("ada@example.com").await;
    let shop = project(&ada, "Shop").await;
    let stack =
        |name: &str| json!({"frames": [{"function": name, "filename": "a.py", "in_app": true}]});
    let first = capture(&ada, json!({"release": "1.0", "stacktrace": stack("a")})).await;
    capture(&ada, json!({"release": "1.0", "stacktrace": stack("b")})).await;
    let issue = first["issue_id"].as_str().unwrap();
    let resolve = format!("/api/crash/projects/shop/issues/{issue}/resolve");
    ada.post(&resolve, &json!({"in_release": "1.1"})).await.expect(200);
    let list = ada.get(RELEASES).await.expect(200).json();
    assert_eq!(list["releases"][0]["version"], "1.0");
    assert_eq!(list["releases"][0]["event_count"], 2);
    assert_eq!(list["releases"][0]["new_issues"], 2);
    ada.post(RELEASES, &json!({"version": "1.1"})).await.expect(201);
    let fixed = ada.get(&format!("{RELEASES}/1.1")).await.expect(200).json();
    assert_eq!(fixed["resolved_issues"], 1);
    capture(&ada, json!({"release": "1.1", "stacktrace": stack("a")})).await;
    let fixed = ada.get(&format!("{RELEASES}/1.1")).await.expect(200).json();
    assert_eq!((&fixed["regressed_issues"], &fixed["resolved_issues"]), (&json!(1), &json!(0)));
    let page = ada.get(&format!("{RELEASES}?limit=1")).await.expect(200).json();
    assert_eq!(page["releases"][0]["version"], "1.1");
    let next = page["next_cursor"].as_str().unwrap();
    let page = ada.get(&format!("{RELEASES}?limit=1&cursor={next}")).await.expect(200).json();
    assert_eq!(page["releases"][0]["version"], "1.0");
    let found = ada.get(&format!("{RELEASES}?query=1.1")).await.expect(200).json();
    assert_eq!(found["releases"].as_array().unwrap().len(), 1);

    // As other features are told.
    let directory =
        loom_crashes::Directory::new(app.database.pool().clone(), app.running.features.hub.clone());
    let project = directory.find(ada.org, shop["slug"].as_str().unwrap()).await.unwrap().unwrap();
    let versions = ["1.0".to_owned(), "1.1".to_owned(), "none".to_owned()];
    let facts = directory.releases(&project, &versions).await.unwrap();
    assert_eq!(facts.len(), 2);
    assert_eq!((facts["1.0"].events, facts["1.0"].new_issues), (2, 2));
    assert_eq!(facts["1.1"].regressed_issues, 1);
}

#[tokio::test]
async fn commits_are_replaced_each_once_and_deploys_are_kept() {
    let app = TestApp::start().await;
    let ada = app.user("ada@example.com").await;
    project(&ada, "Shop").await;
    ada.post(RELEASES, &json!({"version": "1.0"})).await.expect(201);
    let path = format!("{RELEASES}/1.0/commits");
    let commits = json!({"commits": [
        {"sha": "c3", "message": "Three", "files": ["a.py"], "at": "2026-11-01T12:00:00Z"},
        {"sha": "c2"}, {"sha": "c2"}, {"sha": "c1", "author_name": "Ada"}
    ]});
    assert_eq!(ada.put(&path, &commits).await.expect(200).json()["commit_count"], 3);
    let page = ada.get(&format!("{path}?limit=2")).await.expect(200).json();
    assert_eq!(page["commits"][0]["files"], json!(["a.py"]));
    assert_eq!(page["commits"][1]["sha"], "c2");
    let next = page["next_cursor"].as_str().unwrap();
    let page = ada.get(&format!("{path}?limit=2&cursor={next}")).await.expect(200).json();
    assert_eq!(page["commits"][0]["author_name"], "Ada");
    assert_eq!(page["next_cursor"], json!(null));
    let many: Vec<_> = (0..1100).map(|n| json!({"sha": format!("s{n}")})).collect();
    assert_eq!(
        ada.put(&path, &json!({"commits": many})).await.expect(200).json()["commit_count"],
        1000
    );
    ada.put(&path, &json!({"commits": [{"sha": ""}]})).await.expect(422);
    ada.put(&path, &json!({"commits": []})).await.expect(200);

    let path = format!("{RELEASES}/1.0/deploys");
    for (environment, at) in
        [("staging", "2026-11-01T12:00:00Z"), ("production", "2026-11-02T12:00:00Z")]
    {
        let new = json!({"environment": environment, "finished_at": at});
        ada.post(&path, &new).await.expect(201);
    }
    ada.post(&path, &json!({"environment": " "})).await.expect(422);
    let page = ada.get(&path).await.expect(200).json();
    assert_eq!(page["deploys"][0]["environment"], "production");
    assert_eq!(page["deploys"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn the_commit_and_the_thread_that_touched_the_failing_file_are_suspected() {
    let app = TestApp::start().await;
    let ada = app.user("ada@example.com").await;
    let grace = app.user("grace@example.com").await;
    app.join(grace.id, ada.org, OrgRole::Member).await;
    project(&ada, "Shop").await;
    let sha = "1f0c2d3e4b5a69788796a5b4c3d2e1f00f1e2d3c";
    let thread = format!("T-{}", loom_core::id::new_uuid(app.clock.now()));
    let document = json!({"title": "Round totals", "messages": [],
        "git": {"remote_url": "https://github.com/acme/shop", "commits": [sha]}});
    ada.put(&format!("/api/threads/{thread}"), &document).await.expect(201);
    ada.post(RELEASES, &json!({"version": "shop@1.0"})).await.expect(201);
    ada.post(RELEASES, &json!({"version": "shop@1.1"})).await.expect(201);
    let commits = json!({"commits": [
        {"sha": "aaaa", "files": ["README.md"]},
        {"sha": "bbbb", "author_name": "Bob", "files": ["shop/views.py"]},
        {"sha": sha, "author_name": "Ada", "files": ["shop/cart/total.py"]},
    ]});
    ada.put(&format!("{RELEASES}/shop%401.1/commits"), &commits).await.expect(200);
    let frames = json!({"frames": [
        {"function": "main", "filename": "main.py", "in_app": true},
        {"function": "view", "filename": "shop/views.py", "in_app": true, "lineno": 9},
        {"function": "total", "abs_path": "/srv/shop/cart/total.py", "filename": "total.py", "in_app": true, "lineno": 3},
        {"function": "divide", "filename": "lib/README.md", "in_app": false},
    ]});
    let event = capture(&ada, json!({"release": "shop@1.1", "stacktrace": frames})).await;
    let path =
        format!("/api/crash/projects/shop/issues/{}/suspects", event["issue_id"].as_str().unwrap());
    let told = ada.get(&path).await.expect(200).json();
    assert_eq!(told["release"], "shop@1.1");
    assert_eq!(told["previous_release"], "shop@1.0");
    assert_eq!(told["suspects"][0]["sha"], sha, "{told}");
    assert_eq!(told["suspects"][0]["files"][0]["function"], "total");
    assert_eq!(told["suspects"][0]["threads"], json!([{"id": thread, "title": "Round totals"}]));
    assert_eq!(told["suspects"][1]["author_name"], "Bob");
    assert_eq!(told["suspects"].as_array().unwrap().len(), 2);
    assert!(told["suspects"][0]["score"].as_f64() > told["suspects"][1]["score"].as_f64());
    // The thread is private: others see the commit and not the thread.
    let member = grace.with("x-loom-org", &ada.org.to_string());
    let told = member.get(&path).await.expect(200).json();
    assert_eq!(told["suspects"][0]["sha"], sha);
    assert_eq!(told["suspects"][0]["threads"], json!([]));
    // Without a release there is nobody to suspect.
    let event = capture(
        &ada,
        json!({"stacktrace": {"frames": [{"function": "other", "filename": "x.py"}]}}),
    )
    .await;
    let path =
        format!("/api/crash/projects/shop/issues/{}/suspects", event["issue_id"].as_str().unwrap());
    assert_eq!(ada.get(&path).await.expect(200).json()["reason"], "no_release");
}

#[tokio::test]
async fn a_file_that_came_late_has_the_issues_that_lacked_it_processed_again() {
    let app = TestApp::start().await;
    let ada = app.user("ada@example.com").await;
    project(&ada, "Shop").await;
    let debug_id = "c0bcc3f1-9827-fe65-3058-404b2831d9e6";
    let url = "https://shop.example.com/app.js";
    let event = json!({"platform": "javascript",
        "debug_meta": {"images": [{"type": "sourcemap", "code_file": url, "debug_id": debug_id}]},
        "stacktrace": {"frames": [{"function": "x", "filename": url, "abs_path": url, "lineno": 1, "colno": 1, "in_app": true}]}});
    let event = capture(&ada, event).await;
    let again = "/api/crash/projects/shop/artifacts/reprocess";
    assert_eq!(ada.post(again, &json!({})).await.expect(202).json()["events"], 0);
    upload(&ada, "shop", "app.js", format!("x();\n//# debugId={debug_id}\n"), &[])
        .await
        .expect(201);
    upload(&ada, "shop", "app.js.map", source_map(Some(debug_id)), &[]).await.expect(201);
    assert_eq!(ada.post(again, &json!({})).await.expect(202).json()["events"], 1);
    let path = format!("/api/crash/projects/shop/events/{}", event["event_id"].as_str().unwrap());
    loom_testkit::eventually(async || {
        let shown = ada.get(&path).await.expect(200).json();
        shown["exceptions"][0]["frames"].to_string().contains("a.ts").then_some(())
    })
    .await;
    assert_eq!(ada.post(again, &json!({})).await.expect(202).json()["events"], 0);
}

#[tokio::test]
async fn a_release_is_changed_in_projects_named_by_number() {
    let app = TestApp::start().await;
    let ada = app.user("ada@example.com").await;
    project(&ada, "Shop").await;
    project(&ada, "Till").await;
    let number = async |slug: &str| {
        ada.get(&format!("/api/crash/projects/{slug}")).await.expect(200).json()["number"].clone()
    };
    let path = format!("/api/0/organizations/{}/releases/shop%401.0/", ada.org);
    let change = json!({"projects": [number("till").await], "ref": "main"});
    ada.put(&path, &change).await.expect(200);
    let made = ada.get("/api/crash/projects/till/releases/shop%401.0").await.expect(200).json();
    assert_eq!(made["ref"], "main");
    ada.get(&format!("{RELEASES}/shop%401.0")).await.expect(404);
    // One that has it already is not what was named.
    let change = json!({"projects": [number("shop").await], "ref": "next"});
    ada.put(&path, &change).await.expect(200);
    let till = ada.get("/api/crash/projects/till/releases/shop%401.0").await.expect(200).json();
    assert_eq!(till["ref"], "main");
}
