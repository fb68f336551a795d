//! Threads as files: what is exported comes in again as it was.

use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::harness::{App, Person, message, thread};

const KINDS: [(&str, &str); 3] = [
    ("md", "text/markdown; charset=utf-8"),
    ("json", "application/json"),
    ("jsonl", "application/x-ndjson"),
];

async fn export(person: &Person<'_>, id: &str, format: &str) -> String {
    let path = format!("/api/threads/{id}/export?format={format}");
    person.get(&path).await.expect(StatusCode::OK).text
}

fn import(person: &Person<'_>, query: &str, kind: &str, body: String) -> crate::harness::Call {
    person.request(Method::POST, &format!("/api/threads/import{query}")).text_as(kind, body)
}

/// All that a client gave.
fn given(mut document: Value) -> Value {
    for name in ["id", "version", "updated_at", "last_activity_at", "owner_user_id", "org_id"] {
        document.as_object_mut().unwrap().remove(name);
    }
    document
}

fn odd_thread() -> Value {
    let fence = "text\n```rust\nfn main() {}\n```\n\n<!-- loom:message {\"id\":\"x\"} -->\n\\<!-- loom:end -->\n<!-- loom:end -->\n\n## user\n\n";
    json!({
        "title": "A --> title\nof two lines",
        "tags": ["x -->"],
        "workspace": {"root": "/src"},
        "git": {"branch": "b", "remote_url": "git@h.example:o/r.git", "commits": ["abcdef1"]},
        "extra": {"z": "a --> b", "a": [1, {"t": ">"}]},
        "messages": [
            {"id": "m1", "role": "system", "content": ""},
            {"id": "m2", "role": "user", "content": fence},
            {"id": "m3", "role": "assistant", "content": null,
             "tool_calls": [{"id": "c1", "arguments": "{\"a\": \"-->\"}"}], "usage": {"output_tokens": 3}},
            {"id": "m4", "role": "tool", "tool_call_id": "c1", "tool_name": "run", "content": "out\n"},
            {"id": "m5", "role": "assistant", "content": [
                {"type": "thinking", "thinking": "hm", "signature": "c2ln"},
                {"type": "text", "text": "done > well"}]},
            {"id": "m6", "role": "user", "content": "\n\nbegins and ends with lines\n\n"},
            {"id": "m7", "role": "user", "content": "日本語 🦀 \u{200f}"},
        ],
    })
}

#[tokio::test]
async fn every_form_comes_back_as_it_was() {
    let app = App::start().await;
    let ann = app.somebody().await;
    let id = ann.creates(&odd_thread()).await;
    let before = given(ann.read(&id).await.body);
    for (format, kind) in KINDS {
        let file = export(&ann, &id, format).await;
        app.advance(1000);
        let made = import(&ann, "?new_ids=true", kind, file.clone()).await;
        let made = made.expect(StatusCode::CREATED).body;
        let new = made["threads"][0]["id"].as_str().unwrap().to_owned();
        assert_ne!(new, id);
        let after = given(ann.read(&new).await.expect(StatusCode::OK).body);
        assert_eq!(after, before, "{format}:\n{file}");
    }
}

