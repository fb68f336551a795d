//! Error tracking, through the whole server.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "clippy knows tests, but not what only tests call"
)]

mod alerts;
mod artifacts;
mod bounds;
mod chunks;
mod grouping;
mod issues;
mod minidumps;
mod pipeline;
mod projects;
mod releases;
mod sentry_cli;
mod symbols;
