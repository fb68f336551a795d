//! Threads, read and deleted.

use http::StatusCode;
use serde_json::json;

use crate::harness::{App, places, thread};

#[tokio::test]
async fn a_version_at_hand_is_not_sent_again() {
    let app = App::start().await;
    let ann = app.somebody().await;
    let id = ann.creates(&thread(&["a"])).await;
    for tag in ["\"1\"", "W/\"1\"", "\"8\", \"1\"", "*"] {
        let read =
            ann.read(&id).header("if-none-match", tag).await.expect(StatusCode::NOT_MODIFIED);
        assert_eq!((read.text.as_str(), read.header("etag")), ("", "\"1\""), "{tag}");
    }
    ann.read(&id).header("if-none-match", "\"2\"").await.expect(StatusCode::OK);
}

#[tokio::test]
async fn only_what_is_new_is_sent_on_request() {
    let app = App::start().await;
    let ann = app.somebody().await;
    let id = ann.creates(&thread(&["a", "b", "c"])).await;
    let read = async |after: &str| ann.read(&format!("{id}?messages_after={after}")).await;
    assert_eq!(read("1").await.places(), places(&[("b", 2), ("c", 3)]));
    assert_eq!(read("3").await.places(), []);
    assert_eq!(read("-5").await.places().len(), 3);
    assert_eq!(read("99999").await.body["last_seq"], json!(3));
    read("x").await.expect_problem(StatusCode::BAD_REQUEST, "invalid_query");
}

#[tokio::test]
async fn a_deleted_thread_is_gone_from_everywhere() {
    let app = App::start().await;
    let ann = app.somebody().await;
    let id = ann.creates(&thread(&["a"])).await;
    ann.delete(&id)
        .if_match("\"5\"")
        .await
        .expect_problem(StatusCode::CONFLICT, "version_conflict");
    assert_eq!(ann.delete(&id).if_match("\"1\"").await.expect(StatusCode::NO_CONTENT).text, "");
    for gone in [
        ann.read(&id),
        ann.delete(&id),
        ann.patch(&id, &json!({ "title": "x" })),
        ann.append(&id, &thread(&["b"])),
    ] {
        gone.await.expect_problem(StatusCode::NOT_FOUND, "not_found");
    }
    assert_eq!(ann.lists("").await, Vec::<String>::new());
}
