//! Rate limits of keys and organisations: so many items of a category in each window. Each server counts
//! for itself; nothing is asked of the database.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use chrono::{DateTime, Utc};
use http::StatusCode;
use loom_core::{
    Error,
    id::OrgId,
    port::{DsnKey, RateLimit},
};
use uuid::Uuid;

use crate::item::Category;

/// Windows that are kept before those that have passed are thrown away.
const PRUNE_AT: usize = 10_000;

/// A limit that was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reached {
    pub(crate) category: Category,
    scope: &'static str,
    pub(crate) after_secs: u64,
}

impl Reached {
    /// The same for what goes with it.
    pub(crate) fn for_category(self, category: Category) -> Self {
        Self { category, ..self }
    }

    /// As in `X-Sentry-Rate-Limits`.
    pub(crate) fn quota(&self) -> String {
        let Self { category, scope, after_secs } = self;
        format!("{after_secs}:{}:{scope}:{scope}_limit", category.as_str())
    }
}

impl From<Reached> for Error {
    fn from(Reached { scope, after_secs, .. }: Reached) -> Self {
        let whose = if scope == "key" { "this key" } else { "the organisation" };
        let detail = format!("the rate limit of {whose} is reached; nothing was stored");
        Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited", detail)
            .retry_after(Duration::from_secs(after_secs))
    }
}

#[derive(Debug)]
struct Window {
    ends: DateTime<Utc>,
    count: u32,
}

#[derive(Debug, Default)]
pub(crate) struct Limits(Mutex<HashMap<(Uuid, Category), Window>>);

impl Limits {
    /// Counts one item, unless a limit is reached. What came with a credential has no key.
    pub(crate) fn take(
        &self,
        org: OrgId,
        key: Option<&DsnKey>,
        org_per_minute: u32,
        category: Category,
        now: DateTime<Utc>,
    ) -> Result<(), Reached> {
        let of_org = (org_per_minute > 0)
            .then_some(RateLimit { count: org_per_minute, window: Duration::from_secs(60) });
        let of_key = key.and_then(|key| Some(("key", key.id.0, key.limit?)));
        let of_org = of_org.map(|limit| ("organization", org.0, limit));
        if !category.is_limited() || (of_key.is_none() && of_org.is_none()) {
            return Ok(());
        }
        let limits = [of_key, of_org].into_iter().flatten();
        let mut windows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if windows.len() >= PRUNE_AT {
            windows.retain(|_, window| window.ends > now);
        }
        for (scope, id, limit) in limits.clone() {
            let length = chrono::TimeDelta::from_std(limit.window).unwrap_or_default();
            let fresh = || Window { ends: now + length, count: 0 };
            let window = windows.entry((id, category)).or_insert_with(fresh);
            // Also when a clock was set back.
            if window.ends <= now || window.ends > now + length {
                *window = fresh();
            }
            if window.count >= limit.count {
                let left = (window.ends - now).num_milliseconds();
                let after_secs = u64::try_from(left).unwrap_or_default().div_ceil(1000).max(1);
                return Err(Reached { category, scope, after_secs });
            }
        }
        // What is refused by one counts for none.
        for (_, id, _) in limits {
            if let Some(window) = windows.get_mut(&(id, category)) {
                window.count += 1;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use loom_core::{
        id::{OrgId, ProjectId, ProjectKeyId},
        port::Project,
    };

    use super::*;

    fn key(org: OrgId, limit: Option<(u32, u64)>, now: DateTime<Utc>) -> DsnKey {
        let project = Project {
            id: ProjectId::new(now),
            number: 1,
            org,
            slug: "p".to_owned(),
            name: "P".to_owned(),
            allowed_origins: Vec::new(),
        };
        let limit =
            limit.map(|(count, secs)| RateLimit { count, window: Duration::from_secs(secs) });
        DsnKey { id: ProjectKeyId::new(now), project: Arc::new(project), enabled: true, limit }
    }

    #[test]
    fn a_key_has_its_limit_for_each_category_and_window() {
        let now = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
        let (limits, key) = (Limits::default(), key(OrgId::new(now), Some((2, 30)), now));
        let take = |category, at| limits.take(key.project.org, Some(&key), 0, category, at);
        assert_eq!(take(Category::Error, now), Ok(()));
        assert_eq!(take(Category::Error, now), Ok(()));
        let later = now + chrono::TimeDelta::milliseconds(10_500);
        let reached = take(Category::Error, later).unwrap_err();
        assert_eq!(reached.quota(), "20:error:key:key_limit");
        assert_eq!(take(Category::Session, later), Ok(()));
        for _ in 0..10 {
            assert_eq!(take(Category::Monitor, later), Ok(()));
        }
        assert_eq!(take(Category::Error, now + chrono::TimeDelta::seconds(30)), Ok(()));
    }

    #[test]
    fn an_organisation_shares_its_limit_and_a_refused_item_counts_for_nobody() {
        let now = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
        let org = OrgId::new(now);
        let (limits, one, other) =
            (Limits::default(), key(org, None, now), key(org, Some((1, 60)), now));
        assert_eq!(limits.take(org, Some(&other), 3, Category::Error, now), Ok(()));
        for _ in 0..5 {
            let reached = limits.take(org, Some(&other), 3, Category::Error, now).unwrap_err();
            assert_eq!(reached.quota(), "60:error:key:key_limit");
        }
        assert_eq!(limits.take(org, Some(&one), 3, Category::Error, now), Ok(()));
        assert_eq!(limits.take(org, Some(&one), 3, Category::Error, now), Ok(()));
        let reached = limits.take(org, Some(&one), 3, Category::Error, now).unwrap_err();
        assert_eq!(reached.quota(), "60:error:organization:organization_limit");
        // Who came with a credential has its share of it, too.
        let reached = limits.take(org, None, 3, Category::Error, now).unwrap_err();
        assert_eq!(reached.quota(), "60:error:organization:organization_limit");
        let stranger = OrgId::new(now + chrono::TimeDelta::seconds(1));
        assert_eq!(limits.take(stranger, None, 3, Category::Error, now), Ok(()));
    }
}
