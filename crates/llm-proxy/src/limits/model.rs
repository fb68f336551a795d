//! Limits as they are on the wire and in the rows.

use chrono::{DateTime, Utc};
use loom_core::{Error, Result, error::FieldError, text};
use serde::{Deserialize, Serialize};

use super::gauge::{Kind, Measure};
use crate::ledger::Row;

const MOST: i64 = 1_000_000_000_000;
const MOST_USD: f64 = 1e9;
const MAX_PATTERN: usize = 200;

/// What a subject may use. What is absent or null is not limited; 0 lets nothing through.
#[derive(Clone, Debug, Default, Deserialize, Serialize, utoipa::ToSchema)]
pub(crate) struct Caps {
    /// Requests per minute: a bucket of so many, which refills evenly.
    #[schema(minimum = 0)]
    pub(crate) requests_per_minute: Option<i64>,
    /// Tokens of all classes per minute. A request reserves its input and the most that it may answer, and
    /// gives back what it did not use.
    #[schema(minimum = 0)]
    pub(crate) tokens_per_minute: Option<i64>,
    /// Requests at the same time.
    #[schema(minimum = 0)]
    pub(crate) concurrent: Option<i64>,
    /// US dollars in a day, which begins at midnight UTC.
    #[schema(minimum = 0)]
    pub(crate) usd_per_day: Option<f64>,
    /// US dollars in a month of UTC.
    #[schema(minimum = 0)]
    pub(crate) usd_per_month: Option<f64>,
    /// Models without a known price are refused: no budget can hold them.
    #[serde(default)]
    pub(crate) refuse_unpriced: bool,
}

/// What was used of a limit.
#[derive(Clone, Debug, Default, Serialize, utoipa::ToSchema)]
pub(crate) struct Current {
    /// Of the minute's requests and tokens, what is not there yet again.
    pub(crate) requests: Option<i64>,
    pub(crate) tokens: Option<i64>,
    /// What the servers hold to let requests in: what runs, and a share for what comes next.
    pub(crate) concurrent_held: Option<i64>,
    /// The cost of all requests of this day.
    pub(crate) usd_today: Option<f64>,
    /// What the servers hold for requests that run and that come next.
    pub(crate) usd_held_today: Option<f64>,
    #[serde(serialize_with = "loom_core::clock::millis_option")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub(crate) day_ends_at: Option<DateTime<Utc>>,
    pub(crate) usd_this_month: Option<f64>,
    pub(crate) usd_held_this_month: Option<f64>,
    #[serde(serialize_with = "loom_core::clock::millis_option")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub(crate) month_ends_at: Option<DateTime<Utc>>,
}

/// A limit.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct LimitView {
    pub(crate) kind: Kind,
    /// An id, a pattern of model names as `claude-opus-*`, or `all` for the organisation.
    pub(crate) subject: String,
    #[serde(flatten)]
    pub(crate) caps: Caps,
    pub(crate) current: Current,
    #[serde(serialize_with = "loom_core::clock::millis")]
    #[schema(value_type = String, format = DateTime)]
    pub(crate) updated_at: DateTime<Utc>,
}

#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct LimitList {
    pub(crate) limits: Vec<LimitView>,
    pub(crate) next_cursor: Option<String>,
}

pub(crate) fn usd(nano: i64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "far below 2^53 in any sum that is shown")]
    let nano = nano as f64;
    nano / 1e9
}

#[expect(clippy::cast_possible_truncation, reason = "checked to be within bounds before")]
pub(crate) fn nanousd(usd: f64) -> i64 {
    (usd * 1e9).round() as i64
}

impl Caps {
    pub(crate) fn check(&self) -> Result<()> {
        let mut errors = Vec::new();
        let mut fault = |path: &str, message: String| {
            errors.push(FieldError { path: path.to_owned(), message });
        };
        for (path, value) in [
            ("requests_per_minute", self.requests_per_minute),
            ("tokens_per_minute", self.tokens_per_minute),
            ("concurrent", self.concurrent),
        ] {
            if value.is_some_and(|value| !(0..=MOST).contains(&value)) {
                fault(path, format!("is 0 to {MOST}"));
            }
        }
        for (path, value) in
            [("usd_per_day", self.usd_per_day), ("usd_per_month", self.usd_per_month)]
        {
            if value.is_some_and(|value| !(0.0..=MOST_USD).contains(&value)) {
                fault(path, "is 0 to 1000000000".to_owned());
            }
        }
        let any = Measure::ALL.into_iter().any(|measure| self.cap(measure).is_some());
        if !any && !self.refuse_unpriced {
            fault("", "limits nothing; DELETE takes a limit away".to_owned());
        }
        if errors.is_empty() { Ok(()) } else { Err(Error::invalid_fields(errors)) }
    }

