//! One sum, and the sums that a request is part of.

use chrono::{DateTime, DurationRound, TimeDelta, Utc};
use uuid::Uuid;

use super::sketch::Sketch;

/// By what sums are kept; `llm_usage_sums.dimension`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Dimension {
    All,
    Model,
    User,
    ApiKey,
    Thread,
    Weaver,
    Tag,
}

impl Dimension {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Model => "model",
            Self::User => "user",
            Self::ApiKey => "api_key",
            Self::Thread => "thread",
            Self::Weaver => "weaver",
            Self::Tag => "tag",
        }
    }
}

/// How long a time a sum is of; `llm_usage_sums.grain`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Grain {
    Hour,
    Day,
}

impl Grain {
    pub(super) const ALL: [Self; 2] = [Self::Hour, Self::Day];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Hour => "hour",
            Self::Day => "day",
        }
    }

    pub(super) fn delta(self) -> TimeDelta {
        match self {
            Self::Hour => TimeDelta::hours(1),
            Self::Day => TimeDelta::days(1),
        }
    }

    /// Where the one begins that holds this time, in UTC.
    pub(super) fn floor(self, at: DateTime<Utc>) -> DateTime<Utc> {
        at.duration_trunc(self.delta()).unwrap_or(at)
    }

    /// Where the next one begins, or this time itself if one begins there.
    pub(super) fn ceil(self, at: DateTime<Utc>) -> DateTime<Utc> {
        let floor = self.floor(at);
        if floor == at { at } else { floor + self.delta() }
    }
}

/// Whose requests: all of an organisation's, a user's, or those that are nobody's (service keys, weavers).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whose {
    Everybodys,
    Of(Uuid),
    Nobodys,
}

impl Whose {
    /// `llm_usage_sums.scope`.
    pub(super) fn scope(self) -> Uuid {
        match self {
            Self::Everybodys => Uuid::nil(),
            Self::Of(user) => user,
            Self::Nobodys => Uuid::max(),
        }
    }
}

/// What a sum needs of a row of `llm_requests`.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) org_id: Uuid,
    pub(super) started_at: DateTime<Utc>,
    pub(super) user_id: Option<Uuid>,
    pub(super) api_key_id: Option<Uuid>,
    pub(super) thread_id: Option<Uuid>,
    pub(super) weaver_id: Option<Uuid>,
    pub(super) tags: Vec<String>,
    pub(super) provider: String,
    pub(super) model: String,
    pub(super) outcome: String,
    pub(super) usage_complete: bool,
    pub(super) input_tokens: Option<i64>,
    pub(super) output_tokens: Option<i64>,
    pub(super) cache_read_tokens: Option<i64>,
    pub(super) cache_write_5m_tokens: Option<i64>,
    pub(super) cache_write_1h_tokens: Option<i64>,
    pub(super) reasoning_tokens: Option<i64>,
    pub(super) web_searches: Option<i64>,
    pub(super) cost_nanousd: Option<i64>,
    pub(super) latency_ms: f64,
    pub(super) first_token_ms: Option<f64>,
}

impl Request {
    /// Under which keys it is found in a dimension: one, empty for what has none; of tags each.
    pub(super) fn keys(&self, dimension: Dimension) -> Vec<String> {
        let id = |id: Option<Uuid>| vec![id.map(|id| id.to_string()).unwrap_or_default()];
        match dimension {
            Dimension::All => vec![String::new()],
            Dimension::Model => vec![format!("{}/{}", self.provider, self.model)],
            Dimension::User => id(self.user_id),
            Dimension::ApiKey => id(self.api_key_id),
            Dimension::Thread => id(self.thread_id),
            Dimension::Weaver => id(self.weaver_id),
            Dimension::Tag if self.tags.is_empty() => vec![String::new()],
            Dimension::Tag => {
                let mut tags = self.tags.clone();
                tags.sort_unstable();
                tags.dedup();
                tags
            }
        }
    }

    /// Every sum that it is part of.
    pub(super) fn places(&self) -> Vec<Place> {
        const OF_USER: [Dimension; 6] = [
            Dimension::All,
            Dimension::Model,
            Dimension::ApiKey,
            Dimension::Thread,
            Dimension::Weaver,
            Dimension::Tag,
        ];
        let own = self.user_id.map_or(Whose::Nobodys, Whose::Of);
        let of = |whose: Whose, dimension: Dimension| (whose.scope(), dimension);
        let scopes = OF_USER
            .into_iter()
            .flat_map(|dimension| [of(Whose::Everybodys, dimension), of(own, dimension)])
            .chain([of(Whose::Everybodys, Dimension::User)]);
        let mut places = Vec::with_capacity(32);
        for (scope, dimension) in scopes {
            for key in self.keys(dimension) {
                for grain in Grain::ALL {
                    let (org, at) = (self.org_id, grain.floor(self.started_at));
                    places.push(Place { org, scope, grain, dimension, at, key: key.clone() });
                }
            }
        }
        places
    }
}

/// The primary key of `llm_usage_sums`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) org: Uuid,
    pub(super) scope: Uuid,
    pub(super) grain: Grain,
    pub(super) dimension: Dimension,
    pub(super) at: DateTime<Utc>,
    pub(super) key: String,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Sum {
    pub(super) requests: i64,
    pub(super) failed: i64,
    pub(super) cancelled: i64,
    pub(super) incomplete: i64,
    pub(super) unpriced: i64,
    pub(super) input_tokens: i64,
    pub(super) output_tokens: i64,
    pub(super) cache_read_tokens: i64,
    pub(super) cache_write_tokens: i64,
    pub(super) reasoning_tokens: i64,
    pub(super) web_searches: i64,
    pub(super) cost_nanousd: i64,
    pub(super) latency: Sketch,
    pub(super) first_token: Sketch,
}

impl Sum {
    pub(super) fn add(&mut self, row: &Request) {
        let writes = [row.cache_write_5m_tokens, row.cache_write_1h_tokens];
        let known = row.input_tokens.is_some() || row.output_tokens.is_some();
        self.requests += 1;
        self.failed += i64::from(row.outcome == "failed");
        self.cancelled += i64::from(row.outcome == "cancelled");
        self.incomplete += i64::from(!row.usage_complete);
        self.unpriced += i64::from(known && row.cost_nanousd.is_none());
        self.input_tokens += row.input_tokens.unwrap_or_default();
        self.output_tokens += row.output_tokens.unwrap_or_default();
        self.cache_read_tokens += row.cache_read_tokens.unwrap_or_default();
        self.cache_write_tokens += writes.into_iter().flatten().sum::<i64>();
        self.reasoning_tokens += row.reasoning_tokens.unwrap_or_default();
        self.web_searches += row.web_searches.unwrap_or_default();
        self.cost_nanousd += row.cost_nanousd.unwrap_or_default();
        self.latency.add(row.latency_ms);
        if let Some(ms) = row.first_token_ms {
            self.first_token.add(ms);
        }
    }

    pub(super) fn merge(&mut self, other: &Self) {
        self.requests += other.requests;
        self.failed += other.failed;
        self.cancelled += other.cancelled;
        self.incomplete += other.incomplete;
        self.unpriced += other.unpriced;
        self.input_tokens += other.input_tokens;
        self.output_tokens += other.output_tokens;
        self.cache_read_tokens += other.cache_read_tokens;
        self.cache_write_tokens += other.cache_write_tokens;
        self.reasoning_tokens += other.reasoning_tokens;
        self.web_searches += other.web_searches;
        self.cost_nanousd += other.cost_nanousd;
        self.latency.merge(&other.latency);
        self.first_token.merge(&other.first_token);
    }
}
