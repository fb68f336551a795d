//! Releases: made on sight by events, or by whoever brings them out. Their commits, deploys and issues.

pub(crate) mod facts;
pub(crate) mod http;
pub(crate) mod model;
pub(crate) mod store;
pub(crate) mod suspects;

use loom_core::{Error, Result};

/// What can be a version: it stands in paths and in search.
pub(crate) fn is_version(version: &str) -> bool {
    !version.is_empty()
        && version.len() <= 250
        && version.trim() == version
        && !version.chars().any(|c| c.is_control() || c == '/' || c == '\\')
        && !matches!(version, "." | ".." | "latest")
}

/// # Errors
/// 422 with the field.
pub(crate) fn check_version(field: &str, version: &str) -> Result<()> {
    if is_version(version) {
        return Ok(());
    }
    Err(Error::invalid(
        field,
        "has 1 to 250 bytes, without slashes, control characters and spaces at its ends, and is not `.`, `..` or `latest`",
    ))
}

pub(crate) fn not_found() -> Error {
    Error::not_found("release")
}
