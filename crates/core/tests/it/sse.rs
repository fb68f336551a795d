//! Server-sent events: what a slow reader is told, and the headers.

use axum::response::sse::Event;
use loom_core::sse;
use tokio::sync::broadcast;

#[tokio::test]
async fn a_reader_that_is_too_slow_is_told_what_it_missed_and_goes_on() {
    let (sender, receiver) = broadcast::channel(2);
    for n in 1..=5 {
        sender.send(n).unwrap();
    }
    drop(sender);
    let events =
        sse::from_broadcast(receiver, |n: i32| Event::default().id(n.to_string()).data("x"));
    let response = sse::response(events);
    assert_eq!(response.headers()["cache-control"], "no-store");
    assert_eq!(response.headers()["x-accel-buffering"], "no");
    let body = axum::body::to_bytes(response.into_body(), 10_000).await.unwrap();
    assert_eq!(
        String::from_utf8(body.to_vec()).unwrap(),
        "event: lagged\ndata: {\"skipped\":3}\n\nid: 4\ndata: x\n\nid: 5\ndata: x\n\n"
    );
}
