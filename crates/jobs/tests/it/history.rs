//! What is recorded of runs, runs by hand, and the clean-up.

use std::{sync::atomic::Ordering, time::Duration};

use chrono::{DateTime, Utc};
use http::StatusCode;
use loom_core::{Error, id::RunId};
use loom_jobs::{Job, JobError, JobReport, JobScheduler, RunStatus};
use sqlx::PgPool;

use crate::{
    MINUTE, TestDatabase, clock, counting, failing, history, job, scheduler, statuses, tick,
    waiting,
};

#[tokio::test]
async fn a_success_is_recorded() {
    let (database, clock) = (TestDatabase::new().await, clock());
    let body = {
        let clock = clock.clone();
        move |_| {
            clock.advance(Duration::from_millis(1500));
            async { Ok(JobReport { items_handled: 7 }) }
        }
    };
    let scheduler = scheduler(database.pool(), &clock, "a", vec![job("sweep", MINUTE, body)]);
    let outcome = scheduler.run_now("sweep").await.unwrap();
    assert_eq!(outcome.status, RunStatus::Succeeded);
    assert_eq!((outcome.items_handled, outcome.duration), (7, Duration::from_millis(1500)));
    let history = history(database.pool(), "sweep").await;
    assert_eq!(statuses(&history), [RunStatus::Succeeded]);
    assert_eq!((&*history[0].trigger, history[0].items_handled), ("manual", 7));
    assert_eq!((history[0].duration_ms, &history[0].error), (Some(1500), &None));
}

#[tokio::test]
async fn failures_and_panics_are_recorded() {
    let (database, clock) = (TestDatabase::new().await, clock());
    let panics = job("panics", MINUTE, |_| async { panic!("the index is {}", 3) });
    let panics_early = job("panics-early", MINUTE, |context| {
        assert!(context.cancel.is_cancelled(), "before its future is made");
        async { Ok(JobReport::default()) }
    });
    let busy =
        job("busy", MINUTE, |_| async { Err(JobError::from(Error::unavailable("come again"))) });
    let told = job("told", MINUTE, |_| async {
        let cause = "401 for https://bot:hunter2hunter2@git.example.com";
        Err(JobError::from(Error::unavailable("no").because(cause)))
    });
    loom_redact::learn(["correct-horse-battery".into()]);
    let knows = job("knows", MINUTE, |_| async {
        Err(JobError::from(Error::unavailable("Correct-Horse-Battery was refused")))
    });
    let jobs = vec![failing("fails"), panics, panics_early, busy, told, knows];
    let scheduler = scheduler(database.pool(), &clock, "a", jobs);
    for (id, error) in [
        ("fails", "the disk\u{fffd}is full"),
        ("panics", "panicked: the index is 3"),
        ("panics-early", "panicked: before its future is made"),
        ("busy", "come again"),
        // Without the password.
        ("told", "401 for https://bot:[redacted"),
        ("knows", "[redacted:known] was refused"),
    ] {
        let outcome = scheduler.run_now(id).await.unwrap();
        assert_eq!(outcome.status, RunStatus::Failed, "{id}");
        let history = history(database.pool(), id).await;
        assert_eq!(statuses(&history), [RunStatus::Failed], "{id}");
        assert_eq!(history[0].error, outcome.error);
        assert!(outcome.error.unwrap().contains(error), "{id}");
    }
}

#[tokio::test]
async fn a_run_over_its_time_is_cancelled_and_has_failed() {
    let (database, clock) = (TestDatabase::new().await, clock());
    let slow = job("slow", MINUTE, |context| async move {
        context.cancel.cancelled().await;
        Ok(JobReport::default())
    });
    let slow = Job { timeout: Duration::from_millis(10), ..slow };
    let scheduler = scheduler(database.pool(), &clock, "a", vec![slow]);
    let outcome = scheduler.run_now("slow").await.unwrap();
    assert_eq!(outcome.status, RunStatus::Failed);
    assert!(outcome.error.unwrap().contains("10ms"));
    assert_eq!(statuses(&history(database.pool(), "slow").await), [RunStatus::Failed]);
}

