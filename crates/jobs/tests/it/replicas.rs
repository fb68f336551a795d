//! What replicas tell each other, whose run it is, and how little an idle one asks.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use loom_core::Clock;
use loom_db::Hub;
use loom_jobs::{CHANNEL, Config, Deps, Job, JobError, JobReport, JobScheduler, RunStatus};
use loom_testkit::eventually;
use tokio::{sync::Semaphore, time::timeout};

use crate::{
    MINUTE, TestDatabase, clock, counting, deps, end_leases, failing, history, job, scheduler,
    skip_time, statements::Statements, statuses, tick, tick_one, waiting,
};

const HOUR: Duration = Duration::from_secs(3600);

/// A replica that hears what others say.
async fn hearing(deps: Deps, database: &TestDatabase, jobs: Vec<Job>) -> JobScheduler {
    let (hub, _) = Hub::start(database.url(), &[CHANNEL]).unwrap();
    hub.connected().await;
    JobScheduler::new(Deps { hub, ..deps }, jobs).unwrap()
}

/// Looks until one run begins, and waits for its end. No time goes by.
async fn tick_until_one(scheduler: &JobScheduler) {
    eventually(async || (tick(scheduler).await == 1).then_some(())).await;
}

#[tokio::test]
async fn a_run_on_another_replica_hears_at_once_that_it_is_to_stop() {
    let (database, clock) = (TestDatabase::new().await, clock());
    let polite = job("sweep", HOUR, |context| async move {
        context.cancel.cancelled().await;
        Ok(JobReport { items_handled: 3 })
    });
    // Its next word with the database would be minutes away.
    let config = Config { lease: MINUTE * 10 };
    let one = Deps { config, ..deps(database.pool(), &clock, "a") };
    let one = hearing(one, &database, vec![polite.clone()]).await;
    let two = scheduler(database.pool(), &clock, "b", vec![polite]);
    let run = one.request("sweep").await.unwrap();
    assert_eq!(two.cancel("sweep").await.unwrap(), run.id);
    let outcome = timeout(MINUTE, run.outcome()).await.unwrap().unwrap();
    assert_eq!((outcome.status, outcome.items_handled), (RunStatus::Cancelled, 3));
}

#[tokio::test]
async fn a_job_that_is_switched_on_is_known_at_once() {
    let (database, clock) = (TestDatabase::new().await, clock());
    let (sweep, _) = counting("sweep", MINUTE);
    let one = hearing(deps(database.pool(), &clock, "a"), &database, vec![sweep.clone()]).await;
    let two = scheduler(database.pool(), &clock, "b", vec![sweep]);
    two.switch("sweep", false).await.unwrap();
    tick(&one).await;
    two.switch("sweep", true).await.unwrap();
    // Not yet a minute, after which it would look anyhow.
    clock.advance(Duration::from_secs(30));
    tick_until_one(&one).await;
}

#[tokio::test]
async fn what_is_to_be_tried_again_is_known_at_once() {
    let (database, clock) = (TestDatabase::new().await, clock());
    let busy = job("sweep", HOUR, |_| async {
        Err(JobError::Retry(loom_core::Error::internal("the line is busy")))
    });
    let one = scheduler(database.pool(), &clock, "a", vec![busy]);
    let (works, _) = counting("sweep", HOUR);
    let two = hearing(deps(database.pool(), &clock, "b"), &database, vec![works]).await;
    tick(&two).await;
    one.run_now("sweep").await.unwrap();
    clock.advance(Duration::from_secs(16));
    tick_until_one(&two).await;
    let history = history(database.pool(), "sweep").await;
    assert_eq!(statuses(&history), [RunStatus::Failed, RunStatus::Succeeded]);
}

