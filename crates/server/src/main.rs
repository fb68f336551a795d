//! `loom-server`: reads the command line, does what it says, and exits with a code that tells.

use std::process::ExitCode;

use clap::Parser;
use loom_server::{cli::Cli, commands};

// Half of what a request allocates is freed on another thread; glibc's arenas lock for that.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // The allocator asks the kernel for pages of 2 MiB. Of what a server holds, small things that come
    // and go, they keep half again as much in memory as is in use.
    #[cfg(target_os = "linux")]
    let _ = nix::sys::prctl::set_thp_disable(true);
    let cli = Cli::parse();
    // Before anything builds a TLS client. A second provider in one process is a mistake of ours.
    let _ = rustls::crypto::ring::default_provider().install_default();
    commands::run(cli)
}
