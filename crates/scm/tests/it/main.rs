//! Repositories on a whole server, with the real git.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "clippy knows tests, but not what only tests call"
)]

mod api;
mod harness;
mod limits;
mod maintenance;
mod transfer;
