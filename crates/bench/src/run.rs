//! The whole bench: starts what is measured, measures all of it side by side, writes the report.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{sleep, timeout};

use crate::load::{self, Expect, Plan, Request, Tally};
use crate::loom;
use crate::mock::{Api, EVENTS};
use crate::process::{self, Fleet, Usage};
use crate::report::{self, Case, Row, Summary, Target, Work};
use crate::stats::percentile;

/// Pause between the events of a paced stream.
pub(crate) const PACE: Duration = Duration::from_millis(20);

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// One second a measurement and fewer sizes: for trying things out
    #[arg(long)]
    quick: bool,
    /// Length of one measurement [default: 5, quick: 1]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: Option<u64>,
    /// How often each measurement is made; the report has the medians
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=100))]
    rounds: u64,
    /// Connections at a time [default: 1,16,64, quick: 1,64]
    #[arg(long, value_delimiter = ',', value_parser = connections)]
    connections: Option<Vec<usize>>,
    /// Paced streams at a time [default: 16,128, quick: 16]; for many, raise the limit of open files
    #[arg(long, value_delimiter = ',', value_parser = connections)]
    streams: Option<Vec<usize>>,
    /// The wire format that is spoken
    #[arg(long, value_enum, default_value = "openai")]
    api: Api,
    /// The server's binary [default: loom-server beside this program]
    #[arg(long)]
    loom: Option<PathBuf>,
    /// More of the server's environment, as NAME=value; can be repeated
    #[arg(long)]
    loom_env: Vec<String>,
    /// Only direct and the bare forwarder
    #[arg(long, conflicts_with_all = ["loom", "loom_env"])]
    without_loom: bool,
    /// The folder that crates/bench/peers/install has filled: its gateways are measured too
    #[arg(long)]
    peers: Option<PathBuf>,
    /// Also write the report to this file
    #[arg(long)]
    out: Option<PathBuf>,
}

fn connections(text: &str) -> Result<usize> {
    let count = text.parse()?;
    ensure!((1..=10_000).contains(&count), "{count} is not between 1 and 10000");
    Ok(count)
}

/// One of the things that are measured.
pub(crate) struct Endpoint {
    pub(crate) target: Target,
    pub(crate) address: SocketAddr,
    pub(crate) pid: u32,
    /// The path and the model, where they are not OpenAI's.
    pub(crate) path: Option<&'static str>,
    pub(crate) model: Option<&'static str>,
    pub(crate) headers: Vec<(&'static str, String)>,
    /// It writes replies anew: what they hold counts, not their length.
    pub(crate) rewrites: bool,
}

impl Endpoint {
    pub(crate) fn new(target: Target, address: SocketAddr, pid: u32) -> Self {
        Self { target, address, pid, path: None, model: None, headers: Vec::new(), rewrites: false }
    }

    fn is_peer(&self) -> bool {
        !matches!(self.target, Target::Direct | Target::Forwarder | Target::Loom)
    }

    /// One that writes replies anew drops the word that paces them.
    fn takes(&self, work: Work) -> bool {
        work != Work::Paced || !self.rewrites
    }
}

/// Measures and reports; whatever comes in between, what was started is stopped.
pub(crate) async fn run(options: &Options) -> Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    let mut fleet = Fleet::new()?;
    let result = tokio::select! {
        result = bench(options, &mut fleet) => result,
        _ = interrupt.recv() => Err(anyhow::anyhow!("interrupted")),
        _ = terminate.recv() => Err(anyhow::anyhow!("terminated")),
        _ = hang_up.recv() => Err(anyhow::anyhow!("hung up")),
    };
    fleet.stop().await?;
    let cases = result?;
    let report = report::write(&cases);
    crate::print(&report);
    if let Some(out) = &options.out {
        std::fs::write(out, report).with_context(|| format!("writing {}", out.display()))?;
    }
    let errors: u64 = cases
        .iter()
        .flat_map(|case| &case.rows)
        .flat_map(|row| &row.rounds)
        .map(|round| round.errors)
        .sum();
    ensure!(errors == 0, "{errors} requests failed: these figures do not count");
    Ok(())
}

