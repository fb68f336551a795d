//! Through the public surface, with programs that the tests compile.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

mod cache;
mod formats;
mod hostile;
mod inspect;
mod mapping;
mod minidump;
mod native;
mod script;
mod support;
