//! Replicas as processes of their own on one database, killed and suspended at random, while ten jobs
//! are due each second. `LOOM_CHAOS=long` plays for two minutes.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};
use loom_common_secret::SecretString;
use loom_core::{Clock, Error};
use loom_db::{Hub, pool::Limits};
use loom_jobs::{
    CHANNEL, CatchUp, Config, Deps, Job, JobContext, JobError, JobReport, JobScheduler,
};
use loom_testkit::{
    TestDatabase,
    chaos::{Process, is_long},
    eventually,
};
use nix::sys::signal::Signal;
use rand::{RngExt as _, seq::IndexedRandom as _};
use sqlx::PgPool;
use tokio::time::sleep;

use crate::deps;

const URL: &str = "LOOM_CHAOS_DATABASE_URL";
const LEASE: Duration = Duration::from_secs(3);
const JOBS: [&str; 10] = ["j0", "j1", "j2", "j3", "j4", "j5", "j6", "j7", "j8", "j9"];
/// These make up for each slot, the others only for the newest.
const EACH: [&str; 5] = ["j0", "j2", "j4", "j6", "j8"];
/// Strikes of the clock, and statements on a machine that does much else.
const TO_NOTICE: Duration = Duration::from_secs(3);

/// What each job does: something that takes a while, and an effect that carries the term.
async fn work(pool: PgPool, id: &'static str, context: JobContext) -> Result<JobReport, JobError> {
    let millis = if id == "j3" { 1500 } else { rand::rng().random_range(0..900) };
    sleep(Duration::from_millis(millis)).await;
    if id == "j1" && rand::rng().random_ratio(1, 5) {
        return Err(JobError::Retry(Error::internal("the line is busy")));
    }
    context.fence().await?;
    let effect = sqlx::query(
        "INSERT INTO effects (job, slot, term)
         SELECT $1, $2, $3 FROM (SELECT FROM jobs WHERE id = $1 AND term = $3 FOR SHARE) held",
    );
    let done = effect.bind(id).bind(context.slot).bind(context.term).execute(&pool).await?;
    match done.rows_affected() {
        0 => Err(JobError::Fail(Error::internal("was overtaken"))),
        _ => Ok(JobReport::from(1)),
    }
}

/// The process that the scenarios start.
#[test]
#[ignore = "is started by the scenarios"]
#[expect(clippy::disallowed_methods, reason = "the settings of the test run, not of the server")]
fn replica() {
    let Ok(url) = std::env::var(URL).map(SecretString::from) else { return };
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime.worker_threads(2).enable_all().build().unwrap().block_on(async {
        let limits = Limits {
            max_connections: 8,
            statement_timeout: Duration::from_secs(30),
            wait: Duration::from_secs(10),
        };
        let pool = loom_db::connect(&url, &limits).await.unwrap();
        let (hub, _) = Hub::start(&url, &[CHANNEL]).unwrap();
        let config = Config { lease: LEASE };
        let name = std::process::id().to_string();
        let deps = Deps { hub, config, ..deps(&pool, &Clock::system(), &name) };
        let jobs = JOBS.map(|id| {
            let pool = pool.clone();
            let second = Duration::from_secs(1);
            let body = move |context| work(pool.clone(), id, context);
            let job = Job::new(id, "A job", "For a test", second, Duration::from_secs(60), body);
            let all = CatchUp::All { max: 100, window: Duration::from_secs(600) };
            if EACH.contains(&id) { Job { catch_up: all, ..job } } else { job }
        });
        let scheduler = JobScheduler::new(deps, jobs.into()).unwrap();
        scheduler.start_clock().await.unwrap();
        std::future::pending::<()>().await;
    });
}

/// Replicas that come to harm.
struct Fleet {
    url: String,
    logs: tempfile::TempDir,
    replicas: Vec<Process>,
    /// When those that are suspended go on.
    suspended: BTreeMap<usize, Instant>,
    kills: usize,
    suspensions: usize,
}

