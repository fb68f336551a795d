//! A logged request as it is asked for and shown.

use chrono::{DateTime, Utc};
use loom_core::{
    Error, Result,
    clock::is_storable,
    id::{ApiKeyId, CredentialId, LlmRequestId, ThreadId, UserId, WeaverId},
    page::PageQuery,
    text,
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Which requests. What is absent does not limit them.
#[derive(Clone, Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct RequestsQuery {
    /// As it was asked for.
    pub(super) model: Option<String>,
    pub(super) provider: Option<String>,
    /// `succeeded`, `failed` or `cancelled`.
    #[param(inline)]
    pub(super) outcome: Option<Outcome>,
    /// What the client got, as 429.
    pub(super) status: Option<i32>,
    pub(super) user_id: Option<Uuid>,
    pub(super) api_key_id: Option<Uuid>,
    /// As `T-…`.
    pub(super) thread_id: Option<String>,
    pub(super) weaver_id: Option<Uuid>,
    /// Has this one among its tags.
    pub(super) tag: Option<String>,
    /// `x-loom-request-id` of the reply.
    pub(super) request_id: Option<String>,
    /// Cost at least so many US dollars.
    #[param(minimum = 0)]
    pub(super) min_cost_usd: Option<f64>,
    /// Began not before this time, RFC 3339.
    pub(super) from: Option<DateTime<Utc>>,
    /// Began before this time, RFC 3339.
    pub(super) to: Option<DateTime<Utc>>,
    /// How many items, 1 to 200; 50 when absent.
    #[param(minimum = 1, maximum = 200, default = 50)]
    pub(super) limit: Option<u16>,
    /// `next_cursor` of the page before.
    pub(super) cursor: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Outcome {
    Succeeded,
    Failed,
    Cancelled,
}

impl Outcome {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// A checked query.
pub(super) struct Filters {
    pub(super) query: RequestsQuery,
    pub(super) thread: Option<Uuid>,
    pub(super) min_cost_nanousd: Option<i64>,
}

impl RequestsQuery {
    pub(super) fn page(&self) -> PageQuery {
        PageQuery { limit: self.limit, cursor: self.cursor.clone() }
    }

    /// # Errors
    /// 422 for what nothing could match.
    pub(super) fn check(self) -> Result<Filters> {
        let lines = [
            ("model", &self.model),
            ("provider", &self.provider),
            ("tag", &self.tag),
            ("request_id", &self.request_id),
        ];
        for (name, value) in lines {
            if value.as_ref().is_some_and(|value| !text::is_plain_line(value, 1000)) {
                return Err(Error::invalid(name, "is one line of 1 to 1000 bytes"));
            }
        }
        for (name, at) in [("from", self.from), ("to", self.to)] {
            if at.is_some_and(|at| !is_storable(at)) {
                return Err(Error::invalid(name, "is a time from 1970 to 9999"));
            }
        }
        let thread = self.thread_id.as_deref().map(str::parse::<ThreadId>).transpose();
        let thread = thread.map_err(|message| Error::invalid("thread_id", message))?;
        #[expect(clippy::cast_possible_truncation, reason = "within what was checked")]
        let min_cost_nanousd = match self.min_cost_usd {
            None => None,
            Some(usd) if (0.0..=1e6).contains(&usd) => Some((usd * 1e9).round() as i64),
            Some(_) => return Err(Error::invalid("min_cost_usd", "is 0 to a million")),
        };
        Ok(Filters { thread: thread.map(|id| id.0), min_cost_nanousd, query: self })
    }
}

/// Tokens by class, which do not overlap but for `reasoning_tokens`, a part of the output. Null: the
/// provider did not say.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
#[schema(as = LlmRequestUsage)]
pub(super) struct RequestUsage {
    pub(super) input_tokens: Option<i64>,
    pub(super) output_tokens: Option<i64>,
    pub(super) cache_read_tokens: Option<i64>,
    /// For five minutes and for an hour together.
    pub(super) cache_write_tokens: Option<i64>,
    pub(super) cache_write_1h_tokens: Option<i64>,
    pub(super) reasoning_tokens: Option<i64>,
}

/// One request to a model, and what became of it.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
#[schema(as = LlmLoggedRequest)]
pub(super) struct Logged {
    pub(super) id: LlmRequestId,
    #[serde(serialize_with = "loom_core::clock::millis")]
    pub(super) started_at: DateTime<Utc>,
    pub(super) user_id: Option<UserId>,
    pub(super) api_key_id: Option<ApiKeyId>,
    pub(super) thread_id: Option<ThreadId>,
    pub(super) weaver_id: Option<WeaverId>,
    pub(super) tags: Vec<String>,
    /// As in the log and in `x-loom-request-id`.
    pub(super) request_id: String,
    /// `messages`, `chat`, `responses`, `embeddings`, `count_tokens`: what the provider was asked.
    pub(super) operation: String,
    pub(super) provider: String,
    /// Of the provider; null for the one from the environment.
    pub(super) credential_id: Option<CredentialId>,
    /// As it was asked for, and as the provider calls what answered.
    pub(super) model: String,
    pub(super) response_model: Option<String>,
    pub(super) upstream_request_id: Option<String>,
    /// `cache` where no provider was asked.
    pub(super) served_from: Option<String>,
    pub(super) streamed: bool,
    pub(super) outcome: String,
    /// What the client got; null when it left before an answer.
    pub(super) status: Option<i32>,
    pub(super) error_code: Option<String>,
    pub(super) usage: RequestUsage,
    /// False: the reply broke off before the provider's last count, and these are the tokens seen.
    pub(super) usage_complete: bool,
    pub(super) web_searches: Option<i64>,
    pub(super) service_tier: Option<String>,
    /// Null when the tokens or the price are not known.
    pub(super) cost_usd: Option<f64>,
    pub(super) latency_ms: f64,
    pub(super) first_token_ms: Option<f64>,
    pub(super) request_bytes: i64,
    pub(super) response_bytes: i64,
}

#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = LlmRequests)]
pub(super) struct LoggedPage {
    pub(super) requests: Vec<Logged>,
    pub(super) next_cursor: Option<String>,
}
