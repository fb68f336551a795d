//! What goes to a provider and what comes back from it beside the body: which headers pass, and how an
//! error is told without our secret in it.

use std::{sync::atomic::Ordering, time::Duration};

use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header, response::Parts};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use loom_core::{Error, Result};
use reqwest::{Body, Url};
use tokio::time::timeout;

use crate::{
    LlmProxy,
    dialect::Dialect,
    exchange::upstream_id,
    pool::{CALLERS, Lease, Verdict, put_on},
    provider::Provider,
};

const ANTHROPIC_VERSION: &str = "2023-06-01";
/// An error body longer than this is cut: it is for people.
pub(crate) const MAX_ERROR_BODY: usize = 256 << 10;
/// An answer that is needed whole (an error, a list) is waited for so long.
const MAX_READ: Duration = Duration::from_secs(30);

/// A provider's answer, its body still on the way.
pub(crate) type Incoming = http::Response<Body>;

impl LlmProxy {
    /// GET of something that is not accounted (the lists of models).
    pub(crate) async fn fetch(
        &self,
        provider: &Provider,
        url: Url,
        headers: &HeaderMap,
    ) -> Result<Incoming> {
        let lease = provider.lease_for(headers, &[], self.clock.now())?;
        self.fetch_with(provider, url, headers, &lease).await
    }

    pub(crate) async fn fetch_with(
        &self,
        provider: &Provider,
        url: Url,
        headers: &HeaderMap,
        lease: &Lease,
    ) -> Result<Incoming> {
        let mut headers = request_headers(headers, provider.dialect);
        put_on(&mut headers, lease.headers().await?);
        self.answer(provider, self.client.get(url).headers(headers), lease).await
    }

    /// What comes of a request, and what it says of the credential.
    async fn answer(
        &self,
        provider: &Provider,
        request: reqwest::RequestBuilder,
        lease: &Lease,
    ) -> Result<Incoming> {
        match self.exchange(provider, request).await {
            Ok(answer) => conceal(answer, provider, lease, self.clock.now()).await,
            Err(error) => {
                let verdict = match error.code() {
                    "upstream_error" | "upstream_timeout" => {
                        Verdict::Failing { reason: error.detail().to_owned() }
                    }
                    _ => Verdict::Neutral,
                };
                lease.report(verdict);
                Err(error)
            }
        }
    }

    async fn exchange(
        &self,
        provider: &Provider,
        request: reqwest::RequestBuilder,
    ) -> Result<Incoming> {
        let limit = self.timeouts.first_byte;
        let answered = tokio::select! {
            answered = timeout(limit, request.send()) => answered,
            () = self.stop.cancelled() => return Err(Error::unavailable("this server is going down")),
        };
        let outcome = match answered {
            Ok(Ok(response)) => Ok(http::Response::from(response)),
            Ok(Err(error)) => Err(no_answer(provider, error)),
            Err(_) => Err(too_late(provider, limit)),
        };
        let sound = outcome.as_ref().is_ok_and(|response| !response.status().is_server_error());
        provider.failing.store(!sound, Ordering::Relaxed);
        outcome
    }
}

pub(crate) fn no_answer(provider: &Provider, error: reqwest::Error) -> Error {
    let name = &provider.name;
    // The URL may hold what is nobody's business.
    let error = error.without_url();
    if error.is_timeout() {
        return Error::new(
            StatusCode::GATEWAY_TIMEOUT,
            "upstream_timeout",
            format!("the provider `{name}` could not be connected in time"),
        )
        .because(error);
    }
    let what =
        if error.is_connect() { "could not be connected" } else { "broke off before it answered" };
    Error::new(
        StatusCode::BAD_GATEWAY,
        "upstream_error",
        format!("the provider `{name}` {what}; try again"),
    )
    .because(error)
}

