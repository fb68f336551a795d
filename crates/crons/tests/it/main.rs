//! Tests of crons against a real database, through the real server.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "clippy knows tests, but not what only tests call"
)]

mod alerts;
mod bad_input;
mod checkins;
mod detection;
mod fleet;
mod monitors;
mod outages;
mod own;
mod pings;
mod replicas;
mod sdk;
mod sentry_cli;
mod support;
mod watch;
