//! Passing a provider's reply on, byte by byte as it comes, with the account kept on the side.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{
    body::Body,
    http::{HeaderValue, StatusCode, header},
    response::Response,
};
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep};
use tokio_util::sync::WaitForCancellationFutureOwned;

use crate::{
    dialect::Operation,
    drain,
    forward::{Incoming, response_headers},
    ledger::{Meter, Outcome},
    observe::Observer,
    scan::Frames,
    stream_options::is_usage_chunk,
};

/// How a reply is passed on.
pub(crate) struct Relay {
    pub(crate) operation: Operation,
    /// Usage was asked for on the client's behalf: the chunk that brings it stays here.
    pub(crate) withhold_usage: bool,
    pub(crate) idle: Duration,
    pub(crate) request_id: std::sync::Arc<str>,
    /// Resolves when the server must end all streams.
    pub(crate) stop: WaitForCancellationFutureOwned,
}

/// The client's response: the provider's status, headers and bytes.
pub(crate) fn relay(answer: Incoming, how: Relay, mut meter: Meter) -> Response {
    let (parts, body) = answer.into_parts();
    let mut headers = response_headers(&parts.headers);
    let upstream_id = ["x-request-id", "request-id"]
        .iter()
        .find_map(|name| parts.headers.get(*name)?.to_str().ok())
        .map(|id| loom_core::text::cut(id, 200).to_owned());
    meter.answered(parts.status, upstream_id);
    let streams = parts.status.is_success() && is_event_stream(&headers);
    let mut observer =
        if streams { Observer::stream(how.operation) } else { Observer::json(how.operation) };
    observer.seen.gaps = streams.then(|| meter.gaps());
    if streams {
        // A proxy before us must not gather what we pass on at once.
        headers.entry("x-accel-buffering").or_insert(HeaderValue::from_static("no"));
        headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    }
    meter.tell(&mut headers);
    let nothing_follows = has_ended(&body);
    let mut tap = Tap {
        upstream: Some(body),
        status: parts.status,
        streams,
        operation: how.operation,
        observer,
        meter: Some(meter),
        frames: (streams && how.withhold_usage).then(Frames::default),
        idle_for: how.idle,
        idle: Box::pin(sleep(how.idle)),
        last: Instant::now(),
        stop: Box::pin(how.stop),
        tail: Tail::default(),
        request_id: how.request_id,
    };
    if nothing_follows && !streams {
        tap.conclude();
    }
    let mut response = Response::new(Body::new(tap));
    *response.status_mut() = parts.status;
    *response.headers_mut() = headers;
    response
}

fn is_event_stream(headers: &http::HeaderMap) -> bool {
    headers
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().to_ascii_lowercase().starts_with(b"text/event-stream"))
}

fn has_ended(body: &reqwest::Body) -> bool {
    body.is_end_stream() || body.size_hint().exact() == Some(0)
}

/// A reply's body on its way through.
struct Tap {
    /// None: at its end.
    upstream: Option<reqwest::Body>,
    status: StatusCode,
    streams: bool,
    operation: Operation,
    observer: Observer,
    meter: Option<Meter>,
    frames: Option<Frames>,
    idle_for: Duration,
    idle: Pin<Box<Sleep>>,
    /// When the last piece came.
    last: Instant,
    stop: Pin<Box<WaitForCancellationFutureOwned>>,
    /// The last bytes that the client has got: do they end an event?
    tail: Tail,
    request_id: std::sync::Arc<str>,
}

/// The end of what has passed, whatever the pieces.
#[derive(Default)]
struct Tail([u8; 3]);

impl Tail {
    fn push(&mut self, data: &[u8]) {
        let Self([_, b, c]) = *self;
        self.0 = match data {
            [] => return,
            [x] => [b, c, *x],
            [x, y] => [c, *x, *y],
            [.., x, y, z] => [*x, *y, *z],
        };
    }

    /// An empty line has passed, or nothing at all.
    fn ends_event(&self) -> bool {
        matches!(self.0, [0, 0, 0] | [_, b'\n', b'\n'] | [b'\n', b'\r', b'\n'])
    }
}

/// Why a reply ended before its end.
struct Broken {
    code: &'static str,
    message: &'static str,
}

