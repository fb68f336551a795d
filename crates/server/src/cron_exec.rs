//! `cron exec`: checks in before and after a command. The command comes first: whatever becomes of the
//! check-ins, it runs at once, gets our signals, and its status is ours.

use std::{
    collections::HashMap,
    fs::{self, DirBuilder, OpenOptions},
    io::{self, Write as _},
    os::unix::{
        fs::{DirBuilderExt as _, OpenOptionsExt as _},
        process::ExitStatusExt as _,
    },
    path::{Path, PathBuf},
    process::{ExitCode, ExitStatus},
    time::{Duration, Instant},
};

use loom_core::Clock;
use nix::{sys::signal::Signal, unistd::Pid};
use reqwest::{Client, Url};
use tokio::{
    process::{Child, Command},
    signal::unix::{SignalKind, signal},
};

use crate::console::complain;

/// What a shell says of a command that cannot be run.
const CANNOT_RUN: u8 = 126;
const NOT_FOUND: u8 = 127;
const WRONG_USAGE: u8 = 2;
/// The command is over; nobody waits long for the word of it.
const WITHIN: Duration = Duration::from_secs(10);
/// Reports that wait on disk; the oldest go.
const MOST_WAITING: usize = 1000;
/// Sent of them at a time.
const MOST_SENT: usize = 100;
/// So many that a server does not take, and it is left alone.
const MOST_TROUBLE: usize = 3;
const PASSED_ON: [(SignalKind, Signal); 6] = [
    (SignalKind::terminate(), Signal::SIGTERM),
    (SignalKind::interrupt(), Signal::SIGINT),
    (SignalKind::hangup(), Signal::SIGHUP),
    (SignalKind::quit(), Signal::SIGQUIT),
    (SignalKind::user_defined1(), Signal::SIGUSR1),
    (SignalKind::user_defined2(), Signal::SIGUSR2),
];

/// Runs the command and ends as it does.
pub(crate) fn run(monitor: &str, queue: Option<PathBuf>, command: &[String]) -> ExitCode {
    let base = match ping_url(monitor) {
        Ok(base) => base,
        Err(message) => {
            complain(&message);
            return WRONG_USAGE.into();
        }
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(&format!("the runtime could not be started: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let reporter = Reporter {
        base,
        rid: loom_core::id::new_uuid(Clock::system().now()).to_string(),
        client: Client::builder().timeout(WITHIN).build().ok(),
        queue: queue.or_else(default_queue),
        clock: Clock::system(),
    };
    runtime.block_on(reporter.exec(command))
}

#[expect(
    clippy::disallowed_methods,
    reason = "it runs beside any job, whatever there is of the server's configuration"
)]
fn ping_url(monitor: &str) -> Result<Url, String> {
    let whole = if monitor.starts_with("http://") || monitor.starts_with("https://") {
        monitor.to_owned()
    } else {
        let server = std::env::var("LOOM_URL").unwrap_or_else(|_| "http://localhost:8080".into());
        format!("{}/ping/{monitor}", server.trim_end_matches('/'))
    };
    whole
        .trim_end_matches('/')
        .parse()
        .map_err(|error| format!("`{whole}` is no ping URL: {error}"))
}

fn default_queue() -> Option<PathBuf> {
    let state = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from);
    let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".local/state"));
    Some(state.or_else(home)?.join("loom/cron"))
}

/// What became of a report.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sent {
    /// It was taken, or is refused for good.
    Done,
    /// It may go well later.
    Later,
    /// So may it, and nothing else goes there now.
    Unreachable,
}

struct Reporter {
    base: Url,
    rid: String,
    client: Option<Client>,
    queue: Option<PathBuf>,
    clock: Clock,
}

impl Reporter {
    async fn exec(self, command: &[String]) -> ExitCode {
        let Some((program, arguments)) = command.split_first() else {
            complain("say what to run, behind `--`");
            return WRONG_USAGE.into();
        };
        let began = Instant::now();
        let mut child = match Command::new(program).args(arguments).spawn() {
            Ok(child) => child,
            Err(error) => {
                complain(&format!("{program} cannot be run: {error}"));
                let not_found = error.kind() == io::ErrorKind::NotFound;
                let code = if not_found { NOT_FOUND } else { CANNOT_RUN };
                self.report(&code.to_string(), Some(began.elapsed())).await;
                return code.into();
            }
        };
        // At the same time: the command does not wait for the network.
        let (_, code) = tokio::join!(self.report("start", None), wait(&mut child));
        self.report(&code.to_string(), Some(began.elapsed())).await;
        self.send_waiting().await;
        code.into()
    }

