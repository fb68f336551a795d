//! A private PostgreSQL for a server without `DATABASE_URL`: found, initialised, started, stopped.

pub(crate) mod binaries;
mod cluster;
mod error;
mod process;
mod user;

use std::{
    fs::File,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use loom_common_secret::SecretString;
use nix::fcntl::Flock;
use sqlx::{
    AssertSqlSafe, Connection as _, Executor as _, PgConnection, postgres::PgConnectOptions,
};

use binaries::Binaries;
use cluster::{DATABASE, Layout, USER};
pub use error::PrivateError;
use process::Process;
use user::RunAs;

const POLL: Duration = Duration::from_millis(15);
/// After a crash PostgreSQL replays its log before it lets anyone in.
const READY: Duration = Duration::from_secs(300);
/// For one that was left running to end or to answer.
const LEFT_RUNNING: Duration = Duration::from_secs(60);
/// For one that was killed: its children have to notice, and the system to take its number back.
const STILL_IN_USE: Duration = Duration::from_secs(10);
const TELL_EVERY: Duration = Duration::from_secs(5);

#[derive(Clone, Debug)]
pub struct Options {
    /// The server's data directory; everything of PostgreSQL's goes below it.
    pub data_dir: PathBuf,
    /// The directory with `postgres` and `initdb`, when they are not to be searched for.
    pub bin: Option<PathBuf>,
    pub max_connections: u32,
    /// False only where the data may be lost, as in tests.
    pub durable: bool,
}

impl Options {
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self { data_dir: data_dir.into(), bin: None, max_connections: 100, durable: true }
    }
}

/// A running PostgreSQL that nobody else can reach. Dropping it asks it to stop and does not wait.
#[derive(Debug)]
pub struct PrivatePostgres {
    socket_dir: PathBuf,
    process: Process,
    /// Given back last, when PostgreSQL has stopped.
    _lock: Flock<File>,
}

impl PrivatePostgres {
    /// Starts PostgreSQL, or takes over the one that a killed server left running, and returns when
    /// it answers.
    pub async fn start(options: Options) -> Result<Self, PrivateError> {
        let start = Instant::now();
        let layout = Layout::new(&options.data_dir)?;
        let lock = layout.lock()?;
        if let Some((process, socket_dir)) = adopt(&layout).await? {
            tracing::info!(data = %layout.data.display(), "took over the running PostgreSQL");
            return Ok(Self { socket_dir, process, _lock: lock });
        }
        let cluster = layout.major();
        let found = cluster.map(|major| (layout.data.as_path(), major));
        // First: where none is installed, as in a container, nobody has to run it.
        let binaries = binaries::find(options.bin.as_deref(), found)?;
        let user = RunAs::choose(&layout.data)?;
        layout.make_home(&user)?;
        if cluster.is_none() {
            tracing::info!(
                data = %layout.data.display(),
                "making a database with PostgreSQL {}",
                binaries.major
            );
            layout.initdb(&binaries, &user, options.durable).await?;
        }
        let socket_dir = layout.socket_dir(&user)?;
        let process = launch(&options, &layout, &binaries, &user, &socket_dir).await?;
        tracing::info!(
            data = %layout.data.display(),
            version = binaries.major,
            elapsed_ms = start.elapsed().as_secs_f64() * 1e3,
            "the private PostgreSQL runs"
        );
        Ok(Self { socket_dir, process, _lock: lock })
    }

    /// `postgres://…?host=<socket directory>`; there is no password in it, the directory is closed.
    pub fn url(&self) -> SecretString {
        SecretString::from(url(&self.socket_dir))
    }

    /// Fast shutdown: open transactions are rolled back. Returns when PostgreSQL has ended.
    pub async fn stop(self) {
        let Self { process, .. } = self;
        let start = Instant::now();
        process.stop().await;
        tracing::info!(
            elapsed_ms = start.elapsed().as_secs_f64() * 1e3,
            "the private PostgreSQL stopped"
        );
    }
}

/// The URL of the PostgreSQL that another process of ours runs on this data directory.
pub async fn find_running(data_dir: &Path) -> Result<Option<SecretString>, PrivateError> {
    let layout = Layout::new(data_dir)?;
    match process::running(&layout.data) {
        Some(running) if answers(&running.socket_dir).await => {
            Ok(Some(SecretString::from(url(&running.socket_dir))))
        }
        _ => Ok(None),
    }
}

/// Is there a database in this data directory? Makes none.
pub fn is_there(data_dir: &Path) -> bool {
    data_dir.join("postgres/data/PG_VERSION").is_file()
}

/// Whether PostgreSQL's programs are here, that fit the database in this directory or can make one.
///
/// # Errors
/// When they are not; the message is for the operator.
pub fn find_binaries(config: &crate::Config) -> Result<String, PrivateError> {
    let data = config.data_dir.join("postgres/data");
    let text = std::fs::read_to_string(data.join("PG_VERSION")).unwrap_or_default();
    let cluster = text.trim().parse().ok().map(|major| (data.as_path(), major));
    let found = binaries::find(config.pg_bin.as_deref(), cluster)?;
    Ok(format!("PostgreSQL {} in {}", found.major, found.dir.display()))
}

