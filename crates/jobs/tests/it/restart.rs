//! PostgreSQL ends without a goodbye and comes back, while jobs run.

use std::{
    collections::BTreeMap,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use chrono::{DateTime, Utc};
use loom_core::Clock;
use loom_db::{
    Hub,
    embedded::{Options, PrivatePostgres},
    migrate,
    pool::Limits,
};
use loom_jobs::{CHANNEL, CatchUp, Config, Deps, Job, JobReport, JobScheduler};
use loom_testkit::{chaos::is_long, eventually};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{deps, job};

/// How often each slot of each job was run.
type Ran = Arc<Mutex<BTreeMap<(&'static str, DateTime<Utc>), usize>>>;

fn noting(id: &'static str, ran: &Ran) -> Job {
    let ran = Arc::clone(ran);
    job(id, Duration::from_secs(1), move |context| {
        let ran = Arc::clone(&ran);
        async move {
            *ran.lock().unwrap().entry((id, context.slot)).or_default() += 1;
            Ok(JobReport::from(1))
        }
    })
}

/// Immediate mode: nothing is rolled back or written, everybody is thrown out.
fn end_at_once(data_dir: &Path) -> Pid {
    let file = std::fs::read_to_string(data_dir.join("postgres/data/postmaster.pid")).unwrap();
    let pid = Pid::from_raw(file.lines().next().unwrap().parse().unwrap());
    kill(pid, Signal::SIGQUIT).unwrap();
    pid
}

#[tokio::test(flavor = "multi_thread")]
async fn chaos_the_scheduler_goes_on_by_itself_when_postgresql_was_restarted_and_nothing_runs_twice()
 {
    let dir = tempfile::tempdir_in("/tmp").unwrap();
    // PostgreSQL of root runs as another user.
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let start = || PrivatePostgres::start(Options::new(dir.path()));
    let mut postgres = start().await.unwrap();
    let url = postgres.url();
    migrate::run(&url, Duration::ZERO).await.unwrap();
    let limits = Limits {
        max_connections: 5,
        statement_timeout: Duration::from_secs(30),
        wait: Duration::from_secs(30),
    };

    let ran = Ran::default();
    let all = CatchUp::All { max: 100, window: Duration::from_secs(600) };
    let mut replicas = Vec::new();
    for name in ["a", "b"] {
        let pool = loom_db::connect(&url, &limits).await.unwrap();
        let (hub, _) = Hub::start(&url, &[CHANNEL]).unwrap();
        // PostgreSQL is back well within the lease. A longer outage costs a run its lease, and what
        // cannot be shown to have ended is run again.
        let config = Config { lease: Duration::from_secs(15) };
        let deps = Deps { hub, config, ..deps(&pool, &Clock::system(), name) };
        let jobs = vec![noting("newest", &ran), Job { catch_up: all, ..noting("each", &ran) }];
        let scheduler = JobScheduler::new(deps, jobs).unwrap();
        scheduler.start_clock().await.unwrap();
        replicas.push(scheduler);
    }
    let slots = |id| ran.lock().unwrap().keys().filter(|(job, _)| *job == id).count();
    for round in 1..=if is_long() { 5 } else { 1 } {
        let before = slots("each");
        eventually(async || (slots("each") >= before + 2).then_some(())).await;
        let pid = end_at_once(dir.path());
        // It is our child: gone when its handle has seen it.
        drop(postgres);
        eventually(async || kill(pid, None).is_err().then_some(())).await;
        postgres = start().await.unwrap();
        assert_eq!(postgres.url().expose(), url.expose());
        let before = slots("newest");
        eventually(async || (slots("newest") >= before + 2).then_some(())).await;
        eprintln!("round {round}: {} slots so far", ran.lock().unwrap().len());
    }
    // What was missed meanwhile is made up for.
    let newest = Clock::system().now();
    eventually(async || {
        let ran = ran.lock().unwrap();
        ran.keys().any(|(job, slot)| *job == "each" && *slot >= newest).then_some(())
    })
    .await;
    for replica in &replicas {
        replica.shutdown(Duration::from_secs(10)).await;
    }
    let ran = ran.lock().unwrap().clone();
    let twice: Vec<_> = ran.iter().filter(|(_, times)| **times > 1).collect();
    if let Some(((job, slot), _)) = twice.first() {
        let pool = loom_db::connect(&url, &limits).await.unwrap();
        let runs: Vec<String> = sqlx::query_scalar(
            "SELECT to_jsonb(r)::text FROM job_runs r WHERE job_id = $1 AND slot = $2 ORDER BY term",
        )
        .bind(job)
        .bind(slot)
        .fetch_all(&pool)
        .await
        .unwrap();
        panic!("{twice:?}: {runs:#?}");
    }
    let each: Vec<_> = ran.keys().filter(|(job, _)| *job == "each").map(|(_, slot)| slot).collect();
    let gaps: Vec<_> =
        each.windows(2).filter(|two| (*two[1] - *two[0]).num_seconds() != 1).collect();
    assert!(gaps.is_empty(), "{gaps:?}");
    postgres.stop().await;
}