    /// In billionths of a dollar where it is money.
    pub(crate) fn cap(&self, measure: Measure) -> Option<i64> {
        match measure {
            Measure::Requests => self.requests_per_minute,
            Measure::Tokens => self.tokens_per_minute,
            Measure::Concurrent => self.concurrent,
            Measure::Day => self.usd_per_day.map(nanousd),
            Measure::Month => self.usd_per_month.map(nanousd),
            Measure::Life => None,
        }
    }
}

/// Checks what a path names, and gives it in its one form.
pub(crate) fn subject(kind: Kind, subject: &str) -> Result<String> {
    match kind {
        Kind::Organisation if subject == "all" => Ok(subject.to_owned()),
        Kind::Organisation => Err(Error::invalid("subject", "of the organisation is `all`")),
        Kind::Model if text::is_plain_line(subject, MAX_PATTERN) => Ok(subject.to_owned()),
        Kind::Model => Err(Error::invalid(
            "subject",
            "is the name of a model, or a pattern as `claude-opus-*`, of up to 200 bytes",
        )),
        Kind::User | Kind::ApiKey | Kind::Weaver | Kind::KeyBudget | Kind::WeaverBudget => subject
            .parse::<uuid::Uuid>()
            .map(|id| id.to_string())
            .map_err(|_| Error::invalid("subject", "is an id")),
    }
}

/// Does a row count against the limit of this subject?
pub(crate) fn concerns(kind: Kind, subject: &str, row: &Row) -> bool {
    let is = |id: Option<uuid::Uuid>| {
        let mut buffer = uuid::Uuid::encode_buffer();
        id.is_some_and(|id| *id.hyphenated().encode_lower(&mut buffer) == *subject)
    };
    match kind {
        Kind::Organisation => true,
        Kind::User => is(row.user_id),
        Kind::ApiKey | Kind::KeyBudget => is(row.api_key_id),
        Kind::Weaver | Kind::WeaverBudget => is(row.weaver_id),
        Kind::Model => {
            let model = bare(&row.provider, &row.model);
            matches(subject, model)
                || subject
                    .strip_prefix(&*row.provider)
                    .and_then(|rest| rest.strip_prefix('/'))
                    .is_some_and(|pattern| matches(pattern, model))
        }
    }
}

/// A model's name without the provider's before it.
pub(crate) fn bare<'a>(provider: &str, model: &'a str) -> &'a str {
    model.strip_prefix(provider).and_then(|rest| rest.strip_prefix('/')).unwrap_or(model)
}

/// A pattern in which `*` stands for anything.
fn matches(pattern: &str, name: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(mut left) = name.strip_prefix(first) else { return false };
    let mut parts = rest.split('*').peekable();
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return left.ends_with(part);
        }
        let Some(at) = left.find(part) else { return false };
        left = left.get(at + part.len()..).unwrap_or_default();
    }
    true
}

/// The same as a pattern of SQL's LIKE.
pub(crate) fn like(pattern: &str) -> String {
    let mut like = String::with_capacity(pattern.len() + 8);
    for c in pattern.chars() {
        match c {
            '*' => like.push('%'),
            '%' | '_' | '\\' => like.extend(['\\', c]),
            c => like.push(c),
        }
    }
    like
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_anything_and_all_else_for_itself() {
        for (pattern, name, fits) in [
            ("*", "", true),
            ("*", "gpt-4o", true),
            ("gpt-4o", "gpt-4o", true),
            ("gpt-4o", "gpt-4o-mini", false),
            ("gpt-*", "gpt-4o", true),
            ("*-mini", "gpt-4o-mini", true),
            ("*-mini", "gpt-4o-mini-x", false),
            ("claude-*-4-*", "claude-opus-4-1", true),
            ("claude-*-4-*", "claude-4-1", false),
            ("a*a", "a", false),
            ("gpt_4o", "gpt-4o", false),
        ] {
            assert_eq!(matches(pattern, name), fits, "{pattern} {name}");
        }
        assert_eq!(like(r"a_b%c\d*"), r"a\_b\%c\\d%");
    }

    #[test]
    fn a_model_goes_by_its_name_with_or_without_its_providers() {
        assert_eq!(bare("openai", "openai/gpt-4o"), "gpt-4o");
        assert_eq!(bare("openai", "gpt-4o"), "gpt-4o");
        assert_eq!(bare("openai", "openai-x/gpt-4o"), "openai-x/gpt-4o");
    }
}
