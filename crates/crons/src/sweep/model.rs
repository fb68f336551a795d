//! A fleet in memory: monitors of many zones go through changes of their clocks while pings get lost and the
//! server is down for a while. When runs are due is worked out here from the clock on the wall, by none of our
//! own schedules. `LOOM_TEST_FLEET=100000` makes it as large.

#![allow(
    clippy::disallowed_methods,
    reason = "how large the fleet is, the one who runs the test says"
)]

use std::{collections::BTreeMap, sync::Arc};

use chrono::{LocalResult, NaiveDate, TimeZone, Timelike};
use chrono_tz::Tz;
use loom_core::id::OrgId;

use super::*;
use crate::{
    draft::MonitorDraft,
    judge::Turn,
    model::{DEFAULT_ENVIRONMENT, Health},
    report::{Kind, Report, RunKey},
    schedule::Schedule,
};

const ZONES: [Tz; 10] = [
    Tz::UTC,
    Tz::Europe__Berlin,
    Tz::Europe__London,
    Tz::America__New_York,
    Tz::America__Los_Angeles,
    Tz::America__St_Johns,
    Tz::Asia__Kolkata,
    Tz::Asia__Kathmandu,
    Tz::Australia__Lord_Howe,
    Tz::Pacific__Auckland,
];
/// Noon before the night in which clocks change: forward in America and Europe, back there and in the south.
const NIGHTS: [&str; 6] = [
    "2026-03-07T12:00:00Z",
    "2026-03-28T12:00:00Z",
    "2026-04-04T00:00:00Z",
    "2026-09-26T00:00:00Z",
    "2026-10-24T12:00:00Z",
    "2026-10-31T12:00:00Z",
];
const LENGTH: TimeDelta = TimeDelta::hours(48);
/// The server is down from that hour on, for so long.
const DOWN: (TimeDelta, TimeDelta) = (TimeDelta::minutes(13 * 60 + 7), TimeDelta::minutes(47));
const MINUTE: TimeDelta = TimeDelta::minutes(1);
const MARGIN_MINUTES: f64 = 5.0;
const MINUTES: [u32; 6] = [0, 7, 15, 30, 47, 59];

/// Small steps of a generator with a seed: the same fleet in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

/// Each day at a time of the day, or each hour.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Job {
    zone: usize,
    hour: Option<u32>,
    minute: u32,
}

impl Job {
    fn expression(self) -> String {
        let hour = self.hour.map_or_else(|| "*".to_owned(), |hour| hour.to_string());
        format!("{} {hour} * * *", self.minute)
    }

    fn monitor(self, now: DateTime<Utc>) -> Arc<Monitor> {
        let schedule = Schedule::Crontab { expression: self.expression() };
        let mut draft = MonitorDraft::plain("job".to_owned(), schedule, MARGIN_MINUTES);
        draft.timezone = ZONES[self.zone].name().to_owned();
        let org = OrgId(uuid::Uuid::from_u128(1));
        Arc::new(draft.check(org, None, "api", now).unwrap().0)
    }

    /// When it runs, from the clock on the wall.
    fn runs(self, from: DateTime<Utc>, to: DateTime<Utc>) -> Vec<DateTime<Utc>> {
        let zone = ZONES[self.zone];
        let mut all = Vec::new();
        match self.hour {
            // By the time that really passes: whenever the minute is shown.
            None => {
                let mut at = from;
                while at <= to {
                    if at.with_timezone(&zone).minute() == self.minute {
                        all.push(at);
                    }
                    at += MINUTE;
                }
            }
            // Once in each day: the first time it is shown, or what is shown instead.
            Some(hour) => {
                let first = from.with_timezone(&zone).date_naive().pred_opt().unwrap();
                for day in first.iter_days().take(5) {
                    all.push(first_shown(zone, day, hour, self.minute));
                }
            }
        }
        all.retain(|at| *at > from && *at <= to);
        all
    }
}

fn first_shown(zone: Tz, day: NaiveDate, hour: u32, minute: u32) -> DateTime<Utc> {
    let mut local = day.and_hms_opt(hour, minute, 0).unwrap();
    loop {
        match zone.from_local_datetime(&local) {
            LocalResult::Single(at) | LocalResult::Ambiguous(at, _) => return at.to_utc(),
            LocalResult::None => local += MINUTE,
        }
    }
}

/// What became of one monitor.
#[derive(Default)]
struct Found {
    /// Runs said to be missed: when they were expected, and when that was found.
    missed: BTreeMap<DateTime<Utc>, DateTime<Utc>>,
    unknown: usize,
    opened: usize,
}

