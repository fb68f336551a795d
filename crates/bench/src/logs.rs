//! What logging costs: a line by itself, and requests while many watch the log and one hardly reads.

use std::{
    hint::black_box,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use chrono::{DateTime, Utc};
use loom_core::Clock;
use loom_logs::{Buffer, Form, LogLayer};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    runtime::{Builder, Runtime},
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, sleep, sleep_until},
};
use tracing_subscriber::layer::SubscriberExt as _;

use crate::loom::{self, Loom};
use crate::process::{self, Fleet};
use crate::stats::{median, percentile};

/// A server lets one user watch three.
const WATCHERS_OF_ONE: usize = 3;
const CONNECTIONS: usize = 32;
const NORMAL_RATE: u64 = 100;
const BURST: u32 = 2_000;
/// So small that it turns over while the slow watcher does not read.
const BUFFER: &str = "LOOM_SERVER_LOG_BUFFER_BYTES=4194304";

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Length of one measurement
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// How often with and without watchers, by turns; the report has the medians
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=100))]
    rounds: u64,
    /// Requests a second, each of which logs a line
    #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    rate: u64,
    /// Watchers of the log; one of them reads a byte a second
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=20))]
    watchers: u64,
    /// The server's binary [default: loom-server beside this program]
    #[arg(long)]
    loom: Option<PathBuf>,
}

pub(crate) async fn run(options: &Options) -> Result<()> {
    let lines = tokio::task::spawn_blocking(line_costs).await?;
    crate::print(&lines);
    let mut fleet = Fleet::new()?;
    let result = tokio::select! {
        result = under_load(options, &mut fleet) => result,
        _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
    };
    fleet.stop().await?;
    crate::print(&result?);
    Ok(())
}

/// Nanoseconds of one of many.
fn each(count: u32, mut work: impl FnMut(u32)) -> f64 {
    for index in 0..count / 10 {
        work(index);
    }
    let mut rounds = Vec::new();
    for _ in 0..5 {
        let start = std::time::Instant::now();
        for index in 0..count {
            work(index);
        }
        rounds.push(start.elapsed().as_nanos() as f64 / f64::from(count));
    }
    median(rounds).unwrap_or(f64::NAN)
}

/// A line as a request leaves it.
fn log_line(index: u32) {
    tracing::info!(
        request_id = "0199f3c1-7a3e-7d10-b7e2-0d6b1c7c3c55",
        method = "GET",
        route = "/api/threads/{id}",
        status = 200_u16,
        duration_ms = f64::from(index) * 0.37,
        peer = %std::net::Ipv4Addr::LOCALHOST,
        "request"
    );
}

/// What a line costs whoever logs it, and what masking it takes.
fn line_costs() -> String {
    loom_redact::learn(
        ["sk-bench-a-configured-key", "postgres://loom:hunter2-hunter2@db/loom"].map(Into::into),
    );
    let redactor = loom_redact::shared();
    let text = "request\n0199f3c1-7a3e-7d10-b7e2-0d6b1c7c3c55\nGET\n/api/threads/{id}\n200\n12.345678\n127.0.0.1";
    let redaction = each(200_000, |_| {
        black_box(redactor.redact(black_box(text)));
    });
    let filter: tracing_subscriber::filter::targets::Targets = "info".parse().unwrap_or_default();
    let (layer, flusher) = LogLayer::start(
        Buffer::new("bench", 16 << 20),
        Clock::system(),
        Form::Json,
        Box::new(|lines| {
            black_box(lines);
        }),
    );
    let subscriber = tracing_subscriber::registry().with(layer).with(filter);
    let (logged, below) = tracing::subscriber::with_default(subscriber, || {
        let mut bursts = Vec::new();
        for _ in 0..200 {
            // So few that the queue is never full: a line that is dropped costs less.
            let start = std::time::Instant::now();
            for index in 0..BURST {
                log_line(index);
            }
            bursts.push(start.elapsed().as_nanos() as f64 / f64::from(BURST));
            flusher.flush();
        }
        let logged = median(bursts).unwrap_or(f64::NAN);
        let below = each(2_000_000, |index| tracing::debug!(index, "not for this filter"));
        (logged, below)
    });
    // Whole, with the thread behind: written and masked when `flush` returns.
    let through = {
        let (layer, flusher) = LogLayer::start(
            Buffer::new("bench", 16 << 20),
            Clock::system(),
            Form::Json,
            Box::new(|lines| {
                black_box(lines);
            }),
        );
        let subscriber = tracing_subscriber::registry().with(layer);
        tracing::subscriber::with_default(subscriber, || {
            let before = process::usage(std::process::id()).cpu;
            for round in 0..200 {
                for index in 0..5_000 {
                    log_line(round + index);
                }
                flusher.flush();
            }
            (process::usage(std::process::id()).cpu - before).as_nanos() as f64 / 1e6
        })
    };
    format!(
        "An ordinary line of {} bytes: masking {redaction:.0} ns; for whoever logs it {logged:.0} ns; CPU in all, \
         with the thread behind, {through:.0} ns. An event below the filter: {below:.1} ns.\n",
        text.len()
    )
}

