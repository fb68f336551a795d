//! Events of applications and pings of jobs: how many are acknowledged a second, each durable before its
//! answer, beside COPY into the same table; how fast events are processed behind it.

use std::{
    net::SocketAddr,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use futures::TryStreamExt as _;
use loom_core::{Clock, id::new_uuid};
use reqwest::{Client, Method};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};
use tokio::{task::JoinSet, time::sleep};

use crate::{
    loom::{self, Loom},
    process::{self, Fleet},
    stats::{median, percentile},
};

/// Of an event, as JSON.
const EVENT_BYTES: usize = 4096;
/// Rows of the COPY beside which intake is put.
const COPIED: i64 = 20_000;
const ROUNDS: usize = 3;

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Connections, in steps: each is measured
    #[arg(long, value_delimiter = ',', default_values_t = [1, 8, 32])]
    connections: Vec<usize>,
    /// Length of each measurement
    #[arg(long, default_value_t = 5)]
    seconds: u64,
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

async fn measure(options: &Options, fleet: &mut Fleet) -> Result<()> {
    let beside = || Ok::<_, anyhow::Error>(std::env::current_exe()?.with_file_name("loom-server"));
    let binary = options.loom.clone().map_or_else(beside, Ok)?;
    let nowhere = SocketAddr::from(([127, 0, 0, 1], 9));
    let loom = loom::start(fleet, &binary, nowhere, &[]).await.context("starting Loom")?;
    let url = loom_db::embedded::find_running(&fleet.dir.join("data"))
        .await?
        .context("the server's PostgreSQL does not run")?;
    let mut db = PgConnection::connect(url.expose()).await?;
    // Another part of the program may have been first.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let http = Client::builder().no_proxy().build()?;
    let seconds = Duration::from_secs(options.seconds.max(1));

    let made = ask(&http, &loom, "/api/crash/projects", &json!({"name": "Bench"})).await?;
    let dsn = made.get("dsn").and_then(Value::as_str).context("the project has no DSN")?;
    let (key, number) = dsn
        .split_once("://")
        .and_then(|(_, rest)| rest.split_once('@'))
        .and_then(|(key, rest)| Some((key, rest.rsplit_once('/')?.1)))
        .context("the DSN is none")?;
    let target = format!("http://{}/api/{number}/envelope/?sentry_key={key}", loom.address);
    crate::print(
        "| connections | events/s acknowledged | p50 ms | p99 ms | server CPU µs an event | processed/s, all of it |\n|--:|--:|--:|--:|--:|--:|\n",
    );
    let mut best = 0.0_f64;
    for connections in &options.connections {
        let (started, cpu) = (Instant::now(), process::usage(loom.pid).cpu);
        let times = flood(
            &http,
            *connections,
            seconds,
            move |n| (Method::POST, String::new(), envelope(n)),
            &target,
        )
        .await?;
        let accepted = times.len() as f64 / started.elapsed().as_secs_f64();
        let cpu = process::usage(loom.pid).cpu.saturating_sub(cpu);
        let done = processed(&mut db, started).await?;
        best = best.max(accepted);
        crate::print(&format!(
            "| {connections} | {accepted:.0} | {:.1} | {:.1} | {:.0} | {:.0} |\n",
            millis(&times, 50.0),
            millis(&times, 99.0),
            cpu.as_secs_f64() * 1e6 / times.len().max(1) as f64,
            times.len() as f64 / done.as_secs_f64(),
        ));
    }
    let copied = copy(&mut db).await?;
    crate::print(&format!(
        "\nCOPY of the same rows into a table like `crash_raw`: {copied:.0} rows/s; the best of intake is {:.2} of it.\n",
        best / copied
    ));

    let monitor =
        json!({"slug": "bench", "schedule": {"type": "interval", "value": 1, "unit": "day"}});
    let made = ask(&http, &loom, "/api/crons/monitors", &monitor).await?;
    let ping = made.get("ping_url").and_then(Value::as_str).context("no ping_url")?;
    let path = ping.split_once("/ping/").context("the ping URL is none")?.1;
    let target = format!("http://{}/ping/{path}", loom.address);
    crate::print("\n| connections | pings/s acknowledged | p50 ms | p99 ms |\n|--:|--:|--:|--:|\n");
    for connections in &options.connections {
        let started = Instant::now();
        let ping = |_| (Method::GET, String::new(), Vec::new());
        let times = flood(&http, *connections, seconds, ping, &target).await?;
        crate::print(&format!(
            "| {connections} | {:.0} | {:.1} | {:.1} |\n",
            times.len() as f64 / started.elapsed().as_secs_f64(),
            millis(&times, 50.0),
            millis(&times, 99.0),
        ));
    }
    Ok(())
}