    fn url(&self, action: &str, took: Option<Duration>) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.push(action);
        }
        url.query_pairs_mut().append_pair("rid", &self.rid);
        if let Some(took) = took {
            url.query_pairs_mut().append_pair("duration_ms", &took.as_millis().to_string());
        }
        url
    }

    /// Sends a report, or keeps it for later with its time.
    async fn report(&self, action: &str, took: Option<Duration>) {
        let now = self.clock.now();
        let url = self.url(action, took);
        if self.send(url.clone()).await == Sent::Done {
            return;
        }
        let mut url = url;
        let at = now.timestamp_millis() as f64 / 1000.0;
        url.query_pairs_mut().append_pair("at", &at.to_string());
        let Some(queue) = &self.queue else {
            complain("a check-in could not be sent, and there is nowhere to keep it");
            return;
        };
        let name = format!("{:015}-{}-{action}.url", now.timestamp_millis(), self.rid);
        if let Err(error) = keep(queue, &name, url.as_str()) {
            complain(&format!("a check-in could be neither sent nor kept: {error}"));
        }
    }

    async fn send(&self, url: Url) -> Sent {
        let Some(client) = &self.client else { return Sent::Unreachable };
        match client.post(url).send().await {
            Ok(answer) => {
                let status = answer.status();
                if status == reqwest::StatusCode::TOO_MANY_REQUESTS {
                    return Sent::Unreachable;
                }
                if status.is_client_error() {
                    let text = answer.text().await.unwrap_or_default();
                    complain(&format!("the check-in was refused: {status} {text}"));
                    return Sent::Done;
                }
                if status.is_success() { Sent::Done } else { Sent::Later }
            }
            // Not the error itself, which shows the URL, and that is a secret.
            Err(_) => Sent::Unreachable,
        }
    }

    /// What could not be sent before, the oldest first. A server that takes nothing does not keep back what
    /// is for another, nor one report that it does not take the next.
    async fn send_waiting(&self) {
        let Some(queue) = &self.queue else { return };
        let mut trouble: HashMap<String, usize> = HashMap::new();
        let mut sent = 0;
        for file in waiting(queue) {
            if sent >= MOST_SENT {
                return;
            }
            let url = fs::read_to_string(&file).ok().and_then(|url| url.trim().parse::<Url>().ok());
            let Some(url) = url else {
                let _ = fs::remove_file(&file);
                continue;
            };
            let origin = url.origin().ascii_serialization();
            if trouble.get(&origin).is_some_and(|count| *count >= MOST_TROUBLE) {
                continue;
            }
            sent += 1;
            match self.send(url).await {
                Sent::Done => {
                    let _ = fs::remove_file(&file);
                }
                Sent::Later => *trouble.entry(origin).or_default() += 1,
                Sent::Unreachable => {
                    trouble.insert(origin, MOST_TROUBLE);
                }
            }
        }
    }
}

/// Passes signals on until the command is over; its status as a shell has it.
async fn wait(child: &mut Child) -> u8 {
    let id = child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
    let mut listeners = Vec::new();
    for (kind, passed) in PASSED_ON {
        if let Ok(mut heard) = signal(kind) {
            listeners.push(tokio::spawn(async move {
                while heard.recv().await.is_some() {
                    if let Some(id) = id {
                        let _ = nix::sys::signal::kill(id, passed);
                    }
                }
            }));
        }
    }
    let status = child.wait().await;
    for listener in listeners {
        listener.abort();
    }
    status.map_or(CANNOT_RUN, code_of)
}

fn code_of(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)
}

/// Writes a file that nobody else can read: the URL is a secret.
fn keep(queue: &Path, name: &str, url: &str) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(queue)?;
    // Whole or not there: another run that sends what waits takes away what it cannot read.
    let unfinished = queue.join(format!("{name}.part"));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unfinished)?;
    file.write_all(url.as_bytes())?;
    file.sync_all()?;
    fs::rename(&unfinished, queue.join(name))?;
    let all = waiting(queue);
    for old in all.iter().take(all.len().saturating_sub(MOST_WAITING)) {
        let _ = fs::remove_file(old);
    }
    Ok(())
}

/// What waits, the oldest first.
fn waiting(queue: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(queue) else { return Vec::new() };
    let mut files: Vec<_> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "url"))
        .collect();
    files.sort();
    files
}
