//! Times of the day at which nobody wants to hear of a monitor.

use chrono::{DateTime, Datelike, NaiveTime, Utc, Weekday};
use chrono_tz::Tz;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// From one time of the day to another, in the zone of the monitor; past midnight when the end is before the
/// beginning. Runs are watched all the same; alerts wait for the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct MuteWindow {
    /// Days that it begins on, as `mon`; none are all.
    #[serde(default)]
    pub(crate) days: Vec<String>,
    /// As `22:00`.
    pub(crate) from: String,
    /// As `06:00`.
    pub(crate) to: String,
}

fn time(text: &str) -> Option<NaiveTime> {
    NaiveTime::parse_from_str(text, "%H:%M").ok()
}

impl MuteWindow {
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn check(&self) -> Result<(), String> {
        let (Some(from), Some(to)) = (time(&self.from), time(&self.to)) else {
            return Err("`from` and `to` are times of the day, as 22:00".to_owned());
        };
        if from == to {
            return Err(
                "`from` and `to` are the same; to mute it whole, set `muted_until`".to_owned()
            );
        }
        if self.days.len() > 7 || self.days.iter().any(|day| day.parse::<Weekday>().is_err()) {
            return Err("`days` are of mon, tue, wed, thu, fri, sat, sun".to_owned());
        }
        Ok(())
    }

    pub(crate) fn holds(&self, now: DateTime<Utc>, zone: Tz) -> bool {
        let (Some(from), Some(to)) = (time(&self.from), time(&self.to)) else { return false };
        let local = now.with_timezone(&zone).naive_local();
        let (today, at) = (local.date().weekday(), local.time());
        let on = |day: Weekday| {
            self.days.is_empty() || self.days.iter().any(|name| name.parse() == Ok(day))
        };
        if from < to {
            on(today) && at >= from && at < to
        } else {
            (on(today) && at >= from) || (on(today.pred()) && at < to)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_may_go_past_midnight_and_belongs_to_the_day_it_began_on() {
        let window =
            MuteWindow { days: vec!["fri".into()], from: "22:00".into(), to: "06:00".into() };
        window.check().unwrap();
        // In winter Berlin is an hour ahead; 2 January 2026 is a Friday.
        for (at, muted) in [
            ("2026-01-02T20:59:00Z", false),
            ("2026-01-02T21:00:00Z", true),
            ("2026-01-03T04:59:00Z", true),
            ("2026-01-03T05:00:00Z", false),
            ("2026-01-03T21:30:00Z", false),
        ] {
            assert_eq!(window.holds(at.parse().unwrap(), chrono_tz::Europe::Berlin), muted, "{at}");
        }
    }
}
