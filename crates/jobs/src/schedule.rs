//! When a job is due, and what becomes of slots that were missed.

mod cron;
mod every;

use std::time::Duration;

use chrono::{DateTime, Utc};
use loom_core::{Error, Result};

pub use cron::Cron;
use every::Every;

/// When a job is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Schedule {
    /// Whole seconds, at least one. Runs are due at its multiples since 1970, so that all replicas
    /// agree without asking each other.
    Every(Duration),
    /// By the clock on the wall of a place. A time that the clock skips is due at the next that it
    /// shows, one that it shows twice is due the first time. (So what is wanted each few minutes,
    /// whatever the clock does, is better an interval.)
    Cron {
        /// Five fields, or six with seconds first.
        expression: String,
        /// As `Europe/Berlin`.
        timezone: String,
    },
}

impl From<Duration> for Schedule {
    fn from(interval: Duration) -> Self {
        Self::Every(interval)
    }
}

/// What becomes of slots that nobody could take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CatchUp {
    /// Nothing: the next is the next that is due.
    Skip,
    /// One run for all of them, with the newest slot.
    #[default]
    RunOnce,
    /// A run for each, oldest first: the newest `max` (at most 100) that are younger than `window`.
    All { max: u32, window: Duration },
}

/// A slot this much behind is late and not missed: as long as it takes to notice that a replica is gone.
const LATE: Duration = Duration::from_secs(120);
const MOST_CAUGHT_UP: u32 = 100;
/// More missed slots than this are not counted one by one.
const MOST_COUNTED: i32 = 10_000;

/// A schedule that was checked.
#[derive(Clone, Debug)]
pub(crate) enum Slots {
    Every(Every),
    Cron(Box<Cron>),
}

impl Slots {
    pub(crate) fn of(job: &str, schedule: &Schedule) -> Result<Self> {
        let slots = match schedule {
            Schedule::Every(interval) => Every::new(*interval).map(Self::Every),
            Schedule::Cron { expression, timezone } => {
                Cron::new(expression, timezone).map(|cron| Self::Cron(Box::new(cron)))
            }
        };
        slots
            .map_err(|problem| Error::internal(format!("the schedule of the job {job}: {problem}")))
    }

    /// The newest slot that is not after `at`, if there was one.
    pub(crate) fn floor(&self, at: DateTime<Utc>) -> Option<DateTime<Utc>> {
        match self {
            Self::Every(every) => Some(every.floor(at)),
            Self::Cron(cron) => cron.floor(at),
        }
    }

    /// The first slot after `at`; the end of time when there is none.
    pub(crate) fn after(&self, at: DateTime<Utc>) -> DateTime<Utc> {
        match self {
            Self::Every(every) => every.after(at),
            Self::Cron(cron) => cron.after(at).unwrap_or(DateTime::<Utc>::MAX_UTC),
        }
    }

    /// The slot to run next, `taken` being the newest that was taken; due when it is not after `now`.
    pub(crate) fn next(
        &self,
        taken: DateTime<Utc>,
        now: DateTime<Utc>,
        catch_up: CatchUp,
    ) -> DateTime<Utc> {
        let Some(newest) = self.floor(now).filter(|newest| *newest > taken) else {
            return self.after(taken);
        };
        match catch_up {
            CatchUp::RunOnce => newest,
            CatchUp::Skip if newest + LATE >= now => newest,
            CatchUp::Skip => self.after(now),
            CatchUp::All { max, window } => {
                let made_up = |slot: &DateTime<Utc>| {
                    *slot > taken && (now - *slot).to_std().is_ok_and(|age| age <= window)
                };
                let max = usize::try_from(max.clamp(1, MOST_CAUGHT_UP)).unwrap_or(1);
                let before = |slot: &DateTime<Utc>| self.floor(*slot - Duration::from_micros(1));
                std::iter::successors(Some(newest), before)
                    .take(max)
                    .take_while(made_up)
                    .last()
                    .unwrap_or_else(|| self.after(now))
            }
        }
    }

    /// How many slots there are between two.
    pub(crate) fn between(&self, taken: DateTime<Utc>, slot: DateTime<Utc>) -> i32 {
        match self {
            Self::Every(every) => every.between(taken, slot),
            Self::Cron(_) => {
                let mut count = 0;
                let mut at = self.after(taken);
                while at < slot && count < MOST_COUNTED {
                    count += 1;
                    at = self.after(at);
                }
                count
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    const HOUR: Duration = Duration::from_secs(3600);

    fn hourly() -> Slots {
        Slots::of("a", &Schedule::Every(HOUR)).unwrap()
    }

    #[test]
    fn missed_slots_are_one_and_a_taken_one_is_not_due() {
        let now = at("2026-03-01T10:20:30Z");
        let next = |taken| hourly().next(at(taken), now, CatchUp::RunOnce);
        assert_eq!(next("2026-03-01T03:00:00Z"), at("2026-03-01T10:00:00Z"));
        assert_eq!(next("2026-03-01T10:00:00Z"), at("2026-03-01T11:00:00Z"));
        // The clock went back, or the interval became longer.
        assert_eq!(next("2026-03-01T12:30:00Z"), at("2026-03-01T13:00:00Z"));
    }

    #[test]
    fn skipping_leaves_out_what_is_missed_but_not_what_is_late() {
        let taken = at("2026-03-01T03:00:00Z");
        let next = |now| hourly().next(taken, at(now), CatchUp::Skip);
        assert_eq!(next("2026-03-01T10:02:00Z"), at("2026-03-01T10:00:00Z"));
        assert_eq!(next("2026-03-01T10:02:01Z"), at("2026-03-01T11:00:00Z"));
    }

    #[test]
    fn all_are_made_up_for_within_their_number_and_window() {
        let (taken, now) = (at("2026-03-01T03:00:00Z"), at("2026-03-01T10:20:00Z"));
        let next = |max, window| hourly().next(taken, now, CatchUp::All { max, window });
        assert_eq!(next(100, HOUR * 24), at("2026-03-01T04:00:00Z"));
        assert_eq!(next(3, HOUR * 24), at("2026-03-01T08:00:00Z"));
        assert_eq!(next(100, HOUR * 2), at("2026-03-01T09:00:00Z"));
        assert_eq!(next(100, HOUR / 4), at("2026-03-01T11:00:00Z"));
    }

    #[test]
    fn slots_in_between_are_counted() {
        let daily = Schedule::Cron { expression: "0 3 * * *".into(), timezone: "UTC".into() };
        let daily = Slots::of("a", &daily).unwrap();
        let (from, to) = (at("2026-03-01T03:00:00Z"), at("2026-03-05T03:00:00Z"));
        assert_eq!((daily.between(from, to), hourly().between(from, to)), (3, 95));
        assert_eq!((daily.between(to, to), hourly().between(to, to)), (0, 0));
    }

    #[test]
    fn what_cannot_be_right_is_refused() {
        for schedule in [
            Schedule::Every(Duration::ZERO),
            Schedule::Every(Duration::from_millis(1500)),
            Schedule::Cron { expression: "61 * * * *".into(), timezone: "UTC".into() },
            Schedule::Cron { expression: "0 3 * * *".into(), timezone: "Europe/Bärlin".into() },
            Schedule::Cron { expression: "0 0 30 2 *".into(), timezone: "UTC".into() },
        ] {
            assert!(Slots::of("a", &schedule).is_err(), "{schedule:?}");
        }
    }
}