async fn adopt(layout: &Layout) -> Result<Option<(Process, PathBuf)>, PrivateError> {
    let start = Instant::now();
    while let Some(running) = process::running(&layout.data) {
        // Twice: it may have answered just before the death of its server reached it.
        if answers(&running.socket_dir).await {
            tokio::time::sleep(Duration::from_millis(100)).await;
            if process::running(&layout.data).is_some() && answers(&running.socket_dir).await {
                return Ok(Some((Process::adopted(running.pid), running.socket_dir)));
            }
        }
        if start.elapsed() > LEFT_RUNNING {
            let pid = running.pid.as_raw();
            return Err(PrivateError::Stuck { pid, dir: layout.data.clone() });
        }
        tokio::time::sleep(POLL).await;
    }
    Ok(None)
}

async fn answers(socket_dir: &Path) -> bool {
    ready(socket_dir).await.is_ok()
}

async fn launch(
    options: &Options,
    layout: &Layout,
    binaries: &Binaries,
    user: &RunAs,
    socket_dir: &Path,
) -> Result<Process, PrivateError> {
    let start = Instant::now();
    let mut told = start;
    loop {
        let (log, from) = layout.open_log()?;
        let arguments = arguments(options, socket_dir);
        let process = Process::spawn(binaries, user, &layout.data, arguments, log).await?;
        loop {
            // In this order: the log of one that has ended is complete.
            let ended = process.has_ended();
            let cause = match ready(socket_dir).await {
                Ok(()) if !ended => return Ok(process),
                Ok(()) => String::new(),
                Err(error) => error.to_string(),
            };
            if ended {
                let output = layout.log_tail(from);
                let held =
                    ["is still in use", "already exists"].iter().any(|word| output.contains(word));
                if held && start.elapsed() < STILL_IN_USE {
                    tokio::time::sleep(POLL * 10).await;
                    break;
                }
                return Err(PrivateError::Start { output, log: layout.log.clone() });
            }
            if start.elapsed() > READY {
                let (waited_secs, log) = (READY.as_secs(), layout.log.clone());
                return Err(PrivateError::NotReady { waited_secs, cause, log });
            }
            if told.elapsed() > TELL_EVERY {
                told = Instant::now();
                tracing::info!(%cause, "waiting for the private PostgreSQL to be ready");
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

fn arguments(options: &Options, socket_dir: &Path) -> Vec<String> {
    let mut settings = vec![
        ("port", "5432".to_owned()),
        ("listen_addresses", String::new()),
        ("unix_socket_directories", quoted(socket_dir)),
        ("unix_socket_permissions", "0700".to_owned()),
        ("max_connections", options.max_connections.to_string()),
        ("logging_collector", "off".to_owned()),
        ("log_destination", "stderr".to_owned()),
        ("log_checkpoints", "off".to_owned()),
        ("jit", "off".to_owned()),
    ];
    if !options.durable {
        let off = ["fsync", "synchronous_commit", "full_page_writes"];
        settings.extend(off.map(|name| (name, "off".to_owned())));
    }
    settings
        .into_iter()
        .flat_map(|(name, value)| ["-c".to_owned(), format!("{name}={value}")])
        .collect()
}

/// A list of one: a comma or a blank in the path must not part it.
fn quoted(dir: &Path) -> String {
    format!("\"{}\"", dir.display().to_string().replace('"', "\"\""))
}

/// Someone is there and lets us into our database, which is made the first time.
async fn ready(socket_dir: &Path) -> sqlx::Result<()> {
    let options =
        PgConnectOptions::new_without_pgpass().socket(socket_dir).username(USER).port(5432);
    let ours = options.clone().database(DATABASE);
    match PgConnection::connect_with(&ours).await {
        Ok(connection) => connection.close().await,
        Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some("3D000") => {
            let mut connection = PgConnection::connect_with(&options.database("postgres")).await?;
            connection.execute(AssertSqlSafe(format!("CREATE DATABASE {DATABASE}"))).await?;
            connection.close().await
        }
        Err(error) => Err(error),
    }
}

fn url(socket_dir: &Path) -> String {
    let mut host = String::new();
    for byte in socket_dir.to_string_lossy().bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'_' | b'.' | b'~' => {
                host.push(char::from(byte));
            }
            _ => host.push_str(&format!("%{byte:02X}")),
        }
    }
    format!("postgres://{USER}@localhost/{DATABASE}?host={host}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool;

    #[test]
    fn the_url_survives_any_path() {
        for dir in ["/var/lib/loom/postgres/run", "/tmp/a b&c=d#e%20/ü+?"] {
            let options = pool::options(&url(Path::new(dir)).into()).unwrap();
            assert_eq!(options.get_socket().unwrap(), Path::new(dir));
            assert_eq!(options.get_database(), Some("loom"));
        }
    }
}
