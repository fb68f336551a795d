//! What a response says of limits: in headers when there is room, and in an error when there is none.

use std::{sync::Arc, time::Duration};

use axum::{
    extract::Request,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode},
    middleware::Next,
    response::Response,
};
use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use loom_core::Error;
use metrics::{Counter, counter};
use serde_json::json;

use super::{
    Reservation,
    gauge::{Entry, Gauge, Key, Kind, Measure},
    model::usd,
};
use crate::{dialect::Dialect, frames};

/// How the client speaks to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Surface {
    Wire(Dialect),
    Native,
}

impl From<Dialect> for Surface {
    fn from(dialect: Dialect) -> Self {
        Self::Wire(dialect)
    }
}

impl From<frames::Surface> for Surface {
    fn from(surface: frames::Surface) -> Self {
        match surface {
            frames::Surface::Wire(operation) => Self::Wire(operation.dialect()),
            frames::Surface::Native => Self::Native,
        }
    }
}

/// What is left of a rate.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Quota {
    measure: Measure,
    limit: i64,
    remaining: i64,
    /// Until the whole of it is there.
    reset: TimeDelta,
}

impl Quota {
    /// Of each rate, the limit that is nearest to its end.
    pub(super) fn of(entries: &[(Arc<Gauge>, Entry)], now: DateTime<Utc>) -> Vec<Self> {
        let mut quotas: Vec<Self> = Vec::new();
        for (gauge, _) in entries.iter().filter(|(gauge, _)| gauge.key.measure.is_rate()) {
            let quota = Self::now(gauge, now);
            match quotas.iter_mut().find(|other| other.measure == quota.measure) {
                Some(other) if quota.remaining < other.remaining => *other = quota,
                Some(_) => {}
                None => quotas.push(quota),
            }
        }
        quotas
    }

    fn now(gauge: &Gauge, now: DateTime<Utc>) -> Self {
        let (limit, remaining) = (gauge.cap(), gauge.remaining(now));
        let reset = if remaining >= limit { TimeDelta::zero() } else { gauge.wait(limit, now) };
        Self { measure: gauge.key.measure, limit, remaining, reset }
    }

    fn put(self, surface: Surface, now: DateTime<Utc>, headers: &mut HeaderMap) {
        let measure = self.measure.name();
        let (prefix, reset) = match surface {
            Surface::Wire(Dialect::Anthropic) => (
                "anthropic-ratelimit",
                (now + self.reset).to_rfc3339_opts(SecondsFormat::Secs, true),
            ),
            Surface::Wire(Dialect::OpenAi | Dialect::Gemini) | Surface::Native => {
                ("x-ratelimit", duration(self.reset))
            }
        };
        let values = [
            ("limit", self.limit.to_string()),
            ("remaining", self.remaining.to_string()),
            ("reset", reset),
        ];
        for (what, value) in values {
            let name = match surface {
                Surface::Wire(Dialect::Anthropic) => format!("{prefix}-{measure}-{what}"),
                Surface::Wire(Dialect::OpenAi | Dialect::Gemini) | Surface::Native => {
                    format!("{prefix}-{what}-{measure}")
                }
            };
            if let (Ok(name), Ok(value)) =
                (HeaderName::try_from(name), HeaderValue::try_from(value))
            {
                headers.insert(name, value);
            }
        }
    }
}

/// As OpenAI writes it: `6m0s`, `1.5s`, `20ms`.
fn duration(time: TimeDelta) -> String {
    let millis = time.num_milliseconds().max(0);
    match millis {
        0..1000 => format!("{millis}ms"),
        1000..60_000 if millis % 1000 == 0 => format!("{}s", millis / 1000),
        1000..60_000 => format!("{}.{:03}s", millis / 1000, millis % 1000),
        _ => format!("{}m{}s", millis / 60_000, millis % 60_000 / 1000),
    }
}

impl Reservation {
    /// What is left of the rates that this request counted against.
    pub(crate) fn tell(&self, headers: &mut HeaderMap) {
        for quota in &self.quotas {
            quota.put(self.surface, self.at, headers);
        }
    }
}

fn whose(key: &Key) -> String {
    match key.kind {
        Kind::Organisation => "this organisation".to_owned(),
        Kind::User => "this user".to_owned(),
        Kind::ApiKey | Kind::KeyBudget => "this API key".to_owned(),
        Kind::Weaver | Kind::WeaverBudget => "this weaver".to_owned(),
        Kind::Model => format!("the models `{}`", key.subject),
    }
}

