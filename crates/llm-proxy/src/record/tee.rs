//! A response's body with an ear at it: what goes out is kept up to a bound, and it is known whether all
//! of it went.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use axum::body::Body;
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};

/// What has gone out.
pub(super) struct Heard {
    pub(super) pieces: Vec<Bytes>,
    /// There was more than is kept.
    pub(super) truncated: bool,
    /// The body came to its end, and the client was there.
    pub(super) ended: bool,
}

type Told = Box<dyn FnOnce(Heard) + Send>;

struct Tee {
    inner: Body,
    heard: Heard,
    left: usize,
    told: Option<Told>,
}

/// The same body; `told` hears, once, what went out of it: up to `bound` bytes.
pub(super) fn tee(inner: Body, bound: usize, told: impl FnOnce(Heard) + Send + 'static) -> Body {
    let heard = Heard { pieces: Vec::new(), truncated: false, ended: false };
    let mut tee = Tee { inner, heard, left: bound, told: Some(Box::new(told)) };
    if tee.inner.is_end_stream() || tee.inner.size_hint().exact() == Some(0) {
        tee.conclude(true);
    }
    Body::new(tee)
}

impl Tee {
    fn note(&mut self, data: &Bytes) {
        let kept = data.slice(..data.len().min(self.left));
        self.left -= kept.len();
        self.heard.truncated |= kept.len() < data.len();
        if !kept.is_empty() {
            self.heard.pieces.push(kept);
        }
    }

    fn conclude(&mut self, ended: bool) {
        let Some(told) = self.told.take() else { return };
        let pieces = std::mem::take(&mut self.heard.pieces);
        told(Heard { pieces, truncated: self.heard.truncated, ended });
    }
}

impl HttpBody for Tee {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = &mut *self;
        let polled = Pin::new(&mut this.inner).poll_frame(cx);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(data) = frame.data_ref() {
                    this.note(data);
                }
                // The connection asks for no more than the announced length.
                if this.inner.is_end_stream() || this.inner.size_hint().exact() == Some(0) {
                    this.conclude(true);
                }
            }
            Poll::Ready(Some(Err(_))) => this.conclude(false),
            Poll::Ready(None) => this.conclude(true),
            Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Drop for Tee {
    fn drop(&mut self) {
        self.conclude(false);
    }
}
