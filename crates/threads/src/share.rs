//! A read-only link to a thread: its token, and what it shows.

use chrono::{DateTime, Utc};
use loom_core::{Error, Result, authorize::Visibility};
use rand::RngExt as _;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use utoipa::ToSchema;

use std::collections::BTreeMap;

use crate::message::Message;

/// Bytes of a token; in the link, as hex, twice as many characters.
const TOKEN_BYTES: usize = 24;
/// Messages with findings that are told of one by one.
pub(crate) const MAX_FINDINGS: usize = 100;

/// A token that nobody guesses, and what is kept of it.
pub(crate) fn new_token() -> (String, Vec<u8>) {
    let mut bytes = [0_u8; TOKEN_BYTES];
    rand::rng().fill(&mut bytes);
    let token: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let hash = hash(&token);
    (token, hash)
}

/// The hash is what is looked up, so that the time it takes tells nothing of the token.
pub(crate) fn hash(token: &str) -> Vec<u8> {
    Sha256::digest(token.as_bytes()).to_vec()
}

/// # Errors
/// 404 for what cannot be a token.
pub(crate) fn parse(token: &str) -> Result<Vec<u8>> {
    let is_token = token.len() == TOKEN_BYTES * 2
        && token.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    if is_token { Ok(hash(token)) } else { Err(no_such_link()) }
}

pub(crate) fn no_such_link() -> Error {
    Error::not_found("shared thread: the link was withdrawn, has expired or never was")
}

/// What a new link is to be.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[serde(default)]
pub(crate) struct NewShare {
    /// The link ends then; never, when absent.
    pub expires_at: Option<DateTime<Utc>>,
    /// Show what comes later, too. Else the link ends with the thread's last message of now.
    pub live: bool,
    /// Mask what looks like a secret. True when absent.
    pub redact: Option<bool>,
}

/// A link.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Share {
    /// 48 hex digits. Told once, when the link is made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    #[serde(serialize_with = "loom_core::clock::millis")]
    pub created_at: DateTime<Utc>,
    #[serde(serialize_with = "loom_core::clock::millis_option")]
    pub expires_at: Option<DateTime<Utc>>,
    pub live: bool,
    /// The last message that is shown; null when the link is live.
    pub through_seq: Option<i64>,
    pub redact: bool,
}

/// What would be seen by others.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct SharePreview {
    pub title: Option<String>,
    /// Who sees the thread now, without a link.
    pub visibility: Visibility,
    pub messages: usize,
    pub bytes: i64,
    /// Outputs of tools: files and terminals are often in them.
    pub tool_messages: usize,
    /// What looks like a secret, by kind.
    #[schema(value_type = Object)]
    pub secrets: BTreeMap<&'static str, u32>,
    /// The first 100 messages that hold some.
    pub findings: Vec<Finding>,
    /// The link there is.
    pub share: Option<Share>,
}

#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = ThreadFinding)]
pub(crate) struct Finding {
    pub seq: i64,
    pub id: String,
    #[schema(value_type = Object)]
    pub secrets: BTreeMap<&'static str, u32>,
}

/// A thread as a link shows it: without whose it is, and where it was worked on.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct SharedThread {
    pub title: Option<String>,
    pub provider: Option<String>,
    pub model: Option<String>,
    #[serde(serialize_with = "loom_core::clock::millis")]
    pub created_at: DateTime<Utc>,
    #[serde(serialize_with = "loom_core::clock::millis")]
    pub last_activity_at: DateTime<Utc>,
    /// The thread goes on behind the last message that is shown.
    pub is_frozen: bool,
    pub messages: Vec<Message>,
}
