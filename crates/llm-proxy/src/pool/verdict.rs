//! What an answer says of the credential that it was asked with.

use std::time::Duration;

use axum::http::{HeaderMap, StatusCode, header};
use chrono::{DateTime, Utc};
use serde_json::Value;

/// A time to wait that is longer than this is somebody's mistake.
const LONGEST_WAIT: Duration = Duration::from_secs(7 * 24 * 3600);
/// Bytes of a provider's words that are kept.
const MAX_REASON: usize = 300;

/// How a request went, as far as it says something of its credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The provider answered; whatever it said was about the request.
    Sound,
    /// 429.
    RateLimited { retry_after: Option<Duration>, out_of_quota: bool },
    /// 401 or 403.
    Refused { status: StatusCode, reason: String },
    /// 408, 5xx, no connection, no answer in time.
    Failing { reason: String },
    /// Nothing can be told, as of a request that the client gave up.
    Neutral,
}

impl Verdict {
    /// By the head of an answer and what there is of its body (nothing of a success).
    pub(crate) fn of(
        status: StatusCode,
        headers: &HeaderMap,
        body: &[u8],
        now: DateTime<Utc>,
    ) -> Self {
        match status {
            StatusCode::TOO_MANY_REQUESTS => Self::RateLimited {
                retry_after: retry_after(headers, now),
                out_of_quota: code_of(body).is_some_and(|code| code == "insufficient_quota"),
            },
            // A key that may not use one model is a sound one.
            StatusCode::FORBIDDEN
                if code_of(body).is_some_and(|code| code == "model_not_found") =>
            {
                Self::Sound
            }
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                Self::Refused { status, reason: reason(status, body) }
            }
            StatusCode::REQUEST_TIMEOUT => Self::Failing { reason: reason(status, body) },
            status if status.is_server_error() => Self::Failing { reason: reason(status, body) },
            _ => Self::Sound,
        }
    }
}

/// How long the provider asks to wait: `retry-after-ms`, else `retry-after` in seconds or as a date.
pub(crate) fn retry_after(headers: &HeaderMap, now: DateTime<Utc>) -> Option<Duration> {
    let text = |name: &str| headers.get(name)?.to_str().ok().map(str::trim);
    // Beyond a few years it is no number that somebody means.
    let number = |text: &str| text.parse::<f64>().ok().filter(|n| (0.0..1e11).contains(n));
    let longest = LONGEST_WAIT.as_secs_f64();
    if let Some(ms) = text("retry-after-ms").and_then(number) {
        return Some(Duration::from_secs_f64((ms / 1e3).min(longest)));
    }
    let told = text(header::RETRY_AFTER.as_str())?;
    if let Some(secs) = number(told) {
        return Some(Duration::from_secs_f64(secs.min(longest)));
    }
    let at = DateTime::parse_from_rfc2822(told).ok()?.with_timezone(&Utc);
    Some((at - now).to_std().unwrap_or_default().min(LONGEST_WAIT))
}

/// `code`, else `type`, of an error body of either dialect.
fn code_of(body: &[u8]) -> Option<String> {
    let value: Value = serde_json::from_slice(body).ok()?;
    let error = value.get("error")?;
    ["code", "type"].iter().find_map(|name| error.get(name)?.as_str().map(str::to_owned))
}

/// The status and the provider's own message, on one line. Of a 401 its code: messages repeat parts of
/// the key.
fn reason(status: StatusCode, body: &[u8]) -> String {
    if status == StatusCode::UNAUTHORIZED {
        let code = code_of(body).map(|code| format!(": {}", loom_core::text::cut(&code, 100)));
        return format!("the provider answered with 401{}", code.unwrap_or_default());
    }
    let value: Option<Value> = serde_json::from_slice(body).ok();
    let said = value.as_ref().and_then(|value| {
        let error = value.get("error")?;
        error.get("message").unwrap_or(error).as_str()
    });
    let status = status.as_u16();
    match said {
        Some(said) => {
            // It is stored, shown and mailed, and may repeat the key.
            let said = loom_redact::shared().redact(said);
            let said: String = said.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
            format!("{status}: {}", loom_core::text::cut(said.trim(), MAX_REASON))
        }
        None => format!("the provider answered with {status}"),
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use serde_json::json;

    use super::*;

    fn now() -> DateTime<Utc> {
        "2026-01-02T03:04:05Z".parse().unwrap()
    }

    fn wait(name: &'static str, value: &'static str) -> Option<Duration> {
        let mut headers = HeaderMap::new();
        headers.insert(name, HeaderValue::from_static(value));
        retry_after(&headers, now())
    }

    #[test]
    fn a_time_to_wait_is_understood_in_all_its_forms() {
        assert_eq!(wait("retry-after", "7"), Some(Duration::from_secs(7)));
        assert_eq!(wait("retry-after", "0.5"), Some(Duration::from_millis(500)));
        assert_eq!(wait("retry-after-ms", "1500"), Some(Duration::from_millis(1500)));
        assert_eq!(
            wait("retry-after", "Fri, 02 Jan 2026 03:05:05 GMT"),
            Some(Duration::from_secs(60))
        );
        assert_eq!(wait("retry-after", "Fri, 02 Jan 2026 03:00:00 GMT"), Some(Duration::ZERO));
        assert_eq!(wait("retry-after", "99999999"), Some(LONGEST_WAIT));
        for none in ["soon", "-1", "NaN", "1e300", ""] {
            assert_eq!(wait("retry-after", none), None, "{none}");
        }
    }

    #[test]
    fn an_answer_says_what_it_says_of_the_credential() {
        let of = |status: u16, body: &Value| {
            let status = StatusCode::from_u16(status).unwrap();
            Verdict::of(status, &HeaderMap::new(), body.to_string().as_bytes(), now())
        };
        let error = |code: &str| json!({"error": {"message": "told", "type": "t", "code": code}});
        for status in [200, 400, 404, 413, 422] {
            assert_eq!(of(status, &error("x")), Verdict::Sound, "{status}");
        }
        for status in [408, 500, 503, 529] {
            assert_eq!(
                of(status, &error("x")),
                Verdict::Failing { reason: format!("{status}: told") }
            );
        }
        assert_eq!(
            of(401, &error("x")),
            Verdict::Refused {
                status: StatusCode::UNAUTHORIZED,
                reason: "the provider answered with 401: x".to_owned()
            }
        );
        assert!(matches!(
            of(403, &json!({"type": "error", "error": {"type": "permission_error"}})),
            Verdict::Refused { .. }
        ));
        assert_eq!(of(403, &error("model_not_found")), Verdict::Sound);
        assert_eq!(
            of(429, &error("insufficient_quota")),
            Verdict::RateLimited { retry_after: None, out_of_quota: true }
        );
        assert_eq!(
            of(429, &error("rate_limit_exceeded")),
            Verdict::RateLimited { retry_after: None, out_of_quota: false }
        );
    }
}
