//! Server-sent events: headers, keep-alive, and what ends a stream.

mod seats;
mod watch;

use std::{convert::Infallible, future::Future, sync::Arc, time::Duration};

use axum::{
    body::Body,
    response::{
        IntoResponse, Response, Sse,
        sse::{Event, KeepAlive},
    },
};
use bytes::Bytes;
use futures::{Stream, StreamExt};
use http::{HeaderValue, header, request::Parts};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

pub use seats::{Places, Seat, Seats};
pub use watch::watch;

use crate::{
    Principal,
    port::{BoxFuture, Reauthenticate},
};

/// A comment line is sent after this long without an event.
pub const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Whoever watches is asked about again this often.
const RECHECK: Duration = Duration::from_secs(10);
/// However long somebody watches: then they come anew.
const LONGEST: Duration = Duration::from_secs(60 * 60);

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

/// The response for a stream that writes its events, and its comments, itself.
pub fn raw_response(pieces: impl Stream<Item = Bytes> + Send + 'static) -> Response {
    let body = Body::from_stream(pieces.map(Ok::<_, Infallible>));
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (header::HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")),
    ];
    (headers, body).into_response()
}

/// May the watcher go on watching? True also while that cannot be known.
pub type Recheck = Box<dyn Fn() -> BoxFuture<'static, bool> + Send + Sync>;

/// Asks once more who is behind `request`, and by `may` what they may now.
pub fn recheck(
    who: &Arc<dyn Reauthenticate>,
    request: Parts,
    may: impl Fn(Principal) -> bool + Send + Sync + 'static,
) -> Recheck {
    let (who, asked) = (Arc::clone(who), Arc::new((request, may)));
    Box::new(move || {
        let (who, asked) = (Arc::clone(&who), Arc::clone(&asked));
        Box::pin(async move {
            let (request, may) = &*asked;
            who.again(request).await.still(may)
        })
    })
}

/// Why a stream ends before its client does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bye {
    MaxDuration,
    Revoked,
    Shutdown,
}

impl Bye {
    /// The last event of the stream. Where another server goes on, it says after how many milliseconds to
    /// come again.
    pub fn event(self) -> &'static str {
        match self {
            Self::MaxDuration => "event: bye\ndata: {\"reason\":\"max_duration\"}\n\n",
            Self::Revoked => "event: bye\ndata: {\"reason\":\"revoked\"}\n\n",
            Self::Shutdown => "retry: 1000\n\nevent: bye\ndata: {\"reason\":\"shutdown\"}\n\n",
        }
    }
}

/// What ends a stream, whatever goes on in it.
pub struct Leash {
    stop: CancellationToken,
    recheck: Recheck,
    end: Instant,
    checked: Instant,
}

impl Leash {
    /// `recheck` is asked every ten seconds; the stream ends after an hour in any case.
    pub fn new(stop: CancellationToken, recheck: Recheck) -> Self {
        let now = Instant::now();
        Self { stop, recheck, end: now + LONGEST, checked: now }
    }

    /// # Errors
    /// When the stream is to end first.
    pub async fn unless_ended<T>(&mut self, waiting: impl Future<Output = T>) -> Result<T, Bye> {
        let mut waiting = std::pin::pin!(waiting);
        loop {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return Err(Bye::Shutdown),
                () = sleep_until(self.end) => return Err(Bye::MaxDuration),
                () = sleep_until(self.checked + RECHECK) => {
                    self.check_again(Duration::ZERO).await?;
                }
                done = &mut waiting => return Ok(done),
            }
        }
    }

    /// Asks now, unless it was asked within `age`.
    ///
    /// # Errors
    /// When the watcher may no more.
    pub async fn check_again(&mut self, age: Duration) -> Result<(), Bye> {
        if self.checked.elapsed() < age {
            return Ok(());
        }
        self.checked = Instant::now();
        if (self.recheck)().await { Ok(()) } else { Err(Bye::Revoked) }
    }
}
