//! CORS: what a browser is told before and after.

use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header, request::Parts};

const EXPOSED: &str = "x-sentry-error, x-sentry-rate-limits, retry-after";
const MAX_AGE: &str = "3600";
/// Asked for by the SDKs of browsers; others are allowed by name when asked for.
const USUAL: &str =
    "authorization, content-encoding, content-type, sentry-trace, x-requested-with, x-sentry-auth";

/// The answer to a browser that asks before it sends: it has shown no key yet, so that everybody may ask.
pub(crate) fn preflight(request: &Parts) -> Option<Response> {
    if request.method != Method::OPTIONS {
        return None;
    }
    let mut response = StatusCode::NO_CONTENT.into_response();
    let headers = response.headers_mut();
    let wanted = request.headers.get(header::ACCESS_CONTROL_REQUEST_HEADERS).cloned();
    headers.insert(
        header::ACCESS_CONTROL_ALLOW_HEADERS,
        wanted.unwrap_or(HeaderValue::from_static(USUAL)),
    );
    headers.insert(
        header::ACCESS_CONTROL_ALLOW_METHODS,
        HeaderValue::from_static("GET, POST, OPTIONS"),
    );
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(MAX_AGE));
    headers.insert(header::VARY, HeaderValue::from_static("access-control-request-headers"));
    Some(response)
}

/// What every answer says. Nothing in it is anybody's secret, so every page may read it.
pub(crate) fn open(headers: &mut HeaderMap) {
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED));
    headers.insert("cross-origin-resource-policy", HeaderValue::from_static("cross-origin"));
}
