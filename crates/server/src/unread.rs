//! Request bodies that nobody read. A server that answers early (401, 404, 413) and then closes the
//! connection on a client that is still sending makes it see a broken connection instead of the
//! answer; so what is left of the body is read first, within limits.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, header};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;

const MOST: usize = 128 << 20;
const LONGEST: Duration = Duration::from_secs(10);

/// Where a body comes back to when it was dropped before its end.
#[derive(Default)]
pub(crate) struct Unread(Option<Arc<Mutex<Option<Body>>>>);

impl Unread {
    /// The same body, watched. Without a body, and for a client that waits to be asked for it, there is
    /// nothing to watch.
    pub(crate) fn watch(body: Body, headers: &HeaderMap) -> (Body, Self) {
        if body.is_end_stream() || headers.contains_key(header::EXPECT) {
            return (body, Self(None));
        }
        let left = Arc::new(Mutex::new(None));
        let watched = Watched { body: Some(body), left: Arc::clone(&left) };
        (Body::new(watched), Self(Some(left)))
    }

    /// Reads what was left of it.
    pub(crate) async fn drain(self) {
        let Some(left) = self.0 else { return };
        let Some(mut body) = left.lock().unwrap_or_else(PoisonError::into_inner).take() else {
            return;
        };
        let all = async {
            let mut seen = 0;
            while let Some(Ok(frame)) = body.frame().await {
                seen += frame.data_ref().map_or(0, Bytes::len);
                if seen > MOST {
                    return;
                }
            }
        };
        // A client that sends on for ever is cut off.
        let _ = tokio::time::timeout(LONGEST, all).await;
    }
}

struct Watched {
    /// None: at its end.
    body: Option<Body>,
    left: Arc<Mutex<Option<Body>>>,
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let polled = Pin::new(body).poll_frame(cx);
        if matches!(polled, Poll::Ready(None | Some(Err(_)))) {
            self.body = None;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), HttpBody::size_hint)
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if let Some(body) = self.body.take().filter(|body| !body.is_end_stream()) {
            *self.left.lock().unwrap_or_else(PoisonError::into_inner) = Some(body);
        }
    }
}
