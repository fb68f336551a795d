//! Error tracking, through the whole server.

mod alerts;
mod artifacts;
mod chunks;
mod grouping;
mod issues;
mod pipeline;
mod projects;
mod releases;
mod sentry_cli;
mod symbols;
