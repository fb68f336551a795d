//! The running PostgreSQL: started or adopted, asked whether it is ready, stopped.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::sync::watch;

use super::{
    binaries::Binaries,
    error::{Doing as _, PrivateError},
    user::RunAs,
};

const STOP_FAST: Duration = Duration::from_secs(30);
const STOP_AT_ONCE: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(10);

#[derive(Debug)]
pub(super) struct Process {
    pid: Pid,
    /// True once our child has ended; None when it was adopted, and is not our child.
    ended: Option<watch::Receiver<bool>>,
}

/// A program run as `user`, with nothing of our environment.
pub(super) fn command(program: &Path, user: &RunAs, dir: &Path) -> Command {
    use std::os::unix::process::CommandExt as _;
    let mut command = Command::new(program);
    command
        .env_clear()
        .env("LC_ALL", "C")
        .env("TZ", "UTC")
        .env("PATH", "/usr/bin:/bin")
        .current_dir(dir)
        .stdin(Stdio::null())
        // A Ctrl-C in the terminal is for the server, which stops PostgreSQL after it has drained.
        .process_group(0);
    if user.switch {
        command.uid(user.uid).gid(user.gid);
    }
    command
}

/// Whether `setpriv` is here and can have a process signalled when its parent dies. Asking for that
/// ourselves would take unsafe code.
fn can_follow() -> bool {
    let probe = Command::new("setpriv")
        .args(["--pdeathsig", "INT", "true"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    probe.is_ok_and(|status| status.success())
}

impl Process {
    /// Starts PostgreSQL on `data`; it ends by itself when this server is killed, where it can.
    pub(super) async fn spawn(
        binaries: &Binaries,
        user: &RunAs,
        data: &Path,
        arguments: Vec<String>,
        log: File,
    ) -> Result<Self, PrivateError> {
        let postgres = binaries.postgres();
        let mut command = if can_follow() {
            let mut command = command(Path::new("setpriv"), user, data);
            command.args(["--pdeathsig", "INT", "--"]).arg(&postgres);
            command
        } else {
            command(&postgres, user, data)
        };
        let stdout = log.try_clone().doing(|| "use the log file".to_owned())?;
        command.arg("-D").arg(data).args(arguments).stdout(stdout).stderr(log);

        let (started, start) = tokio::sync::oneshot::channel();
        let (has_ended, ended) = watch::channel(false);
        // The death of the thread that started it counts as the death of the parent: this one
        // lives as long as PostgreSQL does.
        thread::Builder::new()
            .name("postgres".to_owned())
            .spawn(move || match command.spawn() {
                Ok(mut child) => {
                    let _ = started.send(Ok(child.id()));
                    let _ = child.wait();
                    has_ended.send_replace(true);
                }
                Err(error) => {
                    let _ = started.send(Err(error));
                }
            })
            .doing(|| "start a thread".to_owned())?;
        let id = start
            .await
            .unwrap_or_else(|_| Err(std::io::Error::other("its thread has ended")))
            .doing(|| format!("run {} as {}", postgres.display(), user.name))?;
        Ok(Self { pid: Pid::from_raw(id.cast_signed()), ended: Some(ended) })
    }

    pub(super) fn adopted(pid: Pid) -> Self {
        Self { pid, ended: None }
    }

    pub(super) fn has_ended(&self) -> bool {
        match &self.ended {
            Some(ended) => *ended.borrow(),
            None => !is_alive(self.pid),
        }
    }

    pub(super) async fn stop(self) {
        for (signal, limit) in [(Signal::SIGINT, STOP_FAST), (Signal::SIGQUIT, STOP_AT_ONCE)] {
            if self.ends_after(signal, limit).await {
                return;
            }
            tracing::warn!(pid = self.pid.as_raw(), %signal, "PostgreSQL does not stop");
        }
    }

    async fn ends_after(&self, signal: Signal, limit: Duration) -> bool {
        let start = Instant::now();
        if !self.has_ended() {
            let _ = kill(self.pid, signal);
        }
        while !self.has_ended() {
            if start.elapsed() >= limit {
                return false;
            }
            tokio::time::sleep(POLL).await;
        }
        true
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.has_ended() {
            let _ = kill(self.pid, Signal::SIGINT);
        }
    }
}

/// A PostgreSQL that an earlier server has left running.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) pid: Pid,
    pub(super) socket_dir: PathBuf,
}

/// Who runs on `data`, as far as its postmaster.pid tells the truth.
pub(super) fn running(data: &Path) -> Option<Running> {
    let path = data.join("postmaster.pid");
    let text = fs::read_to_string(&path).ok()?;
    let mut lines = text.lines();
    let pid = Pid::from_raw(lines.next()?.trim().parse::<i32>().ok()?.checked_abs()?);
    if pid.as_raw() == 0 || !is_alive(pid) {
        return None;
    }
    if !is_postgres_on(pid, data) {
        // After a reboot another process has the number, and PostgreSQL would refuse to start.
        tracing::info!(pid = pid.as_raw(), "removing the stale {}", path.display());
        let _ = fs::remove_file(&path);
        return None;
    }
    let socket_dir = lines.nth(3).map(PathBuf::from).unwrap_or_default();
    Some(Running { pid, socket_dir })
}

fn is_postgres_on(pid: Pid, data: &Path) -> bool {
    let proc = PathBuf::from(format!("/proc/{pid}"));
    match (fs::read_link(proc.join("cwd")), fs::read_to_string(proc.join("comm"))) {
        (Ok(dir), _) => dir == data,
        (_, Ok(name)) => name.trim() == "postgres",
        // No /proc on this system: believe the file.
        _ => true,
    }
}

fn is_alive(pid: Pid) -> bool {
    let there = matches!(kill(pid, None), Ok(()) | Err(Errno::EPERM));
    // One that has ended and that nobody has asked after yet does not count.
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let is_zombie = stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z'));
    there && !is_zombie
}
