//! The load bench: what Loom costs, beside the bare minimum.

mod crons;
mod events;
mod forwarder;
mod issues;
mod load;
mod logs;
mod loom;
mod memory;
mod mock;
mod peers;
mod process;
mod report;
mod response;
mod run;
mod sessions;
mod stats;
mod symbols;
mod threads;
mod weavers;

use std::io::Write as _;
use std::net::Ipv4Addr;

use anyhow::Result;
use clap::{Parser, Subcommand};
use tokio::net::TcpListener;

#[derive(Parser)]
#[command(about = "The load bench: everything on loopback, nothing is kept", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measure direct, the bare forwarder and Loom side by side
    Run(run::Options),
    /// Measure what logging costs, and requests while the log is watched
    Logs(logs::Options),
    /// Measure the memory of open streams and of large bodies
    Memory(memory::Options),
    /// Measure the search over threads, and appends to short and long ones
    Threads(threads::Options),
    /// Measure sessions of applications: updates, adding them up, reading them
    Sessions(sessions::Options),
    /// Measure the look for runs of jobs that did not come
    Crons(crons::Options),
    /// Measure events of applications and pings of jobs
    Events(events::Options),
    /// Measure lists of issues, and what is shown of one, over many events
    Issues(issues::Options),
    /// Measure symbolication: a file for the first time, and frames when it is known
    Symbols(symbols::Options),
    /// Measure many weavers at rest, and their creation
    Weavers(weavers::Options),
    /// The mock upstream alone; prints its address
    Mock {
        #[arg(long, default_value_t = 0)]
        port: u16,
    },
    /// The bare forwarder alone; prints its address
    Forwarder {
        /// For example http://127.0.0.1:8000
        #[arg(long)]
        upstream: String,
        #[arg(long, default_value_t = 0)]
        port: u16,
    },
}

#[tokio::main]
async fn main() -> Result<()> {
    match Arguments::parse().command {
        Command::Run(options) => run::run(&options).await,
        Command::Logs(options) => logs::run(&options).await,
        Command::Memory(options) => memory::run(&options).await,
        Command::Threads(options) => threads::run(&options).await,
        Command::Sessions(options) => sessions::run(&options).await,
        Command::Crons(options) => crons::run(&options).await,
        Command::Events(options) => events::run(&options).await,
        Command::Issues(options) => issues::run(&options).await,
        Command::Symbols(options) => symbols::run(&options).await,
        Command::Weavers(options) => weavers::run(&options).await,
        Command::Mock { port } => mock::serve(listen(port).await?).await,
        Command::Forwarder { upstream, port } => {
            forwarder::serve(listen(port).await?, &upstream).await
        }
    }
}

async fn listen(port: u16) -> Result<TcpListener> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    print(&format!("http://{}\n", listener.local_addr()?));
    Ok(listener)
}

/// The result, on standard output. That nobody reads it is no failure.
fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// How it goes, on standard error.
fn note(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}
