//! Error tracking, through the whole server.

mod alerts;
mod grouping;
mod pipeline;
mod projects;
