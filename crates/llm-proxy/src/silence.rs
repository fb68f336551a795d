//! A client of a stream is not left in silence: after a while its response begins, with a sign of life,
//! and what is done for it goes on inside of the response's body.
//!
//! Until then a failure has a status; from then on it is an event of the surface's kind. Other providers
//! are asked in turn all the same, for nothing of a reply has been said yet.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    body::Body,
    http::{HeaderMap, HeaderValue, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame};
use tokio::time::{Instant, Sleep, sleep, timeout};

use crate::{
    exchange::is_event_stream,
    flow::Ended,
    frames::{Surface, Told},
};

type Running<F> = Pin<Box<F>>;

/// The response, as soon as it is there or the client has waited for too long.
pub(crate) async fn answer<F>(
    mut running: Running<F>,
    surface: Surface,
    every: Duration,
    told: HeaderMap,
    request_id: Arc<str>,
) -> Response
where
    F: Future<Output = Ended> + Send + 'static,
{
    if let Ok(ended) = timeout(every, &mut running).await {
        return ended.into_response();
    }
    let waiting = Waiting {
        state: State::Running(running),
        surface,
        every,
        // At once: the client has waited for the first one already.
        next: Box::pin(sleep(Duration::ZERO)),
        request_id,
    };
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (header::HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")),
    ];
    let mut response = (headers, Body::new(waiting)).into_response();
    response.headers_mut().extend(told);
    response
}

struct Waiting<F> {
    state: State<F>,
    surface: Surface,
    every: Duration,
    next: Pin<Box<Sleep>>,
    request_id: Arc<str>,
}

enum State<F> {
    Running(Running<F>),
    Reply(Body),
    Ended,
}

impl<F: Future<Output = Ended> + Send + 'static> Waiting<F> {
    fn failure(&self, told: &Told<'_>) -> Frame<Bytes> {
        Frame::data(self.surface.failure(told, &self.request_id))
    }
}

impl<F: Future<Output = Ended> + Send + 'static> HttpBody for Waiting<F> {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = &mut *self;
        loop {
            let running = match &mut this.state {
                State::Running(running) => running,
                State::Reply(body) => return Pin::new(body).poll_frame(cx),
                State::Ended => return Poll::Ready(None),
            };
            match running.as_mut().poll(cx) {
                Poll::Ready(Ended::Reply(reply)) if is_event_stream(reply.headers()) => {
                    this.state = State::Reply(reply.into_body());
                }
                Poll::Ready(Ended::Reply(_)) => {
                    this.state = State::Ended;
                    let frame = this.failure(&Told {
                        status: http::StatusCode::BAD_GATEWAY,
                        code: "upstream_error",
                        message: "the provider did not stream its reply",
                        retry_after_secs: None,
                    });
                    return Poll::Ready(Some(Ok(frame)));
                }
                Poll::Ready(Ended::Refused(refused)) => {
                    this.state = State::Ended;
                    let frame = refused.into_frame();
                    return Poll::Ready(Some(Ok(Frame::data(frame))));
                }
                Poll::Pending => {
                    if this.next.as_mut().poll(cx).is_pending() {
                        return Poll::Pending;
                    }
                    let next = Instant::now() + this.every;
                    this.next.as_mut().reset(next);
                    return Poll::Ready(Some(Ok(Frame::data(this.surface.keep_alive()))));
                }
            }
        }
    }
}
