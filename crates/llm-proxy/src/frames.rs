//! What a client of a stream hears while nothing comes, and when it fails before anything has come: in
//! the words of the surface that it asked on.

use axum::http::StatusCode;
use bytes::Bytes;
use serde_json::json;

use crate::{
    dialect::{Dialect, Operation},
    native::StreamEvent,
};

/// By which form a request came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Surface {
    Wire(Operation),
    Native,
}

/// A failure that can no longer be told as a status.
pub(crate) struct Told<'a> {
    pub(crate) status: StatusCode,
    pub(crate) code: &'a str,
    pub(crate) message: &'a str,
    pub(crate) retry_after_secs: Option<u64>,
}

impl Surface {
    /// Is there a stream of what is asked so?
    pub(crate) fn streams(self) -> bool {
        !matches!(self, Self::Wire(Operation::CountTokens | Operation::Embeddings))
    }

    /// A sign of life: an event that clients know, or a comment, which they skip.
    pub(crate) fn keep_alive(self) -> Bytes {
        let frame = match self {
            Self::Wire(operation) if operation.dialect() == Dialect::Anthropic => {
                "event: ping\ndata: {\"type\": \"ping\"}\n\n"
            }
            Self::Wire(_) | Self::Native => ": keep-alive\n\n",
        };
        Bytes::from_static(frame.as_bytes())
    }

    /// The stream's only event, and its last.
    pub(crate) fn failure(self, told: &Told<'_>, request_id: &str) -> Bytes {
        let &Told { status, code, message, retry_after_secs } = told;
        let frame = match self {
            Self::Native => {
                let event = StreamEvent::Error {
                    error: code.to_owned(),
                    message: message.to_owned(),
                    retry_after_secs,
                };
                let data = serde_json::to_string(&event).unwrap_or_default();
                format!("event: llm\ndata: {data}\n\n")
            }
            Self::Wire(Operation::Responses) => {
                let data = json!({"type": "error", "code": code, "message": message, "param": null, "sequence_number": 0});
                format!("event: error\ndata: {data}\n\n")
            }
            Self::Wire(operation) => {
                let dialect = operation.dialect();
                let body = dialect.error_body(status, code, message, request_id);
                let name = if dialect == Dialect::Anthropic { "event: error\n" } else { "" };
                format!("{name}data: {body}\n\n")
            }
        };
        frame.into()
    }
}
