//! Whole threads at hand.

use http::StatusCode;
use serde_json::json;

use crate::harness::{App, places, thread};

#[tokio::test]
async fn a_thread_that_is_at_hand_is_not_read_again_and_never_out_of_date() {
    let app = App::start_with_one_connection().await;
    let ann = app.somebody().await;
    let id = ann.creates(&thread(&["a", "b"])).await;
    let first = ann.read(&id).await.expect(StatusCode::OK);
    let before = messages_read(&app).await;
    let second = ann.read(&id).await.expect(StatusCode::OK);
    assert_eq!(messages_read(&app).await, before);
    assert_eq!((&second.text, second.header("etag")), (&first.text, first.header("etag")));
    assert_eq!(second.header("content-type"), "application/json");

    for turn in 0..5 {
        ann.append(&id, &thread(&[&format!("c{turn}")])).await.expect(StatusCode::OK);
        assert_eq!(ann.read(&id).await.places().len(), 3 + turn);
    }
    ann.patch(&id, &json!({ "title": "other" })).await.expect(StatusCode::OK);
    assert_eq!(ann.read(&id).await.body["title"], "other");
    // Written behind our back, as by another server.
    sqlx::query("UPDATE threads SET version = version + 1, title = 'theirs'")
        .execute(app.pool())
        .await
        .unwrap();
    assert_eq!(ann.read(&id).await.body["title"], "theirs");
    ann.delete(&id).await.expect(StatusCode::NO_CONTENT);
    ann.read(&id).await.expect(StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_thread_that_is_at_hand_is_given_to_nobody_who_may_not_see_it() {
    let app = App::start().await;
    let ann = app.somebody().await;
    let id = ann.creates(&thread(&["a"])).await;
    ann.read(&id).await.expect(StatusCode::OK);
    let bob = app.somebody().await;
    bob.read(&id).await.expect(StatusCode::NOT_FOUND);
    ann.patch(&id, &json!({ "visibility": "public" })).await.expect(StatusCode::OK);
    bob.read(&id).await.expect(StatusCode::OK);
    ann.patch(&id, &json!({ "visibility": "private" })).await.expect(StatusCode::OK);
    bob.read(&id).await.expect(StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_thread_that_was_purged_elsewhere_and_made_anew_is_not_the_old_one() {
    let app = App::start().await;
    let ann = app.somebody().await;
    let id = ann.creates(&thread(&["old"])).await;
    assert_eq!(ann.read(&id).await.places(), places(&[("old", 1)]));
    // As another server's job does.
    sqlx::query("DELETE FROM threads").execute(app.pool()).await.unwrap();
    app.advance(1000);
    let bob = app.somebody().await;
    bob.put(&id, &thread(&["new"])).await.expect(StatusCode::CREATED);
    let read = bob.read(&id).await.expect(StatusCode::OK);
    assert_eq!((read.version(), read.places()), (1, places(&[("new", 1)])));
}

async fn messages_read(app: &App) -> i64 {
    sqlx::query("SELECT pg_stat_force_next_flush()").execute(app.pool()).await.unwrap();
    sqlx::query_scalar(
        "SELECT (seq_scan + coalesce(idx_scan, 0))::bigint FROM pg_stat_user_tables WHERE relname = 'thread_messages'",
    )
    .fetch_one(app.pool())
    .await
    .unwrap()
}
