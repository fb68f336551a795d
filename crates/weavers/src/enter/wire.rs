//! What goes over an attached terminal: bytes are its input and output, text is JSON about it.

use axum::extract::ws::{CloseFrame, Message, Utf8Bytes};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::json;

/// What a client sends.
#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Word {
    Auth {
        token: String,
    },
    Resize {
        cols: u16,
        rows: u16,
    },
    /// Its input ends.
    Eof,
}

/// Why the server closes, in codes of its own.
#[derive(Clone, Copy)]
pub(super) enum Close {
    Done,
    Unauthenticated,
    /// It may no more.
    Revoked,
    Idle,
    /// It sends what is not understood.
    Bad,
    Shutdown,
}

impl Close {
    pub(super) fn message(self) -> Message {
        let (code, reason) = match self {
            Self::Done => (1000, "ended"),
            Self::Shutdown => (1001, "the server goes; connect again"),
            Self::Bad => (1007, "not understood"),
            Self::Unauthenticated => (4401, "unauthenticated"),
            Self::Revoked => (4403, "revoked"),
            Self::Idle => (4408, "nothing happened for too long"),
        };
        Message::Close(Some(CloseFrame { code, reason: Utf8Bytes::from_static(reason) }))
    }
}

pub(super) fn bytes(bytes: Bytes) -> Message {
    Message::Binary(bytes)
}

/// The terminal is open.
pub(super) fn attached(tty: bool) -> Message {
    Message::Text(json!({"type": "status", "status": "attached", "tty": tty}).to_string().into())
}

pub(super) fn failed(code: &str, detail: &str) -> Message {
    let json = json!({"type": "status", "status": "failed", "code": code, "detail": detail});
    Message::Text(json.to_string().into())
}

/// `code` is null when how it ended is not known.
pub(super) fn exit(code: Option<i32>) -> Message {
    Message::Text(json!({"type": "exit", "code": code}).to_string().into())
}
