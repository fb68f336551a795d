//! Why something is not taken, in the shape that Sentry's clients know.

use std::{borrow::Cow, fmt, time::Duration};

use axum::response::{IntoResponse, Response};
use http::{HeaderName, HeaderValue, Method, StatusCode, header};
use loom_core::Error;
use serde_json::json;

pub(crate) const SENTRY_ERROR: HeaderName = HeaderName::from_static("x-sentry-error");

/// How long a client leaves us alone when we have no room.
const NO_ROOM_SECS: u64 = 5;

/// A status, and a text for whoever set the client up.
#[derive(Clone, Debug)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) detail: Cow<'static, str>,
    retry_after_secs: Option<u64>,
    allow: Option<HeaderValue>,
    /// What a part of ours said, for the log.
    error: Option<Error>,
}

impl Refusal {
    fn new(status: StatusCode, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { status, detail: detail.into(), retry_after_secs: None, allow: None, error: None }
    }

    pub(crate) fn malformed(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    pub(crate) fn unauthenticated(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, detail)
    }

    pub(crate) fn forbidden(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::FORBIDDEN, detail)
    }

    pub(crate) fn too_slow() -> Self {
        Self::new(StatusCode::REQUEST_TIMEOUT, "the body did not come in time")
    }

    pub(crate) fn too_large(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, detail)
    }

    pub(crate) fn encoding() -> Self {
        Self::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "content-encoding must be gzip, deflate, br, zstd or identity",
        )
    }

    pub(crate) fn wrong_method(allowed: &[Method]) -> Self {
        let text = "this route takes another method; see `allow`";
        let mut refusal = Self::new(StatusCode::METHOD_NOT_ALLOWED, text);
        let allowed: Vec<&str> = allowed.iter().map(Method::as_str).collect();
        refusal.allow = HeaderValue::try_from(allowed.join(", ")).ok();
        refusal
    }

    pub(crate) fn rate_limited(after_secs: u64) -> Self {
        let mut refusal = Self::new(
            StatusCode::TOO_MANY_REQUESTS,
            "a rate limit of this key or its organisation is reached; see x-sentry-rate-limits",
        );
        refusal.retry_after_secs = Some(after_secs);
        refusal
    }

    pub(crate) fn no_room(detail: &'static str) -> Self {
        let mut refusal = Self::new(StatusCode::SERVICE_UNAVAILABLE, detail);
        refusal.retry_after_secs = Some(NO_ROOM_SECS);
        refusal
    }

    /// Is it our own trouble? Then the same may be taken later.
    pub(crate) fn is_ours(&self) -> bool {
        self.status.is_server_error()
    }

    /// The text as a header, which holds ASCII only.
    pub(crate) fn as_header(&self) -> HeaderValue {
        let ascii: String = self
            .detail
            .chars()
            .take(200)
            .map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' })
            .collect();
        HeaderValue::from_str(&ascii).unwrap_or(HeaderValue::from_static("refused"))
    }
}

impl From<Error> for Refusal {
    /// What a sink says. A full queue there is no fault of this client's rate, so it is no 429, which would
    /// silence it by category.
    fn from(error: Error) -> Self {
        let overloaded = error.code() == "overloaded";
        let status = match error.status() {
            _ if overloaded => StatusCode::SERVICE_UNAVAILABLE,
            status => status,
        };
        let mut refusal = Self::new(status, error.detail().to_owned());
        if status == StatusCode::SERVICE_UNAVAILABLE {
            refusal.retry_after_secs =
                Some(error.retry_after_secs().unwrap_or_default().max(NO_ROOM_SECS));
        }
        refusal.error = Some(error);
        refusal
    }
}

impl From<Refusal> for Error {
    /// As a problem document, for our own API.
    fn from(refusal: Refusal) -> Self {
        if let Some(error) = refusal.error {
            return error;
        }
        let code = match refusal.status {
            StatusCode::REQUEST_TIMEOUT => "body_too_slow",
            StatusCode::PAYLOAD_TOO_LARGE => "payload_too_large",
            StatusCode::UNSUPPORTED_MEDIA_TYPE => "unsupported_media_type",
            StatusCode::SERVICE_UNAVAILABLE => "unavailable",
            _ => "incomplete_body",
        };
        let error = Self::new(refusal.status, code, refusal.detail);
        match refusal.retry_after_secs {
            Some(secs) => error.retry_after(Duration::from_secs(secs)),
            None => error,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

impl std::error::Error for Refusal {}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let body = json!({"detail": &*self.detail}).to_string();
        let mut response = (self.status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(SENTRY_ERROR, self.as_header());
        if let Some(secs) = self.retry_after_secs {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(secs));
        }
        if let Some(allow) = self.allow {
            headers.insert(header::ALLOW, allow);
        }
        if let Some(error) = self.error {
            response.extensions_mut().insert(error);
        }
        response
    }
}
