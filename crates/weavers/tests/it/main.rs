//! Tests of weavers against a fake cluster and a real database, through the real server.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::large_futures,
    clippy::print_stderr,
    reason = "clippy knows tests, but not what only tests call"
)]

mod access;
mod api;
mod chaos;
mod enter;
mod failures;
mod life;
mod logs;
mod real;
#[path = "../../src/pod/restricted.rs"]
mod restricted;
mod support;
