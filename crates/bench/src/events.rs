//! Events of applications and pings of jobs: how many are acknowledged a second, each durable before its
//! answer, beside the store's own limits and beside Bugsink; how fast events are processed behind it, and a
//! burst of them.

mod bugsink;
mod envelope;
mod store;

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use reqwest::Client;
use serde_json::{Value, json};
use sqlx::{Connection as _, Executor as _, PgConnection};
use tokio::time::sleep;

use crate::{
    load::{self, Expect, Plan, Request, Tally},
    loom::{self, Loom},
    process::{self, Fleet, Usage},
    stats::percentile,
};

use bugsink::Bugsink;

const MIB: f64 = 1024.0;
/// Until a server that was started does nothing any more.
const REST: Duration = Duration::from_secs(3);
/// Bugsink digests behind its answers for so long at most.
const PATIENCE: Duration = Duration::from_secs(90);

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Connections, in steps: each is measured
    #[arg(long, value_delimiter = ',', default_values_t = [1, 8, 32, 64])]
    connections: Vec<usize>,
    /// Length of each measurement
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Events of the burst; 0 leaves it out
    #[arg(long, default_value_t = 100_000)]
    burst: u64,
    /// The server's binary [default: loom-server beside this program]
    #[arg(long)]
    loom: Option<PathBuf>,
    /// Where `crates/bench/peers/install` has put Bugsink, to be measured in the same run
    #[arg(long)]
    peers: Option<PathBuf>,
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
    dir: PathBuf,
    db: PgConnection,
    url: String,
    request: Request,
}

async fn measure(options: &Options, fleet: &mut Fleet) -> Result<()> {
    let beside = || Ok::<_, anyhow::Error>(std::env::current_exe()?.with_file_name("loom-server"));
    let binary = options.loom.clone().map_or_else(beside, Ok)?;
    let nowhere = SocketAddr::from(([127, 0, 0, 1], 9));
    let peer = match &options.peers {
        Some(peers) => bugsink::start(fleet, peers).await.map_err(|error| {
            crate::note(&format!("Bugsink is not measured: {error:#}"));
        }),
        None => Err(()),
    };
    let loom = loom::start(fleet, &binary, nowhere, &[]).await.context("starting Loom")?;
    let url = loom_db::embedded::find_running(&fleet.dir.join("data"))
        .await?
        .context("the server's PostgreSQL does not run")?;
    let mut db = PgConnection::connect(url.expose()).await?;
    db.execute("SET statement_timeout = 0").await?;
    sleep(REST).await;
    let idle = process::usage(loom.pid);
    crate::print(&format!("Idle: {:.0} MiB.\n\n", idle.rss_kib as f64 / MIB));
    // Another part of the program may have been first.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let http = Client::builder().no_proxy().build()?;

    let made = ask(&http, &loom, "/api/crash/projects", &json!({"name": "Bench"})).await?;
    let dsn = made.get("dsn").and_then(Value::as_str).context("the project has no DSN")?;
    let (key, number) = dsn
        .split_once("://")
        .and_then(|(_, rest)| rest.split_once('@'))
        .and_then(|(key, rest)| Some((key, rest.rsplit_once('/')?.1)))
        .context("the DSN is none")?;
    let request = envelope::request(loom.address, number, key);
    let url = url.expose().to_owned();
    let mut bench = Bench { loom, dir: fleet.dir.clone(), db, url, request };

    let seconds = Duration::from_secs(options.seconds.max(1));
    crate::print(
        "| target | connections | acknowledged/s | p50 ms | p99 ms | CPU µs an event, processing included | PostgreSQL CPU µs | processed/s | RSS MiB | peak MiB |\n\
         |---|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n",
    );
    for connections in &options.connections {
        let other = match &peer {
            Ok(peer) => Some(of_bugsink(peer, *connections, seconds).await?),
            Err(()) => None,
        };
        let ours = bench.events(*connections, seconds).await?;
        if let Some(other) = other {
            crate::print(&format!(
                "| | {connections} | {:.1} × Bugsink | | | | | | | |\n",
                ours / other
            ));
        }
    }
    bench.apart(options.connections.iter().copied().max().unwrap_or(32), seconds).await?;
    if options.burst > 0 {
        bench.burst(options.burst).await?;
    }
    bench.store(&options.connections, seconds).await?;
    bench.pings(&http, &options.connections, seconds).await
}

async fn ask(http: &Client, loom: &Loom, path: &str, body: &Value) -> Result<Value> {
    let url = format!("http://{}{path}", loom.address);
    let answer = http.post(url).bearer_auth(&loom.key).json(body).send().await?;
    let (status, text) = (answer.status(), answer.text().await?);
    ensure!(status.is_success(), "{path}: {status} {text}");
    Ok(serde_json::from_str(&text)?)
}

