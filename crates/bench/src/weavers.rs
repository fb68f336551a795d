//! Weavers in a cluster that costs nothing: how long a creation takes, what many of them cost at rest.

use std::{
    net::SocketAddr,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use reqwest::{Client, Method};
use serde_json::{Value, json};
use tokio::{task::JoinSet, time::sleep};

use crate::{
    loom::{self, Loom},
    process::{Fleet, database_cpu, usage},
    stats::percentile,
};

const GOAL_CPU: Duration = Duration::from_secs(1);
const GOAL_CREATE_US: u64 = 100_000;
const GOAL_KIB: u64 = 100;
const PATIENCE: Duration = Duration::from_secs(180);

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Of the cluster, as `cargo run -p loom-testkit --example fake_kubernetes` prints it
    #[arg(long)]
    kubeconfig: PathBuf,
    #[arg(long, default_value_t = 500)]
    weavers: usize,
    /// Creations at the same time
    #[arg(long, default_value_t = 4)]
    connections: usize,
    #[arg(long, default_value = "fake/agent")]
    image: String,
    /// How long they are watched at rest
    #[arg(long, default_value_t = 60)]
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
    let most = options.weavers.to_string();
    let kubeconfig = std::fs::canonicalize(&options.kubeconfig)?;
    let extra = [
        ("ENABLED", "true"),
        ("KUBECONFIG", &*kubeconfig.to_string_lossy()),
        ("MAX_CONCURRENT", &most),
        ("MAX_PER_USER", &most),
        ("MAX_PER_ORG", &most),
    ]
    .map(|(name, value)| format!("LOOM_SERVER_WEAVER_{name}={value}"));
    let loom = loom::start(fleet, &binary, nowhere, &extra).await.context("starting Loom")?;
    // Another part of the program may have been first.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let http = Client::builder().no_proxy().build()?;
    let bench = Bench { loom, http };
    sleep(Duration::from_secs(3)).await;
    let before = usage(bench.loom.pid);

    let began = Instant::now();
    let mut times = bench.create(options).await?;
    bench.wait_for(options.weavers).await?;
    let running = began.elapsed();
    times.sort_unstable();
    sleep(Duration::from_secs(10)).await;

    let data = fleet.dir.join("data");
    let (rest, database) = (usage(bench.loom.pid), database_cpu(&data));
    sleep(Duration::from_secs(options.seconds)).await;
    let after = usage(bench.loom.pid);
    let a_minute = |cpu: Duration| cpu.mul_f64(60.0 / options.seconds.max(1) as f64);
    let cpu = a_minute(after.cpu.saturating_sub(rest.cpu));
    let database = a_minute(database_cpu(&data).saturating_sub(database));
    let kib = after.rss_kib.saturating_sub(before.rss_kib) / options.weavers.max(1) as u64;
    let at = |percent| percentile(&times, percent).unwrap_or_default();
    let met = |is_met: bool| if is_met { "yes" } else { "no" };
    crate::print(&format!(
        "| {} weavers | | goal | met |\n|---|--:|--:|---|\n\
         | a creation, p50 / p99 | {:.1} / {:.1} ms | p99 ≤ 100 ms | {} |\n\
         | all running after | {:.1} s | | |\n\
         | CPU of the server a minute at rest | {:.2} s | ≤ 1 s | {} |\n\
         | of its database | {:.2} s | | |\n\
         | memory a weaver | {kib} KiB | ≤ {GOAL_KIB} KiB | {} |\n",
        options.weavers,
        at(50.0) as f64 / 1000.0,
        at(99.0) as f64 / 1000.0,
        met(at(99.0) <= GOAL_CREATE_US),
        running.as_secs_f64(),
        cpu.as_secs_f64(),
        met(cpu <= GOAL_CPU),
        database.as_secs_f64(),
        met(kib <= GOAL_KIB),
    ));
    Ok(())
}

struct Bench {
    loom: Loom,
    http: Client,
}

impl Bench {
    /// How long each took, in microseconds.
    async fn create(&self, options: &Options) -> Result<Vec<u64>> {
        let mut tasks = JoinSet::new();
        let connections = options.connections.max(1);
        for connection in 0..connections {
            let count = options.weavers / connections
                + usize::from(connection < options.weavers % connections);
            let (http, key, image) =
                (self.http.clone(), self.loom.key.clone(), options.image.clone());
            let url = format!("http://{}/api/weaver", self.loom.address);
            tasks.spawn(async move {
                let mut times = Vec::new();
                let resources =
                    json!({"cpu": "10m", "memory": "64Mi", "ephemeral_storage": "64Mi"});
                let body = json!({"image": image, "wait": false, "resources": resources});
                for _ in 0..count {
                    let began = Instant::now();
                    let answer = http.post(&url).bearer_auth(&key).json(&body).send().await?;
                    let (status, text) = (answer.status(), answer.text().await?);
                    ensure!(status == 202, "a creation: {status} {text}");
                    times.push(u64::try_from(began.elapsed().as_micros())?);
                }
                Ok(times)
            });
        }
        let mut times = Vec::new();
        while let Some(done) = tasks.join_next().await {
            times.extend(done??);
        }
        Ok(times)
    }

    /// Until so many run.
    async fn wait_for(&self, count: usize) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut running = 0;
            let mut cursor = String::new();
            loop {
                let path = format!("/api/weavers?status=running&limit=200{cursor}");
                let url = format!("http://{}{path}", self.loom.address);
                let request = self.http.request(Method::GET, url).bearer_auth(&self.loom.key);
                let page: Value = request.send().await?.error_for_status()?.json().await?;
                running += page.get("weavers").and_then(Value::as_array).map_or(0, Vec::len);
                match page.get("next_cursor").and_then(Value::as_str) {
                    Some(next) => cursor = format!("&cursor={next}"),
                    None => break,
                }
            }
            if running >= count {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "only {running} of {count} run");
            sleep(Duration::from_millis(250)).await;
        }
    }
}
