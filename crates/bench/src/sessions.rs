//! Sessions of applications: updates a second, adding up at several sizes beside one hand-written GROUP BY,
//! and reads over a long time.

use std::{
    net::SocketAddr,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use reqwest::{Client, Method};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};
use tokio::{task::JoinSet, time::sleep};
use uuid::Uuid;

use crate::{
    loom::{self, Loom},
    process::Fleet,
    stats::{median, percentile},
};

const GOAL_UPDATES: f64 = 10_000.0;
const GOAL_RATIO: f64 = 1.5;
const GOAL_READ_MS: f64 = 50.0;
const READS: u64 = 30;
const ROUNDS: usize = 3;

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Sessions to be added up, in steps: each is measured
    #[arg(long, value_delimiter = ',', default_values_t = [10_000, 100_000, 1_000_000])]
    sessions: Vec<u64>,
    /// Length of the measurement of updates; 0 leaves it out
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Connections of the measurement of updates, in steps
    #[arg(long, value_delimiter = ',', default_values_t = [1, 16, 128])]
    connections: Vec<usize>,
    /// The server's binary [default: loom-server beside this program]
    #[arg(long)]
    loom: Option<PathBuf>,
}

pub(crate) async fn run(options: &Options) -> Result<()> {
    let mut fleet = Fleet::new()?;
    let result = tokio::select! {
        result = measure(options, &mut fleet) => result,
        _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
    };
    fleet.stop().await?;
    result
}

struct Bench {
    loom: Loom,
    http: Client,
    db: PgConnection,
}

struct Project {
    id: Uuid,
    org: Uuid,
    slug: String,
    key: String,
}

async fn measure(options: &Options, fleet: &mut Fleet) -> Result<()> {
    let beside = || Ok::<_, anyhow::Error>(std::env::current_exe()?.with_file_name("loom-server"));
    let binary = options.loom.clone().map_or_else(beside, Ok)?;
    let nowhere = SocketAddr::from(([127, 0, 0, 1], 9));
    let loom = loom::start(fleet, &binary, nowhere, &[]).await.context("starting Loom")?;
    let url = loom_db::embedded::find_running(&fleet.dir.join("data"))
        .await?
        .context("the server's PostgreSQL does not run")?;
    let mut db = PgConnection::connect(url.expose()).await?;
    db.execute("SET statement_timeout = 0; SET work_mem = '64MB'").await?;
    // Another part of the program may have been first.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let http = Client::builder().no_proxy().build()?;
    let mut bench = Bench { loom, http, db };
    if options.seconds > 0 {
        bench.updates(&options.connections, Duration::from_secs(options.seconds)).await?;
    }
    bench.aggregation(&options.sessions).await?;
    bench.reads().await
}

impl Bench {
    async fn ask(&self, method: Method, path: &str, body: Option<Value>) -> Result<Value> {
        let url = format!("http://{}{path}", self.loom.address);
        let mut request = self.http.request(method, url).bearer_auth(&self.loom.key);
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request.send().await?;
        let (status, text) = (answer.status(), answer.text().await?);
        ensure!(status.is_success(), "{path}: {status} {text}");
        Ok(serde_json::from_str(&text)?)
    }

    async fn project(&mut self, slug: &str) -> Result<Project> {
        let new = json!({"name": slug, "slug": slug});
        let made = self.ask(Method::POST, "/api/crash/projects", Some(new)).await?;
        let dsn = made.get("dsn").and_then(Value::as_str).context("the project has no DSN")?;
        let key = dsn.split_once("://").and_then(|(_, rest)| rest.split_once('@'));
        let key = key.context("the DSN has no key")?.0.to_owned();
        let id: Uuid = made.get("id").and_then(Value::as_str).context("no id")?.parse()?;
        let org = sqlx::query_scalar("SELECT org_id FROM crash_projects WHERE id = $1")
            .bind(id)
            .fetch_one(&mut self.db)
            .await?;
        Ok(Project { id, org, slug: slug.to_owned(), key })
    }

