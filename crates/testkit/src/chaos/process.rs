//! A server as a process of its own, to be killed as the kernel would.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::{
    process::{Child, Command},
    time::{sleep, timeout},
};

/// A child process; it is killed, by its own id, when this is dropped.
pub struct Process {
    child: Child,
    pid: Pid,
    log: PathBuf,
}

impl Process {
    /// Starts a program with these variables on top of the environment, its output in a file.
    pub fn spawn<'a>(
        program: &Path,
        args: &[&str],
        env: impl IntoIterator<Item = (&'a str, &'a str)>,
        log: &Path,
    ) -> Result<Self> {
        let out = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
        let child = Command::new(program)
            .args(args)
            .envs(env)
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let pid = child.id().context("the process has ended before it began")?;
        Ok(Self { child, pid: Pid::from_raw(pid.try_into()?), log: log.to_owned() })
    }

    pub fn pid(&self) -> i32 {
        self.pid.as_raw()
    }

    /// What it has written so far.
    pub fn log(&self) -> String {
        let bytes = std::fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Returns, with how long it took, once a GET of `url` answers 200; fails when the process ends.
    pub async fn wait_ready(&mut self, url: &str, patience: Duration) -> Result<Duration> {
        // Without a provider reqwest panics, even for http; one that is there already is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client =
            reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(2)).build()?;
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                bail!("ended with {status} before {url} answered:\n{}", self.log());
            }
            if client.get(url).send().await.is_ok_and(|answer| answer.status() == 200) {
                return Ok(start.elapsed());
            }
            if start.elapsed() > patience {
                bail!("{url} did not answer 200 within {patience:?}:\n{}", self.log());
            }
            // There is nothing to be woken by: the readiness of another process can only be asked.
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// SIGKILL; returns when it is gone.
    pub async fn kill9(&mut self) -> Result<ExitStatus> {
        self.signal(Signal::SIGKILL)?;
        self.wait(Duration::from_secs(10)).await
    }

    /// SIGTERM, and how it ended; fails, leaving it running, when that takes longer.
    pub async fn terminate(&mut self, patience: Duration) -> Result<ExitStatus> {
        self.signal(Signal::SIGTERM)?;
        self.wait(patience).await
    }

    /// Waits for its end.
    pub async fn wait(&mut self, patience: Duration) -> Result<ExitStatus> {
        timeout(patience, self.child.wait())
            .await
            .with_context(|| format!("still running after {patience:?}:\n{}", self.log()))?
            .context("cannot wait for the process")
    }

    /// Sends a signal, unless it has ended already: its id may be another's by then.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        if self.child.try_wait()?.is_none() {
            kill(self.pid, signal)?;
        }
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.signal(Signal::SIGKILL).is_err() {
            return;
        }
        // So that it is gone, ports and files and all, when the next line of the test runs.
        let start = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) && start.elapsed() < Duration::from_secs(5)
        {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}
