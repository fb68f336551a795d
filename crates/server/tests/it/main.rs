//! The whole server, through its public surface.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "these are tests"
)]

mod anonymous;
mod auth_keys;
mod auth_orgs;
mod cli;
mod cli_serve;
mod dev_mode;
mod document;
mod env_example;
mod health;
mod isolation;
mod jobs;
mod kernel;
mod llm;
mod native;
mod openapi;
mod sign_in;
