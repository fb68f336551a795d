//! What the kernel knows of this process: memory, CPU, files. Linux only; elsewhere there is nothing.

use std::{fs, path::Path, time::Duration};

use loom_core::telemetry::Metric;
use metrics::{counter, gauge};
use nix::unistd::{SysconfVar, sysconf};

pub(crate) const METRICS: &[Metric] = &[
    Metric::gauge("process_resident_memory_bytes", "Resident memory of the process.", &[]),
    Metric::counter("process_cpu_seconds_total", "CPU time of the process, user and system.", &[]),
    Metric::gauge("process_open_fds", "Open file descriptors of the process.", &[]),
    Metric::gauge("process_max_fds", "File descriptors that the process may open.", &[]),
    Metric::gauge("process_threads", "Threads of the process.", &[]),
    Metric::gauge(
        "process_start_time_seconds",
        "When the process began, in seconds since 1970.",
        &[],
    ),
    Metric::gauge("loom_runtime_workers", "Worker threads of the runtime.", &[]),
    Metric::gauge("loom_runtime_tasks", "Tasks that the runtime holds.", &[]),
    Metric::gauge(
        "loom_runtime_queue_tasks",
        "Tasks that wait in the runtime's common queue for a worker.",
        &[],
    ),
    Metric::counter(
        "loom_runtime_busy_seconds_total",
        "Time that the workers of the runtime were busy, all together.",
        &[],
    ),
];

#[derive(Clone, Copy)]
pub(crate) struct Memory {
    pub(crate) used: u64,
    pub(crate) limit: u64,
    pub(crate) resident: u64,
    /// The limit is the container's.
    pub(crate) cgroup: bool,
}

/// Memory in use where it is limited. None where the kernel does not tell.
pub(crate) fn memory() -> Option<Memory> {
    let resident = stat()?.resident;
    let (machine, available) = machine_memory()?;
    let of_machine = Memory { used: machine - available, limit: machine, resident, cgroup: false };
    let in_cgroup = cgroup_memory().filter(|(_, limit)| *limit < machine);
    Some(in_cgroup.map_or(of_machine, |(used, limit)| Memory {
        used,
        limit,
        resident,
        cgroup: true,
    }))
}

fn number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// The tightest limit from our cgroup (version 2) up to the root, with what is used below it. What
/// the kernel can drop at once (file pages not used lately) does not count.
fn cgroup_memory() -> Option<(u64, u64)> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let root = Path::new("/sys/fs/cgroup");
    let own = root.join(own);
    let group = own
        .ancestors()
        .take_while(|path| path.starts_with(root))
        .filter_map(|path| Some((path, number(&path.join("memory.max"))?)))
        .min_by_key(|(_, limit)| *limit);
    let (path, limit) = group?;
    let used = number(&path.join("memory.current"))?;
    let stat = fs::read_to_string(path.join("memory.stat")).unwrap_or_default();
    let droppable = stat.lines().find_map(|line| line.strip_prefix("inactive_file "));
    let droppable = droppable.and_then(|text| text.parse().ok()).unwrap_or(0);
    Some((used.saturating_sub(droppable), limit))
}

/// All of the machine's memory, and what is to be had of it.
fn machine_memory() -> Option<(u64, u64)> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let of = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        Some(kib * 1024)
    };
    let total = of("MemTotal:")?;
    Some((total, of("MemAvailable:")?.min(total)))
}

struct Stat {
    cpu_seconds: f64,
    threads: u64,
    /// Since the machine's start.
    started_seconds: f64,
    resident: u64,
}

fn stat() -> Option<Stat> {
    let text = fs::read_to_string("/proc/self/stat").ok()?;
    // The name of the process may hold anything; what follows its last bracket does not.
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    // Numbered as in proc(5), where the state, the first behind the bracket, is the third.
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    let per_second = sysconf(SysconfVar::CLK_TCK).ok()??;
    let page = u64::try_from(sysconf(SysconfVar::PAGE_SIZE).ok()??).ok()?;
    #[expect(clippy::cast_precision_loss, reason = "times in ticks")]
    let seconds = |ticks: u64| ticks as f64 / per_second as f64;
    Some(Stat {
        cpu_seconds: seconds(field(14)? + field(15)?),
        threads: field(20)?,
        started_seconds: seconds(field(22)?),
        resident: field(24)? * page,
    })
}

fn boot_seconds() -> Option<f64> {
    let text = fs::read_to_string("/proc/stat").ok()?;
    text.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

fn max_fds() -> Option<f64> {
    let text = fs::read_to_string("/proc/self/limits").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Sets the gauges of the process and the runtime, for who reads the metrics now.
#[expect(clippy::cast_precision_loss, reason = "counts and bytes, far below 2^52")]
pub(crate) fn measure() {
    if let Some(stat) = stat() {
        gauge!("process_resident_memory_bytes").set(stat.resident as f64);
        gauge!("process_threads").set(stat.threads as f64);
        cpu(stat.cpu_seconds);
        if let Some(boot) = boot_seconds() {
            gauge!("process_start_time_seconds").set(boot + stat.started_seconds);
        }
    }
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        // One of them is that of this look.
        gauge!("process_open_fds").set(open.count().saturating_sub(1) as f64);
    }
    if let Some(max) = max_fds() {
        gauge!("process_max_fds").set(max);
    }
    let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
    let runtime = runtime.metrics();
    gauge!("loom_runtime_workers").set(runtime.num_workers() as f64);
    gauge!("loom_runtime_tasks").set(runtime.num_alive_tasks() as f64);
    gauge!("loom_runtime_queue_tasks").set(runtime.global_queue_depth() as f64);
    let busy = (0..runtime.num_workers()).map(|worker| runtime.worker_total_busy_duration(worker));
    counter!("loom_runtime_busy_seconds_total").absolute(busy.sum::<Duration>().as_secs());
}

/// Counters take whole numbers only.
fn cpu(seconds: f64) {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "small and positive"
    )]
    counter!("process_cpu_seconds_total").absolute(seconds as u64);
}
