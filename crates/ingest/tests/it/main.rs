//! Ingest from the outside: the routes on a real socket, with sinks that write down what they are given;
//! and the whole server over a real PostgreSQL.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "clippy knows tests, but not what only tests call"
)]

mod admission;
mod browsers;
mod encodings;
mod forms;
mod harness;
mod items;
mod limits;
mod sdk;
mod server;
mod ways_in;
