//! Lists of issues and what is shown of one, over HTTP, at several numbers of events.

use std::{
    net::SocketAddr,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use reqwest::Client;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection, Row as _};
use tokio::time::sleep;

use crate::{
    loom::{self, Loom},
    process::Fleet,
    stats::percentile,
};

const FILL: &str = include_str!("issues/fill.sql");
/// p95.
const GOAL_MS: f64 = 50.0;
/// Events of an issue, on average.
const EACH: u64 = 50;
const DAYS: i32 = 31;

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Events of a project, in steps: each is measured
    #[arg(long, value_delimiter = ',', default_values_t = [10_000, 100_000, 1_000_000])]
    events: Vec<u64>,
    /// Requests of each kind
    #[arg(long, default_value_t = 40)]
    requests: u32,
    /// Leaves the server running at the end until Ctrl-C, to look at its plans
    #[arg(long)]
    stay: bool,
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

async fn measure(options: &Options, fleet: &mut Fleet) -> Result<()> {
    let beside = || Ok::<_, anyhow::Error>(std::env::current_exe()?.with_file_name("loom-server"));
    let binary = options.loom.clone().map_or_else(beside, Ok)?;
    let nowhere = SocketAddr::from(([127, 0, 0, 1], 9));
    let loom = loom::start(fleet, &binary, nowhere, &[]).await.context("starting Loom")?;
    let url = loom_db::embedded::find_running(&fleet.dir.join("data"))
        .await?
        .context("the server's PostgreSQL does not run")?;
    let mut db = PgConnection::connect(url.expose()).await?;
    db.execute("SET statement_timeout = 0; SET work_mem = '256MB'; SET synchronous_commit = off")
        .await?;
    // Another part of the program may have been first.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let http = Client::builder().no_proxy().build()?;
    let mut bench = Bench { loom, http, db };
    bench.days().await?;
    let mut columns: Vec<Vec<(f64, f64)>> = Vec::new();
    let mut names = Vec::new();
    for events in &options.events {
        let paths = bench.fill(*events).await?;
        let mut column = Vec::new();
        for (_, path) in &paths {
            column.push(bench.times(path, options.requests).await?);
        }
        names = paths.into_iter().map(|(name, _)| name).collect();
        columns.push(column);
    }
    let sizes: String = options.events.iter().map(|events| format!(" {events} events |")).collect();
    let lines = "--:|".repeat(columns.len());
    crate::print(&format!("| p50 / p95 ms |{sizes}\n|---|{lines}\n"));
    for (index, name) in names.iter().enumerate() {
        let cells: String = columns
            .iter()
            .filter_map(|column| column.get(index))
            .map(|(p50, p95)| {
                let verdict = if *p95 <= GOAL_MS { "" } else { " **no**" };
                format!(" {p50:.1} / {p95:.1}{verdict} |")
            })
            .collect();
        crate::print(&format!("| {name} |{cells}\n"));
    }
    if options.stay {
        crate::note(&format!("{}: until Ctrl-C", fleet.dir.display()));
        tokio::signal::ctrl_c().await?;
    }
    Ok(())
}

impl Bench {
    async fn ask(&self, path: &str, body: Option<&Value>) -> Result<Value> {
        let url = format!("http://{}{path}", self.loom.address);
        let request = match body {
            Some(body) => self.http.post(url).json(body),
            None => self.http.get(url),
        };
        let answer = request.bearer_auth(&self.loom.key).send().await?;
        let (status, text) = (answer.status(), answer.text().await?);
        ensure!(status.is_success(), "{path}: {status} {text}");
        Ok(serde_json::from_str(&text)?)
    }

