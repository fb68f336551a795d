//! Times as SDKs write them.

use chrono::{DateTime, NaiveDateTime, TimeDelta, Utc};
use serde_json::Value;

/// Later is a clock that is wrong.
const AHEAD: TimeDelta = TimeDelta::minutes(1);
/// Earlier is one that was never set, or an event that nobody looks for.
const BEHIND: TimeDelta = TimeDelta::days(30);
/// Seconds since 1970 are below this for two thousand years; milliseconds are above since 1973.
const MILLISECONDS: f64 = 1e11;

/// Seconds or milliseconds since 1970, or RFC 3339 with or without a zone (then UTC).
pub(crate) fn read(value: &Value) -> Option<DateTime<Utc>> {
    match value {
        Value::Number(number) => of_number(number.as_f64()?),
        Value::String(text) => {
            let text = text.trim();
            DateTime::parse_from_rfc3339(text)
                .map(|at| at.to_utc())
                .or_else(|_| {
                    let plain = text.trim_end_matches('Z').replace(' ', "T");
                    plain.parse::<NaiveDateTime>().map(|at| at.and_utc())
                })
                .ok()
                .or_else(|| of_number(text.parse().ok()?))
        }
        _ => None,
    }
}

fn of_number(number: f64) -> Option<DateTime<Utc>> {
    let seconds = if number.abs() > MILLISECONDS { number / 1e3 } else { number };
    if !seconds.is_finite() || seconds < 0.0 {
        return None;
    }
    DateTime::from_timestamp_micros((seconds * 1e6) as i64)
}

/// When it happened by our clock, and what is wrong with what was said.
pub(super) fn happened(
    value: Option<&Value>,
    received_at: DateTime<Utc>,
    drift: TimeDelta,
) -> (DateTime<Utc>, Option<String>) {
    let Some(value) = value.filter(|value| !value.is_null()) else { return (received_at, None) };
    let Some(at) = read(value).and_then(|at| at.checked_add_signed(drift)) else {
        return (received_at, Some("timestamp: not a time that can be read".to_owned()));
    };
    if at > received_at + AHEAD {
        (received_at, Some(format!("timestamp: {at} is in the future")))
    } else if at < received_at - BEHIND {
        (received_at, Some(format!("timestamp: {at} is more than 30 days ago")))
    } else {
        (at.min(received_at), None)
    }
}