impl HttpBody for Tap {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = &mut *self;
        loop {
            let Some(upstream) = &mut this.upstream else { return Poll::Ready(None) };
            match Pin::new(&mut *upstream).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    let Ok(data) = frame.into_data() else { continue };
                    let is_last = !this.streams && has_ended(upstream);
                    this.last = Instant::now();
                    let data = this.pass(data);
                    // The connection asks for no more than the announced length: there may be no next
                    // time to notice the end.
                    if is_last {
                        this.conclude();
                    }
                    if !data.is_empty() {
                        return Poll::Ready(Some(Ok(Frame::data(data))));
                    }
                }
                Poll::Ready(Some(Err(error))) => {
                    tracing::warn!(%error, "a provider broke off in the middle of its reply");
                    let broken = Broken {
                        code: "upstream_error",
                        message: "the provider broke off in the middle of its reply",
                    };
                    return this.break_off(&broken);
                }
                Poll::Ready(None) => return this.finish(),
                Poll::Pending => {
                    if this.stop.as_mut().poll(cx).is_ready() {
                        let broken =
                            Broken { code: "unavailable", message: "this server is going down" };
                        return this.break_off(&broken);
                    }
                    // Armed once and looked at when it rings: cheaper than to wind it up at each piece.
                    ready!(this.idle.as_mut().poll(cx));
                    let due = this.last + this.idle_for;
                    if due > Instant::now() {
                        this.idle.as_mut().reset(due);
                        continue;
                    }
                    let broken = Broken {
                        code: "upstream_timeout",
                        message: "the provider fell silent in the middle of its reply",
                    };
                    return this.break_off(&broken);
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.upstream.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.upstream {
            Some(body) if !self.streams => body.size_hint(),
            _ => SizeHint::default(),
        }
    }
}

impl Tap {
    /// Looks at a piece and gives what goes on.
    fn pass(&mut self, data: Bytes) -> Bytes {
        self.observer.feed(&data);
        let data = match &mut self.frames {
            Some(frames) => frames.feed(data, is_usage_chunk),
            None => data,
        };
        self.note(&data);
        data
    }

    fn note(&mut self, data: &Bytes) {
        if let Some(meter) = &mut self.meter {
            meter.passed(data.len());
        }
        if self.streams {
            self.tail.push(data);
        }
    }

    /// The provider said all that it had to say.
    fn conclude(&mut self) {
        self.upstream = None;
        self.observer.finish();
        let failed = !self.status.is_success() || self.observer.seen.error.is_some();
        let outcome = if failed { Outcome::Failed } else { Outcome::Succeeded };
        self.settle(outcome, failed.then_some("upstream_error"));
    }

    /// The provider's body is at its end.
    fn finish(&mut self) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        let seen = &self.observer.seen;
        if self.streams && !seen.complete && seen.error.is_none() {
            let broken = Broken {
                code: "upstream_error",
                message: "the provider ended its reply before it was complete",
            };
            return self.break_off(&broken);
        }
        self.conclude();
        let rest = self.frames.as_mut().map(Frames::finish).unwrap_or_default();
        if rest.is_empty() { Poll::Ready(None) } else { Poll::Ready(Some(Ok(Frame::data(rest)))) }
    }

    /// The reply cannot go on. Between two events of a stream the client is told in its own terms;
    /// anywhere else only a broken connection keeps it from taking a part for the whole.
    fn break_off(&mut self, why: &Broken) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        if self.streams && self.observer.seen.last_word {
            // How the connection ended does not matter to a reply that is whole.
            return self.finish();
        }
        self.upstream = None;
        self.settle(Outcome::Failed, Some(why.code));
        if self.streams && self.tail.ends_event() {
            let dialect = self.operation.dialect();
            let frame =
                dialect.error_frame(self.operation, why.code, why.message, &self.request_id);
            return Poll::Ready(Some(Ok(Frame::data(frame))));
        }
        Poll::Ready(Some(Err(std::io::Error::other(why.message))))
    }

    fn settle(&mut self, outcome: Outcome, code: Option<&str>) {
        if let Some(mut meter) = self.meter.take() {
            meter.saw(&self.observer.seen);
            meter.end(outcome, code);
        }
    }
}

impl Drop for Tap {
    /// The client has left: what was seen until now counts, and in some set-ups the rest of it ([`drain::leave`]). A reply that had said it was complete is one, and one that had told of
    /// an error has failed: many clients leave at that word.
    fn drop(&mut self) {
        let seen = &self.observer.seen;
        if !seen.complete
            && seen.error.is_none()
            && self.status.is_success()
            && let (Some(upstream), Some(meter)) = (self.upstream.take(), self.meter.take())
        {
            let observer = std::mem::replace(&mut self.observer, Observer::json(self.operation));
            return drain::leave(upstream, observer, meter, ());
        }
        let seen = &self.observer.seen;
        let outcome = if seen.error.is_some() {
            Outcome::Failed
        } else if seen.complete {
            Outcome::Succeeded
        } else {
            Outcome::Cancelled
        };
        self.settle(outcome, None);
    }
}
