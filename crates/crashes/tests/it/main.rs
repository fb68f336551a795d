//! Error tracking, through the whole server.

mod projects;
