//! The search over threads at three sizes, reads with and without the cache, and appends to short and long
//! threads beside `pgbench`.

mod append;
pub(crate) mod corpus;
mod load;
mod read;

use std::{
    net::SocketAddr,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use load::Loader;
use serde_json::Value;

use crate::{
    loom::{self, Loom},
    process::Fleet,
    stats::percentile,
};

const EMAIL: &str = "bench@example.com";
const SEED: u64 = 20_261_122;
/// More than the goal, at the largest size.
const GOAL_MS: f64 = 150.0;

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Messages in all, in steps: each is measured
    #[arg(long, value_delimiter = ',', default_values_t = [10_000, 100_000, 1_000_000])]
    messages: Vec<u64>,
    /// Searches of each kind
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(5..=10_000))]
    searches: u64,
    /// Length of each measurement of appends; 0 leaves them and the reads out
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
    let mut loader = Loader::new(url.expose(), EMAIL, SEED).await?;
    // Another part of the program may have been first.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let http = reqwest::Client::builder().no_proxy().build()?;
    crate::print(
        "| messages | search | p50 ms | p95 ms | max ms | found | p95 ≤ 150 ms |\n|--:|---|--:|--:|--:|--:|---|\n",
    );
    let mut there = 0;
    for size in &options.messages {
        let started = Instant::now();
        loader.add(size.saturating_sub(there)).await?;
        there = *size;
        crate::note(&format!("{size} messages after {:.0} s", started.elapsed().as_secs_f64()));
        search(&loom, &http, &loader, options.searches, there).await?;
    }
    if options.seconds > 0 {
        read::measure(&loom, &http, &mut loader).await?;
        append::measure(&loom, &http, &mut loader, url.expose(), &fleet.dir, options.seconds)
            .await?;
    }
    Ok(())
}

/// Kinds of searches, each with its queries.
fn kinds(loader: &Loader) -> Vec<(&'static str, Vec<String>)> {
    let word = |rank: usize| loader.words.word(rank);
    let each = |from: usize, make: &dyn Fn(usize) -> String| (from..from + 10).map(make).collect();
    vec![
        ("rare word", each(20_000, &|rank| format!("{} ", word(rank)))),
        ("mid word", each(480, &|rank| format!("{} ", word(rank)))),
        ("common word", each(15, &|rank| format!("{} ", word(rank)))),
        ("commonest word", vec![format!("{} ", word(0))]),
        ("common and mid word", each(15, &|rank| format!("{} {} ", word(rank), word(rank + 400)))),
        ("rare and commonest word", each(20_000, &|rank| format!("{} {} ", word(rank), word(0)))),
        ("prefix of a mid word", each(480, &|rank| word(rank).chars().take(5).collect())),
        ("prefix of three letters", each(480, &|rank| word(rank).chars().take(3).collect())),
        (
            "phrase of common words",
            each(3, &|rank| format!("\"{} {}\"", word(rank), word(rank + 20))),
        ),
        ("identifier", each(5, &|rank| format!("{}_{} ", word(rank), word(rank * 3)))),
        ("misspelt", each(2_000, &|rank| format!("{}x ", word(rank).replacen('a', "e", 1)))),
    ]
}

async fn search(
    loom: &Loom,
    http: &reqwest::Client,
    loader: &Loader,
    searches: u64,
    messages: u64,
) -> Result<()> {
    for (kind, queries) in kinds(loader) {
        let (mut times, mut found) = (Vec::new(), String::new());
        let mut failed = 0;
        for (index, q) in
            queries.iter().cycle().take(queries.len() + usize::try_from(searches)?).enumerate()
        {
            let q: String = q.bytes().map(|byte| format!("%{byte:02X}")).collect();
            let request = http
                .get(format!("http://{}/api/threads/search?q={q}", loom.address))
                .bearer_auth(&loom.key)
                .timeout(Duration::from_secs(20));
            let started = Instant::now();
            let answer = request.send().await?;
            let status = answer.status();
            let body: Value = serde_json::from_slice(&answer.bytes().await?)?;
            ensure!(status == 200 || status == 503, "{kind}: {body}");
            failed += u64::from(status != 200);
            // The first round reads what has not been read before.
            if index >= queries.len() {
                times.push(started.elapsed().as_micros() as u64);
            }
            let more =
                if body.get("total_is_partial") == Some(&Value::Bool(true)) { "+" } else { "" };
            found = format!("{}{more}", body.get("total").unwrap_or(&Value::Null));
        }
        times.sort_unstable();
        let at = |percent| percentile(&times, percent).map_or(f64::NAN, |value| value as f64 / 1e3);
        let failed = if failed > 0 { format!(" ({failed} took too long)") } else { String::new() };
        crate::print(&format!(
            "| {messages} | {kind} | {:.1} | {:.1} | {:.1} | {found} | {}{failed} |\n",
            at(50.0),
            at(95.0),
            at(100.0),
            if at(95.0) <= GOAL_MS { "yes" } else { "no" }
        ));
    }
    Ok(())
}
