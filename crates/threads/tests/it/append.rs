//! Messages added at the end.

use http::StatusCode;
use serde_json::json;

use crate::harness::{App, message, places, thread};

#[tokio::test]
async fn messages_are_added_and_the_state_with_them() {
    let app = App::start().await;
    let ann = app.somebody().await;
    let id = ann.creates(&thread(&["a"])).await;
    app.advance(2000);
    let append = json!({
        "messages": [message("b"), { "role": "assistant", "content": [{ "type": "text", "text": "hi" }] }],
        "expected_last_seq": 1, "agent_state": { "kind": "calling_llm" }, "title": "named",
        "git": { "current_commit": "abcdef1234", "commits": ["abcdef1234"] }, "metadata": { "k": 1 },
    });
    let added = ann.append(&id, &append).await.expect(StatusCode::OK);
    assert_eq!(added.header("etag"), "\"2\"");
    assert_eq!((&added.body["version"], &added.body["last_seq"]), (&json!(2), &json!(3)));
    assert_eq!(added.places()[0], ("b".to_owned(), 2));
    let read = ann.read(&id).await;
    assert_eq!(read.places()[1..], added.places());
    assert_eq!(read.body["title"], "named");
    assert_eq!(read.body["agent_state"]["kind"], "calling_llm");
    assert_eq!(
        read.body["git"],
        json!({ "current_commit": "abcdef1234", "commits": ["abcdef1234"] })
    );
    assert_eq!(read.body["extra"], json!({ "k": 1 }));
    assert_eq!(read.body["last_activity_at"], "2030-03-17T17:46:42.000Z");
    assert_eq!(read.body["message_count"], 3);
}

#[tokio::test]
async fn a_repeated_append_adds_nothing() {
    let app = App::start().await;
    let ann = app.somebody().await;
    let id = ann.creates(&thread(&["a"])).await;
    let mut append = thread(&["b", "c"]);
    append["expected_last_seq"] = json!(1);
    append["agent_state"] = json!({ "kind": "calling_llm" });
    let first = ann.append(&id, &append).await.expect(StatusCode::OK);
    ann.append(&id, &json!({ "messages": [message("d")], "agent_state": { "kind": "error" } }))
        .await;
    // The repetition comes late: the thread has gone on, and stays as it is.
    let again = ann.append(&id, &append).if_match("\"1\"").await.expect(StatusCode::OK);
    assert_eq!(again.places(), first.places());
    assert_eq!((again.version(), again.header("etag")), (3, "\"3\""));
    let read = ann.read(&id).await;
    assert_eq!(read.places(), places(&[("a", 1), ("b", 2), ("c", 3), ("d", 4)]));
    assert_eq!(read.body["agent_state"]["kind"], "error");
}

#[tokio::test]
async fn of_an_append_that_is_partly_known_only_the_rest_is_added() {
    let app = App::start().await;
    let ann = app.somebody().await;
    let id = ann.creates(&thread(&["a"])).await;
    ann.append(&id, &thread(&["b"])).await.expect(StatusCode::OK);
    let mut append = thread(&["b", "c"]);
    append["expected_last_seq"] = json!(1);
    let added = ann.append(&id, &append).await.expect(StatusCode::OK);
    assert_eq!(added.places(), places(&[("b", 2), ("c", 3)]));
}

#[tokio::test]
async fn who_lacks_messages_is_told_which() {
    let app = App::start().await;
    let ann = app.somebody().await;
    let id = ann.creates(&thread(&["a"])).await;
    ann.append(&id, &thread(&["b", "c"])).await.expect(StatusCode::OK);
    let mut append = thread(&["z"]);
    append["expected_last_seq"] = json!(1);
    let problem = ann.append(&id, &append).await;
    let problem = problem.expect_problem(StatusCode::CONFLICT, "version_conflict");
    assert_eq!(
        (&problem.body["server_version"], &problem.body["last_seq"]),
        (&json!(2), &json!(3))
    );
    let read = ann.read(&format!("{id}?messages_after=1")).await;
    assert_eq!(problem.body["missing"], read.body["messages"]);
    assert_eq!(problem.body["missing_truncated"], false);

    let problem = ann.append(&id, &thread(&["z"])).if_match("\"1\"").await;
    let problem = problem.expect_problem(StatusCode::CONFLICT, "version_conflict");
    assert_eq!(
        (&problem.body["server_version"], &problem.body["client_version"]),
        (&json!(2), &json!(1))
    );
    // More than there is.
    append["expected_last_seq"] = json!(4);
    ann.append(&id, &append).await.expect_problem(StatusCode::CONFLICT, "version_conflict");
    assert_eq!(ann.read(&id).await.places().len(), 3);
}

