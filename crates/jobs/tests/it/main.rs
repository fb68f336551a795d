//! The scheduler on real PostgreSQL. Time is moved by hand; nothing sleeps.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    reason = "helpers of tests may panic"
)]

mod admin;
mod alerts;
mod catch_up;
mod chaos;
mod database;
mod health;
mod history;
mod operation;
mod replicas;
mod restart;
mod retries;
mod schedule;
mod statements;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use chrono::{DateTime, Utc};
use loom_core::{Clock, Error};
use loom_db::Hub;
use loom_jobs::{
    CHANNEL, Config, Deps, Job, JobContext, JobError, JobReport, JobScheduler, Run, RunStatus,
};
use loom_notify::Notify;
use sqlx::{PgPool, Row};
use tokio::sync::Semaphore;

use database::TestDatabase;

const MINUTE: Duration = Duration::from_secs(60);

/// Half a minute into an hour, at a quarter past.
fn clock() -> Clock {
    Clock::manual("2026-03-01T10:15:30Z".parse().unwrap())
}

fn job<F, R>(id: &'static str, interval: Duration, run: F) -> Job
where
    F: Fn(JobContext) -> R + Send + Sync + 'static,
    R: Future<Output = Result<JobReport, JobError>> + Send + 'static,
{
    Job::new(id, "A job", "For a test", interval, Duration::from_secs(3600), run)
}

/// A job that counts its runs.
fn counting(id: &'static str, interval: Duration) -> (Job, Arc<AtomicUsize>) {
    let runs = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&runs);
    let job = job(id, interval, move |_| {
        counter.fetch_add(1, Ordering::SeqCst);
        async { Ok(JobReport::from(1)) }
    });
    (job, runs)
}

/// A job that ends once for each permit of the semaphore, whatever it is told.
fn waiting(id: &'static str, interval: Duration) -> (Job, Arc<Semaphore>) {
    let gate = Arc::new(Semaphore::new(0));
    let wait = Arc::clone(&gate);
    let job = job(id, interval, move |_| {
        let wait = Arc::clone(&wait);
        async move {
            wait.acquire().await.unwrap().forget();
            Ok(JobReport::default())
        }
    });
    (job, gate)
}

/// A job that always fails.
fn failing(id: &'static str) -> Job {
    job(id, MINUTE, |_| async { Err(JobError::Fail(Error::internal("the disk\0is full"))) })
}

/// Alerts go to one admin; no word of others is heard.
fn deps(pool: &PgPool, clock: &Clock, replica: &str) -> Deps {
    Deps {
        pool: pool.clone(),
        clock: clock.clone(),
        hub: Hub::silent(&[CHANNEL]),
        notify: Notify::silent(pool.clone(), clock.clone(), &["ada@example.com"]).unwrap(),
        config: Config::default(),
        replica: replica.to_owned(),
    }
}

fn scheduler(pool: &PgPool, clock: &Clock, replica: &str, jobs: Vec<Job>) -> JobScheduler {
    JobScheduler::new(deps(pool, clock, replica), jobs).unwrap()
}

/// The leases of all runs end, by the clock of the database.
async fn end_leases(pool: &PgPool) {
    sqlx::query(
        "UPDATE job_runs SET lease_until = now() - interval '1 second' WHERE status = 'running'",
    )
    .execute(pool)
    .await
    .unwrap();
}

/// Looks, and waits until what began has ended; gives the number of runs.
async fn tick(scheduler: &JobScheduler) -> usize {
    let runs = scheduler.tick().await;
    let count = runs.len();
    for run in runs {
        run.outcome().await.unwrap();
    }
    count
}

/// Looks, and gives the one run that began, which goes on.
async fn tick_one(scheduler: &JobScheduler) -> Run {
    let mut runs = scheduler.tick().await;
    assert_eq!(runs.len(), 1, "{runs:?}");
    runs.remove(0)
}

/// Lets this much time go by for what waits for the runtime's clock, in no time.
async fn skip_time(by: Duration) {
    // What was just begun gets as far as to its waiting.
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    tokio::time::pause();
    tokio::time::advance(by).await;
    // Or the time limits of PostgreSQL's answers would pass as well.
    tokio::time::resume();
}

/// A row of the history.
#[derive(Debug)]
struct Recorded {
    status: RunStatus,
    trigger: String,
    attempt: i32,
    term: i64,
    replica: String,
    slot: DateTime<Utc>,
    duration_ms: Option<i64>,
    items_handled: i64,
    error: Option<String>,
}

/// The history of a job, oldest first.
async fn history(pool: &PgPool, job: &str) -> Vec<Recorded> {
    sqlx::query(
        "SELECT status, trigger, replica, slot, duration_ms, items_handled, error, attempt, term FROM job_runs
          WHERE job_id = $1 ORDER BY started_at, term, id",
    )
    .bind(job)
    .fetch_all(pool)
    .await
    .unwrap()
    .iter()
    .map(|row| Recorded {
        status: row.get(0),
        trigger: row.get(1),
        replica: row.get(2),
        slot: row.get(3),
        duration_ms: row.get(4),
        items_handled: row.get(5),
        error: row.get(6),
        attempt: row.get(7),
        term: row.get(8),
    })
    .collect()
}

fn statuses(history: &[Recorded]) -> Vec<RunStatus> {
    history.iter().map(|run| run.status).collect()
}
