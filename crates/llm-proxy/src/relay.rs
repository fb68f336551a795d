//! Passing a provider's reply on, byte by byte as it comes, with the account kept on the side.

use std::{
    collections::VecDeque,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{
    body::Body,
    http::{HeaderValue, header},
    response::Response,
};
use bytes::{Bytes, BytesMut};
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::{Instant, Sleep};
use tokio_util::sync::WaitForCancellationFutureOwned;

use crate::{
    attempt::Begun,
    dialect::Operation,
    forward::response_headers,
    frames::Surface,
    ledger::Outcome,
    live::Account,
    pool::{Lease, Verdict},
    scan::Frames,
    stream_options::is_usage_chunk,
};

/// How a reply is passed on.
pub(crate) struct Relay {
    pub(crate) idle: Duration,
    pub(crate) keep_alive: Duration,
    pub(crate) deadline: Instant,
    pub(crate) request_id: std::sync::Arc<str>,
    /// Resolves when the server must end all streams.
    pub(crate) stop: WaitForCancellationFutureOwned,
}

/// The client's response: the provider's status, headers and bytes.
pub(crate) fn relay(begun: Begun, how: Relay, mut account: Account) -> Response {
    let Begun { operation, parts, held, body, streams, withhold_usage, timer, lease, .. } = begun;
    let mut headers = response_headers(&parts.headers);
    if streams {
        // A proxy before us must not gather what we pass on at once.
        headers.entry("x-accel-buffering").or_insert(HeaderValue::from_static("no"));
        headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    }
    account.tell(&mut headers);
    let body = if !streams && has_ended(&body) {
        // All of it is there.
        let whole = all(held);
        account.passed(whole.len());
        account.finish();
        account.settle(Outcome::Succeeded, None);
        Body::from(whole)
    } else {
        Body::new(Tap {
            upstream: Some(body),
            held,
            streams,
            operation,
            account,
            lease,
            frames: (streams && withhold_usage).then(Frames::default),
            idle: how.idle,
            keep_alive: how.keep_alive,
            deadline: how.deadline,
            timer,
            since: None,
            told: Instant::now(),
            stop: Box::pin(how.stop),
            tail: Tail::default(),
            request_id: how.request_id,
        })
    };
    let mut response = Response::new(body);
    *response.status_mut() = parts.status;
    *response.headers_mut() = headers;
    response
}

fn all(mut held: VecDeque<Bytes>) -> Bytes {
    if held.len() <= 1 {
        return held.pop_front().unwrap_or_default();
    }
    let mut whole = BytesMut::new();
    held.iter().for_each(|piece| whole.extend_from_slice(piece));
    whole.freeze()
}

pub(crate) fn has_ended(body: &reqwest::Body) -> bool {
    body.is_end_stream() || body.size_hint().exact() == Some(0)
}

/// A reply's body on its way through.
struct Tap {
    /// None: at its end.
    upstream: Option<reqwest::Body>,
    /// What came before it was clear that this is the reply; it was looked at.
    held: VecDeque<Bytes>,
    streams: bool,
    operation: Operation,
    account: Account,
    lease: Option<Lease>,
    frames: Option<Frames>,
    idle: Duration,
    keep_alive: Duration,
    deadline: Instant,
    timer: Pin<Box<Sleep>>,
    /// Since when the next piece is waited for. While the client takes nothing, nothing is.
    since: Option<Instant>,
    /// When the client was last told something while nothing came.
    told: Instant,
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

const SILENT: Broken = Broken {
    code: "upstream_timeout",
    message: "the provider fell silent in the middle of its reply",
};
const OUT_OF_TIME: Broken = Broken {
    code: "deadline_exceeded",
    message: "the reply was not complete within the time for a request",
};
const BROKE_OFF: Broken =
    Broken { code: "upstream_error", message: "the provider broke off in the middle of its reply" };
const INCOMPLETE: Broken = Broken {
    code: "upstream_error",
    message: "the provider ended its reply before it was complete",
};
const GOING_DOWN: Broken = Broken { code: "unavailable", message: "this server is going down" };

type Polled = Poll<Option<Result<Frame<Bytes>, std::io::Error>>>;

impl Drop for Tap {
    /// The client has left: what was seen until now counts, and in some set-ups the rest of it
    /// ([`crate::drain`]).
    fn drop(&mut self) {
        if let Some(upstream) = self.upstream.take() {
            self.account.leave(upstream, self.lease.take());
        }
    }
}

impl HttpBody for Tap {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Polled {
        let this = &mut *self;
        loop {
            let Some(upstream) = &mut this.upstream else { return Poll::Ready(None) };
            if let Some(data) = this.held.pop_front() {
                let is_last = !this.streams && this.held.is_empty() && has_ended(upstream);
                let data = this.pass(data);
                if is_last {
                    this.conclude();
                }
                if !data.is_empty() {
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                continue;
            }
            match Pin::new(&mut *upstream).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    let Ok(data) = frame.into_data() else { continue };
                    let is_last = !this.streams && has_ended(upstream);
                    this.since = None;
                    this.account.see(&data);
                    let is_over = is_last || this.account.seen().last_word;
                    if !is_over && Instant::now() >= this.deadline {
                        return this.break_off(&OUT_OF_TIME);
                    }
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
                    return this.break_off(&BROKE_OFF);
                }
                Poll::Ready(None) => return this.finish(),
                Poll::Pending => {
                    if this.stop.as_mut().poll(cx).is_ready() {
                        return this.break_off(&GOING_DOWN);
                    }
                    return this.poll_silence(cx);
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.upstream.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.upstream {
            Some(body) if !self.streams => {
                let held: usize = self.held.iter().map(Bytes::len).sum();
                match body.size_hint().exact() {
                    Some(rest) => SizeHint::with_exact(rest + held as u64),
                    None => SizeHint::default(),
                }
            }
            _ => SizeHint::default(),
        }
    }
}

impl Tap {
    /// What goes on of a piece.
    fn pass(&mut self, data: Bytes) -> Bytes {
        let data = match &mut self.frames {
            Some(frames) => frames.feed(data, is_usage_chunk),
            None => data,
        };
        self.account.passed(data.len());
        if self.streams {
            self.tail.push(&data);
        }
        data
    }

    /// Nothing comes. The timer is armed once and looked at when it rings: cheaper than to wind it up at
    /// each piece.
    fn poll_silence(&mut self, cx: &mut Context<'_>) -> Polled {
        let since = *self.since.get_or_insert_with(Instant::now);
        loop {
            let quiet = since.max(self.told) + self.keep_alive;
            let mut due = (since + self.idle).min(self.deadline);
            if self.streams {
                due = due.min(quiet);
            }
            // Wound up for what was to come earlier, or for something that is due before.
            if self.timer.deadline() > due {
                self.timer.as_mut().reset(due);
            }
            ready!(self.timer.as_mut().poll(cx));
            let now = Instant::now();
            if now >= self.deadline {
                return self.break_off(&OUT_OF_TIME);
            }
            if now >= since + self.idle {
                return self.break_off(&SILENT);
            }
            if self.streams && now >= quiet {
                self.told = now;
                self.timer.as_mut().reset(now + self.keep_alive);
                if self.tail.ends_event() {
                    let frame = Surface::Wire(self.operation).keep_alive();
                    return Poll::Ready(Some(Ok(Frame::data(frame))));
                }
                continue;
            }
            self.timer.as_mut().reset(due);
        }
    }

    /// The provider said all that it had to say.
    fn conclude(&mut self) {
        self.upstream = None;
        self.lease = None;
        self.account.finish();
        let failed = self.account.seen().error.is_some();
        let outcome = if failed { Outcome::Failed } else { Outcome::Succeeded };
        self.account.settle(outcome, failed.then_some("upstream_error"));
    }

    /// The provider's body is at its end.
    fn finish(&mut self) -> Polled {
        let seen = self.account.seen();
        if self.streams && !seen.complete && seen.error.is_none() {
            return self.break_off(&INCOMPLETE);
        }
        self.conclude();
        let rest = self.frames.as_mut().map(Frames::finish).unwrap_or_default();
        if rest.is_empty() { Poll::Ready(None) } else { Poll::Ready(Some(Ok(Frame::data(rest)))) }
    }

    /// The reply cannot go on. Between two events of a stream the client is told in its own terms;
    /// anywhere else only a broken connection keeps it from taking a part for the whole.
    fn break_off(&mut self, why: &Broken) -> Polled {
        if self.streams && self.account.seen().last_word {
            // How the connection ended does not matter to a reply that is whole.
            return self.finish();
        }
        self.upstream = None;
        self.account.settle(Outcome::Failed, Some(why.code));
        if let Some(lease) = self.lease.take()
            && matches!(why.code, "upstream_error" | "upstream_timeout")
        {
            lease.report(Verdict::Failing { reason: why.message.to_owned() });
        }
        if self.streams && self.tail.ends_event() {
            let dialect = self.operation.dialect();
            let frame =
                dialect.error_frame(self.operation, why.code, why.message, &self.request_id);
            return Poll::Ready(Some(Ok(Frame::data(frame))));
        }
        Poll::Ready(Some(Err(std::io::Error::other(why.message))))
    }
}
