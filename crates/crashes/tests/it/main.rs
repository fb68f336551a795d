//! Error tracking, through the whole server.

mod pipeline;
mod artifacts;
mod chunks;
mod projects;
mod releases;
mod sentry_cli;
