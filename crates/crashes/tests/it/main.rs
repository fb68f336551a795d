//! Error tracking, through the whole server.

mod pipeline;
mod projects;
