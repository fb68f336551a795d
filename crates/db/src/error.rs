//! Why the database could not be opened, in words for whoever runs the server.

use crate::{embedded::PrivateError, migrate::MigrationError};

/// Each message says what is wrong and what to do about it. None holds a password.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("the database URL {0}")]
    Url(String),

    #[error(
        "no database at {target} after {waited_secs} s: {cause}. Check that PostgreSQL runs there \
         and that DATABASE_URL names the right host and port"
    )]
    Unreachable { target: String, waited_secs: u64, cause: String },

    #[error("the database at {target} does not let us in: {cause}. {hint}")]
    Refused { target: String, cause: String, hint: String },

    #[error("the database at {target} is PostgreSQL {version}; 15 or newer is needed")]
    TooOld { target: String, version: String },

    #[error(transparent)]
    Migration(#[from] MigrationError),

    #[error(transparent)]
    Private(#[from] PrivateError),
}
