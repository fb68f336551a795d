//! Whole threads, written.

use http::StatusCode;
use serde_json::json;

use crate::harness::{App, message, places, thread};

#[tokio::test]
async fn the_first_put_creates_and_says_where() {
    let app = App::start().await;
    let ann = app.somebody().await;
    let id = app.new_thread_id();
    let created = ann.put(&id, &thread(&["a", "b"])).await.expect(StatusCode::CREATED);
    assert_eq!(created.header("location"), format!("/api/threads/{id}"));
    assert_eq!(created.header("etag"), "\"1\"");
    assert_eq!(created.places(), places(&[("a", 1), ("b", 2)]));
    for (name, value) in [
        ("id", json!(id)),
        ("version", json!(1)),
        ("org_id", json!(ann.org())),
        ("owner_user_id", json!(ann.user_id())),
        ("visibility", json!("private")),
        ("is_pinned", json!(false)),
        ("tags", json!([])),
        ("title", json!(null)),
        ("git", json!({ "commits": [] })),
        ("extra", json!({})),
        ("created_at", json!("2030-03-17T17:46:40.000Z")),
        (
            "agent_state",
            json!({ "kind": "waiting_for_user_input", "retries": 0, "pending_tool_calls": [] }),
        ),
    ] {
        assert_eq!(created.body[name], value, "{name}");
    }
    let read = ann.read(&id).await.expect(StatusCode::OK);
    assert_eq!(read.body, created.body);
    assert_eq!(read.header("etag"), "\"1\"");
}

#[tokio::test]
async fn a_conversation_with_tools_reads_back_as_it_was_sent() {
    let app = App::start().await;
    let ann = app.somebody().await;
    let id = app.new_thread_id();
    // Member order, number forms and escapes are the client's own.
    let messages = r#"[
        {"id":"m1","role":"system","content":"You are terse.","created_at":"2030-01-01T00:00:00.000Z"},
        {"id":"m2","role":"user","content":[{"type":"text","text":"weather?"},{"type":"image","source":{"z":1,"a":[1.0,1e2,12345678901234567890]}}],"created_at":"2030-01-01T00:00:01.000Z"},
        {"id":"m3","role":"assistant","content":null,"tool_calls":[{"type":"function","id":"call_1","function":{"name":"weather","arguments":"{\"city\": \"Ulm\"}"}}],"created_at":"2030-01-01T00:00:02.250Z","usage":{"output_tokens":12,"input_tokens":30}},
        {"id":"m4","role":"tool","content":"{\"deg\": 7.50, \"note\": \"caf\u00e9 \ud83d\ude00 \/\"}","tool_call_id":"call_1","tool_name":"weather","created_at":"2030-01-01T00:00:03.000Z"},
        {"id":"m5","role":"assistant","content":[{"text":"7.5 degrees","type":"text"}],"created_at":"2030-01-01T00:00:04.000Z"},
        {"id":"m6","role":"user","content":"","created_at":"2030-01-01T00:00:05.000Z"}]"#;
    let state = r#"{"kind":"executing_tools","retries":2,"last_error":"slow","pending_tool_calls":[{"id":"c2","b":1,"a":2}]}"#;
    let extra = r#"{"z":[1.50],"a":{"y":1,"b":2}}"#;
    let body = format!(
        r#"{{"title":"Weather","tags":["x","y","x"],"is_pinned":true,"visibility":"organization",
            "workspace":{{"root":"/src/app","cwd":"/src/app/web","hostname":"box","platform":"linux"}},
            "client":{{"name":"cli","version":"1.2"}},"provider":"anthropic","model":"m-1",
            "git":{{"branch":"main","remote_url":"https://ann:pw@git.example.com/o/r.git","initial_commit":"ABCDEF1",
                "start_dirty":false,"commits":["abcdef12","abcdef13"]}},
            "agent_state":{state},"messages":{messages},"extra":{extra},"unknown":1}}"#
    );
    let put = ann.put(&id, &json!(null)).text(body).await.expect(StatusCode::CREATED);
    let read = ann.read(&id).await.expect(StatusCode::OK);
    assert_eq!(put.text, read.text);
    for kept in
        [state, extra, r#""a":[1.0,1e2,12345678901234567890]"#, r#"caf\u00e9 \ud83d\ude00 \/"#]
    {
        assert!(read.text.contains(kept), "{kept} in {}", read.text);
    }
    let mut without_seq = read.body["messages"].clone();
    for message in without_seq.as_array_mut().unwrap() {
        message.as_object_mut().unwrap().remove("seq");
    }
    assert_eq!(without_seq, serde_json::from_str::<serde_json::Value>(messages).unwrap());
    assert_eq!(read.body["git"]["remote_url"], "git.example.com/o/r");
    assert_eq!(read.body["git"]["initial_commit"], "abcdef1");
    assert_eq!(read.body["git"]["commits"], json!(["abcdef12", "abcdef13"]));
    assert_eq!(read.body["tags"], json!(["x", "y"]));
    assert!(!read.text.contains("pw@"));

    // What was read is taken again, and changes nothing.
    let again = ann.put(&id, &read.body).if_match("\"1\"").text(read.text.clone()).await;
    assert_eq!(again.expect(StatusCode::OK).version(), 1);
}

