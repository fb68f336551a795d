//! Git as a process: with nothing of our environment or anybody's configuration, in a group of its own
//! that ends with whoever asked for it.

use std::{
    path::Path,
    process::{ExitStatus, Stdio},
    sync::LazyLock,
    time::Duration,
};

use loom_redact::Redactor;
use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    process::{Child, Command},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

/// The oldest that keeps unreachable objects in a pack of their own (`repack --cruft`).
pub(crate) const OLDEST: (u32, u32) = (2, 37);

/// What holds for every repository. Given to each process rather than written into the repositories, so
/// that a change here is a change everywhere.
const SETTINGS: &[&str] = &[
    // Ours, whatever user they belong to on a shared disk.
    "safe.directory=*",
    "core.hooksPath=/dev/null",
    // A push that was acknowledged survives a power cut.
    "core.fsync=all",
    // Maintenance is ours, and a push does not wait for it.
    "gc.auto=0",
    "maintenance.auto=false",
    "receive.autoGC=false",
    "receive.denyNonFastForwards=false",
    "transfer.fsckObjects=true",
    // Each push stays one pack: two files to flush instead of hundreds.
    "transfer.unpackLimit=1",
    "uploadpack.allowFilter=true",
    // What a process takes of the machine.
    "pack.threads=2",
    "pack.windowMemory=64m",
    "pack.deltaCacheSize=64m",
    "core.bigFileThreshold=64m",
    "core.packedGitLimit=512m",
];

/// Kept of what git says on stderr, and of short outputs.
const SAID_LEN: usize = 8 << 10;
/// A process that was told to stop removes its temporary files, then it is killed.
const STOP_WITHIN: Duration = Duration::from_secs(5);

static SHAPES: LazyLock<Redactor> = LazyLock::new(Redactor::default);

/// `git` with our settings, in `dir`.
pub(crate) fn command(dir: &Path) -> Command {
    let mut command = Command::new("git");
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.envs([
        ("GIT_CONFIG_NOSYSTEM", "1"),
        ("GIT_CONFIG_GLOBAL", "/dev/null"),
        ("GIT_ATTR_NOSYSTEM", "1"),
        ("GIT_TERMINAL_PROMPT", "0"),
        ("LC_ALL", "C"),
        ("TZ", "UTC"),
    ]);
    for setting in SETTINGS {
        command.args(["-c", setting]);
    }
    command
        .current_dir(dir)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    command
}

/// A process with all that it starts.
pub(crate) struct Process(Child);

impl Process {
    pub(crate) fn spawn(command: &mut Command) -> std::io::Result<Self> {
        command.spawn().map(Self)
    }

    pub(crate) fn child(&mut self) -> &mut Child {
        &mut self.0
    }

    fn signal(&self, signal: Signal) {
        // None once it was waited for: then the number may be another's.
        let pid = self.0.id().and_then(|pid| i32::try_from(pid).ok());
        if let Some(pid) = pid {
            let _ = killpg(Pid::from_raw(pid), signal);
        }
    }

    /// Ends it, gently at first, and waits until it is gone.
    pub(crate) async fn end(mut self) {
        self.0.stdin = None;
        self.signal(Signal::SIGTERM);
        if timeout(STOP_WITHIN, self.0.wait()).await.is_err() {
            self.signal(Signal::SIGKILL);
            let _ = self.0.wait().await;
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.signal(Signal::SIGKILL);
    }
}

/// Why a short command did not do.
#[derive(Debug)]
pub(crate) enum Failure {
    /// With what it said, redacted.
    Failed(String),
    TimedOut,
    /// We are going down, or somebody else has the repository by now.
    Stopped,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Failed(said) => f.write_str(said),
            Self::TimedOut => f.write_str("git took longer than it may"),
            Self::Stopped => f.write_str("stopped before it was done"),
        }
    }
}

impl std::error::Error for Failure {}

/// Runs a command that says little to its end.
pub(crate) async fn run(
    mut command: Command,
    limit: Duration,
    cancel: &CancellationToken,
) -> Result<String, Failure> {
    let started = Process::spawn(&mut command);
    let mut process =
        started.map_err(|error| Failure::Failed(format!("git cannot be started: {error}")))?;
    let (stdout, stderr) = (process.child().stdout.take(), process.child().stderr.take());
    let all = async {
        let (out, said) = tokio::join!(head(stdout), head(stderr));
        (process.child().wait().await, out, said)
    };
    let ended = tokio::select! {
        ended = timeout(limit, all) => ended.map_err(|_| Failure::TimedOut),
        () = cancel.cancelled() => Err(Failure::Stopped),
    };
    match ended {
        Ok((Ok(status), out, _)) if status.success() => Ok(out),
        Ok((status, _, said)) => Err(Failure::Failed(told(status.ok(), &said))),
        Err(failure) => {
            process.end().await;
            Err(failure)
        }
    }
}

/// What it said, or at least how it ended; without secrets.
pub(crate) fn told(status: Option<ExitStatus>, said: &str) -> String {
    let said = SHAPES.redact(said.trim()).replace('\0', "\u{fffd}");
    match status {
        _ if !said.is_empty() => said,
        Some(status) => format!("git ended with {status}"),
        None => "git could not be waited for".to_owned(),
    }
}

/// The first bytes, and the rest read away, so that the writer never waits.
pub(crate) async fn head(from: Option<impl AsyncRead + Unpin>) -> String {
    let (mut kept, mut buffer) = (Vec::new(), [0; 4096]);
    if let Some(mut from) = from {
        while let Ok(read @ 1..) = from.read(&mut buffer).await {
            let room = SAID_LEN.saturating_sub(kept.len()).min(read);
            kept.extend_from_slice(buffer.get(..room).unwrap_or_default());
        }
    }
    String::from_utf8_lossy(&kept).into_owned()
}

/// `git version 2.47.3` to its first two numbers.
pub(crate) fn version(said: &str) -> Option<(u32, u32)> {
    let mut numbers = said.strip_prefix("git version ")?.trim().split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}
