//! What the server holds in memory: large bodies on their way through, and open streams.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::load::{self, Expect, Plan, Request};
use crate::loom;
use crate::mock::{Api, EVENTS};
use crate::process::{self, Fleet};

/// Slow enough for all streams to be open at once.
const PACE: Duration = Duration::from_millis(1500);
/// Until all are open, before their memory is looked at.
const OPENING: Duration = Duration::from_secs(20);
/// The largest body that the server takes, but for the JSON around it.
const BODY: usize = (32 << 20) - 4096;
const MIB: f64 = 1024.0;

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Open streams at a time; each takes two files of the server, which is often allowed 20,000
    #[arg(long, value_delimiter = ',', default_value = "100,1000,9500")]
    streams: Vec<usize>,
    /// Bodies of 32 MiB at a time
    #[arg(long, value_delimiter = ',', default_value = "1,2,4")]
    bodies: Vec<usize>,
    /// The server's binary [default: loom-server beside this program]
    #[arg(long)]
    loom: Option<PathBuf>,
}

/// Measures and reports; whatever comes in between, what was started is stopped.
pub(crate) async fn run(options: &Options) -> Result<()> {
    let mut fleet = Fleet::new()?;
    let result = bench(options, &mut fleet).await;
    fleet.stop().await?;
    crate::print(&result?);
    Ok(())
}

async fn bench(options: &Options, fleet: &mut Fleet) -> Result<String> {
    let beside = || Ok::<_, anyhow::Error>(std::env::current_exe()?.with_file_name("loom-server"));
    let binary = options.loom.clone().map_or_else(beside, Ok)?;
    let (_, mock) = fleet.start_self(&["mock", "--port", "0"]).await?;
    let loom = loom::start(fleet, &binary, mock, &[]).await.context("starting Loom")?;
    let bearer = [("authorization", format!("Bearer {}", loom.key))];
    let rss = || process::usage(loom.pid).rss_kib as f64 / MIB;
    let mut out = String::from(
        "| held | memory before, MiB | at most, MiB | more, MiB | each, KiB |\n|--:|--:|--:|--:|--:|\n",
    );
    let mut line = |what: String, before: f64, peak: f64, count: usize| {
        let more = peak - before;
        let each = more * 1024.0 / count as f64;
        out.push_str(&format!("| {what} | {before:.0} | {peak:.0} | {more:.0} | {each:.0} |\n"));
    };
    for &count in &options.bodies {
        crate::note(&format!("{count} bodies of 32 MiB"));
        // The kernel's high-water mark begins anew (proc(5), clear_refs).
        fs::write(format!("/proc/{}/clear_refs", loom.pid), "5").context("clear_refs")?;
        let before = rss();
        send_bodies(count, loom.address, &bearer).await?;
        let peak = process::usage(loom.pid).peak_kib as f64 / MIB;
        line(format!("{count} × 32 MiB"), before, peak, count);
        sleep(Duration::from_secs(2)).await;
    }
    for &count in &options.streams {
        let before = rss();
        let body = Api::Openai.request_body(true, Some(PACE));
        let request = load::request_with("POST", Api::Openai.path(), loom.address, &bearer, &body);
        let last = Api::Openai.replies().events.last().cloned().unwrap_or_default();
        let plan = Arc::new(Plan {
            address: loom.address,
            request: Request::Same(request),
            expect: Expect::Events { count: EVENTS, last },
            connections: count,
            warm_up: OPENING,
            window: Duration::from_secs(5),
        });
        crate::note(&format!("{count} open streams"));
        let (tally, _, held) = load::run_all(&plan, PACE * (EVENTS as u32 + 4), &rss).await;
        ensure!(
            tally.errors == 0,
            "{} streams failed: {}",
            tally.errors,
            tally.first_error.unwrap_or_default()
        );
        line(format!("{count} streams"), before, held, count);
        sleep(Duration::from_secs(2)).await;
    }
    Ok(out)
}

async fn send_bodies(count: usize, address: SocketAddr, bearer: &[(&str, String)]) -> Result<()> {
    let text = "a".repeat(BODY);
    let body =
        format!(r#"{{"model":"gpt-4o-mini","messages":[{{"role":"user","content":"{text}"}}]}}"#);
    let request: Bytes = load::request_with("POST", Api::Openai.path(), address, bearer, &body);
    let mut senders = JoinSet::new();
    for _ in 0..count {
        let request = request.clone();
        senders.spawn(async move { load::once(address, &request).await });
    }
    while let Some(answer) = senders.join_next().await {
        let (status, body) = answer??;
        ensure!(status == 200, "status {status}: {}", String::from_utf8_lossy(&body));
    }
    Ok(())
}
