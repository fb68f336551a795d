//! The wire of sentry-cli, where it goes wrong: chunks, assembling, errors.

use loom_testkit::{Caller, TestApp, User};
use serde_json::{Value, json};
use sha1::{Digest, Sha1};

use crate::artifacts::{DEBUG_ID, post_form, project, symbols};

fn sha1(content: &[u8]) -> String {
    hex::encode(Sha1::digest(content))
}

async fn send(caller: &Caller, org: &str, chunks: &[(&str, &[u8])]) -> loom_testkit::Answer {
    let parts = chunks.iter().map(|(name, content)| ("file", Some(*name), content.to_vec()));
    post_form(caller, &format!("/api/0/organizations/{org}/chunk-upload/"), parts.collect()).await
}

/// Asks until it is no longer being worked on.
async fn assemble(user: &User, body: &Value) -> Value {
    let path = format!("/api/0/projects/{}/shop/files/difs/assemble/", user.org);
    loom_testkit::eventually(async || {
        let answer = user.post(&path, body).await.expect(200).json();
        let file = answer.as_object().unwrap().values().next().unwrap().clone();
        (!["created", "assembling"].contains(&file["state"].as_str().unwrap())).then_some(file)
    })
    .await
}

#[tokio::test]
async fn a_file_is_asked_for_in_chunks_sent_in_any_order_and_put_together_once() {
    let app = TestApp::start().await;
    let ada = app.user("ada@example.com").await;
    project(&ada, "Shop").await;
    let org = ada.org.to_string();
    let content = symbols(DEBUG_ID).into_bytes();
    let (first, second) = content.split_at(40);
    let body = json!({sha1(&content): {"name": "crash.sym", "debug_id": DEBUG_ID,
        "chunks": [sha1(first), sha1(second)]}});
    let wanted = assemble(&ada, &body).await;
    assert_eq!(wanted["state"], "not_found");
    assert_eq!(wanted["missingChunks"], json!([sha1(first), sha1(second)]));
    send(&ada, &org, &[(&sha1(second), second)]).await.expect(200);
    assert_eq!(assemble(&ada, &body).await["missingChunks"], json!([sha1(first)]));
    // Twice is once.
    for _ in 0..2 {
        send(&ada, &org, &[(&sha1(first), first), (&sha1(second), second)]).await.expect(200);
    }
    assert_eq!(app.rows("SELECT 1 FROM crash_chunks").await.len(), 2);
    let done = assemble(&ada, &body).await;
    assert_eq!(done["state"], "ok", "{done}");
    assert_eq!(done["dif"]["debugId"], DEBUG_ID);
    assert_eq!(done["dif"]["cpuName"], "x86_64");
    // Whoever asks for the same in another project needs no chunks.
    ada.post("/api/crash/projects", &json!({"name": "Till"})).await.expect(201);
    sqlx::query("DELETE FROM crash_chunks").execute(app.database.pool()).await.unwrap();
    let path = format!("/api/0/projects/{org}/till/files/difs/assemble");
    loom_testkit::eventually(async || {
        let answer = ada.post(&path, &body).await.expect(200).json();
        (answer[sha1(&content)]["state"] == "ok").then_some(())
    })
    .await;
    assert_eq!(app.rows("SELECT refs FROM crash_blobs").await, [json!({"refs": 2})]);
}

