//! The check `jobs`.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use loom_core::{Error, health::Status};
use loom_jobs::{JobError, JobReport};

use crate::{MINUTE, TestDatabase, clock, counting, job, scheduler};

#[tokio::test]
async fn failures_in_a_row_make_it_worse_and_a_success_mends_it() {
    let (database, clock) = (TestDatabase::new().await, clock());
    let works = Arc::new(AtomicBool::new(false));
    let body = {
        let works = Arc::clone(&works);
        move |_| {
            let works = works.load(Ordering::SeqCst);
            let failed = JobError::Fail(Error::internal("a secret of ours"));
            async move { if works { Ok(JobReport::default()) } else { Err(failed) } }
        }
    };
    let jobs = vec![job("flaky", MINUTE, body), counting("steady", MINUTE).0];
    let scheduler = scheduler(database.pool(), &clock, "a", jobs);
    let check = scheduler.health();
    assert_eq!((check.name, check.critical), ("jobs", true));
    assert_eq!((check.probe)().await.status, Status::Healthy);
    scheduler.run_now("steady").await.unwrap();
    for (failures, status) in [
        (1, Status::Degraded),
        (2, Status::Degraded),
        (3, Status::Unhealthy),
        (4, Status::Unhealthy),
    ] {
        scheduler.run_now("flaky").await.unwrap();
        let health = (check.probe)().await;
        assert_eq!(health.status, status, "{failures} failures");
        let failing = &health.facts["failing"];
        assert_eq!(failing[0]["id"], "flaky");
        assert_eq!(failing[0]["consecutive_failures"], failures);
        assert_eq!(failing[0]["last_failure_at"], "2026-03-01T10:15:30.000Z");
        let shown = serde_json::to_string(&health).unwrap();
        assert!(!shown.contains("secret"), "{shown}");
    }
    works.store(true, Ordering::SeqCst);
    scheduler.run_now("flaky").await.unwrap();
    assert_eq!((check.probe)().await.status, Status::Healthy);
}

#[tokio::test]
async fn a_job_that_nobody_takes_is_late_since_its_first_slot_whatever_its_interval() {
    for interval in [MINUTE, 24 * 60 * MINUTE] {
        let (database, clock) = (TestDatabase::new().await, clock());
        let jobs = vec![counting("left", interval).0];
        let scheduler = scheduler(database.pool(), &clock, "a", jobs);
        let check = scheduler.health();
        scheduler.run_now("left").await.unwrap();
        assert_eq!((check.probe)().await.status, Status::Healthy);
        // Ten seconds after a midnight: the newest slot is not late yet.
        clock.advance(Duration::from_secs(2 * 24 * 3600 + 13 * 3600 + 44 * 60 + 40));
        let health = (check.probe)().await;
        assert_eq!(health.status, Status::Degraded, "{interval:?}");
    }
}

#[tokio::test]
async fn without_the_database_it_is_unhealthy() {
    let (database, clock) = (TestDatabase::new().await, clock());
    let scheduler = scheduler(&database.broken_pool(), &clock, "a", vec![]);
    let health = (scheduler.health().probe)().await;
    assert_eq!(health.status, Status::Unhealthy);
}
