//! When jobs run, and that each slot runs once.

use std::{sync::atomic::Ordering, time::Duration};

use chrono::{DateTime, Utc};
use loom_jobs::RunStatus;

use crate::{
    MINUTE, TestDatabase, clock, counting, end_leases, history, scheduler, statuses, tick,
    tick_one, waiting,
};

#[tokio::test]
async fn a_new_job_first_runs_at_its_next_slot() {
    let database = TestDatabase::new().await;
    let (clock, (job, runs)) = (clock(), counting("sweep", MINUTE));
    let scheduler = scheduler(database.pool(), &clock, "a", vec![job]);
    assert_eq!(tick(&scheduler).await, 0);
    clock.advance(Duration::from_secs(29));
    assert_eq!(tick(&scheduler).await, 0);
    clock.advance(Duration::from_secs(1));
    assert_eq!(tick(&scheduler).await, 1);
    assert_eq!(tick(&scheduler).await, 0);
    assert_eq!(runs.load(Ordering::SeqCst), 1);
    let history = history(database.pool(), "sweep").await;
    assert_eq!(history[0].slot, "2026-03-01T10:16:00Z".parse::<DateTime<Utc>>().unwrap());
    assert_eq!((&*history[0].trigger, &*history[0].replica), ("schedule", "a"));
}

#[tokio::test]
async fn replicas_run_a_slot_once() {
    let database = TestDatabase::new().await;
    let (clock, (job, runs)) = (clock(), counting("sweep", MINUTE));
    let one = scheduler(database.pool(), &clock, "a", vec![job.clone()]);
    let two = scheduler(database.pool(), &clock, "b", vec![job.clone()]);
    let three = scheduler(database.pool(), &clock, "c", vec![job]);
    tokio::join!(tick(&one), tick(&two), tick(&three));
    for slot in 1..=20 {
        clock.advance(MINUTE);
        let (a, b, c) = tokio::join!(tick(&one), tick(&two), tick(&three));
        assert_eq!(a + b + c, 1, "slot {slot}");
    }
    assert_eq!(runs.load(Ordering::SeqCst), 20);
    assert_eq!(history(database.pool(), "sweep").await.len(), 20);
}

#[tokio::test]
async fn missed_slots_run_once() {
    let database = TestDatabase::new().await;
    let (clock, (job, runs)) = (clock(), counting("sweep", MINUTE));
    let before = scheduler(database.pool(), &clock, "a", vec![job.clone()]);
    tick(&before).await;
    clock.advance(MINUTE);
    tick(&before).await;
    before.shutdown(MINUTE).await;

    clock.advance(MINUTE * 600);
    let after = scheduler(database.pool(), &clock, "a", vec![job]);
    assert_eq!(tick(&after).await, 1);
    assert_eq!(tick(&after).await, 0);
    assert_eq!(runs.load(Ordering::SeqCst), 2);
    let newest = &history(database.pool(), "sweep").await[1];
    assert_eq!(newest.slot, "2026-03-01T20:16:00Z".parse::<DateTime<Utc>>().unwrap());
}

#[tokio::test]
async fn a_slot_waits_for_the_run_before_it() {
    let database = TestDatabase::new().await;
    let (clock, (job, gate)) = (clock(), waiting("sweep", MINUTE));
    let one = scheduler(database.pool(), &clock, "a", vec![job.clone()]);
    let two = scheduler(database.pool(), &clock, "b", vec![job]);
    tokio::join!(tick(&one), tick(&two));
    clock.advance(MINUTE);
    let run = tick_one(&one).await;
    // Less than a lease.
    clock.advance(Duration::from_secs(50));
    assert_eq!(tick(&one).await + tick(&two).await, 0);

    gate.add_permits(2);
    run.outcome().await.unwrap();
    assert_eq!(tick(&one).await, 1);
    assert_eq!(tick(&two).await, 0);
    let history = history(database.pool(), "sweep").await;
    assert_eq!(statuses(&history), [RunStatus::Succeeded; 2]);
    assert!(history[0].slot < history[1].slot);
}

#[tokio::test]
async fn a_run_is_abandoned_when_its_lease_ends() {
    let database = TestDatabase::new().await;
    let (clock, (stuck, gate)) = (clock(), waiting("sweep", MINUTE));
    let one = scheduler(database.pool(), &clock, "a", vec![stuck]);
    tick(&one).await;
    clock.advance(MINUTE);
    let lost = tick_one(&one).await;

    let (job, runs) = counting("sweep", MINUTE);
    let two = scheduler(database.pool(), &clock, "b", vec![job]);
    assert_eq!(tick(&two).await, 0);
    clock.advance(Duration::from_secs(61));
    end_leases(database.pool()).await;
    assert_eq!(tick(&two).await, 1, "the next slot runs at once");
    assert_eq!(runs.load(Ordering::SeqCst), 1);

    // The one that was thought dead comes back: what is recorded stays.
    gate.add_permits(1);
    assert_eq!(lost.outcome().await.unwrap().status, RunStatus::Succeeded);
    let history = history(database.pool(), "sweep").await;
    assert_eq!(statuses(&history), [RunStatus::Abandoned, RunStatus::Succeeded]);
    assert!(history[0].error.as_ref().unwrap().contains("went away"));
    assert_eq!(history[0].duration_ms, Some(61_000));
}

#[tokio::test]
async fn a_job_that_is_off_runs_only_by_hand() {
    let database = TestDatabase::new().await;
    let (clock, (job, runs)) = (clock(), counting("sweep", MINUTE));
    let scheduler = scheduler(database.pool(), &clock, "a", vec![job]);
    tick(&scheduler).await;
    let switch = |on| sqlx::query("UPDATE jobs SET enabled = $1").bind(on).execute(database.pool());
    switch(false).await.unwrap();
    for _ in 0..3 {
        clock.advance(MINUTE);
        assert_eq!(tick(&scheduler).await, 0);
    }
    scheduler.run_now("sweep").await.unwrap();
    assert_eq!(runs.load(Ordering::SeqCst), 1);
    switch(true).await.unwrap();
    clock.advance(MINUTE);
    assert_eq!(tick(&scheduler).await, 1);
}
