//! What people read on the terminal: the only place that prints.

use std::io::{self, Write};

/// A line on standard output: what was asked for. A reader that has gone away is no fault.
pub(crate) fn say(text: &str) {
    let _ = writeln!(io::stdout().lock(), "{text}");
}

/// A line on standard error: what went wrong.
pub(crate) fn complain(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}