#[tokio::test]
async fn what_is_not_what_it_is_said_to_be_is_refused() {
    let app = TestApp::start().await;
    let ada = app.user("ada@example.com").await;
    project(&ada, "Shop").await;
    let org = ada.org.to_string();
    let detail =
        |answer: loom_testkit::Answer| answer.json()["detail"].as_str().unwrap().to_owned();
    let wrong = send(&ada, &org, &[(&sha1(b"a"), b"b")]).await.expect(400);
    assert!(detail(wrong).contains("SHA-1"));
    for name in ["../../etc/passwd", "", "zz"] {
        send(&ada, &org, &[(name, b"b")]).await.expect(400);
    }
    let large = vec![0; (8 << 20) + 1];
    send(&ada, &org, &[(&sha1(&large), &large)]).await.expect(413);
    let parts =
        vec![("file_gzip", Some("da39a3ee5e6b4b0d3255bfef95601890afd80709"), b"no gzip".to_vec())];
    post_form(&ada, &format!("/api/0/organizations/{org}/chunk-upload/"), parts).await.expect(400);
    assert!(app.rows("SELECT 1 FROM crash_chunks").await.is_empty());

    // All chunks are right, the whole is not.
    let content = b"some content";
    send(&ada, &org, &[(&sha1(content), content)]).await.expect(200);
    let other = sha1(b"another");
    let body = json!({&other: {"name": "a", "chunks": [sha1(content)]}});
    let failed = assemble(&ada, &body).await;
    assert_eq!(failed["state"], "error");
    assert!(failed["detail"].as_str().unwrap().contains("checksum"), "{failed}");
    // It is what it is said to be, and no debug file.
    let body = json!({sha1(content): {"name": "a", "chunks": [sha1(content)]}});
    let failed = assemble(&ada, &body).await;
    assert!(failed["detail"].as_str().unwrap().contains("no artifact"), "{failed}");
    assert!(app.rows("SELECT 1 FROM crash_blobs").await.is_empty());
    for body in [json!({"xyz": {"name": "a", "chunks": []}}), json!({&other: {"chunks": "no"}})] {
        let path = format!("/api/0/projects/{org}/shop/files/difs/assemble/");
        assert!(ada.post(&path, &body).await.expect(400).json()["detail"].is_string());
    }
}

#[tokio::test]
async fn the_routes_of_sentry_cli_are_for_members_and_their_keys_and_speak_its_errors() {
    let app = TestApp::start().await;
    let ada = app.user("ada@example.com").await;
    let bob = app.user("bob@example.com").await;
    project(&ada, "Shop").await;
    ada.post("/api/crash/projects/shop/releases", &json!({"version": "1.0"})).await.expect(201);
    let org = ada.org;
    let paths = [
        format!("/api/0/organizations/{org}/chunk-upload/"),
        format!("/api/0/organizations/{org}/projects/"),
        format!("/api/0/organizations/{org}/releases/1.0/"),
        format!("/api/0/organizations/{org}/repos/"),
        format!("/api/0/projects/{org}/shop/releases/"),
        format!("/api/0/projects/{org}/shop/issues"),
        format!("/api/0/organizations/{org}/releases/1.0/deploys"),
        format!("/api/0/organizations/{org}/releases/1.0/previous-with-commits/"),
    ];
    for path in &paths {
        ada.get(path).await.expect(200);
        let refused = bob.get(path).await.expect(404);
        assert_eq!(refused.json().as_object().unwrap().len(), 1, "{path}: {}", refused.text);
        assert!(!refused.text.contains("shop"), "{}", refused.text);
        assert!(app.anonymous().get(path).await.expect(401).json()["detail"].is_string());
    }
    let path = format!("/api/0/organizations/{org}/releases/");
    let body = json!({"version": "2.0", "projects": ["shop"]});
    bob.post(&path, &body).await.expect(404);
    let path = format!("/api/0/organizations/{}/releases/", bob.org);
    bob.post(&path, &body).await.expect(404);
    let path = format!("/api/0/organizations/{}/artifactbundle/assemble/", bob.org);
    let body = json!({"checksum": sha1(b"x"), "chunks": [], "projects": ["shop"]});
    bob.post(&path, &body).await.expect(404);
    let reader = app.with_scopes(&ada, &[loom_core::principal::Scope::CrashesRead]).await;
    reader.get(&paths[0]).await.expect(403);
    reader.get(&paths[4]).await.expect(200);
    let unknown = ada.get("/api/0/organizations/x/y/z/").await.expect(404);
    assert!(unknown.json()["detail"].is_string());
}