/// Requests at a steady rate.
struct Load {
    latencies: Vec<u64>,
    seconds: f64,
}

impl Load {
    fn at(&self, percent: f64) -> f64 {
        percentile(&self.latencies, percent).map_or(f64::NAN, |value| value as f64 / 1e3)
    }
}

async fn put_load(address: SocketAddr, rate: u64, seconds: u64) -> Result<Load> {
    let connections = CONNECTIONS.min(rate as usize);
    let start = Instant::now() + Duration::from_millis(20);
    let until = start + Duration::from_secs(seconds);
    let mut workers = JoinSet::new();
    for index in 0..connections {
        workers.spawn(async move {
            let pause = Duration::from_secs_f64(connections as f64 / rate as f64);
            sleep_until(start + pause.mul_f64(index as f64 / connections as f64)).await;
            let mut ticks = interval(pause);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
            let mut stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            let request = format!("GET /health/live HTTP/1.1\r\nhost: {address}\r\n\r\n");
            let (mut latencies, mut answer) = (Vec::new(), [0; 1024]);
            loop {
                ticks.tick().await;
                let sent = Instant::now();
                if sent >= until {
                    return Ok::<_, anyhow::Error>(latencies);
                }
                stream.write_all(request.as_bytes()).await?;
                let mut len = 0;
                while !answer.get(..len).unwrap_or_default().ends_with(b"\r\n\r\n") {
                    let room = answer.get_mut(len..).context("a long answer")?;
                    let more = stream.read(room).await?;
                    ensure!(more > 0, "the server has closed the connection");
                    len += more;
                }
                ensure!(answer.starts_with(b"HTTP/1.1 204"), "not what /health/live answers");
                latencies.push(sent.elapsed().as_nanos() as u64);
            }
        });
    }
    let mut latencies = Vec::new();
    while let Some(worker) = workers.join_next().await {
        latencies.extend(worker??);
    }
    latencies.sort_unstable();
    Ok(Load { latencies, seconds: start.elapsed().as_secs_f64() })
}

/// What the watchers have seen.
#[derive(Default)]
struct Seen {
    lines: AtomicU64,
    gaps: AtomicU64,
    /// Each so many-th line is looked at for its delay, in microseconds.
    delays: Mutex<Vec<u64>>,
    slow: Mutex<Vec<u8>>,
    done: AtomicBool,
}

async fn open_stream(address: SocketAddr, key: &str, small: bool) -> Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    if small {
        socket.set_recv_buffer_size(4_096)?;
    }
    let mut stream = socket.connect(address).await?;
    stream
        .write_all(
            format!(
                "GET /api/admin/logs/stream HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {key}\r\n\r\n"
            )
            .as_bytes(),
        )
        .await?;
    let mut head = [0; 12];
    stream.read_exact(&mut head).await?;
    ensure!(&head == b"HTTP/1.1 200", "the stream was refused: {}", String::from_utf8_lossy(&head));
    Ok(stream)
}