impl Fleet {
    fn new(database: &TestDatabase, size: usize) -> Self {
        let url = database.url().expose().to_owned();
        let (logs, replicas) = (tempfile::tempdir().unwrap(), Vec::new());
        let mut fleet =
            Self { url, logs, replicas, suspended: BTreeMap::new(), kills: 0, suspensions: 0 };
        fleet.replicas = (0..size).map(|n| fleet.spawn(n)).collect();
        fleet
    }

    fn spawn(&self, n: usize) -> Process {
        let program = std::env::current_exe().unwrap();
        let args = ["--exact", "chaos::replica", "--ignored", "--nocapture"];
        let log = self.logs.path().join(n.to_string());
        Process::spawn(&program, &args, [(URL, &*self.url)], &log).unwrap()
    }

    /// One is killed, or suspended until its leases have ended. There is always another that works.
    async fn harm(&mut self) {
        let due = self.suspended.extract_if(.., |_, until| *until <= Instant::now());
        for n in due.map(|(n, _)| n).collect::<Vec<_>>() {
            self.replicas[n].signal(Signal::SIGCONT).unwrap();
        }
        let working: Vec<_> =
            (0..self.replicas.len()).filter(|n| !self.suspended.contains_key(n)).collect();
        let Some(&n) = working.choose(&mut rand::rng()).filter(|_| working.len() > 1) else {
            return;
        };
        if (self.kills + self.suspensions) % 3 != 2 {
            self.replicas[n].kill9().await.unwrap();
            self.replicas[n] = self.spawn(n);
            self.kills += 1;
        } else {
            self.replicas[n].signal(Signal::SIGSTOP).unwrap();
            self.suspended.insert(n, Instant::now() + LEASE + Duration::from_secs(1));
            self.suspensions += 1;
        }
    }

    fn wake_all(&mut self) {
        for n in std::mem::take(&mut self.suspended).into_keys() {
            self.replicas[n].signal(Signal::SIGCONT).unwrap();
        }
    }
}

#[derive(sqlx::FromRow, Debug)]
struct Row {
    job_id: String,
    slot: DateTime<Utc>,
    trigger: String,
    attempt: i32,
    term: i64,
    previous_slot: Option<DateTime<Utc>>,
    status: String,
    started_at: DateTime<Utc>,
    finished_at: Option<DateTime<Utc>>,
    lease_until: DateTime<Utc>,
}

/// The runs of each job in the order in which they were claimed.
async fn runs(pool: &PgPool) -> BTreeMap<String, Vec<Row>> {
    let rows: Vec<Row> =
        sqlx::query_as("SELECT * FROM job_runs WHERE job_id LIKE 'j_' ORDER BY job_id, term")
            .fetch_all(pool)
            .await
            .unwrap();
    let mut jobs = BTreeMap::<_, Vec<_>>::new();
    for row in rows {
        jobs.entry(row.job_id.clone()).or_default().push(row);
    }
    jobs
}

/// What must be true of the history of one job; gives how long each take-over took.
fn check(id: &str, runs: &[Row]) -> Vec<Duration> {
    let second = chrono::TimeDelta::seconds(1);
    let each = EACH.contains(&id);
    let mut slots = BTreeMap::<_, Vec<&Row>>::new();
    for (n, run) in runs.iter().enumerate() {
        assert_eq!(run.term, i64::try_from(n).unwrap() + 1, "{id}: each claim has its own term");
        slots.entry(run.slot).or_default().push(run);
    }
    for (slot, attempts) in &slots {
        let numbers: Vec<_> = attempts.iter().map(|run| run.attempt).collect();
        assert!(numbers.len() <= 3 && numbers.iter().copied().eq(1..=attempts.len() as i32));
        assert!(attempts.iter().all(|run| (run.attempt == 1) == (run.trigger == "schedule")));
        let successes = attempts.iter().filter(|run| run.status == "succeeded").count();
        assert!(successes <= 1, "{id} {slot}: {attempts:#?}");
    }
    // Nothing is lost: between two slots there is none that is not told of, and of those of which
    // each is to be made up for none is left before it succeeded or was given up.
    for ((one, attempts), (two, next)) in slots.iter().zip(slots.iter().skip(1)) {
        assert_eq!(next[0].previous_slot, Some(*one), "{id}: {two}");
        if each {
            assert_eq!(*two, *one + second, "{id}");
            let last = attempts.last().unwrap();
            assert!(last.status == "succeeded" || last.attempt == 3, "{id} {one}: {attempts:#?}");
        }
    }
    // One at a time, and who takes over waits for the lease and not for long.
    let mut took = Vec::new();
    for two in runs.windows(2) {
        let ended = two[0].finished_at.unwrap();
        assert!(ended <= two[1].started_at + chrono::TimeDelta::milliseconds(50), "{id}: {two:#?}");
        if two[0].status == "abandoned" && ended >= two[0].lease_until {
            took.push((two[1].started_at - two[0].lease_until).to_std().unwrap_or_default());
        }
    }
    took
}

