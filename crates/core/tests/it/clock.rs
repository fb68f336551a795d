//! Time that a test moves by hand.

use std::time::Duration;

use chrono::{DateTime, Utc};
use loom_core::Clock;

fn start() -> DateTime<Utc> {
    "2027-01-15T08:00:00.123456Z".parse().unwrap()
}

#[test]
fn a_manual_clock_stands_still_until_it_is_moved() {
    let clock = Clock::manual(start());
    assert_eq!(clock.now(), start());
    assert_eq!(clock.now(), start());
    clock.advance(Duration::from_micros(1_500_001));
    assert_eq!(clock.now(), "2027-01-15T08:00:01.623457Z".parse::<DateTime<Utc>>().unwrap());
}

#[test]
fn clones_of_a_manual_clock_are_the_same_clock() {
    let clock = Clock::manual(start());
    let copy = clock.clone();
    copy.advance(Duration::from_secs(60));
    assert_eq!(clock.now() - start(), chrono::Duration::seconds(60));
}

#[test]
fn times_are_cut_to_the_microseconds_that_postgres_keeps() {
    let fine = start() + chrono::Duration::nanoseconds(789);
    assert_eq!(Clock::manual(fine).now(), start());
    assert_eq!(Clock::system().now().timestamp_subsec_nanos() % 1000, 0);
}

#[test]
fn the_clock_of_the_machine_goes_on_and_cannot_be_moved() {
    let clock = Clock::system();
    let before = clock.now();
    clock.advance(Duration::from_secs(3600));
    let after = clock.now();
    assert!(after >= before);
    assert!(after - before < chrono::Duration::minutes(30), "{before} {after}");
}

#[test]
fn debug_says_which_one_it_is() {
    assert_eq!(format!("{:?}", Clock::manual(start())), "Clock(manual)");
    assert_eq!(format!("{:?}", Clock::system()), "Clock(system)");
}
