//! Error tracking, through the whole server.

mod artifacts;
mod chunks;
mod projects;
mod releases;
mod sentry_cli;
