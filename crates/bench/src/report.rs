//! The report, in Markdown: the machine, the tables, and how the figures stand to the goals.

use std::fmt::Write as _;
use std::time::SystemTime;

use chrono::{DateTime, SecondsFormat, Utc};

use crate::mock::EVENTS;
use crate::run::PACE;
use crate::stats::median;

/// The goals; the forwarder is the bare one, measured in the same run.
const CPU_US: f64 = 60.0;
const ADDED_P50_US: f64 = 100.0;
const ADDED_P99_US: f64 = 1000.0;
const THROUGHPUT: f64 = 0.85;
/// Times the throughput of a peer.
const TIMES: [(Target, f64); 2] = [(Target::TensorZero, 4.0), (Target::LiteLlm, 200.0)];
const ADDED_FIRST_BYTE_US: f64 = 300.0;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    Direct,
    Forwarder,
    Loom,
    Nginx,
    LiteLlm,
    TensorZero,
    Portkey,
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
            Self::Nginx => "nginx",
            Self::LiteLlm => "LiteLLM",
            Self::TensorZero => "TensorZero",
            Self::Portkey => "Portkey",
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

    /// Compares Loom's row with the forwarder's, round by round, so that the machine's drift is in both.
    fn compared(&self, row: &Row, compare: impl Fn(&Summary, &Summary) -> f64) -> Vec<f64> {
        let forwarder = self.row(Target::Forwarder).filter(|_| row.target == Target::Loom);
        let rounds =
            forwarder.iter().flat_map(|forwarder| row.rounds.iter().zip(&forwarder.rounds));
        rounds.map(|(own, bare)| compare(own, bare)).collect()
    }

    fn added_p50(&self, row: &Row) -> Vec<f64> {
        self.compared(row, |own, bare| own.p50_us - bare.p50_us)
    }

    fn added_p99(&self, row: &Row) -> Vec<f64> {
        self.compared(row, |own, bare| own.p99_us - bare.p99_us)
    }

    /// Loom's throughput over that of a peer, by the medians.
    fn times(&self, peer: Target) -> Option<f64> {
        let rate = |target| self.row(target)?.median(|summary| summary.rate);
        Some(rate(Target::Loom)? / rate(peer)?)
    }

    fn added_first_byte(&self, row: &Row) -> Vec<f64> {
        self.compared(row, |own, bare| own.first_p50_us - bare.first_p50_us)
    }

    fn throughput(&self, row: &Row) -> Vec<f64> {
        self.compared(row, |own, bare| own.rate / bare.rate)
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
    let first_byte =
        [number(row.median(|s| s.first_p50_us), 0), spread(case.added_first_byte(row), 0)];
    let mut cells = vec![
        case.connections.to_string(),
        row.target.name().to_owned(),
        number(row.median(|s| s.rate), 0),
    ];
    if case.work == Work::Paced {
        cells.extend(first_byte);
        cells.extend([
            number(row.median(|s| s.gap_p50_us / 1e3), 2),
            number(row.median(|s| s.gap_p99_us / 1e3), 2),
            number(row.median(|s| s.merged_percent), 2),
        ]);
    } else {
        cells.extend([
            number(row.median(|s| s.p50_us), 0),
            number(row.median(|s| s.p99_us), 0),
            spread(case.added_p50(row), 0),
            spread(case.throughput(row), 2),
        ]);
        if case.work == Work::Stream {
            cells.extend(first_byte);
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

/// The median, with the least and the most of the rounds.
fn spread(values: Vec<f64>, digits: usize) -> String {
    let [least, most] = [f64::min, f64::max].map(|pick| values.iter().copied().reduce(pick));
    match (values.len(), least, most) {
        (2.., Some(least), Some(most)) => {
            format!("{} ({least:.digits$} to {most:.digits$})", number(median(values), digits))
        }
        _ => number(median(values), digits),
    }
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
    let cpu = |_: &Case, row: &Row| row.rounds.iter().map(|round| round.cpu_us).collect();
    let first_byte = |case| {
        let text = format!("first byte p50 ≤ {ADDED_FIRST_BYTE_US} µs over the forwarder's");
        goal(case, &text, Case::added_first_byte, |us| us <= ADDED_FIRST_BYTE_US)
    };
    let throughput = |case| {
        let text = format!("≥ {THROUGHPUT} × the forwarder's throughput");
        goal(case, &text, Case::throughput, |ratio| ratio >= THROUGHPUT)
    };
    let lines = cases.iter().filter_map(|case| match (case.work, case.connections) {
        (Work::Json, 1) => {
            let text = format!("p50 ≤ {ADDED_P50_US} µs over the forwarder's");
            let p99 = format!("p99 ≤ {ADDED_P99_US} µs over the forwarder's");
            let p99 = goal(case, &p99, Case::added_p99, |us| us <= ADDED_P99_US)?;
            Some(goal(case, &text, Case::added_p50, |us| us <= ADDED_P50_US)? + &p99)
        }
        (Work::Json, 64) => {
            let cpu =
                goal(case, &format!("CPU ≤ {CPU_US} µs a request"), cpu, |us| us <= CPU_US)?;
            let times = TIMES.iter().filter_map(|(peer, least)| {
                let value = case.times(*peer)?;
                let reached = if value >= *least { "yes" } else { "no" };
                let peer = peer.name();
                Some(format!(
                    "| JSON, 64: ≥ {least} × {peer}'s throughput | {value:.1} | {reached} |\n"
                ))
            });
            Some(cpu + &throughput(case)? + &times.collect::<String>())
        }
        (Work::Stream, 64) => throughput(case),
        (Work::Stream, 1) | (Work::Paced, _) => first_byte(case),
        _ => None,
    });
    let lines: String = lines.collect();
    if lines.is_empty() {
        lines
    } else {
        format!("## Goals\n\n| goal | measured | reached |\n|---|--:|---|\n{lines}")
    }
}

/// One line on Loom's median; none without Loom.
fn goal(
    case: &Case,
    text: &str,
    measured: impl Fn(&Case, &Row) -> Vec<f64>,
    good: impl Fn(f64) -> bool,
) -> Option<String> {
    let value = median(measured(case, case.row(Target::Loom)?))?;
    let reached = if good(value) { "yes" } else { "no" };
    Some(format!(
        "| {}, {}: {text} | {value:.2} | {reached} |\n",
        case.work.name(),
        case.connections
    ))
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
         is over the bare forwarder in the same round. CPU is per request and of the target's own process; \
         memory is at the end of a measurement, its peak since the process started.\n",
        read("/proc/sys/kernel/osrelease").trim(),
        read("/proc/loadavg").split(' ').next().unwrap_or_default(),
        command.join(" "),
    )
}

#[cfg(test)]
mod tests {
    use super::{Case, Row, Summary, Target, Work, cells, goals, spread};

    fn row(target: Target, rates_and_p50: [(f64, f64); 3]) -> Row {
        let rounds = rates_and_p50.map(|(rate, p50_us)| Summary {
            rate,
            p50_us,
            p99_us: 500.0,
            first_p50_us: f64::NAN,
            gap_p50_us: f64::NAN,
            gap_p99_us: f64::NAN,
            merged_percent: f64::NAN,
            cpu_us: 80.0,
            database_us: f64::NAN,
            rss_mib: 10.0,
            peak_mib: 12.0,
            errors: 1,
            first_error: None,
        });
        Row { target, rounds: rounds.into() }
    }

    fn case(connections: usize) -> Case {
        let forwarder = row(Target::Forwarder, [(1000.0, 100.0), (500.0, 200.0), (1000.0, 100.0)]);
        let loom = row(Target::Loom, [(900.0, 150.0), (300.0, 260.0), (800.0, 240.0)]);
        Case { work: Work::Json, connections, rows: vec![forwarder, loom] }
    }

    #[test]
    fn rounds_are_compared_one_by_one() {
        let case = case(64);
        let loom = cells(&case, &case.rows[1]).join(" | ");
        assert_eq!(
            loom,
            "64 | Loom | 800 | 240 | 500 | 60 (50 to 140) | 0.80 (0.60 to 0.90) | 80.0 | - | 10 | 12 | 3"
        );
        let forwarder = cells(&case, &case.rows[0]).join(" | ");
        assert_eq!(
            forwarder,
            "64 | bare forwarder | 1000 | 100 | 500 | - | - | 80.0 | - | 10 | 12 | 3"
        );
        assert_eq!(spread(vec![1.0], 1), "1.0");
    }

    #[test]
    fn goals_are_those_of_the_size() {
        let of = |connections| goals(&[case(connections)]);
        assert!(
            of(1).contains("| JSON, 1: p50 ≤ 100 µs over the forwarder's | 60.00 | yes |"),
            "{}",
            of(1)
        );
        assert!(of(64).contains("CPU ≤ 60 µs a request | 80.00 | no |"), "{}", of(64));
        assert!(of(64).contains("≥ 0.85 × the forwarder's throughput | 0.80 | no |"), "{}", of(64));
        assert_eq!(of(16), "");
    }
}
