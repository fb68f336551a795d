//! What can go wrong: at start (told to whoever starts the server) and with a stored secret (told
//! to the log).

use std::{io, path::PathBuf};

use crate::key::{BadKey, KeyId};

/// The master key could not be had.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("the master key in {path} cannot be {what}")]
    File {
        path: PathBuf,
        what: &'static str,
        #[source]
        cause: io::Error,
    },
    #[error(
        "{path} does not hold a master key; put the right one back, or remove the file when no secret was ever stored"
    )]
    NotAKey {
        path: PathBuf,
        #[source]
        cause: BadKey,
    },
    #[error("the system gives no random numbers: {0}")]
    Random(String),
}

/// A stored secret does not open. Private: outside it is an internal error.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    #[error(
        "the stored secret needs the master key {needed}; the one in force is {current}, {}; \
         give the missing one as LOOM_SERVER_MASTER_KEY_PREVIOUS",
        previous_text(*.previous)
    )]
    UnknownKey { needed: KeyId, current: KeyId, previous: Option<KeyId> },
    #[error("the stored secret is of a form that this version does not know")]
    UnknownForm,
    #[error(
        "the stored secret was altered, or belongs to another place, or the master key {0} is a different one"
    )]
    DoesNotOpen(KeyId),
    #[error("the secret could not be encrypted")]
    Encrypt,
    #[error("the system gives no random numbers: {0}")]
    Random(String),
}

fn previous_text(previous: Option<KeyId>) -> String {
    previous.map_or_else(|| "none before it".to_owned(), |id| format!("the one before it {id}"))
}

impl From<Fault> for loom_core::Error {
    fn from(fault: Fault) -> Self {
        Self::internal(fault)
    }
}
