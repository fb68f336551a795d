//! Runs that may go well soon are tried again.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use chrono::{DateTime, Utc};
use loom_core::{Clock, Error};
use loom_jobs::{Job, JobError, JobReport, RunStatus};

use crate::{
    MINUTE, TestDatabase, clock, counting, end_leases, failing, history, job, scheduler, statuses,
    tick, tick_one, waiting,
};

const HOUR: Duration = Duration::from_secs(3600);
/// Longer than the first pause with all its jitter, and than the second.
const PAUSES: [Duration; 2] = [Duration::from_secs(16), Duration::from_secs(91)];

/// A job whose first runs fail for the time being.
fn shaky(id: &'static str, failures: usize) -> (Job, Arc<AtomicUsize>) {
    let runs = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&runs);
    let job = job(id, HOUR, move |_| {
        let fails = counter.fetch_add(1, Ordering::SeqCst) < failures;
        let busy = JobError::Retry(Error::internal("the line is busy"));
        async move { if fails { Err(busy) } else { Ok(JobReport::from(1)) } }
    });
    (job, runs)
}

#[tokio::test]
async fn it_is_tried_three_times_with_pauses_and_then_no_more() {
    let (database, clock) = (TestDatabase::new().await, clock());
    let scheduler = scheduler(database.pool(), &clock, "a", vec![shaky("sweep", 9).0]);
    tick(&scheduler).await;
    clock.advance(MINUTE * 45);
    assert_eq!(tick(&scheduler).await, 1);
    for (too_soon, pause) in [Duration::from_secs(9), Duration::from_secs(59)].iter().zip(PAUSES) {
        clock.advance(*too_soon);
        assert_eq!(tick(&scheduler).await, 0, "not before {too_soon:?}");
        let views = scheduler.views().await.unwrap();
        let next = views.iter().find(|view| view.id == "sweep").unwrap().next_run_at.unwrap();
        assert!(next > clock.now() && next < clock.now() + pause);
        clock.advance(pause - *too_soon);
        assert_eq!(tick(&scheduler).await, 1);
    }
    for _ in 0..10 {
        clock.advance(MINUTE);
        assert_eq!(tick(&scheduler).await, 0);
    }
    let history = history(database.pool(), "sweep").await;
    assert_eq!(statuses(&history), [RunStatus::Failed; 3]);
    let told: Vec<_> = history.iter().map(|run| (&*run.trigger, run.attempt)).collect();
    assert_eq!(told, [("schedule", 1), ("retry", 2), ("retry", 3)]);
    let slot: DateTime<Utc> = "2026-03-01T11:00:00Z".parse().unwrap();
    assert!(history.iter().all(|run| run.slot == slot));
}

#[tokio::test]
async fn an_attempt_that_goes_well_is_the_last_and_the_schedule_goes_on() {
    let (database, clock) = (TestDatabase::new().await, clock());
    let (job, runs) = shaky("sweep", 1);
    let scheduler = scheduler(database.pool(), &clock, "a", vec![job]);
    tick(&scheduler).await;
    let outcome = scheduler.run_now("sweep").await.unwrap();
    assert!(outcome.retry_at.unwrap() > clock.now());
    clock.advance(PAUSES[0]);
    assert_eq!(tick(&scheduler).await, 1);
    assert!(scheduler.views().await.unwrap().iter().all(|view| view.consecutive_failures == 0));
    clock.advance(MINUTE * 3);
    assert_eq!(tick(&scheduler).await, 0);
    clock.advance(HOUR);
    assert_eq!(tick(&scheduler).await, 1);
    assert_eq!(runs.load(Ordering::SeqCst), 3);
    let history = history(database.pool(), "sweep").await;
    assert_eq!(history.iter().map(|run| run.attempt).collect::<Vec<_>>(), [1, 2, 1]);
}

#[tokio::test]
async fn what_will_not_go_well_is_not_tried_again() {
    let (database, clock) = (TestDatabase::new().await, clock());
    let panics = job("panics", HOUR, |_| async { panic!("no") });
    let fails = Job { schedule: HOUR.into(), ..failing("fails") };
    let scheduler = scheduler(database.pool(), &clock, "a", vec![fails, panics]);
    tick(&scheduler).await;
    for id in ["fails", "panics"] {
        assert_eq!(scheduler.run_now(id).await.unwrap().retry_at, None, "{id}");
    }
    clock.advance(PAUSES[1]);
    assert_eq!(tick(&scheduler).await, 0);
}

#[tokio::test]
async fn another_replica_takes_the_next_attempt_and_only_one_does() {
    let (database, clock) = (TestDatabase::new().await, clock());
    let (job, runs) = shaky("sweep", 9);
    let one = scheduler(database.pool(), &clock, "a", vec![job.clone()]);
    one.run_now("sweep").await.unwrap();
    one.shutdown(MINUTE).await;
    let two = scheduler(database.pool(), &clock, "b", vec![job.clone()]);
    let three = scheduler(database.pool(), &clock, "c", vec![job]);
    for attempts in 2..=3 {
        clock.advance(PAUSES[1]);
        let (b, c) = tokio::join!(tick(&two), tick(&three));
        assert_eq!(b + c, 1);
        assert_eq!(runs.load(Ordering::SeqCst), attempts);
    }
    clock.advance(PAUSES[1]);
    assert_eq!(tick(&two).await + tick(&three).await, 0);
}