/// Sends for so long; every answer must be a good one. Gives the times of the answers, sorted.
async fn flood(
    address: SocketAddr,
    request: &Request,
    connections: usize,
    window: Duration,
) -> Result<Tally> {
    let plan = Arc::new(Plan {
        address,
        request: request.clone(),
        expect: Expect::Any,
        connections: connections.max(1),
        warm_up: Duration::ZERO,
        window,
    });
    let (mut tally, (), ()) = load::run(&plan, || ()).await;
    if tally.errors > 0 {
        bail!("{} requests failed: {}", tally.errors, tally.first_error.unwrap_or_default());
    }
    tally.latencies.sort_unstable();
    Ok(tally)
}

fn millis(times: &[u64], percent: f64) -> f64 {
    percentile(times, percent).map_or(f64::NAN, |nanos| nanos as f64 / 1e6)
}

fn micros(time: Duration, events: f64) -> f64 {
    time.as_secs_f64() * 1e6 / events.max(1.0)
}

async fn of_bugsink(peer: &Bugsink, connections: usize, window: Duration) -> Result<f64> {
    let (request, digested) =
        (envelope::request(peer.address, &peer.project, &peer.key), peer.digested().await?);
    let (before, started) = (peer.usage(), Instant::now());
    let tally = flood(peer.address, &request, connections, window).await?;
    let (accepted, (web, _)) = (tally.latencies.len() as f64, peer.usage());
    let mut done = 0;
    while started.elapsed() < PATIENCE && done < tally.latencies.len() as u64 {
        sleep(Duration::from_millis(500)).await;
        done = peer.digested().await?.saturating_sub(digested);
    }
    let (took, (_, after)) = (started.elapsed().as_secs_f64(), peer.usage());
    let behind =
        after.cpu.saturating_sub(before.1.cpu).saturating_sub(web.cpu.saturating_sub(before.0.cpu));
    let rate = accepted / window.as_secs_f64();
    crate::print(&format!(
        "| Bugsink | {connections} | {rate:.0} | {:.1} | {:.1} | {:.0} to accept, {:.0} to digest | - | {:.0} | {:.0} | {:.0} |\n",
        millis(&tally.latencies, 50.0),
        millis(&tally.latencies, 99.0),
        micros(web.cpu.saturating_sub(before.0.cpu), accepted),
        micros(behind, done as f64),
        done as f64 / took,
        after.rss_kib as f64 / MIB,
        after.peak_kib as f64 / MIB,
    ));
    Ok(rate)
}

impl Bench {
    fn usage(&self) -> (Usage, Duration) {
        (process::usage(self.loom.pid), process::database_cpu(&self.dir))
    }

    async fn events(&mut self, connections: usize, window: Duration) -> Result<f64> {
        let (before, started) = (self.usage(), Instant::now());
        let tally = flood(self.loom.address, &self.request, connections, window).await?;
        let events = tally.latencies.len() as f64;
        let done = self.processed(started).await?;
        let (after, database) = self.usage();
        let rate = events / window.as_secs_f64();
        crate::print(&format!(
            "| Loom | {connections} | {rate:.0} | {:.1} | {:.1} | {:.0} | {:.0} | {:.0} | {:.0} | {:.0} |\n",
            millis(&tally.latencies, 50.0),
            millis(&tally.latencies, 99.0),
            micros(after.cpu.saturating_sub(before.0.cpu), events),
            micros(database.saturating_sub(before.1), events),
            events / done.as_secs_f64(),
            after.rss_kib as f64 / MIB,
            after.peak_kib as f64 / MIB,
        ));
        Ok(rate)
    }

    /// Waits until nothing is in the queue; gives the time since `started`.
    async fn processed(&mut self, started: Instant) -> Result<Duration> {
        for _ in 0..12_000 {
            if self.waiting().await?.0 == 0 {
                return Ok(started.elapsed());
            }
            sleep(Duration::from_millis(50)).await;
        }
        bail!("the events were not processed within ten minutes")
    }

    /// Events that wait, and for how many seconds the oldest has.
    async fn waiting(&mut self) -> Result<(i64, f64)> {
        Ok(sqlx::query_as(
            "SELECT count(*), coalesce(extract(epoch FROM clock_timestamp() - min(received_at)), 0)::float8
               FROM crash_queue WHERE parked_at IS NULL",
        )
        .fetch_one(&mut self.db)
        .await?)
    }

