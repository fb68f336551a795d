//! `loom-server`: reads the command line, does what it says, and exits with a code that tells.

use std::process::ExitCode;

use clap::Parser;
use loom_server::{cli::Cli, commands};

// Half of what a request allocates is freed on another thread; glibc's arenas lock for that.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    // Before anything builds a TLS client. A second provider in one process is a mistake of ours.
    let _ = rustls::crypto::ring::default_provider().install_default();
    commands::run(cli)
}
