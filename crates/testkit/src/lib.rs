//! Test support: databases, a running server, a scriptable LLM upstream, chaos.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "test support"
)]

mod background;
pub mod chaos;
pub mod database;
pub mod llm;

pub use database::TestDatabase;
