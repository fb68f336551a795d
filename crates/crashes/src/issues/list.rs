//! What a list of issues is asked for.

use chrono::{DateTime, Utc};
use loom_core::{Error, Principal, Result, clock::is_storable, page::PageQuery};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::{
    model::Issue,
    search::{self, Context, Emails, Query},
};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = IssueSort)]
pub(crate) enum Sort {
    /// The last event first.
    #[default]
    LastSeen,
    /// The newest issue first.
    FirstSeen,
    /// The most events first.
    Events,
    /// The most users first.
    Users,
}

impl Sort {
    pub(crate) fn column(self) -> &'static str {
        match self {
            Self::LastSeen => "i.last_seen",
            Self::FirstSeen => "i.first_seen",
            Self::Events => "i.event_count",
            Self::Users => "i.user_count",
        }
    }
}

/// Filters; an issue must pass all that are given.
#[derive(Clone, Debug, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListQuery {
    /// The search language: `is:unresolved level:error release:1.2 assigned:me last_seen:-24h "free text"`.
    #[param(max_length = 2000)]
    pub(crate) query: Option<String>,
    /// `unresolved` (regressed ones, too), `resolved`, `ignored`, `regressed`: as `is:…`.
    pub(crate) status: Option<String>,
    /// As `level:…`.
    pub(crate) level: Option<String>,
    /// As `environment:…`.
    pub(crate) environment: Option<String>,
    /// As `release:…`.
    pub(crate) release: Option<String>,
    #[serde(default)]
    #[param(inline)]
    pub(crate) sort: Sort,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = IssueInterval)]
pub(crate) enum Interval {
    #[default]
    Hour,
    /// Of UTC.
    Day,
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct SeriesQuery {
    #[serde(default)]
    #[param(inline)]
    pub(crate) interval: Interval,
    /// Absent: 24 hours or 30 days before `to`.
    pub(crate) from: Option<DateTime<Utc>>,
    /// Absent: now.
    pub(crate) to: Option<DateTime<Utc>>,
    /// Only events of this environment.
    pub(crate) environment: Option<String>,
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct StreamQuery {
    /// Only events of these kinds, as `issue.new,issue.regressed`; absent: all.
    pub(crate) event: Option<String>,
}

/// A list that was found to be in order.
#[derive(Clone, Debug)]
pub(crate) struct Listing {
    pub(crate) query: Query,
    pub(crate) emails: Emails,
    pub(crate) sort: Sort,
    /// The name of this list, which its cursors carry.
    pub(crate) kind: String,
}

/// Where a page ends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Position {
    Time(DateTime<Utc>, Uuid),
    Count(i64, Uuid),
}

impl ListQuery {
    pub(crate) fn check(&self, principal: &Principal, now: DateTime<Utc>) -> Result<Listing> {
        let context = Context { me: principal.user_id(), now };
        let text = self.query.as_deref().unwrap_or_default();
        let (mut query, emails) = search::parse(text, context)?;
        for (name, key, value) in [
            ("status", "is", &self.status),
            ("level", "level", &self.level),
            ("environment", "environment", &self.environment),
            ("release", "release", &self.release),
        ] {
            let Some(value) = value.as_deref().filter(|value| !value.is_empty()) else { continue };
            let term = format!("{key}:\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""));
            let (more, _) = search::parse(&term, context)
                .map_err(|fault| Error::invalid(name, fault.message))?;
            query.terms.extend(more.terms);
        }
        let json = serde_json::to_vec(self).unwrap_or_default();
        let digest = Sha256::digest(&json);
        let kind = format!("issues:{}", hex::encode(digest.get(..8).unwrap_or_default()));
        Ok(Listing { query, emails, sort: self.sort, kind })
    }
}

impl Listing {
    pub(crate) fn after(&self, page: &PageQuery) -> Result<Option<Position>> {
        Ok(match self.sort {
            Sort::LastSeen | Sort::FirstSeen => {
                page.after_time(&self.kind)?.map(|(at, id)| Position::Time(at, id))
            }
            Sort::Events | Sort::Users => {
                page.after(&self.kind)?.map(|(count, id)| Position::Count(count, id))
            }
        })
    }

    pub(crate) fn position(&self, issue: &Issue) -> serde_json::Value {
        let id = issue.id.0;
        let value = match self.sort {
            Sort::LastSeen => serde_json::to_value((issue.last_seen, id)),
            Sort::FirstSeen => serde_json::to_value((issue.first_seen, id)),
            Sort::Events => serde_json::to_value((issue.event_count, id)),
            Sort::Users => serde_json::to_value((issue.user_count, id)),
        };
        value.unwrap_or_default()
    }
}

/// A time of a query parameter, if it is one that can be stored.
pub(crate) fn checked_time(name: &str, at: Option<DateTime<Utc>>) -> Result<Option<DateTime<Utc>>> {
    match at {
        Some(at) if !is_storable(at) => {
            Err(Error::invalid(name, "is a time from the year 1970 to 9999"))
        }
        at => Ok(at),
    }
}
