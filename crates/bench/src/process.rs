//! The processes under measurement: started, asked what they cost, always stopped.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

/// /proc counts in this unit, whatever the kernel's own clock (`USER_HZ`, 100 in a second).
const TICK: Duration = Duration::from_millis(10);
const START: Duration = Duration::from_secs(10);
const STOP: Duration = Duration::from_secs(20);

/// What a process has used up to now.
#[derive(Clone, Copy, Default)]
pub(crate) struct Usage {
    pub(crate) cpu: Duration,
    pub(crate) rss_kib: u64,
    pub(crate) peak_kib: u64,
}

/// Of a process; nothing of one that is gone.
pub(crate) fn usage(pid: u32) -> Usage {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let cpu = cpu_ticks(&fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default());
    Usage {
        cpu: TICK * cpu.map_or(0, |ticks| ticks.own),
        rss_kib: field(&status, "VmRSS:").unwrap_or_default(),
        peak_kib: field(&status, "VmHWM:").unwrap_or_default(),
    }
}

/// Of a process and all below it, as of a gateway with workers.
pub(crate) fn usage_of_tree(pid: u32) -> Usage {
    let mut total = usage(pid);
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    for child in children.unwrap_or_default().split_whitespace().flat_map(str::parse) {
        let child = usage_of_tree(child);
        total.cpu += child.cpu;
        total.rss_kib += child.rss_kib;
        total.peak_kib += child.peak_kib;
    }
    total
}

/// The CPU time of the PostgreSQL whose files are under `dir`, with that of its backends that have ended.
pub(crate) fn database_cpu(dir: &Path) -> Duration {
    let total = database_processes(dir)
        .filter_map(|pid| cpu_ticks(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?))
        .map(|ticks| ticks.own + ticks.reaped)
        .sum::<u32>();
    TICK * total
}

/// Every process of a PostgreSQL works in its data directory.
fn database_processes(dir: &Path) -> impl Iterator<Item = u32> {
    fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(move |entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let name = fs::read_to_string(entry.path().join("comm")).ok()?;
        let inside = name.trim() == "postgres"
            && fs::read_link(entry.path().join("cwd")).ok()?.starts_with(dir);
        inside.then_some(pid)
    })
}

#[derive(Debug, PartialEq, Eq)]
struct Ticks {
    own: u32,
    reaped: u32,
}

/// From /proc/<pid>/stat, where the name in parentheses may have anything in it.
fn cpu_ticks(stat: &str) -> Option<Ticks> {
    let mut fields =
        stat.rsplit_once(')')?.1.split_whitespace().skip(11).map(|field| field.parse::<u32>().ok());
    let mut next = || fields.next().flatten();
    Some(Ticks { own: next()? + next()?, reaped: next()? + next()? })
}

fn field(status: &str, name: &str) -> Option<u64> {
    status.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
}

/// The started processes and the directory for their files.
pub(crate) struct Fleet {
    pub(crate) dir: PathBuf,
    children: Vec<Child>,
}

impl Fleet {
    pub(crate) fn new() -> Result<Self> {
        let dir = std::env::temp_dir().join(format!("loom-bench-{}", std::process::id()));
        fs::create_dir(&dir).with_context(|| format!("creating {}", dir.display()))?;
        Ok(Self { dir, children: Vec::new() })
    }

    /// Starts a process that is stopped with the fleet.
    pub(crate) fn start(&mut self, command: &mut Command) -> Result<(u32, &mut Child)> {
        // A process group of its own: Ctrl-C in a terminal reaches the bench alone, and the bench stops the rest.
        let child = command.stdin(Stdio::null()).process_group(0).kill_on_drop(true).spawn();
        let child = child
            .with_context(|| format!("starting {}", command.as_std().get_program().display()))?;
        let pid = child.id().context("the process has ended at once")?;
        self.children.push(child);
        Ok((pid, self.children.last_mut().context("no child")?))
    }

    /// Starts this program with another command, which prints its address.
    pub(crate) async fn start_self(&mut self, arguments: &[&str]) -> Result<(u32, SocketAddr)> {
        let program = std::env::current_exe()?;
        self.start_telling(Command::new(program).args(arguments)).await
    }

    /// Starts what prints its address in a line of its own.
    pub(crate) async fn start_telling(
        &mut self,
        command: &mut Command,
    ) -> Result<(u32, SocketAddr)> {
        let (pid, child) = self.start(command.stdout(Stdio::piped()))?;
        let mut line = String::new();
        let mut output = BufReader::new(child.stdout.take().context("no output")?);
        let printed = async {
            loop {
                line.clear();
                ensure!(output.read_line(&mut line).await? > 0, "no address was printed");
                if let Some(address) = line.trim().strip_prefix("http://") {
                    return Ok(address.parse()?);
                }
            }
        };
        let address = timeout(START, printed).await.context("no address was printed")??;
        Ok((pid, address))
    }

    /// Whether a process of the fleet has ended, and how.
    pub(crate) fn ended(&mut self, pid: u32) -> Option<String> {
        let child = self.children.iter_mut().find(|child| child.id() == Some(pid));
        match child.map(Child::try_wait) {
            Some(Ok(None)) => None,
            Some(Ok(Some(status))) => Some(status.to_string()),
            Some(Err(error)) => Some(error.to_string()),
            None => Some("ended".to_owned()),
        }
    }

    /// Stops everything, the last started first, and removes the files.
    pub(crate) async fn stop(mut self) -> Result<()> {
        while let Some(mut child) = self.children.pop() {
            if let Some(pid) = child.id() {
                signal(pid, Signal::SIGTERM);
            }
            if timeout(STOP, child.wait()).await.is_err() {
                // Gone in this moment, else.
                let _ = child.kill().await;
            }
        }
        // A server that was killed leaves its PostgreSQL behind.
        let until = Instant::now() + STOP;
        for (wanted, deadline) in [(Signal::SIGINT, until), (Signal::SIGKILL, until + STOP)] {
            database_processes(&self.dir).for_each(|pid| signal(pid, wanted));
            while Instant::now() < deadline && database_processes(&self.dir).next().is_some() {
                sleep(Duration::from_millis(50)).await;
            }
        }
        match fs::remove_dir_all(&self.dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("removing {}", self.dir.display()))
            }
            _ => Ok(()),
        }
    }
}

fn signal(pid: u32, signal: Signal) {
    let Ok(pid) = i32::try_from(pid) else { return };
    match kill(Pid::from_raw(pid), signal) {
        // Gone already.
        Ok(()) | Err(Errno::ESRCH) => {}
        Err(error) => crate::note(&format!("cannot stop process {pid}: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::{Ticks, cpu_ticks, field, usage};

    #[test]
    fn reads_what_the_kernel_says() {
        let stat =
            "4242 (a) b (c) S 1 4242 4242 0 -1 4194304 900 0 0 0 150 25 7 3 20 0 9 0 1234 0 0";
        assert_eq!(cpu_ticks(stat), Some(Ticks { own: 175, reaped: 10 }));
        assert_eq!(cpu_ticks(""), None);
        let status = "Name:\tx\nVmHWM:\t    9216 kB\nVmRSS:\t    8192 kB\n";
        assert_eq!((field(status, "VmHWM:"), field(status, "VmRSS:")), (Some(9216), Some(8192)));
        assert_eq!(field(status, "VmSwap:"), None);
    }

    #[test]
    fn this_process_uses_memory() {
        let usage = usage(std::process::id());
        assert!(usage.rss_kib > 0 && usage.peak_kib >= usage.rss_kib);
    }
}
