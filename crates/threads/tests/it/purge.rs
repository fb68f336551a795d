//! Threads that are removed for good.

use std::time::Duration;

use loom_core::id::{ThreadId, new_uuid};
use loom_testkit::{Setup, TestApp, eventually};
use serde_json::json;

const DAY: u64 = 24 * 3600;

async fn threads(app: &TestApp) -> i64 {
    sqlx::query_scalar("SELECT count(*) FROM threads").fetch_one(app.database.pool()).await.unwrap()
}

async fn purge(app: &TestApp) -> u64 {
    app.running.features.jobs.run_now("thread-purge").await.unwrap().items_handled
}

#[tokio::test]
async fn what_was_deleted_thirty_days_ago_is_removed_when_nobody_else_has_the_turn() {
    let app = Setup::default().manual_clock().start().await;
    let ann = app.user("ann@example.com").await;
    let id = new_uuid(app.clock.now());
    let path = format!("/api/threads/{}", ThreadId(id));
    ann.put(&path, &json!({ "messages": [] })).await.expect(201);
    assert_eq!(purge(&app).await, 0);
    ann.delete(&path).await.expect(204);
    assert_eq!(purge(&app).await, 0);
    app.clock.advance(Duration::from_secs(30 * DAY + 1));

    let mut other = loom_db::begin(app.database.pool()).await.unwrap();
    sqlx::query("SELECT pg_advisory_xact_lock(hashtextextended($1::uuid::text, 0))")
        .bind(id)
        .execute(&mut *other)
        .await
        .unwrap();
    let held = async {
        eventually(async || {
            let waits: bool = sqlx::query_scalar(
                "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted
                     AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))",
            )
            .fetch_one(app.database.pool())
            .await
            .unwrap();
            waits.then_some(())
        })
        .await;
        assert_eq!(threads(&app).await, 1);
        other.commit().await.unwrap();
    };
    let (purged, ()) = tokio::join!(purge(&app), held);
    assert_eq!((purged, threads(&app).await), (1, 0));
}