fn too_late(provider: &Provider, limit: Duration) -> Error {
    Error::new(
        StatusCode::GATEWAY_TIMEOUT,
        "upstream_timeout",
        format!(
            "the provider `{}` did not begin to answer within {} s",
            provider.name,
            limit.as_secs()
        ),
    )
}

/// Headers of one hop, of the client's relation to us, or that we set ourselves.
fn stays_here(name: &HeaderName) -> bool {
    const OURS: [&str; 26] = [
        "accept-encoding",
        "api-key",
        "authorization",
        "connection",
        "content-length",
        "cookie",
        "expect",
        "forwarded",
        "host",
        "http2-settings",
        "keep-alive",
        // They choose who pays, which is not the client's to choose.
        "openai-organization",
        "openai-project",
        "origin",
        "proxy-authorization",
        "proxy-connection",
        "referer",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "via",
        "x-api-key",
        "x-real-ip",
        "x-request-id",
        "x-goog-api-key",
    ];
    let name = name.as_str();
    OURS.contains(&name)
        || ["x-loom-", "x-forwarded-", "sec-", "access-control-"]
            .iter()
            .any(|prefix| name.starts_with(prefix))
}

/// Does `Connection` name it, and thereby bind it to this hop (RFC 9110, section 7.6.1)?
fn is_of_this_hop(name: &HeaderName, headers: &HeaderMap) -> bool {
    headers.get_all(header::CONNECTION).iter().any(|value| {
        let mut named = value.to_str().unwrap_or_default().split(',').map(str::trim);
        named.any(|named| name.as_str().eq_ignore_ascii_case(named))
    })
}

pub(crate) fn request_headers(from: &HeaderMap, dialect: Dialect) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(from.len() + 3);
    for (name, value) in from {
        if !stays_here(name) && !is_of_this_hop(name, from) {
            headers.append(name, value.clone());
        }
    }
    headers.entry(header::CONTENT_TYPE).or_insert(HeaderValue::from_static("application/json"));
    // Compressed, the usage in it could not be read in passing.
    headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    if dialect == Dialect::Anthropic {
        headers.entry("anthropic-version").or_insert(HeaderValue::from_static(ANTHROPIC_VERSION));
    }
    headers
}

/// The query without our own `org`.
pub(crate) fn without_org(query: &str) -> Option<String> {
    let kept: Vec<_> =
        query.split('&').filter(|pair| !pair.starts_with("org=") && !pair.is_empty()).collect();
    (!kept.is_empty()).then(|| kept.join("&"))
}

/// The provider's headers that are the client's to see.
pub(crate) fn response_headers(from: &HeaderMap) -> HeaderMap {
    const NOT: [&str; 16] = [
        "alt-svc",
        "connection",
        // The length is that of the body that really comes: it is told by whoever writes it out.
        "content-length",
        "date",
        "keep-alive",
        "nel",
        "proxy-authenticate",
        "proxy-connection",
        "report-to",
        "server",
        "set-cookie",
        "strict-transport-security",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ];
    let mut headers = HeaderMap::with_capacity(from.len() + 4);
    for (name, value) in from {
        if !NOT.contains(&name.as_str())
            && !name.as_str().starts_with("access-control-")
            && !is_of_this_hop(name, from)
        {
            headers.append(name, value.clone());
        }
    }
    headers
}

/// An error of the provider's passes on as it is, but never with our key in it: providers repeat (parts
/// of) a key that they refuse, so a 401 is told in our words.
async fn conceal(
    answer: Incoming,
    provider: &Provider,
    lease: &Lease,
    now: DateTime<Utc>,
) -> Result<Incoming> {
    let status = answer.status();
    if status.is_success() || !(status.is_client_error() || status.is_server_error()) {
        lease.report(Verdict::Sound);
        return Ok(answer);
    }
    let (parts, body) = answer.into_parts();
    let told = read_to(body, MAX_ERROR_BODY).await;
    lease.report(Verdict::of(status, &parts.headers, &told, now));
    let (parts, told) = concealed(parts, told, provider, Some(lease));
    Ok(http::Response::from_parts(parts, Body::from(told)))
}