    /// Partitions of the days before today, as they would be there by now.
    async fn days(&mut self) -> Result<()> {
        for table in ["crash_raw", "crash_events"] {
            for day in 1..=DAYS {
                let partition = format!(
                    "DO $$ DECLARE day date := (now() AT TIME ZONE 'UTC')::date - {day}; BEGIN
                       EXECUTE format('CREATE TABLE %I PARTITION OF {table} FOR VALUES FROM (%L) TO (%L)',
                           '{table}_' || to_char(day, 'YYYY_MM_DD'), day::text || ' 00:00:00+00', (day + 1)::text || ' 00:00:00+00');
                     END $$"
                );
                self.db.execute(AssertSqlSafe(partition)).await?;
            }
        }
        Ok(())
    }

    /// Fills a project; gives what is asked of it.
    async fn fill(&mut self, events: u64) -> Result<Vec<(&'static str, String)>> {
        let new = json!({"name": format!("Of {events}"), "slug": format!("of-{events}")});
        let made = self.ask("/api/crash/projects", Some(&new)).await?;
        let project = made.get("id").and_then(Value::as_str).context("no id")?.to_owned();
        let dsn = made.get("dsn").and_then(Value::as_str).context("the project has no DSN")?;
        let key = dsn.split_once("://").and_then(|(_, rest)| rest.split_once('@'));
        let key = key.context("the DSN has no key")?.0.to_owned();
        let event = self.template(&key).await?;
        let row = sqlx::query("SELECT org_id::text FROM crash_projects WHERE id = $1::uuid")
            .bind(&project)
            .fetch_one(&mut self.db)
            .await?;
        let org: String = row.get(0);
        let user: String = sqlx::query_scalar("SELECT id::text FROM users WHERE email = $1")
            .bind(loom::EMAIL)
            .fetch_one(&mut self.db)
            .await?;
        let issues = (events / EACH).max(1);
        let started = Instant::now();
        let mut fill = FILL.to_owned();
        for (name, value) in [
            ("{org}", &org),
            ("{project}", &project),
            ("{user}", &user),
            ("{event}", &event),
            ("{issues}", &issues.to_string()),
            ("{events}", &events.to_string()),
        ] {
            fill = fill.replace(name, value);
        }
        self.db.execute(AssertSqlSafe(format!("BEGIN; {fill} COMMIT"))).await?;
        for table in
            ["crash_issues", "crash_issue_tags", "crash_issue_hours", "crash_events", "crash_raw"]
        {
            self.db.execute(AssertSqlSafe(format!("VACUUM ANALYZE {table}"))).await?;
        }
        crate::note(&format!(
            "{events} events were filled in within {:.0} s",
            started.elapsed().as_secs_f64()
        ));
        let rows = sqlx::query(
            "SELECT id::text, value FROM crash_issues WHERE project_id = $1::uuid ORDER BY event_count DESC LIMIT 1",
        )
        .bind(&project)
        .fetch_one(&mut self.db)
        .await?;
        let (issue, value): (String, String) = (rows.get(0), rows.get(1));
        let mut words = value.split(' ');
        let (word, next) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let mut paths = paths(&format!("/api/crash/projects/of-{events}"), &issue, word, next);
        let newest = format!("/api/crash/projects/of-{events}/issues/{issue}/events?limit=1");
        let newest = self.ask(&newest, None).await?;
        let newest = newest.pointer("/events/0/event_id").and_then(Value::as_str);
        let newest = newest.context("the issue has no event")?;
        paths.push((
            "the newest event",
            format!("/api/crash/projects/of-{events}/issues/{issue}/events/{newest}"),
        ));
        Ok(paths)
    }

