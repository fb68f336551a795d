//! Server-sent events: headers and keep-alive.

use std::{convert::Infallible, time::Duration};

use axum::response::{
    IntoResponse, Response, Sse,
    sse::{Event, KeepAlive},
};
use futures::{Stream, StreamExt};
use http::{HeaderValue, header};

/// A comment line is sent after this long without an event.
pub const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// The response for a stream of events.
pub fn response(events: impl Stream<Item = Event> + Send + 'static) -> Response {
    response_every(KEEP_ALIVE, events)
}

/// The same with a comment line after this long without an event.
pub fn response_every(
    keep_alive: Duration,
    events: impl Stream<Item = Event> + Send + 'static,
) -> Response {
    let events = events.map(Ok::<_, Infallible>);
    let mut response = Sse::new(events)
        .keep_alive(KeepAlive::new().interval(keep_alive).text("keep-alive"))
        .into_response();
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}