#[tokio::test]
async fn an_unknown_job_is_not_found() {
    let (database, clock) = (TestDatabase::new().await, clock());
    let scheduler = scheduler(database.pool(), &clock, "a", vec![]);
    let error = scheduler.run_now("nonsense").await.unwrap_err();
    assert_eq!(error.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_second_run_at_the_same_time_is_refused() {
    let (database, clock) = (TestDatabase::new().await, clock());
    let (job, gate) = waiting("sweep", MINUTE);
    let one = scheduler(database.pool(), &clock, "a", vec![job.clone()]);
    let two = scheduler(database.pool(), &clock, "b", vec![job]);
    let run = one.request("sweep").await.unwrap();
    for scheduler in [&one, &two] {
        let error = scheduler.run_now("sweep").await.unwrap_err();
        assert_eq!((error.status(), error.code()), (StatusCode::CONFLICT, "job_running"));
    }
    gate.add_permits(2);
    run.outcome().await.unwrap();
    two.run_now("sweep").await.unwrap();
    assert_eq!(statuses(&history(database.pool(), "sweep").await), [RunStatus::Succeeded; 2]);
}

#[tokio::test]
async fn a_run_by_hand_does_not_move_the_schedule() {
    let (database, clock) = (TestDatabase::new().await, clock());
    let (job, runs) = counting("sweep", MINUTE);
    let scheduler = scheduler(database.pool(), &clock, "a", vec![job]);
    tick(&scheduler).await;
    clock.advance(Duration::from_secs(29));
    scheduler.run_now("sweep").await.unwrap();
    clock.advance(Duration::from_secs(1));
    assert_eq!(tick(&scheduler).await, 1);
    assert_eq!(runs.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn the_cleanup_keeps_the_newest_of_each_job_and_the_last_90_days() {
    let (database, clock) = (TestDatabase::new().await, clock());
    let (busy, rare, pool) =
        (counting("busy", MINUTE).0, counting("rare", MINUTE).0, database.pool());
    let scheduler = scheduler(pool, &clock, "a", vec![busy, rare]);
    tick(&scheduler).await;
    // Of the first 2,500 old runs and 70 young ones, of the second 60 old ones.
    for (id, days, count) in [("busy", 100, 2500), ("busy", 10, 70), ("rare", 100, 60)] {
        let ids: Vec<_> = (0..count).map(|_| RunId::new(clock.now()).0).collect();
        sqlx::query(
            "INSERT INTO job_runs (id, job_id, slot, trigger, replica, status, started_at, finished_at, lease_until)
             SELECT id, $2, at, 'schedule', 'a', 'succeeded', at, at, at
               FROM (SELECT id, $3 - make_interval(days => $4) - n * interval '1 second' AS at
                       FROM UNNEST($1::uuid[]) WITH ORDINALITY AS new (id, n)) runs",
        )
        .bind(ids)
        .bind(id)
        .bind(clock.now())
        .bind(days)
        .execute(pool)
        .await
        .unwrap();
    }
    let outcome = scheduler.run_now("job-history-cleanup").await.unwrap();
    assert_eq!((outcome.status, outcome.items_handled), (RunStatus::Succeeded, 2510));
    assert_eq!(history(pool, "busy").await.len(), 70);
    let rare = history(pool, "rare").await;
    assert_eq!(rare.len(), 50);
    let newest = clock.now() - Duration::from_secs(100 * 24 * 3600 + 1);
    assert_eq!(rare[49].slot, newest);
    let again = scheduler.run_now("job-history-cleanup").await.unwrap();
    assert_eq!(again.items_handled, 0);
}

/// Puts a run of `sweep` into the history.
async fn old_run(pool: &PgPool, at: &str, status: &str, attempt: i32, ms: i64, items: i64) {
    let at: DateTime<Utc> = at.parse().unwrap();
    sqlx::query(
        "INSERT INTO job_runs (id, job_id, slot, trigger, attempt, replica, status, started_at,
                               finished_at, lease_until, duration_ms, items_handled)
         VALUES ($1, 'sweep', $2, 'manual', $4, 'a', $3, $2, $2, $2, $5, $6)",
    )
    .bind(RunId::new(at).0)
    .bind(at)
    .bind(status)
    .bind(attempt)
    .bind(ms)
    .bind(items)
    .execute(pool)
    .await
    .unwrap();
}

#[tokio::test]
async fn old_runs_become_sums_per_day_of_which_none_is_lost_or_counted_twice() {
    let (database, clock) = (TestDatabase::new().await, clock());
    let pool = database.pool();
    let new = |replica| scheduler(pool, &clock, replica, vec![counting("sweep", MINUTE).0]);
    let (one, two) = (new("a"), new("b"));
    tick(&one).await;
    old_run(pool, "2025-10-01T23:59:59.9Z", "succeeded", 1, 100, 7).await;
    old_run(pool, "2025-10-02T00:00:00Z", "failed", 1, 300, 0).await;
    old_run(pool, "2025-10-02T00:01:00Z", "abandoned", 2, 500, 0).await;
    old_run(pool, "2025-10-02T00:02:00Z", "succeeded", 3, 200, 5).await;
    old_run(pool, "2025-10-02T12:00:00Z", "cancelled", 1, 50, 1).await;
    let cleanup = async |scheduler: &JobScheduler| {
        scheduler.run_now("job-history-cleanup").await.unwrap().items_handled
    };
    for _ in 0..50 {
        one.run_now("sweep").await.unwrap();
    }
    assert_eq!(cleanup(&one).await, 5);
    assert_eq!(cleanup(&two).await, 0);
    let days = one.days("sweep", None, 10).await.unwrap();
    let told: Vec<_> = days
        .iter()
        .map(|day| {
            let ends = (day.succeeded, day.failed, day.cancelled, day.abandoned, day.retried);
            let sums = (day.items_handled, day.total_duration_ms, day.max_duration_ms);
            (day.day.to_string(), day.runs, ends, sums)
        })
        .collect();
    let first = ("2025-10-01".to_owned(), 1, (1, 0, 0, 0, 0), (7, 100, 100));
    let second = ("2025-10-02".to_owned(), 4, (1, 1, 1, 1, 2), (6, 1050, 500));
    assert_eq!(told, [second, first]);

    // What comes late is added.
    for minute in 0..40 {
        old_run(pool, &format!("2025-10-02T13:{minute:02}:00Z"), "succeeded", 1, 1, 1).await;
    }
    assert_eq!(cleanup(&two).await, 40);
    let page = two.days("sweep", None, 1).await.unwrap();
    assert_eq!((page[0].runs, page[0].succeeded, page[0].total_duration_ms), (44, 41, 1090));
    let rest = two.days("sweep", Some(page[0].day), 10).await.unwrap();
    assert_eq!(rest.iter().map(|day| day.day.to_string()).collect::<Vec<_>>(), ["2025-10-01"]);
    let error = two.days("nonsense", None, 1).await.unwrap_err();
    assert_eq!(error.status(), StatusCode::NOT_FOUND);
}
