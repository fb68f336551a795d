//! The handlers.

pub(crate) mod git;
pub(crate) mod maintenance;
pub(crate) mod repos;

use loom_core::Error;

fn not_found() -> Error {
    Error::not_found("repository")
}
