//! CORS: which pages may send, and what a browser is told before and after.

use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header, request::Parts};

const EXPOSED: &str = "x-sentry-error, x-sentry-rate-limits, retry-after";
const MAX_AGE: &str = "3600";
/// Asked for by the SDKs of browsers; others are allowed by name when asked for.
const USUAL: &str =
    "authorization, content-encoding, content-type, sentry-trace, x-requested-with, x-sentry-auth";

/// Is a page of this origin among those? `*` is all; `https://app.example.com` is that; `example.com` is
/// it by any scheme and port; `*.example.com`, also with a scheme, is it and all below it.
pub(crate) fn is_allowed(allowed: &[String], from: &str) -> bool {
    allowed.iter().any(|one| matches(one.trim(), from))
}

fn matches(allowed: &str, from: &str) -> bool {
    if allowed == "*" {
        return true;
    }
    let Some((scheme, authority)) = from.split_once("://") else { return false };
    let (allowed_scheme, place) = match allowed.split_once("://") {
        Some((scheme, place)) => (Some(scheme), place),
        None => (None, allowed),
    };
    if allowed_scheme.is_some_and(|allowed| allowed != "*" && !allowed.eq_ignore_ascii_case(scheme))
    {
        return false;
    }
    let place = place.trim_end_matches('/');
    let host = without_port(authority);
    // A port that is not named is any, unless the scheme is, as the browser leaves out the usual one.
    let against =
        if allowed_scheme.is_some_and(|scheme| scheme != "*") || without_port(place) != place {
            authority
        } else {
            host
        };
    match place.strip_prefix("*.") {
        Some(domain) => {
            let below =
                against.len().checked_sub(domain.len()).and_then(|at| against.split_at_checked(at));
            below.is_some_and(|(before, end)| {
                end.eq_ignore_ascii_case(domain) && (before.is_empty() || before.ends_with('.'))
            })
        }
        None => place.eq_ignore_ascii_case(against),
    }
}

fn without_port(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_let_in_by_origin_host_or_domain() {
        let cases = [
            ("*", "https://a.example.com", true),
            ("*", "null", true),
            ("https://a.example.com", "https://a.example.com", true),
            ("https://a.example.com/", "https://A.example.com", true),
            ("https://a.example.com", "http://a.example.com", false),
            ("https://a.example.com", "https://a.example.com:8443", false),
            ("https://a.example.com:8443", "https://a.example.com:8443", true),
            ("a.example.com", "https://a.example.com", true),
            ("a.example.com", "http://a.example.com:3000", true),
            ("a.example.com:3000", "http://a.example.com:3000", true),
            ("a.example.com:3000", "http://a.example.com:3001", false),
            ("a.example.com", "https://b.example.com", false),
            ("*.example.com", "https://a.example.com", true),
            ("*.example.com", "https://example.com", true),
            ("*.example.com", "https://a.b.example.com:8080", true),
            ("*.example.com", "https://badexample.com", false),
            ("*.example.com", "https://example.com.evil.org", false),
            ("https://*.example.com", "https://a.example.com", true),
            ("https://*.example.com", "http://a.example.com", false),
            ("a.example.com", "null", false),
            ("", "https://a.example.com", false),
        ];
        for (allowed, from, expected) in cases {
            assert_eq!(is_allowed(&[allowed.to_owned()], from), expected, "{allowed} {from}");
        }
        assert!(!is_allowed(&[], "https://a.example.com"));
    }
}
