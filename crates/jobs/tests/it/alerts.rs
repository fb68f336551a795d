//! What the admins are told of jobs that fail.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use loom_core::{Clock, Error};
use loom_jobs::{Job, JobError, JobReport};
use sqlx::PgPool;

use crate::{MINUTE, TestDatabase, clock, end_leases, job, scheduler, tick, waiting};

/// A job that works when it is told to.
fn flaky() -> (Job, Arc<AtomicBool>) {
    let works = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&works);
    let job = job("flaky", MINUTE * 60, move |_| {
        let works = told.load(Ordering::SeqCst);
        let failed = JobError::Fail(Error::internal("the disk is full"));
        async move { if works { Ok(JobReport::default()) } else { Err(failed) } }
    });
    (job, works)
}

/// What was queued for the admins, oldest first.
async fn told(pool: &PgPool) -> Vec<String> {
    sqlx::query_scalar("SELECT kind || ' ' || key FROM deliveries ORDER BY created_at, id")
        .fetch_all(pool)
        .await
        .unwrap()
}

/// All that is queued is sent: while an alert waits, another like it says nothing new.
async fn send(pool: &PgPool) {
    sqlx::query("UPDATE deliveries SET state = 'delivered'").execute(pool).await.unwrap();
}

const FAILING: &str = "job.failing flaky";
const RECOVERED: &str = "job.recovered flaky";

#[tokio::test]
async fn three_failures_in_a_row_are_told_once_and_then_that_it_is_well_again() {
    let (database, clock) = (TestDatabase::new().await, clock());
    let (pool, (job, works)) = (database.pool(), flaky());
    let one = scheduler(pool, &clock, "a", vec![job.clone()]);
    let two = scheduler(pool, &clock, "b", vec![job]);
    for (replica, expected) in [(&one, 0), (&two, 0), (&one, 1), (&two, 1), (&one, 1)] {
        replica.run_now("flaky").await.unwrap();
        assert_eq!(told(pool).await, vec![FAILING; expected]);
        send(pool).await;
        clock.advance(std::time::Duration::from_secs(1));
    }
    works.store(true, Ordering::SeqCst);
    for _ in 0..2 {
        two.run_now("flaky").await.unwrap();
        assert_eq!(told(pool).await, [FAILING, RECOVERED]);
        send(pool).await;
    }
    // From the start again, and two failures are not worth a word, nor is their end.
    for (fails, expected) in [(true, 2), (true, 2), (false, 2), (true, 2), (true, 2), (true, 3)] {
        works.store(!fails, Ordering::SeqCst);
        one.run_now("flaky").await.unwrap();
        assert_eq!(told(pool).await.len(), expected);
    }
}

#[tokio::test]
async fn what_takes_its_replica_down_is_told_as_well() {
    let (database, clock) = (TestDatabase::new().await, clock());
    let (stuck, _gate) = waiting("flaky", MINUTE * 60);
    let one = scheduler(database.pool(), &clock, "a", vec![stuck.clone()]);
    let two = scheduler(database.pool(), &clock, "b", vec![stuck]);
    let _lost = one.request("flaky").await.unwrap();
    for _ in 0..2 {
        end_leases(database.pool()).await;
        clock.advance(MINUTE);
        assert_eq!(two.tick().await.len(), 1);
    }
    assert_eq!(told(database.pool()).await, [""; 0]);
    end_leases(database.pool()).await;
    clock.advance(MINUTE);
    tokio::join!(tick(&one), tick(&two));
    assert_eq!(told(database.pool()).await, [FAILING]);
}

#[tokio::test]
async fn a_run_is_recorded_also_when_nobody_can_be_told_and_told_at_the_next() {
    // With a running clock: the tries to record have pauses.
    let (database, clock) = (TestDatabase::new().await, Clock::system());
    let pool = database.pool();
    let scheduler = scheduler(pool, &clock, "a", vec![flaky().0]);
    let rename = |sql: &'static str| sqlx::query(sql).execute(pool);
    rename("ALTER TABLE deliveries RENAME TO away").await.unwrap();
    for _ in 0..3 {
        scheduler.run_now("flaky").await.unwrap();
    }
    rename("ALTER TABLE away RENAME TO deliveries").await.unwrap();
    let views = scheduler.views().await.unwrap();
    assert_eq!(views.iter().find(|view| view.id == "flaky").unwrap().consecutive_failures, 3);
    assert_eq!(told(pool).await, [""; 0]);
    scheduler.run_now("flaky").await.unwrap();
    assert_eq!(told(pool).await, [FAILING]);
}
