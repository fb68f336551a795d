//! When a monitored job runs: what a schedule may be, and which runs follow from it.

#[cfg(test)]
mod oracle;
mod real;

use std::str::FromStr;

use chrono::{DateTime, Months, TimeDelta, TimeZone, Utc};
use chrono_tz::Tz;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A job whose clock is a little fast checks in before its time; so much counts as in time.
const EARLY: TimeDelta = TimeDelta::seconds(30);
const EXPRESSION_MAX: usize = 200;
/// Nothing that is rarer can be watched.
const LONGEST_DAYS: i64 = 3660;

/// When a job runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Schedule {
    /// Five fields as in crontab: minute, hour, day of the month, month, day of the week. Names (`MON`,
    /// `JAN`), `L` (the last), `#` (`FRI#2`) and `@hourly`, `@daily`, `@weekly`, `@monthly`, `@yearly`
    /// are understood.
    Crontab { expression: String },
    /// So long after the run before.
    Interval { value: u32, unit: Unit },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Only so that one who asks for it is told why not.
    Second,
    Minute,
    Hour,
    Day,
    Week,
    Month,
    Year,
}

/// A schedule that was checked, in its zone.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    kind: Kind,
    zone: Tz,
}

#[derive(Clone, Debug)]
enum Kind {
    /// By the clock on the wall: minute and hour are named.
    Wall(Box<loom_jobs::Cron>),
    /// Each so many minutes or hours: by the time that really passes.
    Real(Box<real::Real>),
    Interval(u32, Unit),
}

