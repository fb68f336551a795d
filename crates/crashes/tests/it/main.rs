//! Error tracking, through the whole server.

mod pipeline;
mod artifacts;
mod projects;
mod sentry_cli;
