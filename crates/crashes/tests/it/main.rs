//! Error tracking, through the whole server.

mod grouping;
mod projects;