#[tokio::test]
async fn a_thread_that_exists_is_replaced_only_by_its_version() {
    let app = App::start().await;
    let ann = app.somebody().await;
    let id = ann.creates(&thread(&["a"])).await;
    let changed = thread(&["a", "b"]);

    let problem = ann.put(&id, &changed).await;
    problem.expect_problem(StatusCode::PRECONDITION_REQUIRED, "precondition_required");
    let problem = ann.put(&id, &changed).header("if-none-match", "*").await;
    problem.expect_problem(StatusCode::PRECONDITION_FAILED, "precondition_failed");
    let problem = ann.put(&id, &changed).if_match("\"7\"").await;
    let problem = problem.expect_problem(StatusCode::CONFLICT, "version_conflict");
    assert_eq!(
        (&problem.body["server_version"], &problem.body["client_version"]),
        (&json!(1), &json!(7))
    );
    let problem = ann.put(&id, &changed).if_match("seven").await;
    problem.expect_problem(StatusCode::BAD_REQUEST, "invalid_if_match");
    assert_eq!(ann.read(&id).await.version(), 1);

    let replaced = ann.put(&id, &changed).if_match("\"1\"").await.expect(StatusCode::OK);
    assert_eq!((replaced.header("etag"), replaced.header("location")), ("\"2\"", ""));
    let forced = ann.put(&id, &thread(&[])).if_match("*").await.expect(StatusCode::OK);
    assert_eq!(forced.version(), 3);
    assert_eq!(forced.places(), []);
}

#[tokio::test]
async fn a_version_of_a_thread_that_is_not_there_is_not_found() {
    let app = App::start().await;
    let ann = app.somebody().await;
    let id = app.new_thread_id();
    let problem = ann.put(&id, &thread(&[])).if_match("\"1\"").await;
    problem.expect_problem(StatusCode::NOT_FOUND, "not_found");
    ann.put(&id, &thread(&[])).if_match("*").await.expect(StatusCode::CREATED);
    let id = app.new_thread_id();
    ann.put(&id, &thread(&[])).header("if-none-match", "*").await.expect(StatusCode::CREATED);
}

#[tokio::test]
async fn messages_keep_their_place_up_to_the_first_other_one() {
    let app = App::start().await;
    let ann = app.somebody().await;
    let id = ann.creates(&thread(&["a", "b", "c", "d"])).await;
    let created = ann.read(&id).await;

    // The second has other content, the third is gone.
    app.advance(1500);
    let mut body = thread(&["a", "b", "d", "e"]);
    body["messages"][1]["content"] = json!("other");
    let put = ann.put(&id, &body).if_match("*").await.expect(StatusCode::OK);
    assert_eq!(put.places(), places(&[("a", 1), ("b", 2), ("d", 5), ("e", 6)]));
    let read = ann.read(&id).await;
    assert_eq!(read.body, put.body);
    assert_eq!(read.body["last_seq"], 6);
    assert_eq!(read.body["message_count"], 4);
    assert_eq!(read.body["messages"][1]["content"], "other");
    let when = |answer: &crate::harness::Answer, at: usize| {
        answer.body["messages"][at]["created_at"].clone()
    };
    assert_eq!(when(&read, 2), when(&created, 3), "`d` was there before");
    assert_ne!(when(&read, 3), when(&created, 0), "`e` is new");

    // A place is never used twice, not even one at the end.
    let put = ann.put(&id, &thread(&["a"])).if_match("*").await.expect(StatusCode::OK);
    assert_eq!(put.places(), places(&[("a", 1)]));
    let put = ann.put(&id, &thread(&["a", "f"])).if_match("*").await.expect(StatusCode::OK);
    assert_eq!(put.places(), places(&[("a", 1), ("f", 8)]));
}

