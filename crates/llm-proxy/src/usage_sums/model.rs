//! Usage as it is asked for and shown.

use chrono::{DateTime, NaiveDate, NaiveTime, TimeDelta, Utc};
use loom_core::{Error, Result, clock::is_storable};
use serde::{Deserialize, Serialize};

use super::sum::{Dimension, Grain, Sum};

/// Groups beside those by time, when nothing is said, and at most.
const DEFAULT_LIMIT: u16 = 100;
const MAX_LIMIT: u16 = 1000;
const DEFAULT_SPAN: TimeDelta = TimeDelta::days(30);
const MAX_SPAN: TimeDelta = TimeDelta::days(800);
const MAX_HOURS: TimeDelta = TimeDelta::days(32);

/// Of what, and how, usage is to be told.
#[derive(Clone, Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct UsageQuery {
    /// `day` (when absent) or `hour`, and one of `model`, `provider`, `user`, `api_key`, `thread`,
    /// `weaver`, `tag`; either or both, with a comma between. A request with several tags is in the group
    /// of each.
    #[param(example = "day,model")]
    pub(super) group_by: Option<String>,
    /// From the hour of this time on (RFC 3339, or a date); 30 days before `to` when absent. `hour` goes
    /// back 32 days at most, what is older than the rows of requests is told by whole days.
    pub(super) from: Option<String>,
    /// Up to the end of the hour of this time; now, when absent.
    pub(super) to: Option<String>,
    /// So many of the dearest keys, 1 to 1000; 100 when absent.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    pub(super) limit: Option<u16>,
}

/// Beside time, by what it is grouped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Provider,
    Of(Dimension),
}

impl Key {
    pub(super) fn dimension(self) -> Dimension {
        match self {
            Self::Provider => Dimension::Model,
            Self::Of(dimension) => dimension,
        }
    }
}

/// A checked question.
#[derive(Clone, Debug)]
pub(super) struct Question {
    pub(super) words: Vec<String>,
    pub(super) time: Option<Grain>,
    pub(super) key: Option<Key>,
    pub(super) from: DateTime<Utc>,
    pub(super) to: DateTime<Utc>,
    pub(super) limit: usize,
}

fn time(name: &str, text: &str) -> Result<DateTime<Utc>> {
    let at = text.parse::<DateTime<Utc>>().ok();
    let date =
        || text.parse::<NaiveDate>().ok().map(|date| date.and_time(NaiveTime::MIN).and_utc());
    at.or_else(date).filter(|at| is_storable(*at)).ok_or_else(|| {
        Error::invalid(name, "is a time as 2026-11-22T10:00:00Z, or a date as 2026-11-22")
    })
}

impl UsageQuery {
    /// # Errors
    /// 422 that names the parameter.
    pub(super) fn check(&self, now: DateTime<Utc>) -> Result<Question> {
        let words = self.group_by.as_deref().unwrap_or("day");
        let words: Vec<_> = words.split(',').map(|word| word.trim().to_owned()).collect();
        let (mut times, mut keys) = (Vec::new(), Vec::new());
        for word in &words {
            match word.as_str() {
                "hour" => times.push(Grain::Hour),
                "day" => times.push(Grain::Day),
                "model" => keys.push(Key::Of(Dimension::Model)),
                "provider" => keys.push(Key::Provider),
                "user" => keys.push(Key::Of(Dimension::User)),
                "api_key" => keys.push(Key::Of(Dimension::ApiKey)),
                "thread" => keys.push(Key::Of(Dimension::Thread)),
                "weaver" => keys.push(Key::Of(Dimension::Weaver)),
                "tag" => keys.push(Key::Of(Dimension::Tag)),
                _ => times.extend([Grain::Hour; 2]),
            }
        }
        if times.len() > 1 || keys.len() > 1 {
            return Err(Error::invalid(
                "group_by",
                "is `day` or `hour`, one of `model`, `provider`, `user`, `api_key`, `thread`, `weaver`, \
                 `tag`, or one of each with a comma between",
            ));
        }
        let to = self.to.as_deref().map(|text| time("to", text)).transpose()?;
        // What goes on now is in it.
        let to = Grain::Hour.ceil(to.unwrap_or(now + TimeDelta::microseconds(1)));
        let from = self.from.as_deref().map(|text| time("from", text)).transpose()?;
        let from = Grain::Hour.floor(from.unwrap_or(to - DEFAULT_SPAN));
        let time = times.pop();
        let longest = if time == Some(Grain::Hour) { MAX_HOURS } else { MAX_SPAN };
        if from >= to || to - from > longest {
            let days = longest.num_days();
            return Err(Error::invalid("from", format!("is before `to`, by {days} days at most")));
        }
        let limit = self.limit.unwrap_or(DEFAULT_LIMIT);
        if !(1..=MAX_LIMIT).contains(&limit) {
            return Err(Error::invalid("limit", format!("is 1 to {MAX_LIMIT}")));
        }
        Ok(Question { words, time, key: keys.pop(), from, to, limit: limit.into() })
    }
}

