//! Tests of sessions against a real database.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "clippy knows tests, but not what only tests call"
)]

mod aggregation;
mod alerts;
mod bad_input;
mod counting;
mod durability;
mod harness;
mod names;
mod native;
mod page;
mod retention;
mod sdk;
mod series;
mod stream;
