//! A provider's refusal, as a problem of ours.

use std::time::Duration;

use axum::http::{HeaderMap, StatusCode};
use chrono::{DateTime, Utc};
use loom_core::{Error, text};
use serde::Deserialize;

use crate::pool::retry_after;

/// When the provider does not say how long to wait.
const WAIT: Duration = Duration::from_secs(5);

#[derive(Deserialize)]
struct Body {
    error: Told,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Told {
    Object {
        message: Option<String>,
        code: Option<serde_json::Value>,
        #[serde(rename = "type")]
        kind: Option<String>,
    },
    Text(String),
}

/// What the client is told when the provider answers with anything but success.
pub(crate) fn problem(
    provider: &str,
    model: &str,
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
    now: DateTime<Utc>,
) -> Error {
    let (message, code) = match serde_json::from_slice::<Body>(body) {
        Ok(Body { error: Told::Text(message) }) => (message, String::new()),
        Ok(Body { error: Told::Object { message, code, kind } }) => {
            let code = code.and_then(|code| code.as_str().map(str::to_owned)).or(kind);
            (message.unwrap_or_default(), code.unwrap_or_default())
        }
        Err(_) => (String::new(), String::new()),
    };
    let told = match text::cut(&message, 2000) {
        "" => String::new(),
        message => format!(": {message}"),
    };
    let wait = retry_after(headers, now);
    let error = |status, code, what: &str| {
        Error::new(status, code, format!("the provider `{provider}` {what}{told}"))
    };
    // Our key and our account are no business of the client's: it is told no more than that.
    let ours = |what: &str| {
        let detail =
            format!("the provider `{provider}` {what}; this server's administrator can help");
        Error::new(StatusCode::BAD_GATEWAY, "upstream_error", detail)
            .because(format!("{status}{told}"))
    };
    match status.as_u16() {
        400 | 422 => error(StatusCode::BAD_REQUEST, "invalid_request", "refuses the request"),
        401 | 403 => ours("refuses the credential of this server"),
        402 => ours("wants to be paid"),
        429 if code == "insufficient_quota" => ours("has no credit left for this server"),
        404 => Error::new(
            StatusCode::NOT_FOUND,
            "model_not_found",
            format!(
                "the provider `{provider}` has no model `{}`, or not for this server{told}",
                text::cut(model, 200)
            ),
        ),
        413 => {
            error(StatusCode::PAYLOAD_TOO_LARGE, "payload_too_large", "takes no request so large")
        }
        429 => error(StatusCode::TOO_MANY_REQUESTS, "rate_limited", "asks to wait")
            .retry_after(wait.unwrap_or(WAIT)),
        503 | 529 => error(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "has no room just now")
            .retry_after(wait.unwrap_or(WAIT)),
        408 | 504 => {
            error(StatusCode::GATEWAY_TIMEOUT, "upstream_timeout", "did not answer in time")
        }
        _ => error(
            StatusCode::BAD_GATEWAY,
            "upstream_error",
            &format!("answered with {}", status.as_u16()),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(status: u16, body: &str, retry: Option<(&'static str, &'static str)>) -> Error {
        let mut headers = HeaderMap::new();
        if let Some((name, value)) = retry {
            headers.insert(name, value.parse().unwrap());
        }
        let status = StatusCode::from_u16(status).unwrap();
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        problem("openai", "gpt-x", status, &headers, body.as_bytes(), now)
    }

    #[test]
    fn each_status_has_its_problem() {
        let body = r#"{"error":{"message":"no good","type":"x","code":null}}"#;
        let cases = [
            (400, 400, "invalid_request"),
            (401, 502, "upstream_error"),
            (402, 502, "upstream_error"),
            (403, 502, "upstream_error"),
            (404, 404, "model_not_found"),
            (413, 413, "payload_too_large"),
            (422, 400, "invalid_request"),
            (429, 429, "rate_limited"),
            (500, 502, "upstream_error"),
            (503, 503, "unavailable"),
            (504, 504, "upstream_timeout"),
            (529, 503, "unavailable"),
            (302, 502, "upstream_error"),
        ];
        for (from, to, code) in cases {
            let error = of(from, body, None);
            assert_eq!((error.status().as_u16(), error.code()), (to, code), "{from}");
            let ours = matches!(from, 401..=403);
            assert_eq!(error.detail().contains("no good"), !ours, "{from}: {error:?}");
        }
    }

    #[test]
    fn the_wait_is_the_providers() {
        assert_eq!(of(429, "", Some(("retry-after", "17"))).retry_after_secs(), Some(17));
        assert_eq!(of(529, "", Some(("retry-after-ms", "1500"))).retry_after_secs(), Some(2));
        let date = ("retry-after", "Thu, 01 Jan 2026 00:01:00 GMT");
        assert_eq!(of(503, "<html>", Some(date)).retry_after_secs(), Some(60));
        for odd in ["-5", "NaN", "inf", "soon", "1e300"] {
            assert_eq!(of(429, "", Some(("retry-after", odd))).retry_after_secs(), Some(5));
        }
        assert_eq!(of(429, r#"{"error":"slow down"}"#, None).retry_after_secs(), Some(5));
    }

    #[test]
    fn an_account_without_credit_is_not_the_clients_fault() {
        let body = r#"{"error":{"message":"You exceeded","code":"insufficient_quota"}}"#;
        assert_eq!(of(429, body, None).code(), "upstream_error");
    }
}
