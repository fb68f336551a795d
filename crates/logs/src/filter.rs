//! Which lines somebody wants to see.

use loom_core::{Error, Result};
use serde::{Deserialize, Serialize};
use tracing::Level;

use crate::{
    model::LogQuery,
    render,
    ring::{Line, LineId},
};

const LONGEST: usize = 256;
const DEFAULT_LIMIT: usize = 100;
pub(crate) const MAX_LIMIT: usize = 1_000;

/// From the least to the most severe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum MinLevel {
    Trace,
    Debug,
    Info,
    Warn,
    Error,
}

impl MinLevel {
    fn parse(text: &str) -> Option<(Self, Level)> {
        Some(match text {
            "trace" => (Self::Trace, Level::TRACE),
            "debug" => (Self::Debug, Level::DEBUG),
            "info" => (Self::Info, Level::INFO),
            "warn" => (Self::Warn, Level::WARN),
            "error" => (Self::Error, Level::ERROR),
            _ => return None,
        })
    }
}

/// A query, checked.
#[derive(Clone, Debug)]
pub(crate) struct Filter {
    level: Level,
    target: String,
    /// In lower case, and as JSON writes it.
    text: Option<String>,
    request_id: Option<String>,
    pub(crate) after: Option<LineId>,
    pub(crate) limit: usize,
}

impl Filter {
    pub(crate) fn new(query: &LogQuery) -> Result<Self> {
        let bounded = |name: &str, text: &Option<String>| match text {
            Some(text) if text.len() > LONGEST => {
                Err(Error::invalid(name, format!("is at most {LONGEST} bytes long")))
            }
            text => Ok(text.clone().filter(|text| !text.is_empty())),
        };
        let level = match query.level.as_deref() {
            None | Some("") => Level::TRACE,
            Some(text) => {
                MinLevel::parse(&text.to_ascii_lowercase())
                    .ok_or_else(|| {
                        Error::invalid("level", "is `trace`, `debug`, `info`, `warn` or `error`")
                    })?
                    .1
            }
        };
        let text = bounded("q", &query.q)?.map(|text| {
            let mut json = String::new();
            render::escaped(&mut json, &text.to_lowercase());
            json
        });
        let after = match query.after_id.as_deref() {
            None | Some("") => None,
            Some(id) => Some(line_id("after_id", id)?),
        };
        let limit = match query.limit {
            None => DEFAULT_LIMIT,
            Some(limit) => usize::from(limit),
        };
        if !(1..=MAX_LIMIT).contains(&limit) {
            return Err(Error::invalid("limit", format!("is 1 to {MAX_LIMIT}")));
        }
        Ok(Self {
            level,
            target: bounded("target", &query.target)?.unwrap_or_default(),
            text,
            request_id: bounded("request_id", &query.request_id)?,
            after,
            limit,
        })
    }

    pub(crate) fn takes(&self, line: &Line) -> bool {
        line.level <= self.level
            && line.target.starts_with(&self.target)
            && self.request_id.as_ref().is_none_or(|id| line.request_id.as_deref() == Some(id))
            && self.text.as_ref().is_none_or(|text| line.texts().any(|of| holds(of, text)))
    }
}

pub(crate) fn line_id(name: &str, text: &str) -> Result<LineId> {
    text.parse().map_err(|()| {
        Error::invalid(name, "is not the id of a line, as 1f2e3d4c-42; leave it away to start anew")
    })
}

/// Does `text` hold `part` (in lower case), whatever the case?
fn holds(text: &str, part: &str) -> bool {
    if !part.is_ascii() {
        return text.to_lowercase().contains(part);
    }
    let (text, part) = (text.as_bytes(), part.as_bytes());
    let Some(first) = part.first() else { return true };
    let upper = first.to_ascii_uppercase();
    memchr::memchr2_iter(*first, upper, text).any(|at| {
        text.get(at..at + part.len()).is_some_and(|piece| piece.eq_ignore_ascii_case(part))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_found_whatever_the_case() {
        assert!(holds("The Request failed", "request f"));
        assert!(holds("ÄPFEL", "äpfel"));
        assert!(holds("aab", "ab") && holds("x", ""));
        assert!(!holds("reques", "request") && !holds("", "a"));
    }
}