    /// Acknowledged updates: a start and an end by turns.
    async fn updates(&mut self, connections: &[usize], time: Duration) -> Result<()> {
        crate::print(
            "| connections | updates/s | p50 ms | p99 ms | stored | ≥ 10,000/s |\n|--:|--:|--:|--:|--:|---|\n",
        );
        for (step, count) in connections.iter().copied().enumerate() {
            let project = self.project(&format!("updates-{step}")).await?;
            let until = Instant::now() + time;
            let mut tasks = JoinSet::new();
            for _ in 0..count.max(1) {
                let (http, key) = (self.http.clone(), project.key.clone());
                let base = format!("http://{}/api/app-sessions", self.loom.address);
                tasks.spawn(async move { tell(&http, &base, &key, until).await });
            }
            let (mut times, mut started) = (Vec::new(), 0);
            while let Some(done) = tasks.join_next().await {
                let (more, sessions) = done??;
                times.extend(more);
                started += sessions;
            }
            times.sort_unstable();
            let stored: i64 =
                sqlx::query_scalar("SELECT count(*) FROM app_sessions WHERE project_id = $1")
                    .bind(project.id)
                    .fetch_one(&mut self.db)
                    .await?;
            ensure!(stored == started, "{started} sessions were acknowledged, {stored} are stored");
            let rate = times.len() as f64 / time.as_secs_f64();
            let ms = |percent| percentile(&times, percent).unwrap_or_default() as f64 / 1000.0;
            crate::print(&format!(
                "| {count} | {rate:.0} | {:.2} | {:.2} | all {stored} | {} |\n",
                ms(50.0),
                ms(99.0),
                if rate >= GOAL_UPDATES { "yes" } else { "no" }
            ));
        }
        Ok(())
    }

    /// The job at several sizes, beside one statement that does no more than to group.
    async fn aggregation(&mut self, sizes: &[u64]) -> Result<()> {
        crate::print(
            "\n| sessions | added up in s | one GROUP BY, s | ratio | ≤ 1.5 |\n|--:|--:|--:|--:|---|\n",
        );
        for size in sizes {
            let project = self.project(&format!("sums-{size}")).await?;
            self.fill(&project, *size).await?;
            let mut by_hand = Vec::new();
            for _ in 0..ROUNDS {
                let begun = Instant::now();
                let groups = format!(
                    "CREATE TEMP TABLE by_hand AS
                     SELECT date_bin('30 min', started, 'epoch') AS at, release, environment, count(*),
                            count(*) FILTER (WHERE class = 4) AS crashed, sum(duration_ms) AS duration_ms,
                            min(started) AS first_started, max(started) AS last_started,
                            count(DISTINCT user_hash) AS users,
                            count(DISTINCT user_hash) FILTER (WHERE class = 4) AS crashed_users
                       FROM app_sessions WHERE org_id = '{}' AND project_id = '{}' GROUP BY 1, 2, 3",
                    project.org, project.id
                );
                let groups = self.db.execute(AssertSqlSafe(groups)).await?.rows_affected();
                ensure!(groups > 0, "nothing was filled in");
                by_hand.push(begun.elapsed().as_secs_f64());
                self.db.execute("DROP TABLE by_hand").await?;
            }
            let mut ours = Vec::new();
            for _ in 0..ROUNDS {
                self.mark(&project).await?;
                ours.push(self.job().await?);
            }
            let total: f64 = sqlx::query_scalar("SELECT sum(healthy + errored + crashed) FROM app_session_counts WHERE project_id = $1")
                .bind(project.id)
                .fetch_one(&mut self.db)
                .await?;
            ensure!((total - *size as f64).abs() < 0.5, "{total} of {size} were added up");
            let middle = |times| median(times).unwrap_or(f64::NAN);
            let (ours, by_hand) = (middle(ours), middle(by_hand));
            crate::print(&format!(
                "| {size} | {ours:.2} | {by_hand:.2} | {:.2} | {} |\n",
                ours / by_hand,
                if ours <= by_hand * GOAL_RATIO { "yes" } else { "no" }
            ));
        }
        if let Some(size) = sizes.last() {
            let slug = format!("sums-{size}");
            crate::print(&format!(
                "\n| page of a release, {size} sessions | p50 ms | p95 ms | p50 ≤ 50 ms |\n|---|--:|--:|---|\n"
            ));
            let series = |rest: &str| {
                format!(
                    "/api/app-sessions/series?project={slug}&interval=1d&from={}&release=1.1{rest}",
                    days_ago(24)
                )
            };
            for (name, path) in [
                ("release", format!("/api/app-sessions/releases/1.1?project={slug}")),
                ("releases", format!("/api/app-sessions/releases?project={slug}")),
                ("series of counts", series("")),
                ("newest sessions", format!("/api/app-sessions?project={slug}&release=1.1")),
            ] {
                self.read(name, &path).await?;
            }
        }
        Ok(())
    }

