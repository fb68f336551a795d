//! One message: as it comes in, as it is stored, as it is sent.

use std::collections::{HashMap, hash_map::Entry};

use chrono::{DateTime, Utc};
use loom_core::{id::new_uuid, text::cut};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use sqlx::types::Json;
use utoipa::ToSchema;

use crate::{
    check::Check,
    raw::{Kind, Raw},
};

/// The largest message, in bytes of its JSON values and texts.
pub(crate) const MAX_MESSAGE_BYTES: usize = 4 * 1024 * 1024;
/// The most messages of a thread.
pub(crate) const MAX_MESSAGES: usize = 100_000;

/// A longer content is kept beside its message, which keeps the beginning.
pub(crate) const MAX_INLINE_BYTES: usize = 64 * 1024;
/// Of the text of a content that is shown in its place.
const PREVIEW_BYTES: usize = 2048;

pub(crate) const MAX_ID_BYTES: usize = 200;
const MAX_NAME_BYTES: usize = 1000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, ToSchema, sqlx::Type)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub enum Role {
    System,
    User,
    Assistant,
    Tool,
}

impl Role {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
            Self::Tool => "tool",
        }
    }
}

/// A message of a thread.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Message {
    /// Its place in the thread: it grows, may have gaps after an upsert, and is never used twice.
    pub seq: i64,
    /// The client's id for it, or ours when the client gave none.
    pub id: String,
    pub role: Role,
    /// A string or a list of parts, as the client sent it. Null only beside `tool_calls`.
    #[schema(value_type = serde_json::Value)]
    pub content: Json<Raw>,
    /// There when `content` is only the beginning.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_truncated: Option<ContentTruncated>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<Object>>)]
    pub tool_calls: Option<Json<Raw>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_call_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_name: Option<String>,
    #[serde(serialize_with = "loom_core::clock::millis")]
    pub created_at: DateTime<Utc>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub usage: Option<Json<Raw>>,
}

/// A content that is larger than what is shown of it. Sent back in a `PUT` as it came, it stands for
/// the whole content, which stays.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
pub struct ContentTruncated {
    /// Of the whole content, as JSON.
    pub bytes: i64,
    /// SHA-256 of the whole message, as the server computes it.
    pub digest: String,
}

/// A message as a client sends it.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub struct MessageDraft {
    /// Any text of up to 200 bytes, unique in the thread. With it, sending the message again adds
    /// nothing; without it, the message gets one.
    pub id: Option<String>,
    pub role: Role,
    /// A string or a list of parts; may be absent beside `tool_calls`. Kept as it comes.
    #[schema(value_type = Option<serde_json::Value>)]
    pub content: Option<Raw>,
    /// As the server gave it: leave the stored content of this message as it is.
    pub content_truncated: Option<ContentTruncated>,
    /// The calls that an assistant asks for, in the provider's shape. Kept as they come.
    #[schema(value_type = Option<Vec<Object>>)]
    pub tool_calls: Option<Raw>,
    /// Which call a tool's message answers.
    pub tool_call_id: Option<String>,
    pub tool_name: Option<String>,
    /// Now, when absent.
    pub created_at: Option<DateTime<Utc>>,
    /// Tokens and the like, in the provider's shape. Kept as it comes.
    #[schema(value_type = Option<Object>)]
    pub usage: Option<Raw>,
}

/// A draft that was found to be in order.
#[derive(Clone, Debug)]
pub(crate) struct CheckedMessage {
    pub(crate) id: Option<String>,
    pub(crate) created_at: Option<DateTime<Utc>>,
    role: Role,
    content: Raw,
    tool_calls: Option<Raw>,
    tool_call_id: Option<String>,
    tool_name: Option<String>,
    usage: Option<Raw>,
    pub(crate) bytes: i32,
    pub(crate) digest: Vec<u8>,
    /// The digest is that of a stored message, whose content is meant: what came is its beginning.
    pub(crate) truncated: Option<ContentTruncated>,
}

/// A message with its place, and what the store keeps beside it.
#[derive(Clone, Debug)]
pub(crate) struct PlacedMessage {
    pub(crate) message: Message,
    pub(crate) bytes: i32,
    pub(crate) digest: Vec<u8>,
}

impl PlacedMessage {
    /// With what tells this content from another.
    pub(crate) fn indexed(&self) -> (&Message, &[u8]) {
        (&self.message, &self.digest)
    }
}

impl CheckedMessage {
    /// Gives the message its place. `known_since` is for one that was there before.
    pub(crate) fn place(
        self,
        seq: i64,
        known_id: Option<String>,
        known_since: Option<DateTime<Utc>>,
        now: DateTime<Utc>,
    ) -> PlacedMessage {
        let message = Message {
            seq,
            id: self.id.or(known_id).unwrap_or_else(|| new_uuid(now).to_string()),
            role: self.role,
            content: Json(self.content),
            content_truncated: self.truncated,
            tool_calls: self.tool_calls.map(Json),
            tool_call_id: self.tool_call_id,
            tool_name: self.tool_name,
            created_at: self.created_at.or(known_since).unwrap_or(now),
            usage: self.usage.map(Json),
        };
        PlacedMessage { message, bytes: self.bytes, digest: self.digest }
    }
}