async fn bench(options: &Options, fleet: &mut Fleet) -> Result<Vec<Case>> {
    let endpoints = start(options, fleet).await?;
    let window = Duration::from_secs(options.seconds.unwrap_or(if options.quick { 1 } else { 5 }));
    let default =
        |few: &[usize], all: &[usize]| if options.quick { few.to_vec() } else { all.to_vec() };
    let connections =
        options.connections.clone().unwrap_or_else(|| default(&[1, 64], &[1, 16, 64]));
    let streams = options.streams.clone().unwrap_or_else(|| default(&[16], &[16, 128]));
    let sizes = [(Work::Json, &connections), (Work::Stream, &connections), (Work::Paced, &streams)];
    let mut cases = Vec::new();
    for (work, sizes) in sizes {
        for &connections in sizes {
            let endpoints: Vec<_> =
                endpoints.iter().filter(|endpoint| endpoint.takes(work)).collect();
            let rows = endpoints
                .iter()
                .map(|endpoint| Row { target: endpoint.target, rounds: Vec::new() })
                .collect();
            let mut case = Case { work, connections, rows };
            for endpoint in &endpoints {
                check(options.api, work, endpoint).await?;
            }
            for round in 0..options.rounds as usize {
                // Another one goes first in each round, so that none always follows the same.
                for turn in 0..endpoints.len() {
                    let index = (round + turn) % endpoints.len();
                    let Some((endpoint, row)) = endpoints.get(index).zip(case.rows.get_mut(index))
                    else {
                        continue;
                    };
                    crate::note(&format!(
                        "{}, {connections}, round {}: {}",
                        work.name(),
                        round + 1,
                        row.target.name()
                    ));
                    let plan = plan(options.api, work, endpoint, connections, window);
                    row.rounds.push(measure(plan, endpoint, &fleet.dir).await);
                    if let Some(ended) = fleet.ended(endpoint.pid) {
                        let log = if row.target == Target::Loom {
                            loom::tail(&fleet.dir.join("loom.log"))
                        } else {
                            String::new()
                        };
                        bail!(
                            "{} has ended: {ended}
{log}",
                            row.target.name()
                        );
                    }
                }
            }
            cases.push(case);
        }
    }
    Ok(cases)
}

async fn start(options: &Options, fleet: &mut Fleet) -> Result<Vec<Endpoint>> {
    let (pid, mock) = fleet.start_self(&["mock", "--port", "0"]).await?;
    let direct = Endpoint::new(Target::Direct, mock, pid);
    let upstream = format!("http://{mock}");
    let (pid, address) =
        fleet.start_self(&["forwarder", "--upstream", &upstream, "--port", "0"]).await?;
    let forwarder = Endpoint::new(Target::Forwarder, address, pid);
    let mut endpoints = vec![direct, forwarder];
    if !options.without_loom {
        let beside =
            || Ok::<_, anyhow::Error>(std::env::current_exe()?.with_file_name("loom-server"));
        let binary = options.loom.clone().map_or_else(beside, Ok)?;
        let loom =
            loom::start(fleet, &binary, mock, &options.loom_env).await.context("starting Loom")?;
        endpoints.push(Endpoint {
            headers: vec![("authorization", format!("Bearer {}", loom.key))],
            ..Endpoint::new(Target::Loom, loom.address, loom.pid)
        });
    }
    if let Some(dir) = &options.peers {
        ensure!(options.api == Api::Openai, "the peers are measured with --api openai");
        endpoints.extend(crate::peers::start(fleet, dir, mock).await?);
    }
    Ok(endpoints)
}

