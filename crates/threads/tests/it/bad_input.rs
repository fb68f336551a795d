//! Requests that are not as they should be: told why, never a 500.

use http::StatusCode;
use serde_json::{Value, json};

use crate::harness::{App, message, thread};

#[tokio::test]
async fn each_field_that_is_wrong_is_named() {
    let app = App::start().await;
    let ann = app.somebody().await;
    let id = app.new_thread_id();
    let long = "x".repeat(2000);
    let with = |part: Value| {
        let mut body = json!({ "messages": [] });
        body.as_object_mut().unwrap().extend(part.as_object().unwrap().clone());
        body
    };
    for (body, paths) in [
        (json!({}), &[""] as &[&str]),
        (json!([]), &["messages"]),
        (json!({ "messages": {} }), &["messages"]),
        (
            json!({ "messages": [message("a"), { "role": "robot", "content": "" }] }),
            &["messages[1].role"],
        ),
        (json!({ "messages": [{ "role": "user" }] }), &["messages[0].content"]),
        (json!({ "messages": [{ "role": "user", "content": 7 }] }), &["messages[0].content"]),
        (
            json!({ "messages": [{ "role": "user", "content": { "a": 1 } }] }),
            &["messages[0].content"],
        ),
        (json!({ "messages": [message("a"), message("b"), message("a")] }), &["messages[2].id"]),
        (json!({ "messages": [message("")] }), &["messages[0].id"]),
        (
            json!({ "messages": [{ "role": "user", "content": "", "tool_calls": {}, "usage": [] }] }),
            &["messages[0].tool_calls", "messages[0].usage"],
        ),
        (
            json!({ "messages": [{ "role": "user", "content": "", "created_at": "now" }] }),
            &["messages[0].created_at"],
        ),
        (
            json!({ "messages": [{ "role": "user", "content": "", "created_at": "0001-01-01T00:00:00Z" }] }),
            &["messages[0].created_at"],
        ),
        (with(json!({ "id": app.new_thread_id() })), &["id"]),
        (with(json!({ "id": "T-1" })), &["id"]),
        (with(json!({ "title": long })), &["title"]),
        (with(json!({ "tags": ["a", ""] })), &["tags[1]"]),
        (with(json!({ "tags": vec!["a"; 51] })), &["tags"]),
        (with(json!({ "visibility": "secret" })), &["visibility"]),
        (with(json!({ "workspace": { "root": long } })), &["workspace.root"]),
        (
            with(json!({ "git": { "branch": long, "commits": ["abcd", "xyz"] } })),
            &["git.branch", "git.commits[1]"],
        ),
        (with(json!({ "agent_state": {} })), &["agent_state"]),
        (with(json!({ "agent_state": { "kind": "asleep" } })), &["agent_state.kind"]),
        (
            with(json!({ "agent_state": { "kind": "error", "retries": -1 } })),
            &["agent_state.retries"],
        ),
        (with(json!({ "extra": [] })), &["extra"]),
    ] {
        let answer = ann.put(&id, &body).await;
        println!("{body} -> {}", answer.text);
        if body == json!({}) || body == json!([]) {
            answer.expect_problem(StatusCode::UNPROCESSABLE_ENTITY, "invalid_request");
        } else {
            answer.expect_invalid(paths);
        }
    }
    ann.read(&id).await.expect(StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn text_that_cannot_be_stored_is_refused_wherever_it_stands() {
    let app = App::start().await;
    let ann = app.somebody().await;
    let id = ann.creates(&thread(&["a"])).await;
    for text in [r"\u0000", r"\ud800", r"\udc00x", r"\ud800\u0041"] {
        let bodies = [
            format!(r#"{{"messages":[],"title":"{text}"}}"#),
            format!(r#"{{"messages":[{{"role":"user","content":"{text}"}}]}}"#),
            format!(r#"{{"messages":[{{"role":"user","content":[{{"text":"{text}"}}]}}]}}"#),
            format!(r#"{{"messages":[{{"role":"user","content":"","usage":{{"{text}":1}}}}]}}"#),
            format!(r#"{{"messages":[{{"role":"user","content":"","id":"{text}"}}]}}"#),
            format!(r#"{{"messages":[],"extra":{{"a":"{text}"}}}}"#),
            format!(
                r#"{{"messages":[],"agent_state":{{"kind":"error","pending_tool_calls":[{{"a":"{text}"}}]}}}}"#
            ),
        ];
        for body in bodies {
            let status = StatusCode::UNPROCESSABLE_ENTITY;
            ann.put(&id, &json!(0))
                .text(body.clone())
                .if_match("*")
                .await
                .expect_problem(status, "invalid_request");
            ann.append(&id, &json!(0))
                .text(body.clone())
                .await
                .expect_problem(status, "invalid_request");
        }
    }
    // An escaped backslash before `u0000` is no NUL.
    let body = r#"{"messages":[{"role":"user","content":"\\u0000 \ud83d\ude00"}]}"#;
    ann.append(&id, &json!(0)).text(body.to_owned()).await.expect(StatusCode::OK);
}

#[tokio::test]
async fn json_that_would_break_a_reader_is_refused() {
    let app = App::start().await;
    let ann = app.somebody().await;
    let id = ann.creates(&thread(&["a"])).await;
    let deep = format!("{}{}", "[".repeat(50_000), "]".repeat(50_000));
    for content in [deep.as_str(), "[1e999]"] {
        let body = format!(r#"{{"messages":[{{"role":"user","content":{content}}}]}}"#);
        ann.append(&id, &json!(0)).text(body).await.expect_invalid(&["messages[0].content"]);
    }
    for (body, code) in [
        ("{\"messages\": [", "malformed_json"),
        ("", "malformed_json"),
        ("{\"messages\":[]} x", "malformed_json"),
    ] {
        let answer = ann.append(&id, &json!(0)).text(body.to_owned()).await;
        answer.expect_problem(StatusCode::BAD_REQUEST, code);
    }
}

#[tokio::test]
async fn an_id_that_is_none_is_refused() {
    let app = App::start().await;
    let ann = app.somebody().await;
    for id in ["x", "T-1", "0196f3a0-0000-7000-8000-000000000000"] {
        ann.put(id, &thread(&[])).await.expect_invalid(&["id"]);
        ann.read(id).await.expect_problem(StatusCode::NOT_FOUND, "not_found");
        ann.append(id, &thread(&["a"])).await.expect_problem(StatusCode::NOT_FOUND, "not_found");
    }
}
