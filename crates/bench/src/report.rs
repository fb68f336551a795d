//! The report, in Markdown: the machine, the tables, and how the figures stand to the goals.

use std::fmt::Write as _;
use std::time::SystemTime;

use chrono::{DateTime, SecondsFormat, Utc};

use crate::mock::EVENTS;
use crate::run::PACE;
use crate::stats::median;

/// The goals; the forwarder is the bare one, measured in the same run.
const CPU_US: f64 = 100.0;
const ADDED_P50_US: f64 = 100.0;
const THROUGHPUT: f64 = 0.7;
const ADDED_FIRST_BYTE_US: f64 = 300.0;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    Direct,
    Forwarder,
    Loom,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    Json,
    Stream,
    Paced,
}

impl Target {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Forwarder => "bare forwarder",
            Self::Loom => "Loom",
        }
    }
}

impl Work {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Json => "JSON",
            Self::Stream => "SSE",
            Self::Paced => "paced SSE",
        }
    }
}

/// One kind of work at one size, for every target.
pub(crate) struct Case {
    pub(crate) work: Work,
    pub(crate) connections: usize,
    pub(crate) rows: Vec<Row>,
}

pub(crate) struct Row {
    pub(crate) target: Target,
    pub(crate) rounds: Vec<Summary>,
}

/// One measurement. What was not measured is not a number.
pub(crate) struct Summary {
    pub(crate) rate: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) first_p50_us: f64,
    pub(crate) gap_p50_us: f64,
    pub(crate) gap_p99_us: f64,
    pub(crate) merged_percent: f64,
    pub(crate) cpu_us: f64,
    pub(crate) database_us: f64,
    pub(crate) rss_mib: f64,
    pub(crate) peak_mib: f64,
    pub(crate) errors: u64,
    pub(crate) first_error: Option<String>,
}

impl Row {
    fn median(&self, value: impl Fn(&Summary) -> f64) -> Option<f64> {
        median(self.rounds.iter().map(value))
    }
}

impl Case {
    fn row(&self, target: Target) -> Option<&Row> {
        self.rows.iter().find(|row| row.target == target)
    }

    /// Compares a row with the forwarder's, round by round, so that the machine's drift is in both.
    fn compared(&self, row: &Row, compare: impl Fn(&Summary, &Summary) -> f64) -> Option<f64> {
        let forwarder = self.row(Target::Forwarder).filter(|_| row.target == Target::Loom)?;
        median(row.rounds.iter().zip(&forwarder.rounds).map(|(own, bare)| compare(own, bare)))
    }
}

pub(crate) fn write(cases: &[Case]) -> String {
    let mut out = String::from("# Load bench of the LLM proxy\n\n");
    // Writing to a string does not fail.
    let _ = writeln!(out, "{}", machine());
    for (work, title, headings) in sections() {
        let cases: Vec<&Case> = cases.iter().filter(|case| case.work == work).collect();
        if !cases.is_empty() {
            let _ = writeln!(
                out,
                "## {title}\n\n| {} |\n|--:|---{}|",
                headings.join(" | "),
                "|--:".repeat(headings.len() - 2)
            );
            for case in cases {
                for row in &case.rows {
                    let _ = writeln!(out, "| {} |", cells(case, row).join(" | "));
                }
            }
            out.push('\n');
        }
    }
    out.push_str(&errors(cases));
    out.push_str(&goals(cases));
    out
}

fn sections() -> [(Work, String, Vec<&'static str>); 3] {
    let common = ["CPU µs", "PostgreSQL CPU µs", "RSS MiB", "peak MiB", "errors"];
    let unpaced = ["req/s", "p50 µs", "p99 µs", "p50 added µs", "throughput ratio"];
    let head = |first: &'static str, middle: &[&'static str]| {
        [&[first, "target"], middle, &common].concat()
    };
    let first_byte = ["first byte p50 µs", "first byte added µs"];
    let paced = [
        "streams/s",
        "first byte p50 µs",
        "first byte added µs",
        "gap p50 ms",
        "gap p99 ms",
        "merged %",
    ];
    [
        (Work::Json, "JSON".to_owned(), head("connections", &unpaced)),
        (
            Work::Stream,
            format!("SSE, {EVENTS} events without a pause"),
            head("connections", &[&unpaced[..], &first_byte[..]].concat()),
        ),
        (
            Work::Paced,
            format!("SSE, {EVENTS} events, {} ms before each", PACE.as_millis()),
            head("streams", &paced),
        ),
    ]
}

