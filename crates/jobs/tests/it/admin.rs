//! What admins do with jobs: look, stop, switch.

use std::{sync::atomic::Ordering, time::Duration};

use http::StatusCode;
use loom_core::Error;
use loom_jobs::{Job, JobReport, RunStatus};

use crate::{
    MINUTE, TestDatabase, clock, counting, end_leases, failing, history, job, scheduler, skip_time,
    statuses, tick, waiting,
};

/// A job that stops when it is told to.
fn polite(id: &'static str) -> Job {
    job(id, MINUTE, |context| async move {
        context.cancel.cancelled().await;
        Ok(JobReport { items_handled: 3 })
    })
}

#[tokio::test]
async fn all_jobs_are_seen_with_their_last_run_and_the_next() {
    let (database, clock) = (TestDatabase::new().await, clock());
    let (stuck, gate) = waiting("stuck", MINUTE);
    let jobs = vec![counting("sweep", MINUTE * 60).0, failing("fails"), stuck];
    let scheduler = scheduler(database.pool(), &clock, "a", jobs);
    // Before the first look there is nothing in the database.
    let views = scheduler.views().await.unwrap();
    let ids: Vec<_> = views.iter().map(|view| view.id).collect();
    assert_eq!(ids, ["fails", "job-history-cleanup", "stuck", "sweep"]);
    assert!(views.iter().all(|view| view.enabled && !view.running && view.last_run.is_none()));
    assert_eq!(views[3].next_run_at, Some("2026-03-01T11:00:00Z".parse().unwrap()));
    assert_eq!((views[3].interval_secs, views[3].name), (Some(3600), "A job"));

    tick(&scheduler).await;
    scheduler.run_now("fails").await.unwrap();
    clock.advance(Duration::from_secs(1));
    scheduler.run_now("fails").await.unwrap();
    let run = scheduler.request("stuck").await.unwrap();
    let views = scheduler.views().await.unwrap();
    let last = views[0].last_run.as_ref().unwrap();
    assert_eq!((last.status, views[0].consecutive_failures), (RunStatus::Failed, 2));
    assert_eq!(last.started_at, clock.now());
    assert!(last.error.as_ref().unwrap().contains("is full"));
    assert_eq!(views[0].next_run_at, Some("2026-03-01T10:16:00Z".parse().unwrap()));
    assert!(views[2].running && !views[0].running);
    assert_eq!(views[2].last_run.as_ref().unwrap().id, run.id);
    gate.add_permits(1);
    run.outcome().await.unwrap();
    assert!(!scheduler.views().await.unwrap()[2].running);
}

