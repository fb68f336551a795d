//! Expressions that fire each so many minutes or hours. They go by the time that passes: they fire in both
//! of two hours that the clock shows alike, and not for one that it leaves out, as cron itself does.

use std::str::FromStr;

use chrono::{DateTime, Offset, TimeDelta, TimeZone, Utc};
use chrono_tz::Tz;

/// Changes of the clock on the way to one run; more than any zone has in the eight years that a 29 February
/// may be away.
const MOST_CHANGES: usize = 100;
/// No zone changes its clock twice within it.
const STEP: TimeDelta = TimeDelta::hours(12);

#[derive(Clone, Debug)]
pub(super) struct Real {
    pattern: croner::Cron,
    zone: Tz,
}

impl Real {
    pub(super) fn new(expression: &str, zone: Tz) -> Result<Self, String> {
        let pattern = croner::Cron::from_str(expression)
            .map_err(|error| format!("is no cron expression: {error}"))?;
        let real = Self { pattern, zone };
        if real.after(DateTime::UNIX_EPOCH).is_none() {
            return Err("never fires: no day is as it says".to_owned());
        }
        Ok(real)
    }

    fn offset(&self, at: DateTime<Utc>) -> TimeDelta {
        let offset = self.zone.offset_from_utc_datetime(&at.naive_utc()).fix();
        TimeDelta::seconds(i64::from(offset.local_minus_utc()))
    }

    pub(super) fn after(&self, at: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let (mut from, mut inclusive) = (at, false);
        for _ in 0..MOST_CHANGES {
            let offset = self.offset(from);
            let local = from.naive_utc() + offset;
            let found = self.pattern.find_next_occurrence(&local, inclusive).ok()?;
            let found = (found - offset).and_utc();
            match self.first_change(from, found) {
                None => return Some(found),
                Some(change) => (from, inclusive) = (change, true),
            }
        }
        None
    }

    /// The first moment after `from`, and until `to`, at which the clock is another.
    fn first_change(&self, from: DateTime<Utc>, to: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let offset = self.offset(from);
        let mut before = from;
        while before < to {
            let mut after = (before + STEP).min(to);
            if self.offset(after) == offset {
                before = after;
                continue;
            }
            // Changes happen at whole seconds.
            while after - before > TimeDelta::seconds(1) {
                // Whoever asks may do so within a second: half of it all, not of its whole seconds.
                let middle = before + (after - before) / 2;
                if self.offset(middle) == offset {
                    before = middle;
                } else {
                    after = middle;
                }
            }
            return DateTime::from_timestamp(after.timestamp(), 0);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runs(expression: &str, from: &str, count: usize) -> Vec<String> {
        let real = Real::new(expression, chrono_tz::Europe::Berlin).unwrap();
        let from: DateTime<Utc> = from.parse().unwrap();
        std::iter::successors(real.after(from), |at| real.after(*at))
            .take(count)
            .map(|at| at.format("%d %H:%M").to_string())
            .collect()
    }

    #[test]
    fn an_hour_that_is_shown_twice_has_its_runs_twice() {
        // On 25 October 2026 the clock of Berlin goes from 03:00 to 02:00, at 01:00 UTC.
        let found = runs("*/30 * * * *", "2026-10-24T23:45:00Z", 6);
        assert_eq!(found, ["25 00:00", "25 00:30", "25 01:00", "25 01:30", "25 02:00", "25 02:30"]);
    }

    #[test]
    fn a_run_after_a_fraction_of_a_second_before_the_clock_changes_is_found() {
        assert_eq!(runs("0 * * * *", "2026-03-29T00:59:58.250Z", 2), ["29 01:00", "29 02:00"]);
        assert_eq!(runs("30 * * * *", "2026-10-25T00:30:00.001Z", 2), ["25 01:30", "25 02:30"]);
        assert_eq!(runs("7 * * * *", "2026-03-29T00:07:00.999999Z", 1), ["29 01:07"]);
    }

    #[test]
    fn an_hour_that_is_left_out_has_none() {
        // On 29 March 2026 from 02:00 to 03:00, at 01:00 UTC.
        let found = runs("*/30 * * * *", "2026-03-29T00:15:00Z", 3);
        assert_eq!(found, ["29 00:30", "29 01:00", "29 01:30"]);
        let found = runs("*/30 2 * * *", "2026-03-28T12:00:00Z", 2);
        assert_eq!(found, ["30 00:00", "30 00:30"]);
    }
}
