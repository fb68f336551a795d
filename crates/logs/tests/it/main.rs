//! The log from the event to what an admin reads, without a server around it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "these are tests"
)]

mod drops;
mod lines;
mod property;
mod stream;
mod world;