/// 429: there is not so much left.
pub(crate) fn refused(gauge: &Gauge, need: i64, now: DateTime<Utc>) -> Error {
    let (key, cap) = (&gauge.key, gauge.cap());
    let whose = whose(key);
    let wait = gauge.wait(need, now);
    let limit = match key.measure {
        Measure::Requests => format!("{cap} requests per minute of {whose}"),
        Measure::Tokens => format!("{cap} tokens per minute of {whose}"),
        Measure::Concurrent => format!("{cap} requests at the same time of {whose}"),
        Measure::Day => format!("{} US dollars per day of {whose}", usd(cap)),
        Measure::Month => format!("{} US dollars per month of {whose}", usd(cap)),
        Measure::Life => format!("{} US dollars of {whose}", usd(cap)),
    };
    let advice = match key.measure {
        Measure::Requests | Measure::Concurrent => "try again later".to_owned(),
        Measure::Tokens => format!(
            "this request may use {need} with its answer; try again later, or ask for a shorter answer"
        ),
        Measure::Day | Measure::Month => format!(
            "this request may cost {} with its longest answer; ask for a shorter one, or wait until {}",
            usd(need),
            (now + wait).to_rfc3339_opts(SecondsFormat::Secs, true)
        ),
        Measure::Life => "it is spent, and the weaver ends".to_owned(),
    };
    let (code, limit) = if key.measure.is_budget() {
        ("quota_exceeded", format!("the budget of {limit} has not enough left: {advice}"))
    } else {
        ("rate_limited", format!("the limit of {limit} is reached: {advice}"))
    };
    let quota = Quota::now(gauge, now);
    let secs = wait.num_milliseconds().max(0) as u64;
    let (kind, measure) = (key.kind.name(), key.measure.name());
    let reset_after_ms = quota.reset.num_milliseconds();
    let told = if key.measure.is_budget() {
        json!({
            "kind": kind, "measure": measure, "limit_usd": usd(quota.limit),
            "remaining_usd": usd(quota.remaining), "reset_after_ms": reset_after_ms,
        })
    } else {
        json!({
            "kind": kind, "measure": measure, "limit": quota.limit,
            "remaining": quota.remaining, "reset_after_ms": reset_after_ms,
        })
    };
    Error::new(StatusCode::TOO_MANY_REQUESTS, code, limit)
        .retry_after(Duration::from_millis(secs))
        .with("limit", told)
}

/// The headers of a refusal by a limit, if it is one.
pub(crate) fn tell_refusal(
    surface: Surface,
    error: &Error,
    now: DateTime<Utc>,
    headers: &mut HeaderMap,
) {
    if error.status() != StatusCode::TOO_MANY_REQUESTS {
        return;
    }
    if error.code() == "quota_exceeded" {
        // The SDKs try again at once; nothing will have changed.
        headers.insert("x-should-retry", HeaderValue::from_static("false"));
    }
    let problem = error.problem("");
    let Some(limit) = problem.extra.get("limit") else { return };
    let number = |name: &str| limit.get(name).and_then(serde_json::Value::as_i64);
    let name = limit.get("measure").and_then(serde_json::Value::as_str);
    let measure = Measure::ALL.into_iter().find(|measure| Some(measure.name()) == name);
    let (Some(measure), Some(limit), Some(remaining), Some(reset)) =
        (measure, number("limit"), number("remaining"), number("reset_after_ms"))
    else {
        return;
    };
    if measure.is_rate() {
        let reset = TimeDelta::milliseconds(reset);
        Quota { measure, limit, remaining, reset }.put(surface, now, headers);
    }
}

/// A layer of the native routes.
pub(crate) async fn of_native(
    axum::extract::State(proxy): axum::extract::State<crate::LlmProxy>,
    request: Request,
    next: Next,
) -> Response {
    let mut response = next.run(request).await;
    if let Some(error) = response.extensions().get::<Error>().cloned() {
        tell_refusal(Surface::Native, &error, proxy.clock.now(), response.headers_mut());
    }
    response
}

/// The metrics of limits.
pub(super) struct Measures {
    refused: Vec<(Kind, Measure, Counter)>,
    pub(super) shares_taken: Counter,
    pub(super) shares_refused: Counter,
    pub(super) shares_returned: Counter,
    pub(super) trips_failed: Counter,
}

impl Default for Measures {
    fn default() -> Self {
        let kinds = [
            Kind::Organisation,
            Kind::User,
            Kind::ApiKey,
            Kind::Weaver,
            Kind::Model,
            Kind::KeyBudget,
            Kind::WeaverBudget,
        ];
        let refused = kinds.into_iter().flat_map(|kind| {
            Measure::ALL.into_iter().map(move |measure| {
                let counter = counter!("loom_llm_limit_refusals_total",
                    "kind" => kind.name(), "measure" => measure.name());
                (kind, measure, counter)
            })
        });
        let shares =
            |event: &'static str| counter!("loom_llm_limit_shares_total", "event" => event);
        Self {
            refused: refused.collect(),
            shares_taken: shares("taken"),
            shares_refused: shares("refused"),
            shares_returned: shares("returned"),
            trips_failed: shares("failed"),
        }
    }
}

impl Measures {
    pub(super) fn refused(&self, key: &Key) {
        let counter = self
            .refused
            .iter()
            .find(|(kind, measure, _)| (*kind, *measure) == (key.kind, key.measure));
        if let Some((.., counter)) = counter {
            counter.increment(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_as_openai_writes_them() {
        for (millis, text) in
            [(0, "0ms"), (20, "20ms"), (1500, "1.500s"), (6000, "6s"), (360_000, "6m0s")]
        {
            assert_eq!(duration(TimeDelta::milliseconds(millis)), text);
        }
    }
}
