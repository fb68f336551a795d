//! Large contents, beside their message.

use http::StatusCode;
use serde_json::{Value, json};

use crate::harness::{App, Person, message, thread};

/// A tool's output of this many lines.
fn output(lines: usize) -> String {
    (0..lines).map(|line| format!("{line}: all is \"well\" äöü\n")).collect()
}

fn tool(id: &str, content: &Value) -> Value {
    json!({ "id": id, "role": "tool", "tool_call_id": "c1", "tool_name": "run", "content": content })
}

async fn blobs(app: &App) -> i64 {
    sqlx::query_scalar("SELECT count(*) FROM thread_blobs").fetch_one(app.pool()).await.unwrap()
}

async fn is_whole(ann: &Person<'_>, id: &str, seq: i64, content: &Value) {
    let path = format!("/api/threads/{id}/messages/{seq}");
    let message = ann.get(&path).await.expect(StatusCode::OK);
    assert_eq!(&message.body["content"], content);
    assert_eq!(message.body.get("content_truncated"), None);
}

#[tokio::test]
async fn a_large_output_is_kept_beside_its_message_and_comes_back_as_it_was() {
    let app = App::start().await;
    let ann = app.somebody().await;
    let text = json!(output(10_000));
    let parts =
        json!([{ "type": "text", "text": output(5000) }, { "type": "text", "text": "end" }]);
    let document = json!({ "messages": [message("a"), tool("b", &text), tool("c", &parts), tool("d", &json!("short"))] });
    let id = ann.creates(&document).await;
    assert_eq!(blobs(&app).await, 2);
    let read = ann.read(&id).await;
    assert_eq!(read.body["messages"][1]["content"], text);
    assert_eq!(read.body["messages"][2]["content"], parts);
    for (seq, content) in [(2, &text), (3, &parts), (4, &json!("short"))] {
        is_whole(&ann, &id, seq, content).await;
    }
    // What was read goes back unchanged: it is no change.
    let again = ann.put(&id, &read.body).if_match("\"1\"").await.expect(StatusCode::OK);
    assert_eq!(again.version(), 1);
    assert_eq!(again.body["messages"], read.body["messages"]);
    for seq in ["0", "5", "-9223372036854775808", "9223372036854775807"] {
        let path = format!("/api/threads/{id}/messages/{seq}");
        ann.get(&path).await.expect(StatusCode::NOT_FOUND);
    }
}

#[tokio::test]
async fn a_thread_is_read_with_the_beginnings_of_its_outputs_and_written_back_without_loss() {
    let app = App::start().await;
    let ann = app.somebody().await;
    let text = json!(output(10_000));
    let id = ann.creates(&json!({ "messages": [message("a"), tool("b", &text)] })).await;
    let preview = ann.read(&format!("{id}?outputs=preview")).await.expect(StatusCode::OK);
    let shown = preview.body["messages"][1]["content"].as_str().unwrap();
    assert!(shown.len() > 1000 && shown.len() <= 2048 && text.as_str().unwrap().starts_with(shown));
    let truncated = &preview.body["messages"][1]["content_truncated"];
    assert_eq!(truncated["bytes"], serde_json::to_string(&text).unwrap().len());
    assert!(preview.text.len() < 8000);

    let mut document = preview.body.clone();
    document["title"] = json!("named");
    document["messages"].as_array_mut().unwrap().push(message("c"));
    let put = ann.put(&id, &document).if_match("\"1\"").await.expect(StatusCode::OK);
    assert_eq!(put.version(), 2);
    let read = ann.read(&id).await;
    assert_eq!(read.body["messages"][1]["content"], text);
    assert_eq!(read.body["messages"].as_array().unwrap().len(), 3);
    let bytes: i64 = sqlx::query_scalar("SELECT message_bytes FROM threads")
        .fetch_one(app.pool())
        .await
        .unwrap();
    assert!(bytes > 100_000, "{bytes}");
}

