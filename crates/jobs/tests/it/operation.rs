//! Start, the clock, the loss of the database, and shutdown.

use std::{sync::atomic::Ordering, time::Duration};

use http::StatusCode;
use loom_core::{Clock, Error};
use loom_jobs::{Job, JobReport, JobScheduler, RunStatus};
use metrics_exporter_prometheus::PrometheusBuilder;
use tokio::{sync::mpsc, time::timeout};

use crate::{
    MINUTE, TestDatabase, clock, counting, deps, failing, history, job, scheduler, statuses, tick,
    waiting,
};

#[tokio::test]
async fn the_clock_starts_what_is_due() {
    let database = TestDatabase::new().await;
    let (ran, mut runs) = mpsc::channel(10);
    let job = job("each-second", Duration::from_secs(1), move |_| {
        let ran = ran.clone();
        async move {
            ran.send(()).await.map_err(Error::internal)?;
            Ok(JobReport::from(1))
        }
    });
    let scheduler = scheduler(database.pool(), &Clock::system(), "a", vec![job]);
    scheduler.start_clock().await.unwrap();
    for _ in 0..2 {
        runs.recv().await.unwrap();
    }
    scheduler.shutdown(MINUTE).await;
    let history = history(database.pool(), "each-second").await;
    assert!(history.len() >= 2);
    assert!(history.iter().all(|run| run.status == RunStatus::Succeeded), "{history:?}");
}

#[tokio::test]
async fn shutdown_waits_for_runs_that_stop_and_refuses_new_ones() {
    let (database, clock) = (TestDatabase::new().await, clock());
    let polite = job("polite", MINUTE, |context| async move {
        context.cancel.cancelled().await;
        Ok(JobReport::from(3))
    });
    let gives_up = job("gives-up", MINUTE, |context| async move {
        context.cancel.cancelled().await;
        Err(Error::unavailable("not done").into())
    });
    let scheduler = scheduler(database.pool(), &clock, "a", vec![polite, gives_up]);
    let polite = scheduler.request("polite").await.unwrap();
    scheduler.request("gives-up").await.unwrap();
    scheduler.shutdown(MINUTE).await;
    assert_eq!(polite.outcome().await.unwrap().items_handled, 3);
    assert_eq!(statuses(&history(database.pool(), "polite").await), [RunStatus::Succeeded]);
    assert_eq!(statuses(&history(database.pool(), "gives-up").await), [RunStatus::Cancelled]);
    let error = scheduler.run_now("polite").await.unwrap_err();
    assert_eq!(error.status(), StatusCode::SERVICE_UNAVAILABLE);
    clock.advance(MINUTE);
    assert_eq!(tick(&scheduler).await, 0);
}

#[tokio::test]
async fn shutdown_drops_what_does_not_stop_and_records_it_as_cancelled() {
    let (database, clock) = (TestDatabase::new().await, clock());
    let (stubborn, _gate) = waiting("stubborn", MINUTE);
    let scheduler = scheduler(database.pool(), &clock, "a", vec![stubborn]);
    let run = scheduler.request("stubborn").await.unwrap();
    scheduler.shutdown(Duration::from_millis(1)).await;
    let outcome = timeout(MINUTE, run.outcome()).await.expect("it was dropped");
    assert_eq!(outcome.unwrap().status, RunStatus::Cancelled);
    let history = history(database.pool(), "stubborn").await;
    assert_eq!(statuses(&history), [RunStatus::Cancelled]);
    let failures: i32 =
        sqlx::query_scalar("SELECT consecutive_failures FROM jobs WHERE id = 'stubborn'")
            .fetch_one(database.pool())
            .await
            .unwrap();
    assert_eq!(failures, 0, "a restart is no failure of the job");
}

#[tokio::test]
async fn a_fault_of_the_database_is_survived() {
    let (database, clock) = (TestDatabase::new().await, clock());
    let (job, runs) = counting("sweep", MINUTE);
    let scheduler = scheduler(database.pool(), &clock, "a", vec![job]);
    tick(&scheduler).await;
    let rename = |sql: &'static str| sqlx::query(sql).execute(database.pool());
    rename("ALTER TABLE job_runs RENAME TO away").await.unwrap();
    clock.advance(MINUTE);
    assert_eq!(tick(&scheduler).await, 0);
    rename("ALTER TABLE away RENAME TO job_runs").await.unwrap();
    assert_eq!(tick(&scheduler).await, 0, "not each second anew");
    clock.advance(Duration::from_secs(5));
    assert_eq!(tick(&scheduler).await, 1);
    assert_eq!(runs.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_list_of_jobs_that_cannot_be_right_is_refused() {
    let database = TestDatabase::new().await;
    let (one, _) = counting("sweep", MINUTE);
    let new = |jobs| JobScheduler::new(deps(database.pool(), &clock(), "a"), jobs);
    assert!(new(vec![one.clone(), one.clone()]).is_err());
    for interval in [Duration::ZERO, Duration::from_millis(1500)] {
        assert!(new(vec![Job { schedule: interval.into(), ..one.clone() }]).is_err());
    }
    assert_eq!(new(vec![one]).unwrap().jobs().count(), 2);
}

#[tokio::test]
async fn runs_are_counted() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let (database, clock) = (TestDatabase::new().await, clock());
    let jobs = vec![counting("sweep", MINUTE).0, failing("fails")];
    let scheduler = scheduler(database.pool(), &clock, "a", jobs);
    for id in ["sweep", "sweep", "fails"] {
        scheduler.run_now(id).await.unwrap();
    }
    let text = recorder.handle().render();
    for line in [
        r#"loom_job_runs_total{job="sweep",status="succeeded"} 2"#,
        r#"loom_job_runs_total{job="fails",status="failed"} 1"#,
        r#"loom_job_duration_seconds_count{job="sweep"} 2"#,
    ] {
        assert!(text.contains(line), "{text}");
    }
}