/// What was used.
#[derive(Clone, Debug, Default, Serialize, utoipa::ToSchema)]
#[schema(as = LlmUsageNumbers)]
pub(super) struct Numbers {
    pub(super) requests: i64,
    /// Of these, the ones that failed, and those whose client left.
    pub(super) errors: i64,
    pub(super) cancelled: i64,
    /// Replies that broke off before the provider's last count: their tokens are the ones seen.
    pub(super) incomplete: i64,
    /// Requests with tokens and no known price: not in the cost.
    pub(super) unpriced: i64,
    /// Without what was cached.
    pub(super) input_tokens: i64,
    pub(super) output_tokens: i64,
    pub(super) cache_read_tokens: i64,
    pub(super) cache_write_tokens: i64,
    /// Part of the output.
    pub(super) reasoning_tokens: i64,
    pub(super) web_searches: i64,
    pub(super) cost_usd: f64,
    /// To the end of the reply; within 4.5 %.
    pub(super) latency_p50_ms: Option<f64>,
    pub(super) latency_p95_ms: Option<f64>,
    /// Of streams.
    pub(super) first_token_p50_ms: Option<f64>,
    pub(super) first_token_p95_ms: Option<f64>,
}

impl From<&Sum> for Numbers {
    #[expect(clippy::cast_precision_loss, reason = "below 2^53: nine million dollars")]
    fn from(sum: &Sum) -> Self {
        Self {
            requests: sum.requests,
            errors: sum.failed,
            cancelled: sum.cancelled,
            incomplete: sum.incomplete,
            unpriced: sum.unpriced,
            input_tokens: sum.input_tokens,
            output_tokens: sum.output_tokens,
            cache_read_tokens: sum.cache_read_tokens,
            cache_write_tokens: sum.cache_write_tokens,
            reasoning_tokens: sum.reasoning_tokens,
            web_searches: sum.web_searches,
            cost_usd: sum.cost_nanousd as f64 / 1e9,
            latency_p50_ms: sum.latency.quantile(0.5),
            latency_p95_ms: sum.latency.quantile(0.95),
            first_token_p50_ms: sum.first_token.quantile(0.5),
            first_token_p95_ms: sum.first_token.quantile(0.95),
        }
    }
}

/// One group. Of the members that name it, those are there by which it was grouped; null: requests that
/// have none.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
#[schema(as = LlmUsageGroup)]
pub(super) struct Group {
    /// When its hour or day (UTC) begins.
    #[serde(
        serialize_with = "loom_core::clock::millis_option",
        skip_serializing_if = "Option::is_none"
    )]
    pub(super) at: Option<DateTime<Utc>>,
    /// `provider` (with `model` too), `model`, `user_id`, `api_key_id`, `thread_id`, `weaver_id` or `tag`.
    #[serde(flatten)]
    pub(super) key: serde_json::Map<String, serde_json::Value>,
    #[serde(flatten)]
    pub(super) numbers: Numbers,
}

#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
#[schema(as = LlmUsageReport)]
pub(super) struct Answer {
    /// The time that was looked at, in whole hours.
    #[serde(serialize_with = "loom_core::clock::millis")]
    pub(super) from: DateTime<Utc>,
    #[serde(serialize_with = "loom_core::clock::millis")]
    pub(super) to: DateTime<Utc>,
    pub(super) group_by: Vec<String>,
    /// By time, and then the dearest first.
    pub(super) groups: Vec<Group>,
    /// There are more groups than these.
    pub(super) truncated: bool,
    /// Of all requests of this time, whatever the groups.
    pub(super) total: Numbers,
}