#[tokio::test]
async fn what_is_missing_is_told_in_part_when_it_is_much() {
    let app = App::start().await;
    let ann = app.somebody().await;
    let ids: Vec<String> = (0..150).map(|n| format!("m{n}")).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    let id = ann.creates(&thread(&ids)).await;
    let append = json!({ "messages": [message("z")], "expected_last_seq": 10 });
    let problem = ann.append(&id, &append).await.expect(StatusCode::CONFLICT);
    assert_eq!(problem.body["missing"].as_array().unwrap().len(), 100);
    assert_eq!(problem.body["missing"][0]["seq"], 11);
    assert_eq!(problem.body["missing_truncated"], true);
}

#[tokio::test]
async fn who_counts_on_messages_that_were_removed_is_told() {
    let app = App::start().await;
    let ann = app.somebody().await;
    let id = ann.creates(&thread(&["a", "b"])).await;
    ann.put(&id, &thread(&["a"])).if_match("*").await.expect(StatusCode::OK);
    let append = json!({ "messages": [message("c")], "expected_last_seq": 2 });
    let problem = ann.append(&id, &append).await.expect(StatusCode::CONFLICT);
    assert_eq!((&problem.body["last_seq"], &problem.body["missing"]), (&json!(3), &json!([])));
}

#[tokio::test]
async fn an_append_without_messages_changes_the_state_alone() {
    let app = App::start().await;
    let ann = app.somebody().await;
    let id = ann.creates(&thread(&[])).await;
    let append = json!({ "messages": [], "agent_state": { "kind": "calling_llm" } });
    assert_eq!(ann.append(&id, &append).await.expect(StatusCode::OK).version(), 2);
    assert_eq!(ann.append(&id, &append).await.expect(StatusCode::OK).version(), 2);
}

#[tokio::test]
async fn nothing_is_added_to_a_thread_that_is_not_there() {
    let app = App::start().await;
    let ann = app.somebody().await;
    let problem = ann.append(&app.new_thread_id(), &thread(&["a"])).await;
    problem.expect_problem(StatusCode::NOT_FOUND, "not_found");
}

#[tokio::test]
async fn an_append_costs_the_same_in_a_long_thread() {
    let app = App::start_with_one_connection().await;
    let ann = app.somebody().await;
    let ids: Vec<String> = (0..5000).map(|n| format!("m{n}")).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    let short = ann.creates(&thread(&["a"])).await;
    let long = ann.creates(&thread(&ids)).await;
    // As autovacuum would.
    sqlx::query("ANALYZE").execute(app.pool()).await.unwrap();
    let mut costs = Vec::new();
    for id in [short, long] {
        let before = touched_rows(&app).await;
        ann.append(&id, &thread(&["x", "y"])).await.expect(StatusCode::OK);
        costs.push(touched_rows(&app).await - before);
    }
    assert_eq!(costs[0], costs[1], "rows read and written by an append");
    assert!(costs[0] > 0);
}

/// Rows that the threads' tables have given out or taken in so far.
async fn touched_rows(app: &App) -> i64 {
    sqlx::query("SELECT pg_stat_force_next_flush()").execute(app.pool()).await.unwrap();
    sqlx::query_scalar(
        "SELECT sum(seq_tup_read + coalesce(idx_tup_fetch, 0) + n_tup_ins + n_tup_upd + n_tup_del)::bigint
         FROM pg_stat_user_tables WHERE relname LIKE 'thread%'",
    )
    .fetch_one(app.pool())
    .await
    .unwrap()
}
