//! Serves the dashboard, a page built from `ui/` into this binary. Without Node there is none, and a plain
//! page says how it is built.

use std::borrow::Cow;

use axum::{
    Router,
    extract::Path,
    response::{IntoResponse, Response},
    routing::get,
};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use rust_embed::{EmbeddedFile, RustEmbed};

#[derive(RustEmbed)]
#[folder = "ui/dist"]
#[allow_missing = true]
struct Built;

/// Everything is ours, nothing is inline, nothing frames us; styles are set by script in one place, the
/// charts, through the object model, which the policy does not touch.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
                      font-src 'self'; connect-src 'self'; manifest-src 'self'; form-action 'self'; \
                      frame-ancestors 'none'; base-uri 'none'; require-trusted-types-for 'script'; \
                      trusted-types svelte-trusted-html loom default";

const NOT_BUILT: &str = "<!doctype html>
<html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\"><title>Loom</title>
<h1>The dashboard is not in this binary</h1>
<p>It was built without it. <code>make run</code> builds it, with a Node 20.19 or newer; by hand:
<code>.ci/setup ui &amp;&amp; .ci/build-ui</code>, then build the server again.</p>
<p>Everything else works: <a href=\"/account\">your account</a>, <a href=\"/docs\">the guide</a>,
<a href=\"/api\">the API</a>, <a href=\"/health\">health</a>.</p>
";

/// What its page loads.
pub fn routes() -> Router {
    Router::new().route("/assets/{*file}", get(asset)).route("/favicon.svg", get(icon))
}

/// Is the page in this binary?
pub fn is_built() -> bool {
    Built::get("index.html").is_some()
}

/// The page, for who goes to an address of it with a browser; None for everybody else.
pub fn page(method: &Method, uri: &Uri, headers: &HeaderMap) -> Option<Response> {
    let path = uri.path();
    let of_others = [
        "/api", "/auth", "/v1", "/proxy", "/git", "/ping", "/docs", "/health", "/metrics",
        "/assets",
    ]
    .iter()
    .any(|prefix| {
        path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    });
    let wants_page = headers
        .get(header::ACCEPT)
        .and_then(|accept| accept.to_str().ok())
        .is_some_and(|accept| accept.contains("text/html"));
    if of_others || !wants_page || !(method == Method::GET || method == Method::HEAD) {
        return None;
    }
    let Some(page) = Built::get("index.html") else {
        let policy =
            [(header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'")];
        return Some((policy, axum::response::Html(NOT_BUILT)).into_response());
    };
    let mut response = answer(page, "text/html; charset=utf-8", "no-cache", headers);
    let set = response.headers_mut();
    set.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    set.insert(header::REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    set.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    Some(response)
}

/// Files whose names change with what is in them.
async fn asset(Path(file): Path<String>, headers: HeaderMap) -> Response {
    let Some(found) = Built::get(&format!("assets/{file}")) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let kind = mime_guess::from_path(&file).first_raw().unwrap_or("application/octet-stream");
    answer(found, kind, "public, max-age=31536000, immutable", &headers)
}

async fn icon(headers: HeaderMap) -> Response {
    match Built::get("favicon.svg") {
        Some(found) => answer(found, "image/svg+xml", "public, max-age=86400", &headers),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

fn answer(
    file: EmbeddedFile,
    kind: &'static str,
    caching: &'static str,
    asked: &HeaderMap,
) -> Response {
    let tag: String =
        file.metadata.sha256_hash().iter().take(12).map(|byte| format!("{byte:02x}")).collect();
    let tag = format!("\"{tag}\"");
    let known = asked.get(header::IF_NONE_MATCH).and_then(|tags| tags.to_str().ok());
    let is_known = known
        .is_some_and(|tags| tags.split(',').any(|one| one.trim().trim_start_matches("W/") == tag));
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(kind)),
        (header::CACHE_CONTROL, HeaderValue::from_static(caching)),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (header::ETAG, HeaderValue::try_from(tag).unwrap_or(HeaderValue::from_static("\"\""))),
    ];
    if is_known {
        return (StatusCode::NOT_MODIFIED, headers).into_response();
    }
    let data = match file.data {
        Cow::Borrowed(data) => Bytes::from_static(data),
        Cow::Owned(data) => data.into(),
    };
    (headers, data).into_response()
}
