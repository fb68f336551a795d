//! Things to break a server with, and a ledger to see what was lost.

mod ledger;
mod process;
mod proxy;

pub use ledger::{Comparison, Ledger};
pub use process::Process;
pub use proxy::{TcpProxy, Upstream};