fn cells(case: &Case, row: &Row) -> Vec<String> {
    let first_added = case.compared(row, |own, bare| own.first_p50_us - bare.first_p50_us);
    let mut cells = vec![
        case.connections.to_string(),
        row.target.name().to_owned(),
        number(row.median(|s| s.rate), 0),
    ];
    if case.work == Work::Paced {
        cells.extend([
            number(row.median(|s| s.first_p50_us), 0),
            number(first_added, 0),
            number(row.median(|s| s.gap_p50_us / 1e3), 2),
            number(row.median(|s| s.gap_p99_us / 1e3), 2),
            number(row.median(|s| s.merged_percent), 2),
        ]);
    } else {
        cells.extend([
            number(row.median(|s| s.p50_us), 0),
            number(row.median(|s| s.p99_us), 0),
            number(case.compared(row, |own, bare| own.p50_us - bare.p50_us), 0),
            number(case.compared(row, |own, bare| own.rate / bare.rate), 2),
        ]);
        if case.work == Work::Stream {
            cells.extend([number(row.median(|s| s.first_p50_us), 0), number(first_added, 0)]);
        }
    }
    cells.extend([
        number(row.median(|s| s.cpu_us), 1),
        number(row.median(|s| s.database_us), 1),
        number(row.median(|s| s.rss_mib), 0),
        number(row.median(|s| s.peak_mib), 0),
        row.rounds.iter().map(|round| round.errors).sum::<u64>().to_string(),
    ]);
    cells
}

fn number(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
}

fn errors(cases: &[Case]) -> String {
    let mut out = String::new();
    for case in cases {
        for row in &case.rows {
            if let Some(error) = row.rounds.iter().find_map(|round| round.first_error.as_ref()) {
                let _ = writeln!(
                    out,
                    "- {}, {}, {}: {error}",
                    case.work.name(),
                    case.connections,
                    row.target.name()
                );
            }
        }
    }
    if out.is_empty() { out } else { format!("## Errors, the first of each\n\n{out}\n") }
}

fn goals(cases: &[Case]) -> String {
    let find = |work, connections| {
        cases.iter().find(|case| case.work == work && case.connections == connections)
    };
    let loom = |case: &Case, value: &dyn Fn(&Case, &Row) -> Option<f64>| {
        value(case, case.row(Target::Loom)?)
    };
    let mut out = String::new();
    let mut line = |case: Option<&Case>,
                    text: &str,
                    digits: usize,
                    value: &dyn Fn(&Case, &Row) -> Option<f64>,
                    good: &dyn Fn(f64) -> bool| {
        if let Some((case, value)) = case.and_then(|case| Some((case, loom(case, value)?))) {
            let reached = if good(value) { "yes" } else { "no" };
            let _ = writeln!(
                out,
                "| {}, {}: {text} | {value:.digits$} | {reached} |",
                case.work.name(),
                case.connections
            );
        }
    };
    let cpu = |_: &Case, row: &Row| row.median(|s| s.cpu_us);
    let added = |case: &Case, row: &Row| case.compared(row, |own, bare| own.p50_us - bare.p50_us);
    let ratio = |case: &Case, row: &Row| case.compared(row, |own, bare| own.rate / bare.rate);
    let first = |case: &Case, row: &Row| {
        case.compared(row, |own, bare| own.first_p50_us - bare.first_p50_us)
    };
    line(find(Work::Json, 64), &format!("CPU ≤ {CPU_US} µs a request"), 1, &cpu, &|v| {
        v <= CPU_US
    });
    line(
        find(Work::Json, 1),
        &format!("p50 ≤ {ADDED_P50_US} µs over the forwarder"),
        0,
        &added,
        &|v| v <= ADDED_P50_US,
    );
    line(
        find(Work::Json, 64),
        &format!("≥ {THROUGHPUT} × the forwarder's throughput"),
        2,
        &ratio,
        &|v| v >= THROUGHPUT,
    );
    line(
        find(Work::Stream, 64),
        &format!("≥ {THROUGHPUT} × the forwarder's throughput"),
        2,
        &ratio,
        &|v| v >= THROUGHPUT,
    );
    let text = format!("first byte p50 ≤ {ADDED_FIRST_BYTE_US} µs over the forwarder");
    line(find(Work::Stream, 1), &text, 0, &first, &|v| v <= ADDED_FIRST_BYTE_US);
    for case in cases.iter().filter(|case| case.work == Work::Paced) {
        line(Some(case), &text, 0, &first, &|v| v <= ADDED_FIRST_BYTE_US);
    }
    if out.is_empty() {
        out
    } else {
        format!("## Goals\n\n| goal | measured | reached |\n|---|--:|---|\n{out}")
    }
}

fn machine() -> String {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let cpus = read("/proc/cpuinfo");
    let model = cpus
        .lines()
        .find(|line| line.starts_with("model name"))
        .and_then(|line| line.split_once(": "));
    let model = model.map_or("unknown CPU", |(_, model)| model.trim());
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let date = DateTime::<Utc>::from(SystemTime::now()).to_rfc3339_opts(SecondsFormat::Secs, true);
    let command: Vec<String> = std::env::args().skip(1).collect();
    format!(
        "- {model}, {cores} cores, Linux {}\n- {date}, load average at the end {}\n- `loom-bench {}`\n\n\
         Load, mock upstream and target share this machine and talk over loopback, so req/s is that of all of them \
         together, and the ratios say more than the figures. Medians over the rounds; what is added, and the ratio, \
         is over the bare forwarder in the same round. CPU is per request and of the target's own process.\n",
        read("/proc/sys/kernel/osrelease").trim(),
        read("/proc/loadavg").split(' ').next().unwrap_or_default(),
        command.join(" "),
    )
}
