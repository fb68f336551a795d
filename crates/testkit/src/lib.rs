//! Test support: databases, a running server, a scriptable LLM upstream, chaos.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "test support"
)]

pub mod database;
