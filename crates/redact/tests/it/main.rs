//! What is masked, what stays, and that nothing gets out at the seams of pieces.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "these are tests"
)]

mod json;
mod known;
mod near_misses;
mod property;
mod sample;
mod shapes;
mod stream;
