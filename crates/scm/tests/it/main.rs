//! Repositories on a whole server, with the real git.

mod api;
mod harness;
mod limits;
mod maintenance;
mod transfer;
