//! Our schedules against an implementation that is not ours: cronsim, in Python.

#![allow(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a test says what was compared, and with which Python"
)]

use std::{
    io::{BufRead as _, BufReader, Write as _},
    process::{Command, Stdio},
};

use chrono::{DateTime, TimeDelta, TimeZone, Utc};
use chrono_tz::{OffsetComponents, Tz};

use super::{Plan, Schedule};

const ZONES: [&str; 12] = [
    "UTC",
    "Europe/Berlin",
    "Europe/London",
    "America/New_York",
    "America/Los_Angeles",
    "America/Sao_Paulo",
    "America/St_Johns",
    "Africa/Casablanca",
    "Asia/Kolkata",
    "Asia/Tehran",
    "Australia/Lord_Howe",
    "Pacific/Auckland",
];

fn at(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

/// Our runs after the first time, up to the second.
fn ours(expression: &str, zone: &str, from: i64, to: i64) -> Vec<i64> {
    let schedule = Schedule::Crontab { expression: expression.to_owned() };
    let from = DateTime::from_timestamp(from, 0).unwrap();
    let plan = Plan::of(&schedule, zone, from).unwrap();
    std::iter::successors(plan.after(from), |at| plan.after(*at))
        .map(|at| at.timestamp())
        .take_while(|at| *at <= to)
        .collect()
}

fn offset(zone: Tz, at: DateTime<Utc>) -> TimeDelta {
    let offset = zone.offset_from_utc_datetime(&at.naive_utc());
    offset.base_utc_offset() + offset.dst_offset()
}

/// The days from 2020 to 2030 on which the clock of a place changes.
fn changes(zone: &str) -> Vec<DateTime<Utc>> {
    let zone: Tz = zone.parse().unwrap();
    let days = (0..4018).map(|day| at("2020-01-01T00:00:00Z") + TimeDelta::days(day));
    days.filter(|day| offset(zone, *day) != offset(zone, *day + TimeDelta::days(1))).collect()
}

fn python() -> Option<String> {
    let python = std::env::var("LOOM_TEST_PYTHON").ok()?;
    let has = Command::new(&python).args(["-c", "import cronsim"]).stderr(Stdio::null()).status();
    has.is_ok_and(|status| status.success()).then_some(python)
}

#[test]
fn ten_years_in_twelve_zones_are_as_an_implementation_that_is_not_ours_has_them() {
    let Some(python) = python() else {
        println!("not compared: LOOM_TEST_PYTHON names no Python with cronsim");
        return;
    };
    // The hourly ones are most of it; `LOOM_TEST_ORACLE_YEARS=10` compares all of them.
    let years = std::env::var("LOOM_TEST_ORACLE_YEARS").ok().and_then(|years| years.parse().ok());
    let hourly = at("2020-01-01T00:00:00Z") + TimeDelta::days(365 * years.unwrap_or(1));
    let (from, to) = (at("2020-01-01T00:00:00Z"), at("2030-01-01T00:00:00Z"));
    let mut asked = Vec::new();
    for zone in ZONES {
        // Hourly, daily (where clocks change, too), monthly, the last day, the last Friday, the second Monday.
        for expression in [
            "7 * * * *",
            "30 2 * * *",
            "0 3 * * *",
            "15 0 1 * *",
            "45 23 L * *",
            "30 1 * * 5L",
            "0 2 * * 1#2",
            "0 9-17/2 * * MON-FRI",
            "59 23 29 2 *",
        ] {
            let to = if expression == "7 * * * *" { hourly } else { to };
            asked.push((expression, zone, from.timestamp(), to.timestamp()));
        }
        for day in changes(zone) {
            let around = (day - TimeDelta::days(1), day + TimeDelta::days(2));
            for expression in
                ["* * * * *", "*/7 * * * *", "*/20 1-3 * * *", "10,40 0-4 * * *", "* 2 * * *"]
            {
                asked.push((expression, zone, around.0.timestamp(), around.1.timestamp()));
            }
        }
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/oracle/runs.py");
    let mut oracle = Command::new(python)
        .arg(script)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut questions = oracle.stdin.take().unwrap();
    let lines: Vec<String> = asked.iter().map(|one| serde_json::to_string(one).unwrap()).collect();
    let asking = std::thread::spawn(move || {
        for line in lines {
            writeln!(questions, "{line}").unwrap();
        }
    });
    let mut answers = BufReader::new(oracle.stdout.take().unwrap()).lines();
    let (mut compared, mut wrong) = (0, Vec::new());
    for (expression, zone, from, to) in asked {
        let theirs: Vec<i64> = serde_json::from_str(&answers.next().unwrap().unwrap()).unwrap();
        let ours = ours(expression, zone, from, to);
        compared += theirs.len();
        let shown = |at: &i64| DateTime::from_timestamp(*at, 0).unwrap().to_rfc3339();
        let only = |a: &[i64], b: &[i64]| -> Vec<String> {
            a.iter().filter(|at| b.binary_search(at).is_err()).take(4).map(shown).collect()
        };
        let (more, fewer) = (only(&ours, &theirs), only(&theirs, &ours));
        // Where clocks go back by half an hour cronsim leaves out an hour that is shown once, later.
        let explained =
            zone == "Australia/Lord_Howe" && expression == "* 2 * * *" && fewer.is_empty();
        if !(explained || more.is_empty() && fewer.is_empty()) {
            wrong.push(format!(
                "`{expression}` in {zone}: ours alone {more:?}, theirs alone {fewer:?}"
            ));
        }
    }
    asking.join().unwrap();
    oracle.wait().unwrap();
    println!("{compared} runs compared");
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}
