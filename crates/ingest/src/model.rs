//! The types on the wire of our own API.

use chrono::NaiveDate;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// What clients did not send, as they said it on one day.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct DiscardedItems {
    pub day: NaiveDate,
    /// As `error`, `session`, `transaction`; `other` for what is not known.
    pub category: String,
    /// As `ratelimit_backoff`, `queue_overflow`, `before_send`, `sample_rate`; `other` for what is not known.
    pub reason: String,
    pub quantity: i64,
}

#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct DiscardedPage {
    /// Newest day first, and in it the most first.
    pub discarded: Vec<DiscardedItems>,
}

#[derive(Clone, Copy, Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct DiscardedQuery {
    /// How many days, today among them: 1 to 90.
    #[serde(default = "month")]
    #[param(default = 30, minimum = 1, maximum = 90)]
    pub days: u32,
}

fn month() -> u32 {
    30
}
