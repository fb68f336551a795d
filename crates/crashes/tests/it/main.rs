//! Error tracking, through the whole server.

mod issues;
mod pipeline;
mod projects;
