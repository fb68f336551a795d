//! The edges of a series by the clock on the wall of a place: a day has 23 or 25 hours where the clock is
//! changed, and begins at a half hour of UTC where zones do.

use chrono::{DateTime, Days, NaiveDate, NaiveTime, TimeDelta, TimeZone, Utc};
use chrono_tz::Tz;
use loom_core::{Error, Result};

use crate::session::{SLOT, slot};

/// Points of one series.
const MOST: usize = 2000;

/// How long the steps of a series are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Of real time, a multiple of half an hour.
    Time(TimeDelta),
    /// Of the calendar.
    Days(u64),
}

impl Step {
    /// `30m`, `1h`, `6h`, `1d`, `1w`.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let wrong = || {
            Error::invalid(
                "interval",
                "is a number and a unit, as 30m, 1h, 6h, 1d, 1w; minutes are a multiple of 30",
            )
        };
        let unit = text.chars().last().ok_or_else(wrong)?;
        let number = text.strip_suffix(unit).unwrap_or_default();
        let number: u32 =
            number.parse().ok().filter(|n| (1..=10_000).contains(n)).ok_or_else(wrong)?;
        match unit {
            'm' if number.is_multiple_of(30) => Ok(Self::Time(TimeDelta::minutes(number.into()))),
            'h' => Ok(Self::Time(TimeDelta::hours(number.into()))),
            'd' => Ok(Self::Days(number.into())),
            'w' => Ok(Self::Days(u64::from(number) * 7)),
            _ => Err(wrong()),
        }
    }
}

/// The zone of this name.
pub(crate) fn zone(name: Option<&str>) -> Result<Tz> {
    name.map_or(Ok(Tz::UTC), |name| {
        name.parse().map_err(|_| {
            Error::invalid("timezone", "is a name of the IANA database, as Europe/Berlin")
        })
    })
}

/// When a day begins: at midnight, or where the clock skips that, at the first time it shows. Cut to half
/// hours, which is what sums are kept by.
fn midnight(zone: Tz, day: NaiveDate) -> DateTime<Utc> {
    let naive = day.and_time(NaiveTime::MIN);
    let mut later = naive;
    for _ in 0..48 {
        if let Some(at) = zone.from_local_datetime(&later).earliest() {
            return slot(at.with_timezone(&Utc));
        }
        later += SLOT;
    }
    slot(naive.and_utc())
}

/// The edges around `from` to `to`: one more than there are points.
///
/// # Errors
/// 422 when there are too many.
pub(crate) fn edges(
    zone: Tz,
    step: Step,
    from: DateTime<Utc>,
    to: DateTime<Utc>,
) -> Result<Vec<DateTime<Utc>>> {
    if from >= to {
        return Err(Error::invalid("from", "is before `to`"));
    }
    let mut edges = Vec::new();
    let day = from.with_timezone(&zone).date_naive();
    let mut at = match step {
        Step::Days(_) => midnight(zone, day),
        Step::Time(step) => {
            // Steps are counted from the day's begin, so that hours begin where the clock's do.
            let begin = midnight(zone, day);
            let steps = (from - begin).num_seconds().div_euclid(step.num_seconds().max(1));
            let back = i32::try_from(steps).ok().and_then(|steps| step.checked_mul(steps));
            begin + back.unwrap_or_default()
        }
    };
    let mut next_day = day;
    loop {
        edges.push(at);
        if at >= to {
            return Ok(edges);
        }
        if edges.len() > MOST {
            return Err(Error::invalid(
                "interval",
                format!("gives more than {MOST} points; take a longer one, or less time"),
            ));
        }
        at = match step {
            Step::Time(step) => at.checked_add_signed(step).ok_or_else(out_of_range)?,
            Step::Days(days) => {
                next_day = next_day.checked_add_days(Days::new(days)).ok_or_else(out_of_range)?;
                midnight(zone, next_day)
            }
        };
    }
}

fn out_of_range() -> Error {
    Error::invalid("to", "is out of range")
}

#[cfg(test)]
mod tests {
    use chrono::{DateTime, Utc};

    use super::{Step, edges, zone};

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    fn days(name: &str, from: &str, to: &str) -> Vec<i64> {
        let edges = edges(zone(Some(name)).unwrap(), Step::Days(1), at(from), at(to)).unwrap();
        edges.windows(2).map(|pair| (pair[1] - pair[0]).num_minutes()).collect()
    }

    #[test]
    fn days_on_which_the_clock_is_changed_are_shorter_or_longer() {
        let berlin = days("Europe/Berlin", "2026-03-27T23:00:00Z", "2026-03-30T22:00:00Z");
        assert_eq!(berlin, [1440, 23 * 60, 1440]);
        let berlin = days("Europe/Berlin", "2026-10-24T00:00:00Z", "2026-10-26T12:00:00Z");
        assert_eq!(berlin, [1440, 25 * 60, 1440]);
        // By half an hour, on an island.
        let island = days("Australia/Lord_Howe", "2026-04-04T00:00:00Z", "2026-04-05T12:00:00Z");
        assert_eq!(island, [1440, 24 * 60 + 30]);
        // Midnight itself is skipped.
        let beirut = days("Asia/Beirut", "2026-03-28T00:00:00Z", "2026-03-29T12:00:00Z");
        assert_eq!(beirut, [1440, 23 * 60]);
    }

    #[test]
    fn days_begin_at_half_hours_where_zones_do() {
        let kolkata = zone(Some("Asia/Kolkata")).unwrap();
        let edges =
            edges(kolkata, Step::Days(1), at("2026-01-10T00:00:00Z"), at("2026-01-10T20:00:00Z"));
        assert_eq!(
            edges.unwrap(),
            [at("2026-01-09T18:30:00Z"), at("2026-01-10T18:30:00Z"), at("2026-01-11T18:30:00Z")]
        );
    }

    #[test]
    fn hours_are_of_real_time() {
        let berlin = zone(Some("Europe/Berlin")).unwrap();
        let step = Step::parse("1h").unwrap();
        let of_day = |from, to| edges(berlin, step, at(from), at(to)).unwrap().len() - 1;
        assert_eq!(of_day("2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z"), 23);
        assert_eq!(of_day("2026-10-24T22:00:00Z", "2026-10-25T23:00:00Z"), 25);
    }

    #[test]
    fn intervals_are_what_sums_can_give() {
        assert_eq!(Step::parse("1w").unwrap(), Step::Days(7));
        for wrong in ["", "h", "0h", "45m", "1x", "-1d", "1.5h", "99999d", "é"] {
            assert!(Step::parse(wrong).is_err(), "{wrong}");
        }
        let from = at("2020-01-01T00:00:00Z");
        assert!(
            edges(chrono_tz::UTC, Step::parse("1h").unwrap(), from, at("2026-01-01T00:00:00Z"))
                .is_err()
        );
        assert!(edges(chrono_tz::UTC, Step::Days(1), from, from).is_err());
    }
}
