//! Server-sent events: the headers and what follows them.

use axum::response::sse::Event;
use futures::stream;
use loom_core::sse;

#[tokio::test]
async fn a_stream_is_kept_by_nobody_and_passes_as_it_comes() {
    let events = [4, 5].map(|n: i32| Event::default().id(n.to_string()).data("x"));
    let response = sse::response(stream::iter(events));
    assert_eq!(response.headers()["cache-control"], "no-store");
    assert_eq!(response.headers()["x-accel-buffering"], "no");
    let body = axum::body::to_bytes(response.into_body(), 10_000).await.unwrap();
    assert_eq!(String::from_utf8(body.to_vec()).unwrap(), "id: 4\ndata: x\n\nid: 5\ndata: x\n\n");
}