/// Pings come and the server looks each minute, in the order of time.
fn simulate(monitor: &Arc<Monitor>, pings: &[DateTime<Utc>], start: DateTime<Utc>) -> Found {
    let (down, up) = (start + DOWN.0, start + DOWN.0 + DOWN.1);
    let gap = [Gap { from: down, to: up }];
    let expected = monitor.plan.after(start);
    let mut state = EnvironmentState {
        name: DEFAULT_ENVIRONMENT.to_owned(),
        health: Health::Unknown,
        last_checkin: None,
        expected_at: expected,
        due_at: monitor.due(expected),
        judged_at: None,
        failures: 0,
        successes: 0,
        incident: None,
    };
    let place: Place = (monitor.id, state.name.clone());
    let mut found = Found::default();
    let mut pings = pings.iter().copied().peekable();
    loop {
        // The first look at which it is due; each minute there is one, and one when the server is back.
        let look = state.due_at.map(|due| {
            let wait = due + ON_ITS_WAY - start;
            let mut minutes = wait.num_minutes();
            if start + TimeDelta::minutes(minutes) < due + ON_ITS_WAY {
                minutes += 1;
            }
            let at = start + TimeDelta::minutes(minutes);
            if at >= down && at < up { up } else { at }
        });
        let look = look.filter(|at| *at <= start + LENGTH);
        let ping = pings.peek().copied().filter(|at| look.is_none_or(|look| *at <= look));
        let mut work = Work::new(ping.or(look).unwrap_or(start));
        match (ping, look) {
            (Some(at), _) => {
                pings.next();
                work.hold(Arc::clone(monitor), state);
                let what = (RunKey::Newest(false), Kind::End { ok: true });
                let environment = DEFAULT_ENVIRONMENT.to_owned();
                work.apply(&Report::new(
                    Arc::clone(monitor),
                    environment,
                    what,
                    at,
                    None,
                    at,
                    Source::Ping,
                ));
            }
            (None, Some(now)) => {
                let gaps: &[Gap] = if now >= up { &gap } else { &[] };
                miss(&mut work, monitor, state, gaps, now);
                for row in &work.rows {
                    match row.status {
                        Status::Missed => {
                            let twice = found.missed.insert(row.at, now);
                            assert!(twice.is_none(), "{} was found twice", row.at);
                        }
                        Status::Unknown => found.unknown += 1,
                        other => panic!("{other:?}"),
                    }
                }
            }
            (None, None) => return found,
        }
        for change in &work.changes {
            if matches!(change.turn, Turn::Opened(_)) {
                assert_eq!(change.status, Status::Missed);
                found.opened += 1;
            }
        }
        state = work.held.remove(&place).unwrap().state;
    }
}

/// A fleet through one night; gives how many runs there were, were missed, and were not known.
fn night(start: DateTime<Utc>, count: usize, seed: u64) -> (usize, usize, usize) {
    let mut dice = Dice(seed);
    let mut known = BTreeMap::new();
    let (down, up) = (start + DOWN.0, start + DOWN.0 + DOWN.1);
    let (mut all, mut missed, mut unknown) = (0, 0, 0);
    for _ in 0..count {
        let job = Job {
            zone: usize::try_from(dice.roll(ZONES.len() as u64)).unwrap(),
            hour: (dice.roll(5) > 0).then(|| u32::try_from(dice.roll(24)).unwrap()),
            minute: MINUTES[usize::try_from(dice.roll(MINUTES.len() as u64)).unwrap()],
        };
        // Those that are alike differ in what is heard of them.
        let (runs, monitor) = known
            .entry(job)
            .or_insert_with(|| (job.runs(start, start + LENGTH), job.monitor(start)));
        let margin = monitor.margin();
        let said = |what: &str, at: DateTime<Utc>| {
            format!("seed {seed}: `{}` in {}: {at} {what}", job.expression(), ZONES[job.zone])
        };
        // One of twenty gets lost, and so does what comes while nobody is there.
        let mut heard = Vec::new();
        let mut lost = Vec::new();
        for run in runs.iter() {
            let late = TimeDelta::milliseconds(i64::try_from(dice.roll(280_000)).unwrap());
            let at = *run + late;
            let finds_nobody = at >= down && at < up;
            if dice.roll(20) == 0 || finds_nobody { lost.push(*run) } else { heard.push(at) }
        }
        let found = simulate(monitor, &heard, start);
        for (at, found_at) in &found.missed {
            assert!(lost.contains(at), "{}", said("was said to be missed, and was not", *at));
            let after = *found_at - (*at + margin);
            // What was due right before the outage is found right after it.
            let in_time = after <= MINUTE + ON_ITS_WAY || *found_at == up;
            assert!(in_time, "{}", said("was found too late", *at));
        }
        for run in lost.iter().filter(|run| **run + margin + MINUTE * 2 <= start + LENGTH) {
            // What the outage touches may not be known.
            let is_touched = *run - EARLY < up && *run + margin + MINUTE > down;
            if !is_touched {
                assert!(found.missed.contains_key(run), "{}", said("was not found", *run));
            }
        }
        assert!(found.opened <= found.missed.len());
        assert_eq!(found.opened == 0, found.missed.is_empty());
        all += runs.len();
        missed += found.missed.len();
        unknown += found.unknown;
    }
    (all, missed, unknown)
}

#[test]
fn a_fleet_in_many_zones_goes_through_changes_of_clocks_and_an_outage_without_a_false_alarm() {
    let count = std::env::var("LOOM_TEST_FLEET").ok().and_then(|count| count.parse().ok());
    let count: usize = count.unwrap_or(3_000);
    std::thread::scope(|scope| {
        let nights: Vec<_> = NIGHTS
            .iter()
            .enumerate()
            .map(|(seed, start)| {
                let start = start.parse().unwrap();
                scope.spawn(move || night(start, count, seed as u64 + 1))
            })
            .collect();
        for night in nights {
            let (all, missed, unknown) = night.join().unwrap();
            assert!(all > count && missed > count / 50 && unknown > 0, "{all} {missed} {unknown}");
        }
    });
}