    /// Asks again and again, and prints how long it took.
    async fn read(&self, name: &str, path: &str) -> Result<()> {
        let mut times = Vec::new();
        for _ in 0..READS {
            let begun = Instant::now();
            self.ask(Method::GET, path, None).await?;
            times.push(u64::try_from(begun.elapsed().as_micros())?);
        }
        times.sort_unstable();
        let ms = |percent| percentile(&times, percent).unwrap_or_default() as f64 / 1000.0;
        let verdict = if ms(50.0) <= GOAL_READ_MS { "yes" } else { "no" };
        crate::print(&format!("| {name} | {:.1} | {:.1} | {verdict} |\n", ms(50.0), ms(95.0)));
        Ok(())
    }

    /// Sessions of 25 days, 5 releases, 2 environments, a tenth as many users.
    async fn fill(&mut self, project: &Project, size: u64) -> Result<()> {
        let fill = format!(
            "INSERT INTO app_sessions (org_id, project_id, sid, started, release, environment, class, ended,
                 errors, duration_ms, duration_bucket, user_hash, count, weight, updated_at)
             SELECT $1, $2, gen_random_uuid(), now() - interval '25 days' * (n / {size}::float8),
                    '1.' || n % 5, CASE n % 7 WHEN 0 THEN 'staging' ELSE 'production' END,
                    CASE WHEN n % 50 = 0 THEN 4 WHEN n % 20 = 0 THEN 1 ELSE 0 END, true, 0,
                    (random() * 600000)::bigint, (random() * 300)::smallint,
                    ('x' || substr(md5((n % {users})::text), 1, 16))::bit(64)::bigint, 1, 1, now()
               FROM generate_series(1, {size}) n",
            users = (size / 10).max(1)
        );
        sqlx::query(AssertSqlSafe(fill))
            .bind(project.org)
            .bind(project.id)
            .execute(&mut self.db)
            .await?;
        self.db.execute("ANALYZE app_sessions").await?;
        Ok(())
    }

    async fn mark(&mut self, project: &Project) -> Result<()> {
        sqlx::query(
            "INSERT INTO app_session_marks (org_id, project_id, at, marked_at)
             SELECT DISTINCT $1::uuid, $2::uuid, date_bin('30 min', started, 'epoch'), now()
               FROM app_sessions WHERE org_id = $1 AND project_id = $2",
        )
        .bind(project.org)
        .bind(project.id)
        .execute(&mut self.db)
        .await?;
        Ok(())
    }

    /// Runs the job; gives how long it took, in seconds.
    async fn job(&self) -> Result<f64> {
        let path = "/api/admin/jobs/session-aggregation";
        let run = self.ask(Method::POST, &format!("{path}/run"), None).await?;
        let id = run.get("run_id").cloned().context("no run")?;
        loop {
            let history = self.ask(Method::GET, &format!("{path}/history?limit=5"), None).await?;
            let runs = history.get("runs").and_then(Value::as_array).cloned().unwrap_or_default();
            let ours = runs.iter().find(|run| run.get("id") == Some(&id));
            match ours.and_then(|run| run.get("status")).and_then(Value::as_str) {
                Some("succeeded") => {
                    let ms = ours.and_then(|run| run.get("duration_ms")).and_then(Value::as_f64);
                    return Ok(ms.unwrap_or_default() / 1000.0);
                }
                Some("running") | None => sleep(Duration::from_millis(20)).await,
                Some(other) => anyhow::bail!("the job has {other}: {ours:?}"),
            }
        }
    }

    /// 90 days of 5 releases in 2 environments; 1,000 releases.
    async fn reads(&mut self) -> Result<()> {
        let project = self.project("reads").await?;
        let fill = "INSERT INTO app_session_counts (org_id, project_id, at, release, environment, healthy, errored,
                 unhandled, abnormal, crashed, timed, duration_ms, first_started, last_started)
             SELECT $1, $2, t, '2.' || r, e, 90, 5, 0, 1, 4, 100, 1e6, t, t
               FROM generate_series(date_bin('30 min', now(), 'epoch') - interval '90 days',
                        date_bin('30 min', now(), 'epoch'), interval '30 minutes') t,
                    generate_series(1, 5) r, unnest(ARRAY['production', 'staging']) e";
        sqlx::query(fill).bind(project.org).bind(project.id).execute(&mut self.db).await?;
        let fill = "INSERT INTO app_session_releases (org_id, project_id, release, environment, healthy, errored,
                 unhandled, abnormal, crashed, timed, duration_ms, first_started, last_started, users)
             SELECT $1, $2, '3.' || r, e, 1e6, 0, 0, 0, 1e3, 1e6, 1e9, now() - interval '1 hour' * r, now(), 1000
               FROM generate_series(1, 1000) r, unnest(ARRAY['', 'production']) e";
        sqlx::query(fill).bind(project.org).bind(project.id).execute(&mut self.db).await?;
        self.db.execute("ANALYZE app_session_counts, app_session_releases").await?;
        crate::print("\n| read | p50 ms | p95 ms | p50 ≤ 50 ms |\n|---|--:|--:|---|\n");
        let slug = &project.slug;
        let series = |n, rest: &str| {
            format!(
                "/api/app-sessions/series?project={slug}&interval=1d&from={}{rest}",
                days_ago(n)
            )
        };
        for (name, path) in [
            ("series, 7 days", series(7, "")),
            ("series, 30 days", series(30, "")),
            ("series, 90 days", series(90, "")),
            ("series, 90 days, one release", series(90, "&release=2.1")),
            ("series, 90 days, Kolkata", series(90, "&timezone=Asia/Kolkata")),
            ("releases, 50 of 1,000", format!("/api/app-sessions/releases?project={slug}")),
            (
                "releases, 200 of 1,000",
                format!("/api/app-sessions/releases?project={slug}&limit=200"),
            ),
        ] {
            self.read(name, &path).await?;
        }
        Ok(())
    }
}

fn days_ago(n: i64) -> String {
    let from = loom_core::Clock::system().now() - chrono::TimeDelta::days(n);
    from.format("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Tells of sessions until the time is over: how long each answer took, in microseconds, and how many
/// sessions were acknowledged.
async fn tell(http: &Client, base: &str, key: &str, until: Instant) -> Result<(Vec<u64>, i64)> {
    let (mut times, mut started) = (Vec::new(), 0);
    while Instant::now() < until {
        let id = loom_core::id::new_uuid(loom_core::Clock::system().now());
        let body = json!({"session_id": id, "release": "1.0", "distinct_id": id});
        for verb in ["start", "end"] {
            let begun = Instant::now();
            let request = http.post(format!("{base}/{verb}")).header("x-crash-api-key", key);
            let answer = request.json(&body).send().await?;
            ensure!(answer.status().is_success(), "{}: {}", answer.status(), answer.text().await?);
            answer.bytes().await?;
            times.push(u64::try_from(begun.elapsed().as_micros())?);
        }
        started += 1;
    }
    Ok((times, started))
}
