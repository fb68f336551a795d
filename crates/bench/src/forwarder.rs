//! The bare forwarder that Loom is compared with: axum reads the body, reqwest sends it on, the reply streams back.
//! No authentication, no accounting, nothing else: what it costs is the price of being in between at all.

use anyhow::Result;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, State};
use axum::response::{IntoResponse as _, Response};
use axum::serve::ListenerExt as _;
use http::header::{CONNECTION, CONTENT_LENGTH, HOST, HeaderMap, TRANSFER_ENCODING};
use http::{Method, StatusCode, Uri};
use tokio::net::TcpListener;

const BODY_LIMIT: usize = 32 * 1024 * 1024;

#[derive(Clone)]
struct Upstream {
    client: reqwest::Client,
    base: String,
}

/// Forwards to `upstream` (scheme and authority) until the process is stopped.
pub(crate) async fn serve(listener: TcpListener, upstream: &str) -> Result<()> {
    // The client refuses to be built without a TLS provider, also when it will speak plain HTTP only.
    // An error here means that one is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder().no_proxy().tcp_nodelay(true).build()?;
    let upstream = Upstream { client, base: upstream.trim_end_matches('/').to_owned() };
    let router = Router::new()
        .fallback(forward)
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .with_state(upstream);
    let listener = listener.tap_io(|socket| {
        // The socket can be gone by now; serving it will tell.
        let _ = socket.set_nodelay(true);
    });
    Ok(axum::serve(listener, router).await?)
}

async fn forward(
    State(upstream): State<Upstream>,
    method: Method,
    uri: Uri,
    mut headers: HeaderMap,
    body: Bytes,
) -> Response {
    for name in [HOST, CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING] {
        headers.remove(name);
    }
    let url = format!("{}{uri}", upstream.base);
    let reply = match upstream.client.request(method, url).headers(headers).body(body).send().await
    {
        Ok(reply) => reply,
        Err(error) => return (StatusCode::BAD_GATEWAY, error.to_string()).into_response(),
    };
    let reply: http::Response<reqwest::Body> = reply.into();
    let (mut parts, body) = reply.into_parts();
    parts.headers.remove(CONNECTION);
    parts.headers.remove(TRANSFER_ENCODING);
    Response::from_parts(parts, Body::new(body))
}