    /// Intake while processing is held up by a lock, then processing alone.
    async fn apart(&mut self, connections: usize, window: Duration) -> Result<()> {
        // Workers give up waiting for a lock, and begin anew, after ten seconds.
        let window = window.min(Duration::from_secs(8));
        let mut holder = PgConnection::connect(&self.url).await?;
        holder.execute("BEGIN; LOCK TABLE crash_event_ids IN SHARE MODE").await?;
        let before = self.usage();
        let tally = flood(self.loom.address, &self.request, connections, window).await?;
        let (after, database) = self.usage();
        let events = tally.latencies.len() as f64;
        crate::print(&format!(
            "\nIntake alone, {connections} connections: {:.0} events/s, CPU {:.0} µs an event, PostgreSQL's {:.0} µs.\n",
            events / window.as_secs_f64(),
            micros(after.cpu.saturating_sub(before.0.cpu), events),
            micros(database.saturating_sub(before.1), events),
        ));
        let (waiting, _) = self.waiting().await?;
        let (before, started) = (self.usage(), Instant::now());
        holder.execute("COMMIT").await?;
        let took = self.processed(started).await?;
        let (after, database) = self.usage();
        let (ours, database) =
            (after.cpu.saturating_sub(before.0.cpu), database.saturating_sub(before.1));
        let waiting = waiting as f64;
        crate::print(&format!(
            "Processing alone, {waiting} events: {:.0} events/s, CPU {:.0} µs an event, PostgreSQL's {:.0} µs: \
             {:.0} events/s for each core of the server's, {:.0} for each of both.\n",
            waiting / took.as_secs_f64(),
            micros(ours, waiting),
            micros(database, waiting),
            waiting / ours.as_secs_f64(),
            waiting / (ours + database).as_secs_f64(),
        ));
        Ok(())
    }

    /// So many events at once, over 32 connections.
    async fn burst(&mut self, events: u64) -> Result<()> {
        let started = Instant::now();
        let (mut accepted, mut times, mut most, mut oldest) = (0, Vec::new(), 0, 0.0_f64);
        while accepted < events {
            let mut tally =
                flood(self.loom.address, &self.request, 32, Duration::from_secs(1)).await?;
            accepted += tally.latencies.len() as u64;
            times.append(&mut tally.latencies);
            let (waiting, age) = self.waiting().await?;
            most = most.max(waiting);
            oldest = oldest.max(age);
        }
        let sent = started.elapsed();
        let mut all = started.elapsed();
        loop {
            let (waiting, age) = self.waiting().await?;
            if waiting == 0 {
                break;
            }
            oldest = oldest.max(age);
            sleep(Duration::from_millis(50)).await;
            all = started.elapsed();
        }
        times.sort_unstable();
        let usage = process::usage(self.loom.pid);
        crate::print(&format!(
            "Burst of {accepted} over 32 connections: accepted in {:.1} s ({:.0}/s, p99 {:.1} ms), all processed {:.1} s \
             after the last; {most} waited at most, the oldest {oldest:.1} s; RSS {:.0} MiB, peak {:.0}.\n",
            sent.as_secs_f64(),
            accepted as f64 / sent.as_secs_f64(),
            millis(&times, 99.0),
            all.saturating_sub(sent).as_secs_f64(),
            usage.rss_kib as f64 / MIB,
            usage.peak_kib as f64 / MIB,
        ));
        Ok(())
    }

    /// What PostgreSQL takes.
    async fn store(&mut self, connections: &[usize], window: Duration) -> Result<()> {
        let copied = store::copy_all(&mut self.db).await?;
        crate::print(&format!(
            "\nCOPY of such rows, compressed and prepared, in one transaction, into a table like `crash_raw`: {copied:.0} rows/s.\n"
        ));
        let mut steps: Vec<usize> =
            connections.iter().map(|count| (*count).min(store::MAX_CONNECTIONS)).collect();
        steps.dedup();
        for connections in steps {
            let each = store::copy_each(&mut self.db, &self.url, connections, window).await?;
            crate::print(&format!(
                "COPY of one row in each transaction, {connections} connections: {each:.0} rows/s.\n"
            ));
        }
        Ok(())
    }

    async fn pings(&self, http: &Client, connections: &[usize], window: Duration) -> Result<()> {
        let schedule = json!({"type": "interval", "value": 1, "unit": "day"});
        let monitor = json!({"slug": "bench", "schedule": schedule});
        let made = ask(http, &self.loom, "/api/crons/monitors", &monitor).await?;
        let ping = made.get("ping_url").and_then(Value::as_str).context("no ping_url")?;
        let path = ping.split_once("/ping/").context("the ping URL is none")?.1;
        let request = load::request("GET", &format!("/ping/{path}"), self.loom.address, None, "");
        crate::print(
            "\n| connections | pings/s acknowledged | p50 ms | p99 ms |\n|--:|--:|--:|--:|\n",
        );
        for connections in connections {
            let request = Request::Same(request.clone());
            let tally = flood(self.loom.address, &request, *connections, window).await?;
            crate::print(&format!(
                "| {connections} | {:.0} | {:.1} | {:.1} |\n",
                tally.latencies.len() as f64 / window.as_secs_f64(),
                millis(&tally.latencies, 50.0),
                millis(&tally.latencies, 99.0),
            ));
        }
        Ok(())
    }
}
