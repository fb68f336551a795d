//! When a job is due: at the multiples of its interval since 1970.

use std::time::Duration;

use chrono::{DateTime, Utc};

/// The newest slot that is not after `at`.
pub(crate) fn floor(at: DateTime<Utc>, interval: Duration) -> DateTime<Utc> {
    let step = micros(interval);
    let slot = at.timestamp_micros().div_euclid(step).saturating_mul(step);
    DateTime::from_timestamp_micros(slot).unwrap_or(at)
}

/// The first slot after `at`.
pub(crate) fn after(at: DateTime<Utc>, interval: Duration) -> DateTime<Utc> {
    DateTime::from_timestamp_micros(
        floor(at, interval).timestamp_micros().saturating_add(micros(interval)),
    )
    .unwrap_or(DateTime::<Utc>::MAX_UTC)
}

/// When to run next, `taken` being the newest slot that was taken. Slots that were missed count as
/// one: the newest, at once.
pub(crate) fn next(taken: DateTime<Utc>, now: DateTime<Utc>, interval: Duration) -> DateTime<Utc> {
    let newest = floor(now, interval);
    if newest > taken { newest } else { after(taken, interval) }
}

fn micros(interval: Duration) -> i64 {
    i64::try_from(interval.as_micros()).unwrap_or(i64::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn slots_are_anchored_to_the_hour_and_the_day() {
        let now = at("2026-03-01T10:20:30.5Z");
        assert_eq!(floor(now, HOUR), at("2026-03-01T10:00:00Z"));
        assert_eq!(after(now, HOUR), at("2026-03-01T11:00:00Z"));
        assert_eq!(floor(now, HOUR * 24), at("2026-03-01T00:00:00Z"));
        assert_eq!(floor(at("2026-03-01T10:00:00Z"), HOUR), at("2026-03-01T10:00:00Z"));
        assert_eq!(floor(at("1969-12-31T23:30:00Z"), HOUR), at("1969-12-31T23:00:00Z"));
    }

    #[test]
    fn missed_slots_are_one_and_a_taken_one_is_not_due() {
        let now = at("2026-03-01T10:20:30Z");
        assert_eq!(next(at("2026-03-01T03:00:00Z"), now, HOUR), at("2026-03-01T10:00:00Z"));
        assert_eq!(next(at("2026-03-01T10:00:00Z"), now, HOUR), at("2026-03-01T11:00:00Z"));
        // The clock went back, or the interval became longer.
        assert_eq!(next(at("2026-03-01T12:30:00Z"), now, HOUR), at("2026-03-01T13:00:00Z"));
    }

    #[test]
    fn extremes_do_not_overflow() {
        assert_eq!(after(at("2026-03-01T10:00:00Z"), Duration::MAX), DateTime::<Utc>::MAX_UTC);
        let _ = floor(at("2026-03-01T10:00:00Z"), Duration::ZERO);
    }
}