/// Why there is no such schedule: the field, and what is wrong.
pub(crate) type Refusal = (&'static str, String);

impl Plan {
    pub(crate) fn of(schedule: &Schedule, zone: &str, now: DateTime<Utc>) -> Result<Self, Refusal> {
        let zone_name = zone;
        let zone = zone_of(zone)?;
        let kind = match schedule {
            Schedule::Interval { value, unit } => {
                check_interval(*value, *unit)?;
                Kind::Interval(*value, *unit)
            }
            Schedule::Crontab { expression } => {
                let expression = five_fields(expression)?;
                let wrong = |why: String| ("schedule.expression", why);
                croner::Cron::from_str(&expression)
                    .map_err(|why| wrong(format!("is no cron expression: {why}")))?;
                let mut fields = expression.split_ascii_whitespace();
                // As Vixie's cron has it, and all that came after.
                if fields.by_ref().take(2).any(|field| field.starts_with('*')) {
                    Kind::Real(Box::new(real::Real::new(&expression, zone).map_err(wrong)?))
                } else {
                    let cron = loom_jobs::Cron::new(&expression, zone_name);
                    Kind::Wall(Box::new(cron.map_err(wrong)?))
                }
            }
        };
        let plan = Self { kind, zone };
        if plan.after(now).is_none() {
            let why = "never fires: no day is as it says".to_owned();
            return Err(("schedule.expression", why));
        }
        Ok(plan)
    }

    pub(crate) fn zone(&self) -> Tz {
        self.zone
    }

    /// The first run after `at`; of an interval: after a run at `at`.
    pub(crate) fn after(&self, at: DateTime<Utc>) -> Option<DateTime<Utc>> {
        match &self.kind {
            Kind::Wall(cron) => cron.after(at),
            Kind::Real(real) => real.after(at),
            Kind::Interval(value, unit) => later(at, self.zone, *value, *unit),
        }
    }

    /// The next `count` runs.
    pub(crate) fn runs(&self, from: DateTime<Utc>, count: usize) -> Vec<DateTime<Utc>> {
        std::iter::successors(self.after(from), |at| self.after(*at)).take(count).collect()
    }

    /// How much before its time a run at or after `at` may be, and still be that run.
    pub(crate) fn early(&self, at: DateTime<Utc>) -> TimeDelta {
        let runs = self.runs(at, 2);
        match runs.as_slice() {
            [first, second] if matches!(self.kind, Kind::Wall(_) | Kind::Real(_)) => {
                ((*second - *first) / 10).min(EARLY)
            }
            _ => TimeDelta::zero(),
        }
    }

    /// The run to wait for when one began at `at`.
    pub(crate) fn expected_after(&self, at: DateTime<Utc>) -> Option<DateTime<Utc>> {
        self.after(at + self.early(at))
    }
}

pub(crate) fn zone_of(name: &str) -> Result<Tz, Refusal> {
    name.parse().map_err(|_| {
        let shown: String = name.chars().take(60).filter(|c| !c.is_control()).collect();
        (
            "timezone",
            format!("there is no time zone `{shown}`; they are named as Europe/Berlin or UTC"),
        )
    })
}

fn check_interval(value: u32, unit: Unit) -> Result<(), Refusal> {
    let days = i64::from(value).saturating_mul(match unit {
        Unit::Second | Unit::Minute | Unit::Hour => 0,
        Unit::Day => 1,
        Unit::Week => 7,
        Unit::Month => 30,
        Unit::Year => 365,
    });
    let seconds = match unit {
        Unit::Second => i64::from(value),
        Unit::Minute => i64::from(value) * 60,
        Unit::Hour => i64::from(value) * 3600,
        Unit::Day | Unit::Week | Unit::Month | Unit::Year => days * 86_400,
    };
    if seconds < 60 {
        let why = "fires too often: once a minute is the most that can be watched".to_owned();
        return Err(("schedule.value", why));
    }
    if unit == Unit::Second {
        return Err(("schedule.unit", "is minute, hour, day, week, month or year".to_owned()));
    }
    if seconds > LONGEST_DAYS * 86_400 {
        return Err(("schedule.value", "fires too seldom: ten years is the longest".to_owned()));
    }
    Ok(())
}

/// The expression, nicknames written out.
fn five_fields(expression: &str) -> Result<String, Refusal> {
    let wrong = |why: &str| Err(("schedule.expression", why.to_owned()));
    if expression.len() > EXPRESSION_MAX || expression.chars().any(char::is_control) {
        return wrong("is one line of at most 200 bytes");
    }
    let expression = expression.trim();
    let named = match expression.to_ascii_lowercase().as_str() {
        "@yearly" | "@annually" => Some("0 0 1 1 *"),
        "@monthly" => Some("0 0 1 * *"),
        "@weekly" => Some("0 0 * * 0"),
        "@daily" | "@midnight" => Some("0 0 * * *"),
        "@hourly" => Some("0 * * * *"),
        "@reboot" => return wrong("`@reboot` says nothing of when it fires"),
        _ => None,
    };
    if let Some(named) = named {
        return Ok(named.to_owned());
    }
    match expression.split_ascii_whitespace().count() {
        5 => Ok(expression.to_owned()),
        6 => wrong(
            "has six fields: seconds (fires too often: once a minute is the most that can be watched) or \
             years are not understood; five are minute, hour, day of the month, month, day of the week",
        ),
        count => Err((
            "schedule.expression",
            format!(
                "has {count} fields; five are minute, hour, day of the month, month, day of the week"
            ),
        )),
    }
}

fn later(at: DateTime<Utc>, zone: Tz, value: u32, unit: Unit) -> Option<DateTime<Utc>> {
    let n = i64::from(value);
    let by = match unit {
        Unit::Second => TimeDelta::seconds(n),
        Unit::Minute => TimeDelta::minutes(n),
        Unit::Hour => TimeDelta::hours(n),
        Unit::Day => TimeDelta::days(n),
        Unit::Week => TimeDelta::weeks(n),
        Unit::Month | Unit::Year => {
            let months = Months::new(value.checked_mul(if unit == Unit::Year { 12 } else { 1 })?);
            let local = at.with_timezone(&zone).naive_local().checked_add_months(months)?;
            // In a gap of the clock: an hour later it shows something again.
            let shown = |local| zone.from_local_datetime(&local).earliest();
            let found = shown(local).or_else(|| shown(local + TimeDelta::hours(1)));
            return Some(found?.to_utc());
        }
    };
    at.checked_add_signed(by)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    fn plan(expression: &str, zone: &str) -> Result<Plan, Refusal> {
        let schedule = Schedule::Crontab { expression: expression.to_owned() };
        Plan::of(&schedule, zone, at("2026-01-01T00:00:00Z"))
    }

    #[test]
    fn what_cannot_be_watched_is_refused_with_the_reason() {
        for (expression, zone, reason) in [
            ("* * * * * *", "UTC", "six fields"),
            ("* * * * * * *", "UTC", "7 fields"),
            ("* * *", "UTC", "3 fields"),
            ("61 * * * *", "UTC", "no cron expression"),
            ("0 0 30 2 *", "UTC", "never"),
            ("* * 31 2 *", "UTC", "never"),
            ("0 0 * * *", "Mars/Base", "Mars/Base"),
            ("@reboot", "UTC", "@reboot"),
        ] {
            let (_, why) = plan(expression, zone).unwrap_err();
            assert!(why.contains(reason), "{expression}: {why}");
        }
        for (value, unit, reason) in [
            (0, Unit::Minute, "too often"),
            (30, Unit::Second, "too often"),
            (11, Unit::Year, "seldom"),
        ] {
            let schedule = Schedule::Interval { value, unit };
            let (_, why) = Plan::of(&schedule, "UTC", at("2026-01-01T00:00:00Z")).unwrap_err();
            assert!(why.contains(reason), "{value} {unit:?}: {why}");
        }
    }

    #[test]
    fn names_last_and_nth_days_are_understood() {
        let first = |expression| {
            plan(expression, "UTC").unwrap().after(at("2026-01-01T00:00:00Z")).unwrap().to_rfc3339()
        };
        assert_eq!(first("0 12 L * *"), "2026-01-31T12:00:00+00:00");
        assert_eq!(first("0 12 * * FRI#2"), "2026-01-09T12:00:00+00:00");
        assert_eq!(first("0 12 * * FRIL"), "2026-01-30T12:00:00+00:00");
        assert_eq!(first("0 12 * FEB MON"), "2026-02-02T12:00:00+00:00");
        assert_eq!(first("@daily"), "2026-01-02T00:00:00+00:00");
    }

    #[test]
    fn a_run_a_little_before_its_time_is_that_run() {
        let hourly = plan("0 * * * *", "UTC").unwrap();
        let expected = |from: &str| hourly.expected_after(at(from)).unwrap().to_rfc3339();
        assert_eq!(expected("2026-01-01T11:59:45Z"), "2026-01-01T13:00:00+00:00");
        assert_eq!(expected("2026-01-01T11:59:15Z"), "2026-01-01T12:00:00+00:00");
        assert_eq!(expected("2026-01-01T12:00:00Z"), "2026-01-01T13:00:00+00:00");
        let minutely = plan("* * * * *", "UTC").unwrap();
        let early = minutely.early(at("2026-01-01T12:00:30Z"));
        assert_eq!(early, TimeDelta::seconds(6));
    }

    #[test]
    fn months_are_counted_on_the_calendar_of_the_place() {
        let schedule = Schedule::Interval { value: 1, unit: Unit::Month };
        let plan = Plan::of(&schedule, "Europe/Berlin", at("2026-01-01T00:00:00Z")).unwrap();
        assert_eq!(plan.after(at("2026-03-15T12:00:00Z")), Some(at("2026-04-15T11:00:00Z")));
        assert_eq!(plan.after(at("2026-01-31T12:00:00Z")), Some(at("2026-02-28T12:00:00Z")));
    }
}
