//! Error tracking, through the whole server.

mod artifacts;
mod chunks;
mod issues;
mod pipeline;
mod projects;
mod releases;
mod sentry_cli;
mod symbols;
