//! Changes that leave the messages alone.

use http::StatusCode;
use serde_json::json;

use crate::harness::{App, thread};

#[tokio::test]
async fn only_what_is_given_changes() {
    let app = App::start().await;
    let ann = app.somebody().await;
    let id = ann
        .creates(&json!({
            "title": "t", "tags": ["x"], "extra": { "k": 1 }, "messages": [],
            "git": { "branch": "main", "remote_url": "git@h.example.com:o/r.git", "commits": ["aaaaaaa"] },
        }))
        .await;
    app.advance(1000);
    let patched =
        ann.patch(&id, &json!({ "is_pinned": true, "tags": ["y"] })).await.expect(StatusCode::OK);
    assert_eq!(patched.header("etag"), "\"2\"");
    assert_eq!(patched.body["title"], "t");
    assert_eq!(patched.body["tags"], json!(["y"]));
    assert_eq!(patched.body["is_pinned"], true);
    assert_eq!(patched.body["last_activity_at"], "2030-03-17T17:46:40.000Z");
    assert_eq!(patched.body["updated_at"], "2030-03-17T17:46:41.000Z");

    let patch =
        json!({ "git": { "branch": null, "commits": ["bbbbbbb"] }, "visibility": "organization" });
    let patched = ann.patch(&id, &patch).await.expect(StatusCode::OK);
    let git = json!({ "remote_url": "h.example.com/o/r", "commits": ["aaaaaaa", "bbbbbbb"] });
    assert_eq!(patched.body["git"], git);

    let patch = json!({ "title": null, "tags": null, "extra": null, "git": null });
    let patched = ann.patch(&id, &patch).await.expect(StatusCode::OK);
    assert_eq!(patched.body["title"], json!(null));
    assert_eq!(patched.body["tags"], json!([]));
    assert_eq!(patched.body["extra"], json!({}));
    assert_eq!(patched.body["git"], json!({ "commits": ["aaaaaaa", "bbbbbbb"] }));

    let mut read = ann.read(&id).await.body;
    read.as_object_mut().unwrap().remove("messages");
    assert_eq!(read, patched.body);
}

#[tokio::test]
async fn the_state_of_the_agent_is_replaced_whole_and_counts_as_activity() {
    let app = App::start().await;
    let ann = app.somebody().await;
    let id = ann.creates(&thread(&[])).await;
    app.advance(1000);
    let state = json!({ "kind": "error", "last_error": "no route", "retries": 3, "pending_tool_calls": [{ "id": 1 }] });
    let patched = ann.patch(&id, &json!({ "agent_state": state })).await.expect(StatusCode::OK);
    assert_eq!(patched.body["agent_state"], state);
    assert_eq!(patched.body["last_activity_at"], "2030-03-17T17:46:41.000Z");
    let patched = ann.patch(&id, &json!({ "agent_state": { "kind": "calling_llm" } })).await;
    let state = json!({ "kind": "calling_llm", "retries": 0, "pending_tool_calls": [] });
    assert_eq!(patched.body["agent_state"], state);
}

#[tokio::test]
async fn a_patch_that_changes_nothing_keeps_the_version() {
    let app = App::start().await;
    let ann = app.somebody().await;
    let id = ann
        .creates(&json!({ "title": "t", "git": { "commits": ["aaaaaaa"] }, "messages": [] }))
        .await;
    let patch = json!({ "title": "t", "git": { "commits": ["aaaaaaa"] } });
    assert_eq!(ann.patch(&id, &patch).await.expect(StatusCode::OK).version(), 1);
    assert_eq!(ann.patch(&id, &json!({})).await.expect(StatusCode::OK).version(), 1);
}

#[tokio::test]
async fn if_match_is_honoured_when_it_is_sent() {
    let app = App::start().await;
    let ann = app.somebody().await;
    let id = ann.creates(&thread(&[])).await;
    let problem = ann.patch(&id, &json!({ "title": "x" })).if_match("\"2\"").await;
    problem.expect_problem(StatusCode::CONFLICT, "version_conflict");
    ann.patch(&id, &json!({ "title": "x" })).if_match("\"1\"").await.expect(StatusCode::OK);
}