async fn ask(http: &Client, loom: &Loom, path: &str, body: &Value) -> Result<Value> {
    let url = format!("http://{}{path}", loom.address);
    let answer = http.post(url).bearer_auth(&loom.key).json(body).send().await?;
    let (status, text) = (answer.status(), answer.text().await?);
    ensure!(status.is_success(), "{path}: {status} {text}");
    Ok(serde_json::from_str(&text)?)
}

/// An envelope with one event of a fault among a hundred.
fn envelope(number: u64) -> Vec<u8> {
    let id = new_uuid(Clock::system().now()).simple();
    let fault = number % 100;
    let mut event = json!({
        "event_id": id.to_string(), "platform": "python", "level": "error", "release": "shop@1.4.2",
        "environment": "production", "server_name": "web-3", "user": {"id": number % 5_000},
        "tags": {"region": "eu", "route": format!("/checkout/{fault}")},
        "exception": {"values": [{"type": "ValueError", "value": format!("order {number} failed"),
            "mechanism": {"type": "generic", "handled": false},
            "stacktrace": {"frames": (0..8).map(|depth| json!({
                "function": format!("step_{fault}_{depth}"), "module": "shop.orders",
                "filename": "shop/orders.py", "lineno": 40 + depth, "in_app": depth > 3,
                "context_line": "    raise ValueError(order)",
            })).collect::<Vec<_>>()}}]},
    });
    let missing = EVENT_BYTES.saturating_sub(event.to_string().len());
    if let Some(event) = event.as_object_mut() {
        let note: String =
            "the quick brown fox jumps over the lazy dog ".chars().cycle().take(missing).collect();
        event.insert("extra".to_owned(), json!({ "note": note }));
    }
    format!("{{}}\n{{\"type\":\"event\"}}\n{event}\n").into_bytes()
}

/// Sends for so long; gives the time of each answer, sorted.
async fn flood<F>(
    http: &Client,
    connections: usize,
    time: Duration,
    make: F,
    target: &str,
) -> Result<Vec<u64>>
where
    F: Fn(u64) -> (Method, String, Vec<u8>) + Clone + Send + 'static,
{
    let until = Instant::now() + time;
    let mut tasks = JoinSet::new();
    for first in 0..connections.max(1) as u64 {
        let (http, make, target) = (http.clone(), make.clone(), target.to_owned());
        let step = connections.max(1) as u64;
        tasks.spawn(async move {
            let (mut times, mut number) = (Vec::new(), first);
            while Instant::now() < until {
                let (method, suffix, body) = make(number);
                let started = Instant::now();
                let answer =
                    http.request(method, format!("{target}{suffix}")).body(body).send().await?;
                let status = answer.status();
                let text = answer.text().await?;
                ensure!(status == 200, "{status} {text}");
                times.push(started.elapsed().as_micros() as u64);
                number += step;
            }
            Ok(times)
        });
    }
    let mut all = Vec::new();
    while let Some(times) = tasks.join_next().await {
        all.extend(times??);
    }
    all.sort_unstable();
    Ok(all)
}

fn millis(times: &[u64], percent: f64) -> f64 {
    percentile(times, percent).map_or(f64::NAN, |micros| micros as f64 / 1e3)
}

/// Waits until nothing is in the queue; gives the time since `started`.
async fn processed(db: &mut PgConnection, started: Instant) -> Result<Duration> {
    for _ in 0..6_000 {
        let waits: bool =
            sqlx::query_scalar("SELECT EXISTS (SELECT FROM crash_queue WHERE parked_at IS NULL)")
                .fetch_one(&mut *db)
                .await?;
        if !waits {
            return Ok(started.elapsed());
        }
        sleep(Duration::from_millis(100)).await;
    }
    bail!("the events were not processed within ten minutes")
}

/// Rows a second of COPY, the median of some rounds, with the rows that are there.
async fn copy(db: &mut PgConnection) -> Result<f64> {
    let out = format!("COPY (SELECT * FROM crash_raw LIMIT {COPIED}) TO STDOUT (FORMAT binary)");
    let data: Vec<_> = db.copy_out_raw(&out).await?.try_collect().await?;
    let mut rates = Vec::new();
    for _ in 0..ROUNDS {
        db.execute(
            "DROP TABLE IF EXISTS copied; CREATE TABLE copied (LIKE crash_raw INCLUDING ALL)",
        )
        .await?;
        let started = Instant::now();
        let mut copy = db.copy_in_raw("COPY copied FROM STDIN (FORMAT binary)").await?;
        for piece in &data {
            copy.send(&piece[..]).await?;
        }
        let rows = copy.finish().await?;
        rates.push(rows as f64 / started.elapsed().as_secs_f64());
    }
    db.execute(AssertSqlSafe("DROP TABLE copied".to_owned())).await?;
    median(rates).context("nothing was copied")
}
