//! What a search is asked for and what it answers.

use loom_core::{Error, Result};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::rank::Facets;
use crate::{message::Role, model::ThreadHead};

const DEFAULT_LIMIT: u8 = 20;
const MAX_LIMIT: u8 = 50;

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct SearchQuery {
    /// Words, `"phrases"`, `or`, `-not`; the last word may go on. The first 7 or more hex digits of a
    /// commit find the threads that made it, began or stood at it.
    #[serde(default)]
    pub(crate) q: String,
    /// Only in messages of this role.
    pub(crate) role: Option<Role>,
    /// 1 to 50.
    #[param(minimum = 1, maximum = 50, default = 20)]
    limit: Option<u8>,
    pub(crate) cursor: Option<String>,
}

impl SearchQuery {
    pub(crate) fn limit(&self) -> Result<usize> {
        match self.limit.unwrap_or(DEFAULT_LIMIT) {
            limit @ 1..=MAX_LIMIT => Ok(usize::from(limit)),
            _ => Err(Error::invalid("limit", format!("is 1 to {MAX_LIMIT}"))),
        }
    }
}

/// A page of what was found, best first.
#[derive(Debug, Serialize, ToSchema)]
pub struct SearchPage {
    pub hits: Vec<Hit>,
    /// Threads that were found: all there are, or those of the newest 2,000 matching messages.
    pub total: usize,
    /// There are more matching messages than those; older ones were not looked at.
    pub total_is_partial: bool,
    pub facets: Facets,
    /// What was looked for instead, because nothing has what was asked for: the words as they may have
    /// been meant.
    pub corrected: Option<String>,
    /// Null at the end.
    pub next_cursor: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct Hit {
    pub thread: ThreadHead,
    /// Higher is better; for the order within one search only.
    pub score: f64,
    /// HTML of one line: escaped, what was found in `<mark>`.
    pub snippet: String,
    /// Which message the snippet is of; null when it is of the thread itself.
    pub message_seq: Option<i64>,
    pub role: Option<Role>,
}