/// Reads as fast as it comes.
async fn watch(mut stream: TcpStream, seen: Arc<Seen>) {
    let mut piece = vec![0; 256 << 10];
    let line = memchr::memmem::Finder::new(b"\"timestamp\":\"");
    let gap = memchr::memmem::Finder::new(b"event: gap");
    while let Ok(len) = stream.read(&mut piece).await {
        if len == 0 {
            return;
        }
        let (now, text) = (Clock::system().now(), piece.get(..len).unwrap_or_default());
        let mut count = 0;
        let mut last = None;
        for at in line.find_iter(text) {
            count += 1;
            last = Some(at);
            if count == 1 {
                note_delay(&seen, text, at, now);
            }
        }
        if let Some(at) = last.filter(|_| count > 1) {
            note_delay(&seen, text, at, now);
        }
        seen.lines.fetch_add(count, Ordering::Relaxed);
        seen.gaps.fetch_add(gap.find_iter(text).count() as u64, Ordering::Relaxed);
    }
}

/// The first and the last of each piece: the one that waited longest and the one that did least.
fn note_delay(seen: &Seen, text: &[u8], at: usize, now: DateTime<Utc>) {
    let Some(stamp) = text.get(at + 13..).and_then(|text| text.get(..27)) else { return };
    let Ok(stamp) = std::str::from_utf8(stamp) else { return };
    if let Ok(then) = stamp.parse::<DateTime<Utc>>()
        && let Ok(delay) = (now - then).to_std()
        && let Ok(mut delays) = seen.delays.lock()
    {
        delays.push(delay.as_micros() as u64);
    }
}

