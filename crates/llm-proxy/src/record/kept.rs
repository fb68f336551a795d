//! A reply as it is kept: what it takes to give it once more, and whether it is worth it.

use axum::{
    body::Body,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::Response,
};
use bytes::{BufMut, Bytes, BytesMut};
use loom_core::{Error, Result};
use serde::{Deserialize, Serialize};

use super::call::Surface;
use crate::{dialect::Operation, exchange::is_event_stream, observe::Observer};

/// The headers that belong to the reply itself, not to this one time that it was given.
const HEADERS: [&str; 7] = [
    "content-type",
    "cache-control",
    "x-accel-buffering",
    "request-id",
    "openai-version",
    "openai-model",
    "x-loom-demo",
];

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) status: u16,
    headers: Vec<(String, String)>,
    pub(super) body: Bytes,
}

#[derive(Serialize, Deserialize)]
struct Head {
    status: u16,
    headers: Vec<(String, String)>,
}

impl Kept {
    pub(super) fn new(status: StatusCode, headers: &HeaderMap, pieces: &[Bytes]) -> Self {
        let headers = HEADERS
            .into_iter()
            .filter_map(|name| Some((name.to_owned(), headers.get(name)?.to_str().ok()?.into())))
            .collect();
        Self { status: status.as_u16(), headers, body: concat(pieces) }
    }

    /// The length of the head, the head as JSON, the body.
    pub(super) fn to_bytes(&self) -> Result<Bytes> {
        let head = Head { status: self.status, headers: self.headers.clone() };
        let head = serde_json::to_vec(&head).map_err(Error::internal)?;
        let mut out = BytesMut::with_capacity(4 + head.len() + self.body.len());
        out.put_u32_le(u32::try_from(head.len()).map_err(Error::internal)?);
        out.put_slice(&head);
        out.put_slice(&self.body);
        Ok(out.freeze())
    }

    pub(super) fn from_bytes(bytes: Vec<u8>) -> Result<Self> {
        let damaged = || Error::internal("a kept reply is damaged");
        let bytes = Bytes::from(bytes);
        let (len, _) = bytes.split_first_chunk().ok_or_else(damaged)?;
        let end = usize::try_from(u32::from_le_bytes(*len))
            .ok()
            .and_then(|len| len.checked_add(4))
            .filter(|end| *end <= bytes.len())
            .ok_or_else(damaged)?;
        let head = bytes.get(4..end).ok_or_else(damaged)?;
        let Head { status, headers } = serde_json::from_slice(head).map_err(Error::internal)?;
        Ok(Self { status, headers, body: bytes.slice(end..) })
    }

    pub(super) fn response(self) -> Response {
        let mut response = Response::new(Body::from(self.body));
        *response.status_mut() = StatusCode::from_u16(self.status).unwrap_or_default();
        for (name, value) in &self.headers {
            let name = HeaderName::try_from(name.as_str());
            if let (Ok(name), Ok(value)) = (name, HeaderValue::try_from(value.as_str())) {
                response.headers_mut().insert(name, value);
            }
        }
        response
    }
}

pub(super) fn concat(pieces: &[Bytes]) -> Bytes {
    match pieces {
        [one] => one.clone(),
        many => many.concat().into(),
    }
}

/// Is it a reply that went well to its end? `ended`: the body came to its end.
pub(super) fn is_sound(
    surface: &Surface,
    status: StatusCode,
    headers: &HeaderMap,
    pieces: &[Bytes],
    ended: bool,
) -> bool {
    if !status.is_success() {
        return false;
    }
    if !is_event_stream(headers) {
        let is_json = headers.get(header::CONTENT_TYPE).is_some_and(|kind| {
            kind.as_bytes().to_ascii_lowercase().starts_with(b"application/json")
        });
        return ended && is_json && is_reply(surface, &concat(pieces));
    }
    match surface {
        Surface::Wire(operation) => {
            let mut observer = Observer::stream(*operation);
            for piece in pieces {
                observer.feed(piece);
            }
            let seen = &observer.seen;
            seen.error.is_none() && (seen.last_word || (ended && seen.complete))
        }
        // The last frame is the one of the two, and nothing that a model says can look like it: a frame
        // begins a line, and texts are JSON.
        Surface::Native { .. } => {
            let whole = concat(pieces);
            memchr::memmem::rfind(&whole, b"\ndata: {\"type\":\"completed\"").is_some()
                && whole.ends_with(b"\n\n")
        }
    }
}

