//! Slots that were missed, and schedules by the clock on the wall.

use std::time::Duration;

use chrono::{DateTime, Utc};
use loom_core::Clock;
use loom_jobs::{CatchUp, Job, JobScheduler, RunRecord, Schedule};

use crate::{MINUTE, TestDatabase, clock, counting, history, scheduler, tick, waiting};

/// Runs that began at one instant of the clock have no order of their own.
async fn by_slot(scheduler: &JobScheduler) -> Vec<RunRecord> {
    let mut history = scheduler.history("sweep", None, 100).await.unwrap();
    history.sort_by_key(|run| run.slot);
    history
}

/// What a job has run once it was down for ten minutes and the clock has struck a few times: the
/// minute of each slot and how many it missed.
async fn after_ten_minutes_down(catch_up: CatchUp) -> Vec<(String, i32)> {
    let (database, clock) = (TestDatabase::new().await, clock());
    let job = Job { catch_up, ..counting("sweep", MINUTE * 5).0 };
    let before = scheduler(database.pool(), &clock, "a", vec![job.clone()]);
    tick(&before).await;
    before.shutdown(MINUTE).await;
    // 10:15:30 was the start, and 10:15 counts as taken.
    clock.advance(MINUTE * 17 + Duration::from_secs(10));
    let after = scheduler(database.pool(), &clock, "b", vec![job.clone()]);
    let other = scheduler(database.pool(), &clock, "c", vec![job]);
    for _ in 0..4 {
        tick(&after).await;
        tick(&other).await;
    }
    // 10:32:40 it was; on to the next.
    clock.advance(MINUTE * 3);
    tick(&after).await;
    let history = by_slot(&after).await;
    history.iter().map(|run| (run.slot.format("%M").to_string(), run.missed_slots)).collect()
}

#[tokio::test]
async fn one_run_makes_up_for_all_and_says_for_how_many() {
    let runs = after_ten_minutes_down(CatchUp::RunOnce).await;
    assert_eq!(runs, [("30".to_owned(), 2), ("35".to_owned(), 0)]);
}

#[tokio::test]
async fn what_was_missed_is_skipped_and_counted_by_the_next() {
    let runs = after_ten_minutes_down(CatchUp::Skip).await;
    assert_eq!(runs, [("35".to_owned(), 3)]);
}

#[tokio::test]
async fn each_is_made_up_for_within_its_limits_one_after_the_other() {
    let window = MINUTE * 60;
    let runs = after_ten_minutes_down(CatchUp::All { max: 100, window }).await;
    let minutes: Vec<_> = runs.iter().map(|(minute, _)| &**minute).collect();
    assert_eq!(minutes, ["20", "25", "30", "35"]);
    assert!(runs.iter().all(|(_, missed)| *missed == 0));
    let runs = after_ten_minutes_down(CatchUp::All { max: 2, window }).await;
    let told = [("25".to_owned(), 1), ("30".to_owned(), 0), ("35".to_owned(), 0)];
    assert_eq!(runs, told);
}

#[tokio::test]
async fn what_is_made_up_for_waits_for_the_run_before() {
    let (database, clock) = (TestDatabase::new().await, clock());
    let (job, gate) = waiting("sweep", MINUTE);
    let job = Job { catch_up: CatchUp::All { max: 3, window: MINUTE * 60 }, ..job };
    let scheduler = scheduler(database.pool(), &clock, "a", vec![job]);
    tick(&scheduler).await;
    clock.advance(MINUTE * 10);
    for _ in 0..3 {
        let mut runs = scheduler.tick().await;
        assert_eq!(runs.len(), 1);
        assert_eq!(tick(&scheduler).await, 0, "one at a time");
        gate.add_permits(1);
        runs.remove(0).outcome().await.unwrap();
    }
    assert_eq!(tick(&scheduler).await, 0);
    let history = by_slot(&scheduler).await;
    assert_eq!(history.iter().map(|run| run.missed_slots).collect::<Vec<_>>(), [7, 0, 0]);
}

#[tokio::test]
async fn a_job_runs_by_the_clock_on_the_wall_once_each_day_whatever_the_clock_does() {
    let database = TestDatabase::new().await;
    // Clocks go forward on 29 March; the job is due in the hour that they skip.
    let clock = Clock::manual("2026-03-27T23:59:30Z".parse().unwrap());
    let daily =
        Schedule::Cron { expression: "30 2 * * *".into(), timezone: "Europe/Berlin".into() };
    let job = Job { schedule: daily, ..counting("daily", MINUTE).0 };
    let one = scheduler(database.pool(), &clock, "a", vec![job.clone()]);
    let two = scheduler(database.pool(), &clock, "b", vec![job]);
    for _ in 0..4 * 24 * 3 {
        tokio::join!(tick(&one), tick(&two));
        clock.advance(MINUTE * 15);
    }
    let history = history(database.pool(), "daily").await;
    let slots: Vec<_> = history.iter().map(|run| run.slot).collect();
    let due = ["2026-03-28T01:30:00Z", "2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"];
    assert_eq!(slots, due.map(|slot| slot.parse::<DateTime<Utc>>().unwrap()));
    let told = one.history("daily", None, 10).await.unwrap();
    assert!(told.iter().all(|run| run.missed_slots == 0));
    let view = one.views().await.unwrap().swap_remove(0);
    assert_eq!((view.interval_secs, view.schedule.as_deref()), (None, Some("30 2 * * *")));
    assert_eq!(view.timezone.as_deref(), Some("Europe/Berlin"));
    assert_eq!(view.next_run_at, Some("2026-03-31T00:30:00Z".parse().unwrap()));
}