#[tokio::test]
async fn the_history_is_read_in_pages_newest_first() {
    let (database, clock) = (TestDatabase::new().await, clock());
    let jobs = vec![counting("sweep", MINUTE).0, counting("other", MINUTE).0];
    let scheduler = scheduler(database.pool(), &clock, "a", jobs);
    scheduler.run_now("other").await.unwrap();
    let mut ran = Vec::new();
    // All begun at one instant: the id decides.
    for _ in 0..5 {
        ran.push(scheduler.run_now("sweep").await.unwrap().run_id);
    }
    ran.sort();
    ran.reverse();
    let mut read = Vec::new();
    let mut after = None;
    loop {
        let page = scheduler.history("sweep", after, 2).await.unwrap();
        let Some(last) = page.last() else { break };
        after = Some((last.started_at, last.id));
        read.extend(page.iter().map(|run| run.id));
    }
    assert_eq!(read, ran);
    let error = scheduler.history("nonsense", None, 2).await.unwrap_err();
    assert_eq!(error.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_run_that_is_cancelled_stops_and_is_no_failure() {
    let (database, clock) = (TestDatabase::new().await, clock());
    let gives_up = job("gives-up", MINUTE, |context| async move {
        context.cancel.cancelled().await;
        Err(Error::internal("half done").into())
    });
    let scheduler = scheduler(database.pool(), &clock, "a", vec![polite("polite"), gives_up]);
    for (id, items) in [("polite", 3), ("gives-up", 0)] {
        let run = scheduler.request(id).await.unwrap();
        assert_eq!(scheduler.cancel(id).await.unwrap(), run.id);
        let outcome = run.outcome().await.unwrap();
        assert_eq!((outcome.status, outcome.items_handled), (RunStatus::Cancelled, items), "{id}");
        let history = history(database.pool(), id).await;
        assert_eq!(statuses(&history), [RunStatus::Cancelled]);
        assert_eq!(history[0].error.as_deref(), Some("an admin cancelled it"));
        // Over is over.
        let error = scheduler.cancel(id).await.unwrap_err();
        assert_eq!((error.status(), error.code()), (StatusCode::CONFLICT, "job_not_running"));
    }
    assert!(scheduler.views().await.unwrap().iter().all(|view| view.consecutive_failures == 0));
    let error = scheduler.cancel("nonsense").await.unwrap_err();
    assert_eq!(error.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_run_that_does_not_stop_when_cancelled_is_dropped() {
    let (database, clock) = (TestDatabase::new().await, clock());
    let (stubborn, _gate) = waiting("stubborn", MINUTE);
    let scheduler = scheduler(database.pool(), &clock, "a", vec![stubborn]);
    let run = scheduler.request("stubborn").await.unwrap();
    scheduler.cancel("stubborn").await.unwrap();
    skip_time(Duration::from_secs(6)).await;
    assert_eq!(run.outcome().await.unwrap().status, RunStatus::Cancelled);
    assert_eq!(statuses(&history(database.pool(), "stubborn").await), [RunStatus::Cancelled]);
}

#[tokio::test]
async fn a_run_is_cancelled_from_another_replica() {
    let (database, clock) = (TestDatabase::new().await, clock());
    let one = scheduler(database.pool(), &clock, "a", vec![polite("sweep")]);
    let two = scheduler(database.pool(), &clock, "b", vec![polite("sweep")]);
    // By the heartbeat of the run.
    let run = one.request("sweep").await.unwrap();
    assert_eq!(two.cancel("sweep").await.unwrap(), run.id);
    skip_time(Duration::from_secs(11)).await;
    assert_eq!(run.outcome().await.unwrap().status, RunStatus::Cancelled);
    // By the look of its replica.
    let run = one.request("sweep").await.unwrap();
    assert_eq!(two.cancel("sweep").await.unwrap(), run.id);
    clock.advance(MINUTE);
    one.tick().await;
    assert_eq!(run.outcome().await.unwrap().status, RunStatus::Cancelled);
}

#[tokio::test]
async fn what_a_dead_replica_left_running_is_not_running() {
    let (database, clock) = (TestDatabase::new().await, clock());
    let (stuck, _gate) = waiting("sweep", MINUTE);
    let one = scheduler(database.pool(), &clock, "a", vec![stuck]);
    let two = scheduler(database.pool(), &clock, "b", vec![polite("sweep")]);
    let _run = one.request("sweep").await.unwrap();
    end_leases(database.pool()).await;
    assert_eq!(two.cancel("sweep").await.unwrap_err().code(), "job_not_running");
    assert_eq!(statuses(&history(database.pool(), "sweep").await), [RunStatus::Abandoned]);
}

#[tokio::test]
async fn a_job_that_is_switched_off_runs_nowhere_and_makes_up_for_nothing() {
    let (database, clock) = (TestDatabase::new().await, clock());
    let (job, runs) = counting("sweep", MINUTE);
    let one = scheduler(database.pool(), &clock, "a", vec![job.clone()]);
    let two = scheduler(database.pool(), &clock, "b", vec![job]);
    // Also before the first look.
    assert!(two.switch("sweep", false).await.unwrap());
    assert!(!one.switch("sweep", false).await.unwrap(), "it was off");
    for _ in 0..3 {
        assert_eq!(tick(&one).await + tick(&two).await, 0);
        clock.advance(MINUTE);
    }
    let views = one.views().await.unwrap();
    let view = views.iter().find(|view| view.id == "sweep").unwrap();
    assert_eq!((view.enabled, view.next_run_at), (false, None));
    let error = one.request_enabled("sweep").await.unwrap_err();
    assert_eq!((error.status(), error.code()), (StatusCode::CONFLICT, "job_disabled"));

    assert!(one.switch("sweep", true).await.unwrap());
    assert!(!two.switch("sweep", true).await.unwrap(), "it was on");
    assert_eq!(tick(&one).await + tick(&two).await, 0, "its slots went by");
    clock.advance(MINUTE);
    assert_eq!(tick(&one).await + tick(&two).await, 1);
    one.request_enabled("sweep").await.unwrap().outcome().await.unwrap();
    assert_eq!(runs.load(Ordering::SeqCst), 2);
    let error = one.switch("nonsense", true).await.unwrap_err();
    assert_eq!(error.status(), StatusCode::NOT_FOUND);
}
