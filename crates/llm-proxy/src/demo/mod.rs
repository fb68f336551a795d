//! The built-in provider `demo` with the model `loom-demo`: it answers every operation in its
//! dialect, always the same to the same, and needs no key. It exists so that the first minute does.

mod anthropic;
mod ask;
mod chat;
mod embeddings;
mod example;
mod responses;
#[cfg(test)]
mod tests;

use std::{convert::Infallible, time::Duration};

use axum::http::{HeaderValue, Response, StatusCode, header};
use bytes::Bytes;
use futures::stream;
use loom_core::{Error, Result};
use reqwest::Body;
use serde_json::{Value, json};

use self::ask::Ask;
use crate::{
    config::ProviderConfig,
    dialect::{Dialect, Operation},
    forward::Incoming,
};

pub(crate) const PROVIDER: &str = "demo";
pub(crate) const MODEL: &str = "loom-demo";

/// When the model and every reply of it were made: it does not look at the clock.
const CREATED: u64 = 1_767_225_600;
const CREATED_TEXT: &str = "2026-01-01T00:00:00Z";
/// Between two words, so that one sees it speak.
const PAUSE: Duration = Duration::from_millis(15);

#[expect(clippy::expect_used, reason = "a literal of ours")]
pub(crate) fn config() -> ProviderConfig {
    ProviderConfig {
        name: PROVIDER.to_owned(),
        dialect: Dialect::OpenAi,
        base_url: "http://demo.invalid/v1".parse().expect("a URL"),
        api_key: None,
        callers_tokens: false,
        keyless: true,
        models: vec![MODEL.to_owned()],
        place: None,
        responses: true,
    }
}

/// Answers as a provider would, refusals included.
///
/// # Errors
/// None that the body is to blame for.
pub(crate) fn answer(operation: Operation, body: &Bytes) -> Result<Incoming> {
    match reply(operation, body) {
        Ok(Reply::Json(value)) => {
            response(StatusCode::OK, "application/json", value.to_string().into())
        }
        Ok(Reply::Stream(events)) => {
            response(StatusCode::OK, "text/event-stream; charset=utf-8", paced(events))
        }
        Err(Refusal { status, code, message }) => {
            let mut error = operation.dialect().error_body(status, code, &message, "");
            if let Some(members) = error.as_object_mut() {
                members.remove("request_id");
            }
            response(status, "application/json", error.to_string().into())
        }
    }
}

/// What the demo says to a request.
enum Reply {
    Json(Value),
    Stream(Vec<Piece>),
}

/// An event of a stream.
struct Piece {
    bytes: Bytes,
    /// Content comes word by word, all else at once.
    paced: bool,
}

impl Piece {
    fn named(name: &str, data: &Value) -> Self {
        Self { bytes: format!("event: {name}\ndata: {data}\n\n").into(), paced: false }
    }

    fn data(data: &str) -> Self {
        Self { bytes: format!("data: {data}\n\n").into(), paced: false }
    }

    fn paced(mut self) -> Self {
        self.paced = true;
        self
    }
}

/// Why a request is refused.
struct Refusal {
    status: StatusCode,
    code: &'static str,
    message: String,
}

impl Refusal {
    fn malformed(message: &str) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            code: "invalid_request",
            message: message.to_owned(),
        }
    }
}

fn reply(operation: Operation, body: &[u8]) -> Result<Reply, Refusal> {
    let body: Value = serde_json::from_slice(body)
        .map_err(|error| Refusal::malformed(&format!("the body is not valid JSON: {error}")))?;
    let model = body.get("model").and_then(Value::as_str).unwrap_or_default();
    if model != MODEL {
        return Err(Refusal {
            status: StatusCode::NOT_FOUND,
            code: "model_not_found",
            message: format!(
                "the only model of the demo is `{MODEL}`, not `{}`",
                loom_core::text::cut(model, 100)
            ),
        });
    }
    if operation == Operation::Embeddings {
        return embeddings::reply(&body).map(Reply::Json);
    }
    let ask = Ask::read(operation, &body)?;
    let streams = body.get("stream").and_then(Value::as_bool).unwrap_or_default();
    Ok(match (operation, streams) {
        (Operation::CountTokens, _) => Reply::Json(json!({"input_tokens": ask.input_tokens})),
        (Operation::Messages, false) => Reply::Json(anthropic::whole(&ask)),
        (Operation::Messages, true) => Reply::Stream(anthropic::stream(&ask)),
        (Operation::Responses, false) => Reply::Json(responses::whole(&ask)),
        (Operation::Responses, true) => Reply::Stream(responses::stream(&ask)),
        (_, false) => Reply::Json(chat::whole(&ask)),
        (_, true) => {
            let options = body.get("stream_options");
            let with_usage = options.and_then(|options| options.get("include_usage"));
            Reply::Stream(chat::stream(&ask, with_usage == Some(&Value::Bool(true))))
        }
    })
}

fn response(status: StatusCode, content_type: &'static str, body: Body) -> Result<Incoming> {
    Response::builder()
        .status(status)
        .header(header::CONTENT_TYPE, HeaderValue::from_static(content_type))
        .header("x-loom-demo", HeaderValue::from_static("true"))
        .body(body)
        .map_err(Error::internal)
}

fn paced(pieces: Vec<Piece>) -> Body {
    let events = stream::unfold(pieces.into_iter(), |mut pieces| async move {
        let piece = pieces.next()?;
        if piece.paced {
            tokio::time::sleep(PAUSE).await;
        }
        Some((Ok::<_, Infallible>(piece.bytes), pieces))
    });
    Body::wrap_stream(events)
}

/// The entry in the list of models.
pub(crate) fn model(dialect: Dialect) -> Value {
    match dialect {
        Dialect::Anthropic => json!({
            "type": "model",
            "id": MODEL,
            "display_name": "Loom's demo (no real model)",
            "created_at": CREATED_TEXT,
            "max_input_tokens": 1_000_000,
            "max_tokens": 4096,
            "demo": true,
        }),
        Dialect::OpenAi | Dialect::Gemini => json!({
            "id": MODEL,
            "object": "model",
            "created": CREATED,
            "owned_by": MODEL,
            "demo": true,
        }),
    }
}
