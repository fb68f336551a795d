//! The kernel, through its public surface.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "these are tests"
)]

mod authorize;
mod clock;
mod config;
mod error;
mod extract;
mod group_commit;
mod id;
mod page;
mod sse;
