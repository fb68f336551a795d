//! Server-sent events: headers, keep-alive, ids, and what a slow reader is told.

use std::{convert::Infallible, time::Duration};

use axum::response::{
    IntoResponse, Response, Sse,
    sse::{Event, KeepAlive},
};
use futures::{Stream, StreamExt, stream};
use http::{HeaderValue, header};
use tokio::sync::broadcast::{Receiver, error::RecvError};

/// A comment line is sent after this long without an event.
pub const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// The response for a stream of events.
pub fn response(events: impl Stream<Item = Event> + Send + 'static) -> Response {
    let events = events.map(Ok::<_, Infallible>);
    let mut response = Sse::new(events)
        .keep_alive(KeepAlive::new().interval(KEEP_ALIVE).text("keep-alive"))
        .into_response();
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

/// The events of a broadcast channel. A reader that is too slow gets `event: lagged` with
/// `{"skipped": n}` in place of what it missed; the sender never waits for it.
pub fn from_broadcast<T: Clone + Send + 'static>(
    receiver: Receiver<T>,
    event: impl Fn(T) -> Event + Send + 'static,
) -> impl Stream<Item = Event> + Send {
    stream::unfold((receiver, event), |(mut receiver, event)| async move {
        let next = match receiver.recv().await {
            Ok(item) => event(item),
            Err(RecvError::Lagged(skipped)) => {
                Event::default().event("lagged").data(format!("{{\"skipped\":{skipped}}}"))
            }
            Err(RecvError::Closed) => return None,
        };
        Some((next, (receiver, event)))
    })
}
