//! Releases with all that is known of their sessions.

use std::collections::HashMap;

use chrono::{DateTime, TimeDelta, Utc};
use loom_core::Result;
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    Sessions,
    session::{SLOT, slot},
    statistics::{Interval, crash_free, wilson},
    store::read::{self, Counts, Filter, Total, Which},
    users::Users,
};

const DAY: TimeDelta = TimeDelta::hours(24);
/// Per cent of a project's sessions in a day.
const ADOPTED: f64 = 50.0;
const FEW: f64 = 5.0;
/// A share that went down by so much of itself goes down.
const DECLINE: f64 = 0.75;
/// So long a release with few sessions is a new one.
const NEW: TimeDelta = TimeDelta::days(7);

/// Where a release stands on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = AppSessionStage)]
pub(crate) enum Stage {
    /// Less than 5 % of the sessions of the last 24 hours, and not a week old.
    New,
    /// 5 to 50 %.
    Growing,
    /// 50 % or more.
    Adopted,
    /// Its share fell by a quarter within a day, or it is old and has less than 5 %.
    Declining,
}

/// A release and how it does.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = AppSessionRelease)]
pub(crate) struct Release {
    pub(crate) version: String,
    pub(crate) sessions: i64,
    /// Distinct users; from about 1,500 on within two per cent.
    pub(crate) users: i64,
    pub(crate) crashed_users: i64,
    #[serde(flatten)]
    pub(crate) counts: Counts,
    /// Per cent; null without sessions.
    pub(crate) crash_free_sessions: Option<f64>,
    /// Where it lies with 95 % confidence.
    pub(crate) crash_free_sessions_interval: Option<Interval>,
    /// Per cent; null without users.
    pub(crate) crash_free_users: Option<f64>,
    /// Milliseconds; null when no duration is known.
    pub(crate) average_duration_ms: Option<f64>,
    /// In the last 24 hours.
    pub(crate) sessions_24h: i64,
    /// Per cent of all sessions of the last 24 hours; null when there were none.
    pub(crate) adoption: Option<f64>,
    /// The same of the 24 hours before.
    pub(crate) adoption_before: Option<f64>,
    pub(crate) stage: Option<Stage>,
    #[serde(serialize_with = "loom_core::clock::millis")]
    pub(crate) first_seen: DateTime<Utc>,
    #[serde(serialize_with = "loom_core::clock::millis")]
    pub(crate) last_seen: DateTime<Utc>,
}

/// Counts of all releases within a day.
pub(crate) struct Day {
    by_release: HashMap<String, Counts>,
    total: i64,
}

impl Day {
    fn new(rows: Vec<(String, Counts)>) -> Self {
        let total = rows.iter().map(|(_, counts)| counts.total()).sum();
        Self { by_release: rows.into_iter().collect(), total }
    }

    pub(crate) fn of(&self, release: &str) -> Counts {
        self.by_release.get(release).copied().unwrap_or_default()
    }

    pub(crate) fn share(&self, release: &str) -> Option<f64> {
        (self.total > 0).then(|| self.of(release).total() as f64 / self.total as f64 * 100.0)
    }

    /// Those with the most sessions.
    pub(crate) fn top(&self, most: usize) -> Vec<(String, i64)> {
        let mut all: Vec<(String, i64)> =
            self.by_release.iter().map(|(name, counts)| (name.clone(), counts.total())).collect();
        all.sort_unstable_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        all.truncate(most);
        all
    }
}

/// The last 24 hours and the 24 before, to the half hour.
pub(crate) struct Days {
    pub(crate) now: Day,
    pub(crate) before: Day,
}

impl Sessions {
    pub(crate) async fn days(&self, filter: Filter<'_>) -> Result<Days> {
        let filter = Filter { release: None, ..filter };
        let (now, pool) = (self.now(), &self.deps.pool);
        let middle = slot(now - DAY);
        let (last, before) = tokio::try_join!(
            read::by_release(pool, filter, middle, slot(now) + SLOT),
            read::by_release(pool, filter, middle - DAY, middle),
        )?;
        Ok(Days { now: Day::new(last), before: Day::new(before) })
    }

    /// Releases as a whole, with the users of sessions that are not added up yet.
    pub(crate) async fn totals(&self, filter: Filter<'_>, which: Which<'_>) -> Result<Vec<Total>> {
        let pool = &self.deps.pool;
        let mut totals = read::totals(pool, filter, which).await?;
        let with_tail: Vec<String> = totals
            .iter()
            .filter(|total| total.tail_users.is_some())
            .map(|total| total.release.clone())
            .collect();
        if with_tail.is_empty() {
            return Ok(totals);
        }
        let sketches = read::sketches(pool, filter, &with_tail).await?;
        let sketches: HashMap<String, _> = sketches
            .into_iter()
            .map(|(release, users, crashed)| (release, (users, crashed)))
            .collect();
        for total in &mut totals {
            let Some(users) = total.tail_users.take() else { continue };
            let known = sketches.get(&total.release);
            let mut all = Users::from_bytes(known.map_or(&[], |(users, _)| users));
            all.unite(&Users::exact(users));
            total.users = all.count();
            let mut crashed = Users::from_bytes(known.map_or(&[], |(_, crashed)| crashed));
            crashed.unite(&Users::exact(total.tail_crashed.take().unwrap_or_default()));
            total.crashed_users = crashed.count();
        }
        Ok(totals)
    }

    pub(crate) fn release(&self, total: &Total, days: &Days) -> Release {
        let version = total.release.clone();
        let sessions = total.counts.total();
        let adoption = days.now.share(&version);
        let adoption_before = days.before.share(&version);
        let age = self.now() - total.first_started;
        Release {
            sessions,
            users: total.users,
            crashed_users: total.crashed_users,
            counts: total.counts,
            crash_free_sessions: crash_free(sessions, total.counts.crashed),
            crash_free_sessions_interval: wilson(sessions, total.counts.crashed),
            // Two estimates may contradict each other by a little.
            crash_free_users: crash_free(total.users, total.crashed_users.min(total.users)),
            average_duration_ms: (total.timed > 0.0).then(|| total.duration_ms / total.timed),
            sessions_24h: days.now.of(&version).total(),
            adoption,
            adoption_before,
            stage: adoption.map(|now| stage(now, adoption_before, age)),
            first_seen: total.first_started,
            last_seen: total.last_started,
            version,
        }
    }
}

fn stage(now: f64, before: Option<f64>, age: TimeDelta) -> Stage {
    let falls = before.is_some_and(|before| before >= FEW && now < before * DECLINE);
    if falls {
        Stage::Declining
    } else if now >= ADOPTED {
        Stage::Adopted
    } else if now >= FEW {
        Stage::Growing
    } else if age < NEW {
        Stage::New
    } else {
        Stage::Declining
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::{Stage, stage};

    #[test]
    fn a_release_comes_and_goes() {
        let (young, old) = (TimeDelta::days(1), TimeDelta::days(60));
        assert_eq!(stage(1.0, None, young), Stage::New);
        assert_eq!(stage(20.0, Some(4.0), young), Stage::Growing);
        assert_eq!(stage(80.0, Some(60.0), old), Stage::Adopted);
        assert_eq!(stage(55.0, Some(90.0), old), Stage::Declining);
        assert_eq!(stage(1.0, Some(1.0), old), Stage::Declining);
    }
}
