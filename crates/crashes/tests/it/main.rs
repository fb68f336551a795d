//! Error tracking, through the whole server.

mod issues;
mod projects;