/// Some tell of an error with the status of a success.
fn is_reply(surface: &Surface, body: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Reply<'a> {
        #[serde(borrow)]
        error: Option<&'a serde_json::value::RawValue>,
        #[serde(borrow)]
        status: Option<&'a serde_json::value::RawValue>,
    }
    let Ok(reply) = serde_json::from_slice::<Reply<'_>>(body) else { return false };
    let failed = *surface == Surface::Wire(Operation::Responses)
        && !matches!(
            reply.status.map(serde_json::value::RawValue::get),
            None | Some(r#""completed""# | r#""incomplete""#)
        );
    !failed && reply.error.is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(kind: &'static str) -> HeaderMap {
        HeaderMap::from_iter([
            (header::CONTENT_TYPE, HeaderValue::from_static(kind)),
            (header::DATE, HeaderValue::from_static("now")),
        ])
    }

    #[test]
    fn a_kept_reply_comes_back_as_it_was() {
        let pieces = [Bytes::from_static(b"\xff\0"), Bytes::from_static(b"rest")];
        let kept = Kept::new(StatusCode::CREATED, &headers("text/plain"), &pieces);
        let again = Kept::from_bytes(kept.to_bytes().unwrap().to_vec()).unwrap();
        assert_eq!(again, kept);
        let response = again.response();
        assert_eq!(response.status(), 201);
        assert_eq!(response.headers().len(), 1, "the date was that of the first time");
        for len in 0..4 {
            assert!(Kept::from_bytes(kept.to_bytes().unwrap()[..len].to_vec()).is_err());
        }
        assert!(Kept::from_bytes(vec![0xff; 8]).is_err());
    }

    #[test]
    fn only_what_went_well_to_its_end_is_sound() {
        let chat = Surface::Wire(Operation::Chat);
        let responses = Surface::Wire(Operation::Responses);
        let messages = Surface::Wire(Operation::Messages);
        let native = Surface::Native { provider: "openai".to_owned(), streamed: true };
        let json = |surface: &Surface, body: &'static str, ended| {
            let pieces = [Bytes::from_static(body.as_bytes())];
            is_sound(surface, StatusCode::OK, &headers("application/json"), &pieces, ended)
        };
        assert!(json(&chat, r#"{"id": "1"}"#, true));
        assert!(json(&chat, r#"{"id": "1", "error": null}"#, true));
        assert!(!json(&chat, r#"{"id": "1"}"#, false));
        assert!(!json(&chat, r#"{"error": {"message": "no"}}"#, true));
        assert!(!json(&chat, r#"{"id": "#, true));
        assert!(json(&responses, r#"{"status": "incomplete"}"#, true));
        assert!(!json(&responses, r#"{"status": "failed"}"#, true));
        assert!(!json(&responses, r#"{"status": "queued"}"#, true));
        let stream = |surface: &Surface, text: &'static str, ended| {
            let pieces: Vec<_> = text.as_bytes().chunks(7).map(Bytes::from_static).collect();
            is_sound(surface, StatusCode::OK, &headers("text/event-stream"), &pieces, ended)
        };
        assert!(stream(&chat, "data: {\"choices\":[]}\n\ndata: [DONE]\n\n", false));
        assert!(!stream(&chat, "data: {\"choices\":[]}\n\n", true));
        assert!(!stream(&chat, "data: {\"error\":{\"message\":\"no\"}}\n\n", true));
        let stop = "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";
        assert!(stream(&messages, stop, false));
        let error = "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"api_error\",\"message\":\"\"}}\n\n";
        assert!(!stream(&messages, error, true));
        assert!(stream(
            &native,
            "event: llm\ndata: {\"type\":\"completed\",\"response\":{}}\n\n",
            false
        ));
        assert!(!stream(
            &native,
            "event: llm\ndata: {\"type\":\"error\",\"error\":\"x\"}\n\n",
            true
        ));
        assert!(!stream(
            &native,
            "event: llm\ndata: {\"type\":\"text_delta\",\"content\":\"\"}\n\n",
            true
        ));
    }
}
