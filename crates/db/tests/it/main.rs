//! Against a real PostgreSQL: the one that the setup script of nextest started, or one of its own.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "these are tests"
)]

mod additive;
mod embedded;
mod listen;
mod migrate;
mod pool;
mod support;
