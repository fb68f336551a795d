//! Cron expressions by the clock on the wall. The expression is searched in local time, which knows
//! no gaps; what it finds is then placed on the line of time.

use std::{str::FromStr, time::Duration};

use chrono::{DateTime, NaiveDateTime, Offset, SubsecRound, TimeZone, Timelike, Utc};
use chrono_tz::Tz;

/// Longer than any hour that a clock shows twice.
const FOLD: Duration = Duration::from_secs(3 * 3600);
/// Seconds of a clock that shows an hour twice, and to spare.
const MOST_STEPS: usize = 20_000;
/// Minutes in the longest gap there was: Samoa left out a day.
const LONGEST_GAP: u64 = 25 * 60;

/// What runs by such an expression: a time that the clock skips is due once at the next that it shows, one
/// that it shows twice the first time only.
#[derive(Clone, Debug)]
pub struct Cron {
    pattern: croner::Cron,
    timezone: Tz,
}

impl Cron {
    /// # Errors
    /// Why there is no such schedule.
    pub fn new(expression: &str, timezone: &str) -> Result<Self, String> {
        let pattern = croner::Cron::from_str(expression)
            .map_err(|error| format!("the cron expression `{expression}`: {error}"))?;
        let timezone =
            timezone.parse().map_err(|_| format!("there is no time zone `{timezone}`"))?;
        let cron = Self { pattern, timezone };
        if cron.after(DateTime::UNIX_EPOCH).is_none() {
            return Err(format!("the cron expression `{expression}` is never due"));
        }
        Ok(cron)
    }

    /// When the clock on the wall first shows this, or anything later.
    fn instant(&self, local: NaiveDateTime) -> Option<DateTime<Utc>> {
        let shown = |local: &NaiveDateTime| self.timezone.from_local_datetime(local).earliest();
        let found = shown(&local).or_else(|| {
            let minute = local.with_second(0)?;
            (1..=LONGEST_GAP).find_map(|n| shown(&(minute + Duration::from_secs(n * 60))))
        })?;
        Some(found.to_utc())
    }

    fn offset(&self, at: DateTime<Utc>) -> chrono::FixedOffset {
        self.timezone.offset_from_utc_datetime(&at.naive_utc()).fix()
    }

    /// The first time after `at`.
    pub fn after(&self, at: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let mut local = at.with_timezone(&self.timezone).naive_local();
        for _ in 0..MOST_STEPS {
            local = self.pattern.find_next_occurrence(&local, false).ok()?;
            // Not when the clock shows the hour again, or the one that it skipped was this.
            if let Some(slot) = self.instant(local).filter(|slot| *slot > at) {
                return Some(slot);
            }
        }
        None
    }

    /// The last time that is not after `at`.
    pub fn floor(&self, at: DateTime<Utc>) -> Option<DateTime<Utc>> {
        // While an hour is shown again, its first showing may have been later in it.
        let offset =
            self.offset(at).local_minus_utc().max(self.offset(at - FOLD).local_minus_utc());
        let mut local =
            at.naive_utc().trunc_subsecs(0) + chrono::TimeDelta::seconds(i64::from(offset));
        for step in 0..MOST_STEPS {
            local = self.pattern.find_previous_occurrence(&local, step == 0).ok()?;
            if let Some(slot) = self.instant(local).filter(|slot| *slot <= at) {
                return Some(slot);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    /// The slots in a span, found forwards; that going backwards finds the same is checked each time.
    fn slots(expression: &str, timezone: &str, from: &str, to: &str) -> Vec<String> {
        let cron = Cron::new(expression, timezone).unwrap();
        let mut found = Vec::new();
        let mut slot = cron.after(at(from)).unwrap();
        while slot < at(to) {
            let next = cron.after(slot).unwrap();
            for within in [slot, slot + (next - slot) / 2, next - Duration::from_millis(1)] {
                assert_eq!(cron.floor(within), Some(slot), "at {within}");
            }
            found.push(slot.format("%d %H:%M").to_string());
            slot = next;
        }
        found
    }

    #[test]
    fn it_goes_by_the_clock_of_its_place() {
        // At 03:30 of Berlin, which is an hour ahead in winter and two in summer.
        let winter =
            slots("30 3 * * *", "Europe/Berlin", "2026-01-01T12:00:00Z", "2026-01-03T12:00:00Z");
        assert_eq!(winter, ["02 02:30", "03 02:30"]);
        let summer =
            slots("30 3 * * *", "Europe/Berlin", "2026-07-01T12:00:00Z", "2026-07-02T12:00:00Z");
        assert_eq!(summer, ["02 01:30"]);
        let seconds =
            slots("*/30 * * * * *", "UTC", "2026-07-01T12:00:00Z", "2026-07-01T12:01:01Z");
        assert_eq!(seconds, ["01 12:00", "01 12:01"]);
    }

    #[test]
    fn a_time_that_the_clock_skips_is_due_once_at_the_next_it_shows() {
        // On 29 March 2026 the clock of Berlin goes from 02:00 to 03:00, at 01:00 UTC.
        let (from, to) = ("2026-03-28T12:00:00Z", "2026-03-30T12:00:00Z");
        assert_eq!(slots("30 2 * * *", "Europe/Berlin", from, to), ["29 01:00", "30 00:30"]);
        let often = slots("*/15 2 * * *", "Europe/Berlin", from, "2026-03-29T12:00:00Z");
        assert_eq!(often, ["29 01:00"], "all four at once are one");
        // Also when the next that it shows is due by itself, and where a whole day was skipped.
        assert_eq!(
            slots("0 2,3 * * *", "Europe/Berlin", from, "2026-03-29T12:00:00Z"),
            ["29 01:00"]
        );
        let samoa =
            slots("0 12 * * *", "Pacific/Apia", "2011-12-29T00:00:00Z", "2011-12-31T12:00:00Z");
        assert_eq!(samoa, ["29 22:00", "30 10:00", "30 22:00"]);
    }

    #[test]
    fn a_time_that_the_clock_shows_twice_is_due_once() {
        // On 25 October 2026 the clock of Berlin goes from 03:00 to 02:00, at 01:00 UTC.
        let (from, to) = ("2026-10-24T12:00:00Z", "2026-10-26T12:00:00Z");
        assert_eq!(slots("30 2 * * *", "Europe/Berlin", from, to), ["25 00:30", "26 01:30"]);
        let often =
            slots("*/30 * * * *", "Europe/Berlin", "2026-10-24T23:59:00Z", "2026-10-25T02:31:00Z");
        assert_eq!(often, ["25 00:00", "25 00:30", "25 02:00", "25 02:30"]);
    }

    #[test]
    fn what_is_never_due_is_refused() {
        let error = Cron::new("0 0 31 2 *", "UTC").unwrap_err();
        assert!(error.contains("never due"), "{error}");
        assert!(Cron::new("0 0 29 2 *", "UTC").is_ok());
    }
}
