//! Things to break a server with, and a ledger to see what was lost.

mod ledger;
mod process;
mod proxy;

pub use ledger::{Comparison, Ledger};
pub use process::Process;
pub use proxy::{TcpProxy, Upstream};

/// Do the tests that break things run in their long form?
#[expect(clippy::disallowed_methods, reason = "the settings of the test run, not of the server")]
pub fn is_long() -> bool {
    std::env::var("LOOM_CHAOS").is_ok_and(|form| form == "long")
}