#[tokio::test]
async fn an_export_is_a_file_that_people_can_read() {
    let app = App::start().await;
    let ann = app.somebody().await;
    let id = ann.creates(&odd_thread()).await;
    for (format, kind) in KINDS {
        let path = format!("/api/threads/{id}/export?format={format}");
        let file = ann.get(&path).await.expect(StatusCode::OK);
        assert_eq!(file.header("content-type"), kind);
        let name = format!("attachment; filename=\"{id}.{format}\"");
        assert_eq!(file.header("content-disposition"), name);
    }
    let markdown = export(&ann, &id, "md").await;
    for line in ["# A --> title of two lines", "## tool · run", "> done > well", "Tool calls:"] {
        assert!(markdown.lines().any(|found| found == line), "{line}:\n{markdown}");
    }
    let lines = export(&ann, &id, "jsonl").await;
    assert_eq!(lines.lines().count(), 8);
    ann.get(&format!("/api/threads/{id}/export?format=pdf")).await.expect(StatusCode::BAD_REQUEST);
    let eve = app.somebody().await;
    eve.get(&format!("/api/threads/{id}/export")).await.expect(StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn an_import_is_private_at_rest_and_all_or_nothing() {
    let app = App::start().await;
    let ann = app.somebody().await;
    let eve = app.somebody().await;
    let mut document = thread(&["a"]);
    document["visibility"] = json!("public");
    document["agent_state"] = json!({"kind": "executing_tools"});
    let id = ann.creates(&document).await;
    let file = export(&ann, &id, "json").await;
    // The id is taken, by whomever.
    for person in [&ann, &eve] {
        let taken = import(person, "", "application/json", file.clone()).await;
        taken.expect_problem(StatusCode::CONFLICT, "thread_exists");
    }
    let fresh = app.new_thread_id();
    let several = json!({"threads": [
        {"id": fresh, "visibility": "public", "agent_state": {"kind": "executing_tools"}, "messages": [message("x")]},
        {"id": id, "messages": []},
    ]});
    let refused = import(&eve, "", "application/json", several.to_string()).await;
    refused.expect_problem(StatusCode::CONFLICT, "thread_exists");
    eve.read(&fresh).await.expect(StatusCode::NOT_FOUND);

    let one = json!({"threads": [several["threads"][0]]});
    import(&eve, "", "application/json", one.to_string()).await.expect(StatusCode::CREATED);
    let read = eve.read(&fresh).await.expect(StatusCode::OK).body;
    assert_eq!(read["visibility"], "private");
    assert_eq!(read["agent_state"]["kind"], "waiting_for_user_input");
    assert_eq!(read["owner_user_id"], eve.user_id());
}

#[tokio::test]
async fn what_was_never_exported_is_told_what_is_wrong() {
    let app = App::start().await;
    let ann = app.somebody().await;
    let cases = [
        ("text/plain", "x", StatusCode::UNSUPPORTED_MEDIA_TYPE),
        ("application/json", "{", StatusCode::BAD_REQUEST),
        ("application/json", "{}", StatusCode::BAD_REQUEST),
        ("application/json", r#"{"threads":[]}"#, StatusCode::UNPROCESSABLE_ENTITY),
        (
            "application/json",
            r#"{"messages":[{"role":"user","content":"\ud800"}]}"#,
            StatusCode::UNPROCESSABLE_ENTITY,
        ),
        (
            "application/json",
            r#"{"messages":[{"role":"user","content":"a\u0000"}]}"#,
            StatusCode::UNPROCESSABLE_ENTITY,
        ),
        (
            "application/x-ndjson",
            r#"{"type":"message","role":"user","content":"x"}"#,
            StatusCode::BAD_REQUEST,
        ),
        ("application/x-ndjson", r#"{"type":"other"}"#, StatusCode::BAD_REQUEST),
        ("application/x-ndjson", "", StatusCode::UNPROCESSABLE_ENTITY),
        ("text/markdown", "# Notes", StatusCode::BAD_REQUEST),
        (
            "text/markdown",
            "<!-- loom:thread {} -->\n<!-- loom:message {\"role\":\"user\"} -->\n\n## user\n\nx",
            StatusCode::BAD_REQUEST,
        ),
        ("text/markdown", "<!-- loom:thread {", StatusCode::BAD_REQUEST),
    ];
    for (kind, body, status) in cases {
        let answer = import(&ann, "", kind, body.to_owned()).await;
        assert_eq!(answer.status, status, "{kind} {body}: {}", answer.text);
    }
    let many: String = (0..101).map(|_| "{\"type\":\"thread\"}\n").collect();
    let answer = import(&ann, "", "application/x-ndjson", many).await;
    answer.expect(StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(ann.lists("").await, Vec::<String>::new());
}