#[tokio::test]
async fn what_a_shutdown_stopped_goes_on_elsewhere_at_once() {
    let (database, clock) = (TestDatabase::new().await, clock());
    let gives_up = job("sweep", HOUR, |context| async move {
        context.cancel.cancelled().await;
        Err(loom_core::Error::unavailable("not done").into())
    });
    let one = scheduler(database.pool(), &clock, "a", vec![gives_up]);
    let (works, _) = counting("sweep", HOUR);
    let two = hearing(deps(database.pool(), &clock, "b"), &database, vec![works]).await;
    tick(&two).await;
    one.request("sweep").await.unwrap();
    one.shutdown(MINUTE).await;
    tick_until_one(&two).await;
    let history = history(database.pool(), "sweep").await;
    assert_eq!(statuses(&history), [RunStatus::Cancelled, RunStatus::Succeeded]);
    assert_eq!((history[0].slot, history[1].attempt), (history[1].slot, 2));
}

#[tokio::test]
async fn whoever_was_turned_away_looks_when_the_lease_may_have_ended() {
    let (database, clock) = (TestDatabase::new().await, clock());
    clock.advance(Duration::from_secs(29));
    let (stuck, _gate) = waiting("sweep", MINUTE * 2);
    let (works, runs) = counting("sweep", MINUTE * 2);
    let one = scheduler(database.pool(), &clock, "a", vec![stuck]);
    let two = scheduler(database.pool(), &clock, "b", vec![works]);
    tokio::join!(tick(&one), tick(&two));
    clock.advance(Duration::from_secs(1));
    let _lost = tick_one(&one).await;
    assert_eq!(tick(&two).await, 0);
    end_leases(database.pool()).await;
    clock.advance(Duration::from_secs(29));
    assert_eq!(tick(&two).await, 0, "it has no reason to look");
    clock.advance(Duration::from_secs(1));
    assert_eq!(tick(&two).await, 1);
    assert_eq!(runs.load(std::sync::atomic::Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_replica_with_a_wrong_clock_takes_no_healthy_run_away() {
    let (database, right) = (TestDatabase::new().await, clock());
    let (stuck, gate) = waiting("sweep", HOUR * 24);
    let one = scheduler(database.pool(), &right, "a", vec![stuck.clone()]);
    let run = one.request("sweep").await.unwrap();
    for minutes in [2, 600] {
        let wrong = Clock::manual(right.now() + MINUTE * minutes);
        let two = scheduler(database.pool(), &wrong, "b", vec![stuck.clone()]);
        assert_eq!(tick(&two).await, 0);
        let refused = two.request("sweep").await.unwrap_err();
        assert_eq!(refused.code(), "job_running");
    }
    gate.add_permits(1);
    assert_eq!(run.outcome().await.unwrap().status, RunStatus::Succeeded);

    // And one whose clock is behind sees at once that a lease has ended.
    let _lost = one.request("sweep").await.unwrap();
    end_leases(database.pool()).await;
    let behind = Clock::manual(right.now() - MINUTE * 5);
    let two = scheduler(database.pool(), &behind, "b", vec![stuck]);
    assert_eq!(two.tick().await.len(), 1, "it goes on with it");
    let history = history(database.pool(), "sweep").await;
    assert!(statuses(&history).contains(&RunStatus::Abandoned), "{history:?}");
    assert!(history.iter().all(|run| run.duration_ms.is_none_or(|ms| ms >= 0)));
}

/// A job that waits for its permit, asks for the fence, and has its effect.
fn fenced(gate: &Arc<Semaphore>, effects: &Arc<Mutex<Vec<i64>>>) -> Job {
    let (gate, effects) = (Arc::clone(gate), Arc::clone(effects));
    job("sweep", HOUR, move |context| {
        let (gate, effects) = (Arc::clone(&gate), Arc::clone(&effects));
        async move {
            gate.acquire().await.unwrap().forget();
            context.fence().await?;
            effects.lock().unwrap().push(context.term);
            Ok(JobReport::from(1))
        }
    })
}

#[tokio::test]
async fn a_replica_that_hung_past_its_lease_has_no_effect_any_more() {
    let (database, clock) = (TestDatabase::new().await, clock());
    let effects = Arc::default();
    let (hangs, works) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(9)));
    let one = scheduler(database.pool(), &clock, "a", vec![fenced(&hangs, &effects)]);
    let two = scheduler(database.pool(), &clock, "b", vec![fenced(&works, &effects)]);
    two.run_now("sweep").await.unwrap();
    let hung = one.request("sweep").await.unwrap();
    end_leases(database.pool()).await;
    clock.advance(MINUTE);
    assert_eq!(tick(&two).await, 1);

    hangs.add_permits(1);
    let late = hung.outcome().await.unwrap();
    assert_eq!(late.status, RunStatus::Abandoned);
    assert!(late.error.unwrap().contains("its lease could not be renewed"));
    assert_eq!(*effects.lock().unwrap(), [1, 3], "each claim has a higher term");
    let history = history(database.pool(), "sweep").await;
    let ended = [RunStatus::Succeeded, RunStatus::Abandoned, RunStatus::Succeeded];
    assert_eq!(statuses(&history), ended, "what came late changed nothing");
    let terms: Vec<_> = history.iter().map(|run| (run.term, run.attempt)).collect();
    assert_eq!(terms, [(1, 1), (2, 1), (3, 2)]);
    let views = two.views().await.unwrap();
    assert!(views.iter().all(|view| view.consecutive_failures == 0));
}

#[tokio::test]
async fn a_run_whose_lease_cannot_be_renewed_stops_before_it_ends() {
    let (database, clock) = (TestDatabase::new().await, clock());
    let polite = job("sweep", HOUR, |context| async move {
        context.cancel.cancelled().await;
        Ok(JobReport::default())
    });
    let scheduler = scheduler(database.pool(), &clock, "a", vec![polite]);
    let run = scheduler.request("sweep").await.unwrap();
    let rename = |sql: &'static str| sqlx::query(sql).execute(database.pool());
    rename("ALTER TABLE job_runs RENAME TO away").await.unwrap();
    let mut outcome = std::pin::pin!(run.outcome());
    let mut seconds = 0;
    // Its end cannot be recorded either: that it tries shows that the body has stopped.
    let renamed_back = loop {
        skip_time(Duration::from_secs(1)).await;
        seconds += 1;
        assert!(seconds < 30, "a lease is 30 s");
        // Time for a statement.
        sqlx::query("SELECT 1").execute(database.pool()).await.unwrap();
        if seconds == 24 {
            break rename("ALTER TABLE away RENAME TO job_runs").await;
        }
    };
    renamed_back.unwrap();
    let outcome = timeout(MINUTE, &mut outcome).await.unwrap().unwrap();
    assert_eq!(outcome.status, RunStatus::Abandoned);
    assert!(outcome.error.unwrap().contains("could not be renewed"));
    assert!(outcome.retry_at.is_some());
    assert_eq!(statuses(&history(database.pool(), "sweep").await), [RunStatus::Abandoned]);
}

#[tokio::test]
async fn an_idle_scheduler_asks_once_a_minute_in_one_statement() {
    let (database, clock) = (TestDatabase::new().await, clock());
    let statements = Statements::count();
    let jobs = vec![counting("sweep", HOUR * 24).0, failing("fails-daily")];
    let jobs = jobs.into_iter().map(|job| Job { schedule: (HOUR * 24).into(), ..job }).collect();
    let scheduler = hearing(deps(database.pool(), &clock, "a"), &database, jobs).await;
    tick(&scheduler).await;
    assert!(statements.seen() >= 2, "it registers its jobs, and reads");
    // That it listens is told when it comes, and is a reason to read again.
    eventually(async || {
        let before = statements.seen();
        tick(&scheduler).await;
        (statements.seen() == before).then_some(())
    })
    .await;
    for minute in 1..=10 {
        let last = database.last_statement().await;
        // Its own connection counts as well.
        let before = statements.seen();
        for _ in 0..59 {
            clock.advance(Duration::from_secs(1));
            assert_eq!(tick(&scheduler).await, 0);
        }
        assert_eq!(statements.seen(), before, "minute {minute}");
        clock.advance(Duration::from_secs(1));
        tick(&scheduler).await;
        assert_eq!(statements.seen(), before + 1, "minute {minute}");
        assert!(database.last_statement().await > last, "it went to the database");
    }
}
