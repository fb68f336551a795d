//! The cost of a reply that is told as it comes stands behind it, as a trailer, for clients that take
//! trailers (`TE: trailers`).

use std::{
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll, ready},
};

use axum::{
    body::Body,
    extract::Request,
    http::{HeaderMap, HeaderName, HeaderValue, header},
    middleware::Next,
    response::Response,
};
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame};

pub(crate) const COST: HeaderName = HeaderName::from_static("x-loom-cost-usd");

tokio::task_local! {
    static WANTED: Told;
}

/// Where the account leaves what a request cost.
#[derive(Clone, Debug, Default)]
pub(crate) struct Told(Arc<OnceLock<Option<i64>>>);

impl Told {
    pub(crate) fn tell(&self, cost_nanousd: Option<i64>) {
        let _ = self.0.set(cost_nanousd);
    }
}

/// The place for the cost of the request that is being handled, if its client takes trailers.
pub(crate) fn wanted() -> Option<Told> {
    WANTED.try_with(Clone::clone).ok()
}

/// The same place for what goes on in another task.
pub(crate) async fn within<F: Future>(told: Option<Told>, work: F) -> F::Output {
    match told {
        Some(told) => WANTED.scope(told, work).await,
        None => work.await,
    }
}

/// US dollars, as far as there are digits.
pub(crate) fn usd(nanousd: i64) -> Option<HeaderValue> {
    let nano = u64::try_from(nanousd).ok()?;
    let text = format!("{}.{:09}", nano / 1_000_000_000, nano % 1_000_000_000);
    let text = text.trim_end_matches('0').trim_end_matches('.');
    HeaderValue::from_str(text).ok()
}

/// A layer: puts the trailer behind replies whose cost is not in their head.
pub(crate) async fn trailers(request: Request, next: Next) -> Response {
    let takes = |value: &HeaderValue| {
        let value = value.to_str().unwrap_or_default();
        value.split(',').any(|word| word.trim().eq_ignore_ascii_case("trailers"))
    };
    if !request.headers().get_all(header::TE).iter().any(takes) {
        return next.run(request).await;
    }
    let told = Told::default();
    let mut response = WANTED.scope(told.clone(), next.run(request)).await;
    if response.headers().contains_key(&COST) {
        return response;
    }
    if let Some(known) = told.0.get() {
        if let Some(cost) = known.and_then(usd) {
            response.headers_mut().insert(COST, cost);
        }
        return response;
    }
    // No account was opened, or it is over.
    if Arc::strong_count(&told.0) < 2 {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    // A body of announced length has no trailers in HTTP/1.1.
    parts.headers.remove(header::CONTENT_LENGTH);
    parts.headers.insert(header::TRAILER, HeaderValue::from_static("x-loom-cost-usd"));
    Response::from_parts(parts, Body::new(Trailed { body: Some(body), told }))
}

struct Trailed {
    /// None: behind its end.
    body: Option<Body>,
    told: Told,
}

impl HttpBody for Trailed {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        if let Some(frame) = ready!(Pin::new(body).poll_frame(cx)) {
            return Poll::Ready(Some(frame));
        }
        self.body = None;
        let cost = self.told.0.get().copied().flatten().and_then(usd);
        let trailers = cost.map(|cost| HeaderMap::from_iter([(COST, cost)]));
        Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))))
    }
}