#[tokio::test]
async fn the_beginning_of_an_output_never_takes_the_place_of_the_whole() {
    let app = App::start().await;
    let ann = app.somebody().await;
    let text = json!(output(10_000));
    let id = ann.creates(&json!({ "messages": [message("a"), tool("b", &text)] })).await;
    let preview = ann.read(&format!("{id}?outputs=preview")).await.body;
    let mut other = preview.clone();
    other["messages"][1]["content_truncated"]["digest"] = json!("0".repeat(64));
    let mut moved = preview.clone();
    moved["messages"].as_array_mut().unwrap().remove(0);
    for document in [other, moved] {
        let refused = ann.put(&id, &document).if_match("\"1\"").await;
        refused.expect_invalid(&["messages"]);
    }
    let mut nonsense = preview.clone();
    nonsense["messages"][1]["content_truncated"]["digest"] = json!("x");
    let refused = ann.put(&id, &nonsense).if_match("\"1\"").await;
    refused.expect_invalid(&["messages[1].content_truncated.digest"]);
    let mut append = json!({ "messages": [preview["messages"][1].clone()] });
    append["messages"][0]["id"] = json!("new");
    ann.append(&id, &append).await.expect_invalid(&["messages"]);
    is_whole(&ann, &id, 2, &text).await;
    assert_eq!(ann.read(&id).await.version(), 1);
}

#[tokio::test]
async fn an_output_that_becomes_short_or_goes_leaves_nothing_behind() {
    let app = App::start().await;
    let ann = app.somebody().await;
    let (text, other) = (json!(output(10_000)), json!(output(9000)));
    let document = json!({ "messages": [tool("a", &text), tool("b", &text), tool("c", &text)] });
    let id = ann.creates(&document).await;
    let document = json!({ "messages": [tool("a", &json!("short")), tool("b", &other)] });
    ann.put(&id, &document).if_match("*").await.expect(StatusCode::OK);
    assert_eq!(blobs(&app).await, 1);
    let read = ann.read(&id).await;
    assert_eq!(read.body["messages"][0]["content"], "short");
    assert_eq!(read.body["messages"][1]["content"], other);
}

#[tokio::test]
async fn an_upsert_that_changes_nothing_reads_no_large_output() {
    let app = App::start_with_one_connection().await;
    let ann = app.somebody().await;
    let document = json!({ "messages": [tool("a", &json!(output(10_000))), message("b")] });
    let id = ann.creates(&document).await;
    let before = reads(&app).await;
    let again = ann.put(&id, &document).if_match("\"1\"").await.expect(StatusCode::OK);
    assert_eq!(again.version(), 1);
    assert_eq!(reads(&app).await, before);
}

/// How often rows of large contents were looked for.
async fn reads(app: &App) -> i64 {
    sqlx::query("SELECT pg_stat_force_next_flush()").execute(app.pool()).await.unwrap();
    sqlx::query_scalar(
        "SELECT (seq_scan + coalesce(idx_scan, 0))::bigint FROM pg_stat_user_tables WHERE relname = 'thread_blobs'",
    )
    .fetch_one(app.pool())
    .await
    .unwrap()
}

#[tokio::test]
async fn who_writes_an_old_version_is_told_where_the_missing_messages_are() {
    let app = App::start().await;
    let ann = app.somebody().await;
    let id = ann.creates(&thread(&["a", "b"])).await;
    ann.append(&id, &thread(&["c"])).await.expect(StatusCode::OK);
    ann.append(&id, &thread(&["d", "e"])).await.expect(StatusCode::OK);
    let range = |from: i64, to: i64| {
        let url = format!("/api/threads/{id}?messages_after={}", from - 1);
        json!({ "from_seq": from, "to_seq": to, "url": url })
    };
    let conflicts = [
        ann.put(&id, &thread(&["a"])).if_match("\"1\"").await,
        ann.patch(&id, &json!({ "title": "x" })).if_match("\"1\"").await,
        ann.delete(&id).if_match("\"1\"").await,
        ann.append(&id, &thread(&["z"])).if_match("\"1\"").await,
    ];
    for conflict in conflicts {
        let problem = conflict.expect_problem(StatusCode::CONFLICT, "version_conflict");
        assert_eq!(
            (&problem.body["server_version"], &problem.body["client_version"]),
            (&json!(3), &json!(1))
        );
        assert_eq!(problem.body["missing_range"], range(3, 5));
        assert_eq!(problem.body["last_seq"], 5);
    }
    let mut append = thread(&["z"]);
    append["expected_last_seq"] = json!(3);
    let problem = ann.append(&id, &append).await.expect(StatusCode::CONFLICT);
    assert_eq!(problem.body["missing_range"], range(4, 5));
    let missing = ann.get(problem.body["missing_range"]["url"].as_str().unwrap()).await;
    assert_eq!(missing.body["messages"], problem.body["missing"]);
    ann.patch(&id, &json!({ "title": "x" })).await.expect(StatusCode::OK);
    let problem = ann.delete(&id).if_match("\"3\"").await.expect(StatusCode::CONFLICT);
    assert_eq!(problem.body["missing_range"], Value::Null);
}
