//! Threads from the outside: the real router on a real socket, over a real PostgreSQL.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "clippy knows tests, but not what only tests call"
)]

mod append;
mod bad_input;
mod cache;
mod concurrency;
mod events;
mod feed;
mod follow;
mod get;
mod harness;
mod isolation;
mod lease;
mod limits;
mod list;
mod live;
mod model;
mod openapi;
mod outputs;
mod patch;
mod purge;
mod put;
mod relevance;
mod search;
mod share;
mod transfer;
