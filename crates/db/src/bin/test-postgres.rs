//! PostgreSQL for tests: a nextest setup script, and `--run -- <command>` with a migrated database.
//!
//! It is in this crate because it may depend on none whose queries are checked against a database.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a tool for developers")]

use std::{
    env, fs,
    io::{BufRead as _, BufReader, Write as _},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    time::Duration,
};

use loom_db::{
    embedded::{Options, PrivatePostgres},
    migrate,
};
use nix::{errno::Errno, sys::signal::kill, unistd::Pid};
use tokio::signal::unix::{SignalKind, signal};

const TEST_URL: &str = "LOOM_TEST_DATABASE_URL";
const PREFIX: &str = "loom-test-";
const POLL: Duration = Duration::from_millis(100);

type Outcome = Result<ExitCode, Box<dyn std::error::Error>>;

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match arguments.as_slice() {
        [] => set_up(),
        ["--serve", parent] => serve(parent, None).await,
        ["--serve", parent, dir] => serve(parent, Some(dir)).await,
        ["--run", "--", program, arguments @ ..] => run(program, arguments).await,
        _ => Err("usage: test-postgres [--run -- <command>]".into()),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("test-postgres: {error}");
        ExitCode::FAILURE
    })
}

/// Leaves a PostgreSQL behind that ends with nextest, which is our parent, and tells the tests.
fn set_up() -> Outcome {
    if env::var_os(TEST_URL).is_some_and(|url| !url.is_empty()) {
        return Ok(ExitCode::SUCCESS);
    }
    let environment =
        env::var_os("NEXTEST_ENV").ok_or("run by hand? cargo nextest sets NEXTEST_ENV")?;
    remove_leftovers();
    let mut server = Command::new(env::current_exe()?)
        .args(["--serve", &Pid::parent().to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        // Nextest waits for everyone who holds its pipes.
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()?;
    let mut said = String::new();
    if let Some(stdout) = server.stdout.take() {
        BufReader::new(stdout).read_line(&mut said)?;
    }
    let url = said.trim().strip_prefix("ready ").ok_or_else(|| said.trim().to_owned())?;
    writeln!(fs::OpenOptions::new().append(true).open(environment)?, "{TEST_URL}={url}")?;
    Ok(ExitCode::SUCCESS)
}

/// Runs PostgreSQL until process `parent` is gone.
async fn serve(parent: &str, dir: Option<&&str>) -> Outcome {
    let parent = Pid::from_raw(parent.parse()?);
    let (own, dir) = match dir {
        Some(dir) => (false, PathBuf::from(dir)),
        None => (true, temporary()),
    };
    let postgres = match PrivatePostgres::start(options(&dir)).await {
        Ok(postgres) => postgres,
        Err(error) => {
            println!("{error}");
            remove(own, &dir);
            return Ok(ExitCode::FAILURE);
        }
    };
    println!("ready {}", postgres.url().expose());
    let mut terminated = signal(SignalKind::terminate())?;
    while !is_gone(parent) {
        tokio::select! {
            () = tokio::time::sleep(POLL) => {}
            _ = terminated.recv() => break,
        }
    }
    postgres.stop().await;
    remove(own, &dir);
    Ok(ExitCode::SUCCESS)
}

/// Runs a command with `DATABASE_URL` naming a migrated database.
async fn run(program: &str, arguments: &[&str]) -> Outcome {
    let dir = temporary();
    let postgres = PrivatePostgres::start(options(&dir)).await?;
    let migrated = migrate::run(&postgres.url(), Duration::ZERO).await;
    let outcome = match migrated {
        Ok(_) => command(program, arguments, postgres.url().expose()).await,
        Err(error) => Err(error.into()),
    };
    postgres.stop().await;
    remove(true, &dir);
    outcome
}

async fn command(program: &str, arguments: &[&str], url: &str) -> Outcome {
    let mut command = tokio::process::Command::new(program);
    command.args(arguments).env("DATABASE_URL", url).kill_on_drop(true);
    let mut interrupted = signal(SignalKind::interrupt())?;
    let mut child = command.spawn().map_err(|error| format!("cannot run {program}: {error}"))?;
    tokio::select! {
        status = child.wait() => {
            let code = status?.code().and_then(|code| u8::try_from(code).ok());
            Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
        }
        _ = interrupted.recv() => Err("interrupted".into()),
    }
}

/// Not merely another user's.
fn is_gone(process: Pid) -> bool {
    kill(process, None) == Err(Errno::ESRCH)
}

fn options(dir: &Path) -> Options {
    Options { max_connections: 500, durable: false, ..Options::new(dir) }
}

/// Outside the target directory: under root, PostgreSQL runs as a user who may not enter a home.
fn temporary() -> PathBuf {
    env::temp_dir().join(format!("{PREFIX}{}", std::process::id()))
}

fn remove(own: bool, dir: &Path) {
    if own && let Err(error) = fs::remove_dir_all(dir) {
        eprintln!("test-postgres: cannot remove {}: {error}", dir.display());
    }
}

/// What runs that were killed could not remove.
fn remove_leftovers() {
    for entry in fs::read_dir(env::temp_dir()).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.parse().ok());
        if pid.is_some_and(|pid| is_gone(Pid::from_raw(pid))) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}
