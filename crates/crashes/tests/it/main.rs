//! Error tracking, through the whole server.

mod artifacts;
mod projects;
mod sentry_cli;
mod symbols;
