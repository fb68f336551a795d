//! The jobs that keep the search of threads true.

use loom_jobs::RunStatus;
use loom_testkit::{Setup, TestApp, User};
use serde_json::json;

async fn app() -> (TestApp, User) {
    let app = Setup::default().manual_clock().start().await;
    let ann = app.user("ann@example.com").await;
    (app, ann)
}

async fn creates(app: &TestApp, by: &User, title: &str) -> String {
    let id = format!("T-{}", loom_core::id::new_uuid(app.clock.now()));
    let thread = json!({ "title": title, "messages": [
        { "role": "user", "content": format!("{title} one") },
        { "role": "user", "content": format!("{title} two") },
    ]});
    by.put(&format!("/api/threads/{id}"), &thread).await.expect(201);
    id
}

async fn total(by: &User, q: &str) -> u64 {
    let page = by.get(&format!("/api/threads/search?q={q}")).await.expect(200);
    page.json()["total"].as_u64().unwrap()
}

async fn execute(app: &TestApp, sql: &'static str) {
    sqlx::raw_sql(sql).execute(app.database.pool()).await.unwrap();
}

async fn handled(app: &TestApp, job: &str) -> u64 {
    let ended = app.running.features.jobs.run_now(job).await.unwrap();
    assert_eq!(ended.status, RunStatus::Succeeded, "{ended:?}");
    ended.items_handled
}

#[tokio::test]
async fn threads_from_before_the_index_are_put_into_it() {
    let (app, ann) = app().await;
    creates(&app, &ann, "apricot").await;
    creates(&app, &ann, "banana").await;
    execute(&app, "DELETE FROM thread_search; UPDATE threads SET search_preparation = 0").await;
    assert_eq!(total(&ann, "apricot").await, 0);
    // What is not in the index yet is no drift.
    assert_eq!(handled(&app, "search-drift-check").await, 0);
    assert_eq!(handled(&app, "search-backfill").await, 2);
    assert_eq!((total(&ann, "apricot").await, total(&ann, "%22banana%20two%22").await), (1, 1));
    assert_eq!(handled(&app, "search-backfill").await, 0);
}

#[tokio::test]
async fn what_differs_from_the_threads_is_counted_and_mended() {
    let (app, ann) = app().await;
    let gone = creates(&app, &ann, "apricot").await;
    let kept = creates(&app, &ann, "banana").await;
    assert_eq!(handled(&app, "search-drift-check").await, 0);
    // A row is missing, one has another content, one has no message, and a title has been changed; and a
    // deleted thread is still there.
    execute(
        &app,
        "DELETE FROM thread_search WHERE seq = 1 AND thread_id = (SELECT id FROM threads WHERE title = 'banana');
         UPDATE thread_search SET digest = '\\x00', tsv = 'cherry' WHERE seq = 2;
         INSERT INTO thread_search (org_id, thread_id, seq, role, at, digest, tsv)
             SELECT org_id, id, 99, 'user', now(), '\\x00', 'damson' FROM threads WHERE title = 'banana';
         UPDATE threads SET title = 'elderberry' WHERE title = 'banana';
         UPDATE threads SET deleted_at = now() WHERE title = 'apricot'",
    )
    .await;
    assert_eq!((total(&ann, "cherry").await, total(&ann, "damson").await), (1, 1));
    // Of the one kept 4; of the deleted one its two messages and itself.
    assert_eq!(handled(&app, "search-drift-check").await, 7);
    assert_eq!(handled(&app, "search-drift-check").await, 0);
    for (q, expected) in [
        ("cherry", 0),
        ("damson", 0),
        ("apricot", 0),
        ("elderberry", 1),
        ("%22banana%20one%22", 1),
        ("two", 1),
    ] {
        assert_eq!(total(&ann, q).await, expected, "{q}");
    }
    let found = ann.get("/api/threads/search?q=elderberry").await.expect(200).json();
    assert_eq!(found["hits"][0]["thread"]["id"], kept.as_str());
    ann.get(&format!("/api/threads/{gone}")).await.expect(404);
}
