//! Whose a request is, and what it belongs to.

use loom_core::{
    Clock,
    id::{ThreadId, new_uuid},
    principal::OrgRole,
};
use serde_json::{Value, json};

use super::{Wire, hi, with_user};

#[tokio::test]
async fn user_organisation_key_thread_weaver_and_tags_are_in_the_row() {
    let (app, user) = with_user().await;
    let now = Clock::system().now();
    let (thread, weaver) = (ThreadId(new_uuid(now)), app.weaver_of(&user).await);
    let caller = user
        .with("x-loom-thread-id", &thread.to_string())
        .with("x-loom-weaver-id", &weaver.0.to_string())
        .with("x-loom-tags", "team:core, nightly ,,x")
        .with("x-request-id", "mine-1");
    for path in Wire::ALL.iter().flat_map(|wire| wire.both()) {
        caller.post(&path, &hi("m")).await.expect(200);
        // One that fails belongs there as well.
        caller.post(&path, &hi("mock-error-500")).await.expect(502);
    }
    let rows = app.llm_requests(8).await;
    assert_eq!(rows.len(), 8);
    let keys = app.rows("SELECT id FROM api_keys").await;
    for row in rows {
        assert_eq!(row["thread_id"], json!(thread.0));
        assert_eq!(row["weaver_id"], json!(weaver.0));
        assert_eq!(row["tags"], json!(["team:core", "nightly", "x"]));
        assert_eq!(row["user_id"], json!(user.id.0));
        assert_eq!(row["org_id"], json!(user.org.0));
        assert_eq!(row["api_key_id"], keys[0]["id"]);
        assert_eq!(row["request_id"], "mine-1");
    }
}

#[tokio::test]
async fn without_headers_it_belongs_to_nothing() {
    let (app, user) = with_user().await;
    for path in Wire::ALL.iter().flat_map(|wire| wire.both()) {
        user.post(&path, &hi("m")).await.expect(200);
    }
    for row in app.llm_requests(4).await {
        assert_eq!(row["thread_id"], Value::Null);
        assert_eq!(row["weaver_id"], Value::Null);
        assert_eq!(row["tags"], json!([]));
    }
}

#[tokio::test]
async fn a_chosen_organisation_pays_and_a_foreign_one_is_not_there() {
    let (app, a) = with_user().await;
    let b = app.user("b@example.com").await;
    let path = Wire::Anthropic.stream();
    let chosen = b.with("x-loom-org", &a.org.0.to_string());
    chosen.post(&path, &hi("m")).await.expect(404);
    assert!(app.mock.requests().is_empty());
    let c = app.user("c@example.com").await;
    app.join(c.id, a.org, OrgRole::Member).await;
    let chosen = c.with("x-loom-org", &a.org.0.to_string());
    chosen.post(&path, &hi("m")).await.expect(200);
    chosen
        .post(&format!("{}?org={}", Wire::OpenAi.complete(), a.org.0), &hi("m"))
        .await
        .expect(200);
    let rows = app.llm_requests(2).await;
    assert_eq!(rows.len(), 2);
    for row in rows {
        assert_eq!(row["org_id"], json!(a.org.0));
        assert_eq!(row["user_id"], json!(c.id.0));
    }
    assert!(app.mock.requests().iter().all(|sent| !sent.path.contains("org=")));
}

#[tokio::test]
async fn a_header_that_is_no_id_is_a_400() {
    let (app, user) = with_user().await;
    let many = vec!["tag"; 21].join(",");
    let long = "x".repeat(1001);
    for (name, value) in [
        ("x-loom-thread-id", "not-a-thread"),
        ("x-loom-thread-id", "0199aaaa-0000-7000-8000-000000000000"),
        ("x-loom-weaver-id", "w-1"),
        ("x-loom-tags", many.as_str()),
        ("x-loom-tags", long.as_str()),
    ] {
        for path in Wire::ALL.iter().flat_map(|wire| wire.both()) {
            let answer = user.with(name, value).post(&path, &hi("m")).await.expect(400);
            assert_eq!(answer.code(), "invalid_request");
            assert!(answer.text.contains(name), "{}", answer.text);
        }
    }
    assert!(app.mock.requests().is_empty());
    assert!(app.rows("SELECT 1 FROM llm_requests").await.is_empty());
}
