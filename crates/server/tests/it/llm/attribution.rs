//! Whose a request is, and what it belongs to.

use loom_core::{Clock, id::ThreadId, id::new_uuid};
use loom_testkit::TestApp;
use serde_json::{Value, json};

use super::{GPT, Op, SONNET, ask};

fn uuid() -> uuid::Uuid {
    new_uuid(Clock::system().now())
}

#[tokio::test]
async fn the_row_names_user_organisation_key_and_request() {
    let app = TestApp::start().await;
    let (a, b) = (app.user("a@example.com").await, app.user("b@example.com").await);
    ask(&a.with("x-request-id", "mine-1"), Op::Messages, SONNET).await.expect(200);
    ask(&b, Op::Chat, GPT).await.expect(200);
    let rows = app.llm_requests(2).await;
    for (row, user) in rows.iter().zip([&a, &b]) {
        assert_eq!(row["user_id"], json!(user.id.0));
        assert_eq!(row["org_id"], json!(user.org.0));
        let query = format!("SELECT id FROM api_keys WHERE user_id = '{}'", user.id.0);
        assert_eq!(row["api_key_id"], app.rows(&query).await[0]["id"]);
        assert_eq!(row["thread_id"], Value::Null);
        assert_eq!(row["weaver_id"], Value::Null);
        assert_eq!(row["tags"], json!([]));
    }
    assert_eq!(rows[0]["request_id"], "mine-1");
    assert_ne!(rows[1]["request_id"], "");
}

#[tokio::test]
async fn a_chosen_organisation_pays() {
    let app = TestApp::start().await;
    let (a, b) = (app.user("a@example.com").await, app.user("b@example.com").await);
    app.join(b.id, a.org, loom_core::principal::OrgRole::Member).await;
    ask(&b.with("x-loom-org", &a.org.0.to_string()), Op::Chat, GPT).await.expect(200);
    let row = &app.llm_requests(1).await[0];
    assert_eq!(row["org_id"], json!(a.org.0));
    assert_eq!(row["user_id"], json!(b.id.0));
}

#[tokio::test]
async fn thread_weaver_and_tags_are_taken_from_headers() {
    let app = TestApp::start().await;
    let user = app.user("a@example.com").await;
    let (thread, weaver) = (ThreadId(uuid()), app.weaver_of(&user).await);
    let caller = user
        .with("x-loom-thread-id", &thread.to_string())
        .with("x-loom-weaver-id", &weaver.0.to_string())
        .with("x-loom-tags", "team:core, nightly ,,x");
    for op in Op::ALL {
        caller.post(op.path(), &op.body(op.priced_model())).await.expect(200);
        caller.post(op.path(), &op.stream_body(op.priced_model())).await.expect(200);
    }
    for row in app.llm_requests(6).await {
        assert_eq!(row["thread_id"], json!(thread.0));
        assert_eq!(row["weaver_id"], json!(weaver.0));
        assert_eq!(row["tags"], json!(["team:core", "nightly", "x"]));
    }
}

#[tokio::test]
async fn a_header_that_is_no_id_is_refused_in_the_wires_shape() {
    let app = TestApp::start().await;
    let user = app.user("a@example.com").await;
    let many = vec!["tag"; 21].join(",");
    let long = "x".repeat(1001);
    for (name, value) in [
        ("x-loom-thread-id", "not-a-thread"),
        ("x-loom-thread-id", "0199aaaa-0000-7000-8000-000000000000"),
        ("x-loom-weaver-id", "w-1"),
        ("x-loom-tags", many.as_str()),
        ("x-loom-tags", long.as_str()),
    ] {
        for op in Op::ALL {
            let answer = ask(&user.with(name, value), op, op.priced_model()).await.expect(400);
            let (message, code) = op.error_of(&answer.json());
            assert!(message.contains(name), "{message}");
            let expected =
                if op == Op::Messages { "invalid_request_error" } else { "invalid_request" };
            assert_eq!(code, expected);
        }
    }
    assert!(app.mock.requests().is_empty());
    assert!(app.rows("SELECT 1 FROM llm_requests").await.is_empty());
}

#[tokio::test]
async fn rows_that_are_old_are_deleted_by_the_job_and_no_others() {
    let app = TestApp::start().await;
    let user = app.user("a@example.com").await;
    for _ in 0..2 {
        ask(&user, Op::Chat, GPT).await.expect(200);
    }
    let rows = app.llm_requests(2).await;
    sqlx::query(
        "UPDATE llm_requests SET started_at = now() - interval '91 days' WHERE id = $1::uuid",
    )
    .bind(rows[0]["id"].as_str().unwrap())
    .execute(app.database.pool())
    .await
    .unwrap();
    let outcome = app.running.features.jobs.run_now("llm-request-cleanup").await.unwrap();
    assert_eq!(outcome.items_handled, 1);
    let left = app.rows("SELECT id FROM llm_requests").await;
    assert_eq!(left.len(), 1);
    assert_eq!(left[0]["id"], rows[1]["id"]);
}