    /// An event that the server takes and processes: what the others are copied from.
    async fn template(&mut self, key: &str) -> Result<String> {
        let frames: Vec<_> = (0..8)
            .map(|depth| {
                json!({"function": format!("step_{depth}"), "module": "shop.orders", "filename": "shop/orders.py",
                       "lineno": 40 + depth, "in_app": depth > 3, "context_line": "    raise ValueError(order)"})
            })
            .collect();
        let event = json!({"exception_type": "ValueError", "exception_value": "template", "platform": "python",
                           "stacktrace": {"frames": frames}});
        let url = format!("http://{}/api/crash/capture", self.loom.address);
        let answer = self.http.post(url).header("x-crash-api-key", key).json(&event).send().await?;
        let (status, text) = (answer.status(), answer.text().await?);
        ensure!(status.is_success(), "capture: {status} {text}");
        for _ in 0..200 {
            let id = sqlx::query_scalar(
                "SELECT event_id::text FROM crash_events ORDER BY received_at DESC LIMIT 1",
            );
            if let Some(id) = id.fetch_optional(&mut self.db).await? {
                return Ok(id);
            }
            sleep(Duration::from_millis(50)).await;
        }
        anyhow::bail!("the event was not processed")
    }

    /// The median and the 95th percentile, in milliseconds.
    async fn times(&self, path: &str, requests: u32) -> Result<(f64, f64)> {
        let mut times = Vec::new();
        for _ in 0..requests.max(1) {
            let begun = Instant::now();
            self.ask(path, None).await?;
            times.push(u64::try_from(begun.elapsed().as_micros())?);
        }
        times.sort_unstable();
        let ms = |percent| percentile(&times, percent).unwrap_or_default() as f64 / 1000.0;
        Ok((ms(50.0), ms(95.0)))
    }
}

fn paths(project: &str, issue: &str, word: &str, next: &str) -> Vec<(&'static str, String)> {
    let list = |query: &str| {
        let query = query.replace(' ', "%20").replace('"', "%22").replace('>', "%3E");
        format!("{project}/issues?limit=50&query={query}")
    };
    let one = format!("{project}/issues/{issue}");
    vec![
        ("all issues", list("")),
        ("`is:unresolved`", list("is:unresolved")),
        ("`is:unresolved level:fatal`", list("is:unresolved level:fatal")),
        ("`is:resolved`", list("is:resolved")),
        ("most events first", list("") + "&sort=events"),
        ("`is:unresolved`, most users first", list("is:unresolved") + "&sort=users"),
        ("`is:unresolved`, newest first", list("is:unresolved") + "&sort=first_seen"),
        ("`is:unresolved environment:production`", list("is:unresolved environment:production")),
        ("`release:1.7.0`", list("release:1.7.0")),
        (
            "`is:unresolved release:1.7.0 environment:staging`",
            list("is:unresolved release:1.7.0 environment:staging"),
        ),
        ("`route:/checkout/7`, a rare tag", list("route:/checkout/7")),
        ("`route:/nowhere`, a tag of none", list("route:/nowhere")),
        ("`user.id:77`", list("user.id:77")),
        ("`route:/checkout/1*`", list("route:/checkout/1*")),
        ("`!environment:production`", list("!environment:production")),
        ("`assigned:me`", list("assigned:me")),
        ("`is:unassigned priority:high`", list("is:unassigned priority:high")),
        ("`last_seen:-24h`", list("last_seen:-24h")),
        ("`times_seen:>1000`", list("times_seen:>1000")),
        ("`type:TimeoutError`", list("type:TimeoutError")),
        ("`title:*nothing*`, no match", list("title:*nothing*")),
        ("a common word", list("error")),
        ("a word", list(word)),
        ("a phrase", list(&format!("\"{word} {next}\""))),
        ("a word that is nowhere", list("xylophone")),
        (
            "`is:unresolved`, all projects",
            "/api/crash/issues?limit=50&query=is:unresolved".to_owned(),
        ),
        ("one issue", one.clone()),
        ("its tags", format!("{one}/tags")),
        ("its users", format!("{one}/tags/user")),
        ("its series by hour, 24 h", format!("{one}/series?interval=hour")),
        ("its series by day, 30 days", format!("{one}/series?interval=day")),
        ("its events", format!("{one}/events?limit=50")),
        ("series of the project by hour, 24 h", format!("{project}/series?interval=hour")),
        ("series of the project by day, 30 days", format!("{project}/series?interval=day")),
        ("releases", format!("{project}/releases")),
    ]
}