/// Checks the messages of one request.
pub(crate) fn check_all(check: &mut Check, drafts: Vec<MessageDraft>) -> Vec<CheckedMessage> {
    if drafts.len() > MAX_MESSAGES {
        check.wrong(
            "messages",
            format!("has {}; a thread has at most {MAX_MESSAGES}", drafts.len()),
        );
        return Vec::new();
    }
    let mut places: HashMap<&str, usize> = HashMap::new();
    for (index, id) in drafts.iter().enumerate().filter_map(|(i, d)| Some((i, d.id.as_deref()?))) {
        match places.entry(id) {
            Entry::Vacant(entry) => {
                entry.insert(index);
            }
            Entry::Occupied(entry) => check.wrong(
                format!("messages[{index}].id"),
                format!("`{}` is the id of messages[{}] too", cut(id, 100), entry.get()),
            ),
        }
    }
    drafts.into_iter().enumerate().map(|(index, draft)| draft.check(check, index)).collect()
}

/// Checks one message that we made of what a client sent.
pub(crate) fn check_one(draft: MessageDraft) -> loom_core::Result<CheckedMessage> {
    let mut check = Check::default();
    let message = draft.check(&mut check, 0);
    check.finish(message)
}

impl MessageDraft {
    fn check(self, check: &mut Check, index: usize) -> CheckedMessage {
        let path = |field: &str| format!("messages[{index}].{field}");
        if let Some(id) = &self.id {
            check.line(&path("id"), id, MAX_ID_BYTES);
        }
        match &self.content {
            Some(content) => check.raw(
                &path("content"),
                content,
                &[Kind::String, Kind::Array],
                "a string or a list of parts",
            ),
            None if self.tool_calls.is_none() => {
                check.wrong(
                    path("content"),
                    "is a string or a list of parts; only `tool_calls` replace it",
                );
            }
            None => {}
        }
        if let Some(calls) = &self.tool_calls {
            check.raw(&path("tool_calls"), calls, &[Kind::Array], "a list");
        }
        if let Some(usage) = &self.usage {
            check.raw(&path("usage"), usage, &[Kind::Object], "an object");
        }
        check.text(&path("tool_call_id"), self.tool_call_id.as_deref(), MAX_NAME_BYTES);
        check.text(&path("tool_name"), self.tool_name.as_deref(), MAX_NAME_BYTES);
        let created_at = check.time(&path("created_at"), self.created_at);

        let content = self.content.unwrap_or_else(Raw::null);
        let parts = [
            Some(self.role.as_str()),
            Some(content.get()),
            self.tool_calls.as_ref().map(Raw::get),
            self.tool_call_id.as_deref(),
            self.tool_name.as_deref(),
            self.usage.as_ref().map(Raw::get),
        ];
        let bytes: usize = parts.iter().flatten().map(|part| part.len()).sum();
        if bytes > MAX_MESSAGE_BYTES {
            check.too_large(format!(
                "messages[{index}] has {bytes} bytes; a message has at most 4 MiB"
            ));
        }
        let digest = match &self.content_truncated {
            None => digest(&parts),
            Some(truncated) => unhex(&truncated.digest).unwrap_or_else(|| {
                check.wrong(path("content_truncated.digest"), "is 64 hex digits");
                Vec::new()
            }),
        };
        CheckedMessage {
            truncated: self.content_truncated,
            id: self.id,
            created_at,
            role: self.role,
            content,
            tool_calls: self.tool_calls,
            tool_call_id: self.tool_call_id,
            tool_name: self.tool_name,
            usage: self.usage,
            bytes: i32::try_from(bytes).unwrap_or(i32::MAX),
            digest,
        }
    }
}

impl PlacedMessage {
    /// What stands in the message's own row in place of a large content.
    pub(crate) fn preview(&self) -> Option<Raw> {
        let content = &self.message.content;
        (content.get().len() > MAX_INLINE_BYTES).then(|| preview(content))
    }
}

/// The beginning of a content: of its text, or of what it is made of.
fn preview(content: &Raw) -> Raw {
    #[derive(Deserialize)]
    struct Part<'a> {
        #[serde(borrow)]
        text: Option<std::borrow::Cow<'a, str>>,
    }
    let text = match content.kind() {
        Kind::String => serde_json::from_str::<String>(content.get()).ok(),
        _ => serde_json::from_str::<Vec<Part<'_>>>(content.get())
            .ok()
            .map(|parts| parts.into_iter().filter_map(|part| part.text).collect::<String>())
            .filter(|text| !text.is_empty()),
    };
    let text = text.as_deref().unwrap_or(content.get());
    serde_json::to_string(cut(text, PREVIEW_BYTES))
        .ok()
        .and_then(|json| Raw::try_from(json).ok())
        .unwrap_or_else(Raw::null)
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(64), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    (0..64).step_by(2).map(|at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok()).collect()
}

fn digest(parts: &[Option<&str>]) -> Vec<u8> {
    let mut hash = Sha256::new();
    for part in parts {
        // The length goes first, or "ab" + "c" would be "a" + "bc"; one more than it, so that an
        // empty text is not an absent one.
        let length = part.map_or(0, |part| part.len() as u64 + 1);
        hash.update(length.to_be_bytes());
        hash.update(part.unwrap_or_default());
    }
    hash.finalize().to_vec()
}