/// Reads a byte a second, until the end; then all that is there.
async fn watch_slowly(mut stream: TcpStream, seen: Arc<Seen>) {
    let mut text = Vec::new();
    while !seen.done.load(Ordering::Relaxed) {
        let Ok(byte) = stream.read_u8().await else { return };
        text.push(byte);
        for _ in 0..10 {
            if !seen.done.load(Ordering::Relaxed) {
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
    let mut piece = vec![0; 256 << 10];
    while let Ok(Ok(len)) =
        tokio::time::timeout(Duration::from_secs(2), stream.read(&mut piece)).await
        && len > 0
        && text.len() < 256 << 20
    {
        text.extend_from_slice(piece.get(..len).unwrap_or_default());
    }
    if let Ok(mut slow) = seen.slow.lock() {
        *slow = text;
    }
}

struct Watching {
    seen: Arc<Seen>,
    tasks: JoinSet<()>,
    slow: JoinSet<()>,
    /// Not that of the load, whose times would be those of reading the watchers' megabytes.
    runtime: Runtime,
}

impl Watching {
    async fn start(loom: &Loom, keys: &[String], watchers: usize) -> Result<Self> {
        let seen = Arc::new(Seen::default());
        let (mut tasks, mut slow) = (JoinSet::new(), JoinSet::new());
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        for index in 0..watchers {
            let key = keys.get(index / WATCHERS_OF_ONE).context("too few keys")?;
            let (address, key, seen) = (loom.address, key.clone(), Arc::clone(&seen));
            // A socket belongs to the runtime that it was opened in.
            let stream = runtime
                .spawn(async move { open_stream(address, &key, index == 0).await })
                .await??;
            if index == 0 {
                slow.spawn_on(watch_slowly(stream, seen), runtime.handle());
            } else {
                tasks.spawn_on(watch(stream, seen), runtime.handle());
            }
        }
        Ok(Self { seen, tasks, slow, runtime })
    }

    async fn end(mut self) -> Arc<Seen> {
        self.tasks.shutdown().await;
        self.seen.done.store(true, Ordering::Relaxed);
        while self.slow.join_next().await.is_some() {}
        self.runtime.shutdown_background();
        // The server sees that they are gone.
        sleep(Duration::from_millis(500)).await;
        self.seen
    }
}

async fn under_load(options: &Options, fleet: &mut Fleet) -> Result<String> {
    let beside = || Ok::<_, anyhow::Error>(std::env::current_exe()?.with_file_name("loom-server"));
    let binary = options.loom.clone().map_or_else(beside, Ok)?;
    let nowhere = SocketAddr::from(([127, 0, 0, 1], 9));
    let loom = loom::start(fleet, &binary, nowhere, &[BUFFER.to_owned()])
        .await
        .context("starting Loom")?;
    let watchers = options.watchers as usize;
    let mut keys = vec![loom.key.clone()];
    for index in 1..watchers.div_ceil(WATCHERS_OF_ONE) {
        keys.push(loom.another_key(&format!("bench{index}@example.com")).await?);
    }
    put_load(loom.address, options.rate, 2).await?;

    let (mut without, mut with) = (Vec::new(), Vec::new());
    let mut report = format!(
        "\n{} requests a second for {} s, {} times without and with {watchers} watchers, one of which reads a byte a second:\n\n\
         | round | | a second | p50 µs | p99 µs | server CPU s/s | RSS MiB | lines seen by a watcher | gaps | delay p50/p99 ms | load |\n\
         |---|---|---|---|---|---|---|---|---|---|---|\n",
        options.rate, options.seconds, options.rounds
    );
    let mut slow_gaps = 0;
    for round in 0..options.rounds {
        // Another one goes first in each round.
        for watched in if round % 2 == 0 { [false, true] } else { [true, false] } {
            let watching =
                if watched { Some(Watching::start(&loom, &keys, watchers).await?) } else { None };
            let before = process::usage(loom.pid);
            let load = put_load(loom.address, options.rate, options.seconds).await?;
            let after = process::usage(loom.pid);
            let seen = match watching {
                Some(watching) => Some(watching.end().await),
                None => None,
            };
            let seen_text = match &seen {
                Some(seen) => {
                    let (p50, p99) = delays(seen);
                    slow_gaps += slow_gaps_of(seen);
                    format!(
                        "{} | {} | {p50:.0} / {p99:.0}",
                        seen.lines.load(Ordering::Relaxed) / (watchers as u64 - 1).max(1),
                        seen.gaps.load(Ordering::Relaxed)
                    )
                }
                None => " | | ".to_owned(),
            };
            report.push_str(&format!(
                "| {} | {} | {:.0} | {:.0} | {:.0} | {:.2} | {} | {seen_text} | {} |\n",
                round + 1,
                if watched { "watched" } else { "alone" },
                load.latencies.len() as f64 / load.seconds,
                load.at(50.0),
                load.at(99.0),
                (after.cpu - before.cpu).as_secs_f64() / load.seconds,
                after.rss_kib >> 10,
                std::fs::read_to_string("/proc/loadavg")
                    .unwrap_or_default()
                    .split(' ')
                    .next()
                    .unwrap_or_default()
            ));
            crate::note(report.lines().last().unwrap_or_default());
            if watched { &mut with } else { &mut without }.push(load);
        }
    }
    let middle = |loads: &[Load], percent| {
        median(loads.iter().map(|load| load.at(percent))).unwrap_or(f64::NAN)
    };
    for percent in [50.0, 99.0] {
        let (alone, watched) = (middle(&without, percent), middle(&with, percent));
        report.push_str(&format!(
            "\np{percent}: {alone:.0} µs alone, {watched:.0} µs watched: {:+.1} %",
            (watched / alone - 1.0) * 100.0
        ));
    }
    let watching = Watching::start(&loom, &keys, watchers).await?;
    put_load(loom.address, NORMAL_RATE, options.seconds).await?;
    let seen = watching.end().await;
    let (p50, p99) = delays(&seen);
    report.push_str(&format!(
        "\nThe slow watcher was shown {slow_gaps} gaps, of a buffer of 4 MiB. At {NORMAL_RATE} lines a second, from the event to the watcher: \
         p50 {p50:.0} ms, p99 {p99:.0} ms.\nPeak RSS {} MiB.\n",
        process::usage(loom.pid).peak_kib >> 10
    ));
    Ok(report)
}

fn delays(seen: &Seen) -> (f64, f64) {
    let mut delays = seen.delays.lock().map(|delays| delays.clone()).unwrap_or_default();
    delays.sort_unstable();
    let at = |percent| percentile(&delays, percent).map_or(f64::NAN, |value| value as f64 / 1e3);
    (at(50.0), at(99.0))
}

fn slow_gaps_of(seen: &Seen) -> usize {
    let text = seen.slow.lock().map(|text| text.clone()).unwrap_or_default();
    memchr::memmem::find_iter(&text, b"event: gap").count()
}