async fn play(size: usize) {
    let database = TestDatabase::new().await;
    let pool = database.pool();
    let table = "CREATE TABLE effects (n bigserial, job text, slot timestamptz, term bigint)";
    sqlx::query(table).execute(pool).await.unwrap();
    let mut fleet = Fleet::new(&database, size);
    eventually(async || (runs(pool).await.len() == JOBS.len()).then_some(())).await;

    let length = Duration::from_secs(if is_long() { 120 } else { 5 });
    let start = Instant::now();
    while start.elapsed() < length {
        sleep(Duration::from_millis(rand::rng().random_range(200..1200))).await;
        fleet.harm().await;
    }
    fleet.wake_all();
    let calm = Clock::system().now();
    // Everything that was due is made up for, the last lease has ended and its slot is taken up.
    let patience = Instant::now();
    loop {
        let late: Option<String> = sqlx::query_scalar(
            "SELECT id FROM jobs WHERE id LIKE 'j_' AND NOT EXISTS (
                 SELECT FROM job_runs
                  WHERE job_id = jobs.id AND slot >= $1 AND status = 'succeeded')
              LIMIT 1",
        )
        .bind(calm)
        .fetch_optional(pool)
        .await
        .unwrap();
        let Some(late) = late else { break };
        assert!(patience.elapsed() < Duration::from_secs(100), "{late} did not go on");
        sleep(Duration::from_millis(100)).await;
    }
    let (kills, suspensions) = (fleet.kills, fleet.suspensions);
    drop(fleet);

    let mut jobs = runs(pool).await;
    let mut took = Vec::new();
    let mut counts = BTreeMap::<_, usize>::new();
    for (id, runs) in &mut jobs {
        // What was just under way when all were killed.
        runs.retain(|run| run.status != "running");
        took.extend(check(id, runs));
        for run in runs {
            *counts.entry(run.status.clone()).or_default() += 1;
        }
    }
    took.sort();
    let longest = took.last().copied().unwrap_or_default();
    eprintln!(
        "{size} replicas, {kills} killed, {suspensions} suspended: {counts:?}; {} take-overs, the \
         longest {longest:?} after the end of its lease of {LEASE:?}",
        took.len(),
    );
    assert!(kills > 0 && longest < TO_NOTICE, "{took:?}");

    // No effect comes after one of a later claim, and none twice from one.
    let disordered: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM (
             SELECT term <= lag(term) OVER (PARTITION BY job ORDER BY n) AS wrong FROM effects) t
          WHERE wrong",
    )
    .fetch_one(pool)
    .await
    .unwrap();
    assert_eq!(disordered, 0);
    let without_effect: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM job_runs run WHERE job_id LIKE 'j_' AND status = 'succeeded'
            AND NOT EXISTS (SELECT FROM effects WHERE job = run.job_id AND term = run.term)",
    )
    .fetch_one(pool)
    .await
    .unwrap();
    assert_eq!(without_effect, 0);
}

#[tokio::test]
async fn chaos_of_two_replicas_that_are_killed_and_suspended_each_slot_is_done_once() {
    play(2).await;
}

#[tokio::test]
async fn chaos_of_five_replicas_that_are_killed_and_suspended_each_slot_is_done_once() {
    play(5).await;
}