fn request(api: Api, work: Work, endpoint: &Endpoint) -> Bytes {
    let (stream, pace) = (work != Work::Json, (work == Work::Paced).then_some(PACE));
    let body = match endpoint.model {
        Some(model) => api.request_for(model, stream, pace),
        None => api.request_body(stream, pace),
    };
    let path = endpoint.path.unwrap_or(api.path());
    load::request_with("POST", path, endpoint.address, &endpoint.headers, &body)
}

/// One request before the many: what does not work at all is said at once, and plainly.
async fn check(api: Api, work: Work, endpoint: &Endpoint) -> Result<()> {
    let request = request(api, work, endpoint);
    let answer = load::once(endpoint.address, &request);
    let name = endpoint.target.name();
    let (status, body) = timeout(Duration::from_secs(30), answer)
        .await
        .with_context(|| format!("{name} does not answer"))?
        .with_context(|| format!("{name} does not answer"))?;
    ensure!(
        status == 200,
        "{name} answers with status {status}: {}",
        String::from_utf8_lossy(&body)
    );
    Ok(())
}

fn plan(
    api: Api,
    work: Work,
    endpoint: &Endpoint,
    connections: usize,
    window: Duration,
) -> Arc<Plan> {
    let replies = api.replies();
    let expect = match work {
        Work::Json if endpoint.rewrites => Expect::Holds(b"five boxing wizards"),
        Work::Stream | Work::Paced if endpoint.rewrites => Expect::Holds(b"data: [DONE]"),
        Work::Json => Expect::Length(replies.json.len()),
        Work::Stream | Work::Paced => Expect::Events {
            count: EVENTS,
            last: replies.events.last().cloned().unwrap_or_default(),
        },
    };
    Arc::new(Plan {
        address: endpoint.address,
        request: Request::Same(request(api, work, endpoint)),
        expect,
        connections,
        warm_up: window.mul_f64(0.2).clamp(Duration::from_millis(500), Duration::from_secs(2)),
        window,
    })
}

async fn measure(plan: Arc<Plan>, endpoint: &Endpoint, dir: &Path) -> Summary {
    let costs = || {
        (
            if endpoint.is_peer() {
                process::usage_of_tree(endpoint.pid)
            } else {
                process::usage(endpoint.pid)
            },
            (endpoint.target == Target::Loom).then(|| process::database_cpu(dir)),
        )
    };
    let (tally, before, after) = load::run(&plan, costs).await;
    let requests = tally.latencies.len() as f64;
    let each = |cpu: Duration| cpu.as_secs_f64() * 1e6 / requests;
    let database = before.1.zip(after.1).map(|(before, after)| each(after.saturating_sub(before)));
    // Work that is put off, such as accounting, is not to burden the next measurement.
    sleep(Duration::from_millis(200)).await;
    summary(tally, plan.window, each(after.0.cpu.saturating_sub(before.0.cpu)), database, after.0)
}

fn summary(
    mut tally: Tally,
    window: Duration,
    cpu_us: f64,
    database_us: Option<f64>,
    usage: Usage,
) -> Summary {
    for values in [&mut tally.latencies, &mut tally.first_bytes, &mut tally.gaps] {
        values.sort_unstable();
    }
    let us = |values: &[u64], percent| {
        percentile(values, percent).map_or(f64::NAN, |value| value as f64 / 1e3)
    };
    Summary {
        rate: tally.latencies.len() as f64 / window.as_secs_f64(),
        p50_us: us(&tally.latencies, 50.0),
        p99_us: us(&tally.latencies, 99.0),
        first_p50_us: us(&tally.first_bytes, 50.0),
        gap_p50_us: us(&tally.gaps, 50.0),
        gap_p99_us: us(&tally.gaps, 99.0),
        merged_percent: tally.merged as f64 / tally.gaps.len() as f64 * 100.0,
        cpu_us,
        database_us: database_us.unwrap_or(f64::NAN),
        rss_mib: usage.rss_kib as f64 / 1024.0,
        peak_mib: usage.peak_kib as f64 / 1024.0,
        errors: tally.errors,
        first_error: tally.first_error,
    }
}
