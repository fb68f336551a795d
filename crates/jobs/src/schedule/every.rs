//! An interval: due at its multiples since 1970.

use std::time::Duration;

use chrono::{DateTime, Utc};

#[derive(Clone, Copy, Debug)]
pub(crate) struct Every {
    micros: i64,
}

impl Every {
    pub(crate) fn new(interval: Duration) -> Result<Self, String> {
        if interval.is_zero() || interval.subsec_nanos() != 0 {
            return Err(format!("the interval is not whole seconds: {interval:?}"));
        }
        Ok(Self { micros: i64::try_from(interval.as_micros()).unwrap_or(i64::MAX) })
    }

    pub(crate) fn floor(self, at: DateTime<Utc>) -> DateTime<Utc> {
        let slot = at.timestamp_micros().div_euclid(self.micros).saturating_mul(self.micros);
        DateTime::from_timestamp_micros(slot).unwrap_or(at)
    }

    pub(crate) fn after(self, at: DateTime<Utc>) -> DateTime<Utc> {
        let slot = self.floor(at).timestamp_micros().saturating_add(self.micros);
        DateTime::from_timestamp_micros(slot).unwrap_or(DateTime::<Utc>::MAX_UTC)
    }

    pub(crate) fn between(self, taken: DateTime<Utc>, slot: DateTime<Utc>) -> i32 {
        let steps = (slot.timestamp_micros() - taken.timestamp_micros()).div_euclid(self.micros);
        i32::try_from((steps - 1).max(0)).unwrap_or(i32::MAX)
    }
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
        let (hourly, daily) = (Every::new(HOUR).unwrap(), Every::new(HOUR * 24).unwrap());
        assert_eq!(hourly.floor(now), at("2026-03-01T10:00:00Z"));
        assert_eq!(hourly.after(now), at("2026-03-01T11:00:00Z"));
        assert_eq!(daily.floor(now), at("2026-03-01T00:00:00Z"));
        assert_eq!(hourly.floor(at("2026-03-01T10:00:00Z")), at("2026-03-01T10:00:00Z"));
        assert_eq!(hourly.floor(at("1969-12-31T23:30:00Z")), at("1969-12-31T23:00:00Z"));
    }

    #[test]
    fn extremes_do_not_overflow() {
        let longest = Every::new(Duration::from_secs(u64::MAX)).unwrap();
        assert_eq!(longest.after(at("2026-03-01T10:00:00Z")), DateTime::<Utc>::MAX_UTC);
    }
}