/// The same of one whose body is there.
pub(crate) fn concealed(
    mut parts: Parts,
    told: Bytes,
    provider: &Provider,
    lease: Option<&Lease>,
) -> (Parts, Bytes) {
    parts.headers.remove(header::CONTENT_LENGTH);
    let Some(lease) = lease else { return (parts, told) };
    let Some(secret) = lease.secret_for_redaction() else { return (parts, told) };
    if parts.status != StatusCode::UNAUTHORIZED {
        return (parts, redacted(told, secret.expose()));
    }
    tracing::warn!(
        provider = &*provider.name,
        credential = lease.name(),
        "the provider refuses this credential"
    );
    let message = if lease.is_callers() {
        format!("the provider `{}` refuses the token in `{CALLERS}`", provider.name)
    } else {
        format!(
            "the provider `{}` refuses the credential that this server holds; its administrator has to renew it",
            provider.name
        )
    };
    let id = upstream_id(&parts.headers).unwrap_or_default();
    let body = provider.dialect.error_body(parts.status, "invalid_api_key", &message, &id);
    parts.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    (parts, body.to_string().into())
}

/// The same without the secret; also where it is no text, as after a cut inside of a character.
fn redacted(whole: Bytes, secret: &str) -> Bytes {
    if secret.is_empty() || memchr::memmem::find(&whole, secret.as_bytes()).is_none() {
        return whole;
    }
    let mut clean = Vec::with_capacity(whole.len());
    let mut rest: &[u8] = &whole;
    while let Some(at) = memchr::memmem::find(rest, secret.as_bytes()) {
        let (before, after) = rest.split_at(at);
        clean.extend_from_slice(before);
        clean.extend_from_slice(loom_common_secret::REDACTED.as_bytes());
        rest = after.get(secret.len()..).unwrap_or_default();
    }
    clean.extend_from_slice(rest);
    clean.into()
}

/// What comes of a body, up to a limit of bytes and of time; a break in it ends it.
pub(crate) async fn read_to(body: Body, limit: usize) -> Bytes {
    use http_body_util::{BodyExt, Limited};
    let mut body = std::pin::pin!(Limited::new(body, limit));
    let mut whole = bytes::BytesMut::new();
    let all = async {
        while let Some(Ok(frame)) = body.frame().await {
            if let Some(data) = frame.data_ref() {
                whole.extend_from_slice(data);
            }
        }
    };
    if timeout(MAX_READ, all).await.is_err() {
        tracing::warn!("the rest of a provider's answer did not come in time");
    }
    whole.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn what_connection_names_ends_here_in_both_directions() {
        let from = headers(&[
            ("connection", "close, X-Hop"),
            ("connection", "x-other"),
            ("x-hop", "1"),
            ("x-other", "1"),
            ("x-stays", "1"),
        ]);
        for to in [request_headers(&from, Dialect::OpenAi), response_headers(&from)] {
            assert!(to.contains_key("x-stays"), "{to:?}");
            for gone in ["connection", "x-hop", "x-other"] {
                assert!(!to.contains_key(gone), "{gone}: {to:?}");
            }
        }
    }

    #[test]
    fn a_credential_of_the_clients_own_does_not_go_along() {
        let from = headers(&[("api-key", "k"), ("x-api-key", "k"), ("authorization", "Bearer k")]);
        let to = request_headers(&from, Dialect::OpenAi);
        assert!(to.values().all(|value| value != "k" && value != "Bearer k"), "{to:?}");
    }

    #[test]
    fn a_secret_is_taken_out_of_what_is_no_text_too() {
        let told = Bytes::from_static(b"key sk-1, again sk-1 \xe2\x82");
        assert_eq!(&redacted(told, "sk-1")[..], b"key [redacted], again [redacted] \xe2\x82");
        assert_eq!(&redacted(Bytes::from_static(b"none"), "sk-1")[..], b"none");
    }
}