#[tokio::test]
async fn rows_that_did_not_change_are_not_touched() {
    let app = App::start().await;
    let ann = app.somebody().await;
    let id = ann.creates(&thread(&["a", "b", "c"])).await;
    let rows = async || -> Vec<(String, String)> {
        sqlx::query_as("SELECT id, xmin::text FROM thread_messages ORDER BY seq")
            .fetch_all(app.pool())
            .await
            .unwrap()
    };
    let before = rows().await;
    let mut body = thread(&["a", "b", "c", "d"]);
    body["messages"][1]["content"] = json!("other");
    ann.put(&id, &body).if_match("*").await.expect(StatusCode::OK);
    let after = rows().await;
    assert_eq!((&after[0], &after[2]), (&before[0], &before[2]));
    assert_ne!(after[1], before[1]);
}

#[tokio::test]
async fn messages_without_an_id_get_one_and_keep_it() {
    let app = App::start().await;
    let ann = app.somebody().await;
    let body = json!({ "messages": [{ "role": "user", "content": "x" }, { "role": "user", "content": "x" }] });
    let id = ann.creates(&body).await;
    let first = ann.read(&id).await.places();
    assert_ne!(first[0].0, first[1].0);
    let mut longer = body.clone();
    longer["messages"].as_array_mut().unwrap().push(json!({ "role": "assistant", "content": "y" }));
    let put = ann.put(&id, &longer).if_match("*").await.expect(StatusCode::OK);
    assert_eq!(put.places()[..2], first);
}

#[tokio::test]
async fn what_is_absent_is_cleared_but_commits_only_grow() {
    let app = App::start().await;
    let ann = app.somebody().await;
    let id = ann
        .creates(&json!({
            "title": "t", "tags": ["x"], "is_pinned": true, "visibility": "public", "model": "m",
            "git": { "branch": "main", "commits": ["aaaaaaa", "bbbbbbb"] }, "extra": { "k": 1 }, "messages": [],
        }))
        .await;
    let body = json!({ "git": { "commits": ["ccccccc", "AAAAAAA"] }, "messages": [] });
    let put = ann.put(&id, &body).if_match("\"1\"").await.expect(StatusCode::OK);
    for (name, value) in [
        ("title", json!(null)),
        ("tags", json!([])),
        ("is_pinned", json!(false)),
        ("visibility", json!("private")),
        ("model", json!(null)),
        ("extra", json!({})),
        ("git", json!({ "commits": ["aaaaaaa", "bbbbbbb", "ccccccc"] })),
    ] {
        assert_eq!(put.body[name], value, "{name}");
    }
}

#[tokio::test]
async fn a_thread_begun_elsewhere_keeps_its_beginning() {
    let app = App::start().await;
    let ann = app.somebody().await;
    let body =
        json!({ "created_at": "2029-05-06T09:08:09.123456+02:00", "messages": [message("a")] });
    let id = ann.creates(&body).await;
    let read = ann.read(&id).await;
    assert_eq!(read.body["created_at"], "2029-05-06T07:08:09.123Z");
    assert_eq!(read.body["updated_at"], "2030-03-17T17:46:40.000Z");
    let future = json!({ "created_at": "2099-01-01T00:00:00Z", "messages": [] });
    let id = ann.creates(&future).await;
    assert_eq!(ann.read(&id).await.body["created_at"], "2030-03-17T17:46:40.000Z");
}

#[tokio::test]
async fn a_deleted_thread_is_not_written_over() {
    let app = App::start().await;
    let ann = app.somebody().await;
    let id = ann.creates(&thread(&["a"])).await;
    ann.delete(&id).await.expect(StatusCode::NO_CONTENT);
    for if_match in ["*", "\"1\"", "\"2\""] {
        let problem = ann.put(&id, &thread(&["b"])).if_match(if_match).await;
        problem.expect_problem(StatusCode::CONFLICT, "thread_deleted");
    }
    ann.put(&id, &thread(&["b"])).await.expect_problem(StatusCode::CONFLICT, "thread_deleted");
}