#[tokio::test]
async fn the_next_slot_ends_the_attempts_at_the_one_before() {
    let (database, clock) = (TestDatabase::new().await, clock());
    let (job, runs) = shaky("sweep", 1);
    let scheduler = scheduler(database.pool(), &clock, "a", vec![job]);
    tick(&scheduler).await;
    scheduler.run_now("sweep").await.unwrap();
    clock.advance(MINUTE * 45);
    assert_eq!(tick(&scheduler).await, 1);
    clock.advance(MINUTE);
    assert_eq!(tick(&scheduler).await, 0);
    assert_eq!(runs.load(Ordering::SeqCst), 2);
    let newest = &history(database.pool(), "sweep").await[1];
    assert_eq!((&*newest.trigger, newest.attempt), ("schedule", 1));
}

#[tokio::test]
async fn a_job_that_is_switched_off_is_not_tried_again() {
    let (database, clock) = (TestDatabase::new().await, clock());
    let jobs = vec![shaky("sweep", 9).0, counting("other", HOUR).0];
    let scheduler = scheduler(database.pool(), &clock, "a", jobs);
    tick(&scheduler).await;
    scheduler.run_now("sweep").await.unwrap();
    scheduler.switch("sweep", false).await.unwrap();
    clock.advance(PAUSES[0]);
    assert_eq!(tick(&scheduler).await, 0);
    scheduler.switch("sweep", true).await.unwrap();
    assert_eq!(tick(&scheduler).await, 0);
}

/// The lease of what runs ends, and all know that it may have.
async fn lose(database: &TestDatabase, clock: &Clock) {
    end_leases(database.pool()).await;
    clock.advance(MINUTE);
}

#[tokio::test]
async fn another_replica_takes_up_the_slot_of_one_that_went_away() {
    let (database, clock) = (TestDatabase::new().await, clock());
    let (stuck, _gate) = waiting("sweep", HOUR);
    let (works, runs) = counting("sweep", HOUR);
    let one = scheduler(database.pool(), &clock, "a", vec![stuck.clone()]);
    let two = scheduler(database.pool(), &clock, "b", vec![stuck]);
    let three = scheduler(database.pool(), &clock, "c", vec![works.clone()]);
    let four = scheduler(database.pool(), &clock, "d", vec![works]);
    for each in [&one, &two, &three, &four] {
        tick(each).await;
    }
    clock.advance(MINUTE * 45);
    let _first = tick_one(&one).await;
    lose(&database, &clock).await;
    let _second = tick_one(&two).await;
    lose(&database, &clock).await;
    // Two that look at the same moment may each find the job in the other's hands; then they look again.
    let mut began = 0;
    for _ in 0..10 {
        let (c, d) = tokio::join!(tick(&three), tick(&four));
        began += c + d;
        if began > 0 {
            break;
        }
    }
    assert_eq!((began, runs.load(Ordering::SeqCst)), (1, 1));
    lose(&database, &clock).await;
    assert_eq!(tick(&three).await + tick(&four).await, 0);
    let history = history(database.pool(), "sweep").await;
    let ended = [RunStatus::Abandoned, RunStatus::Abandoned, RunStatus::Succeeded];
    assert_eq!(statuses(&history), ended);
    assert_eq!(history.iter().map(|run| run.attempt).collect::<Vec<_>>(), [1, 2, 3]);
    assert!(history.iter().all(|run| run.slot == history[0].slot));
}

#[tokio::test]
async fn what_takes_its_replica_down_each_time_is_given_up() {
    let (database, clock) = (TestDatabase::new().await, clock());
    let (stuck, _gate) = waiting("sweep", HOUR);
    let scheduler = scheduler(database.pool(), &clock, "a", vec![stuck]);
    tick(&scheduler).await;
    let mut lost = vec![scheduler.request("sweep").await.unwrap()];
    for _ in 0..2 {
        lose(&database, &clock).await;
        lost.push(tick_one(&scheduler).await);
    }
    lose(&database, &clock).await;
    assert_eq!(tick(&scheduler).await, 0);
    assert_eq!(statuses(&history(database.pool(), "sweep").await), [RunStatus::Abandoned; 3]);
}

#[tokio::test]
async fn what_was_to_be_cancelled_is_not_taken_up_again() {
    let (database, clock) = (TestDatabase::new().await, clock());
    let (stuck, _gate) = waiting("sweep", HOUR);
    let one = scheduler(database.pool(), &clock, "a", vec![stuck.clone()]);
    let two = scheduler(database.pool(), &clock, "b", vec![stuck]);
    tick(&two).await;
    let _lost = one.request("sweep").await.unwrap();
    two.cancel("sweep").await.unwrap();
    lose(&database, &clock).await;
    assert_eq!(tick(&two).await, 0);
    assert_eq!(statuses(&history(database.pool(), "sweep").await), [RunStatus::Abandoned]);
}
