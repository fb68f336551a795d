//! A request in the provider's own terms, and what its answers are known by.

use std::sync::atomic::Ordering;

use axum::http::{HeaderMap, HeaderName, header};
use bytes::Bytes;
use loom_core::{Error, Result};

use crate::{
    dialect::{Dialect, Operation},
    pool::CALLERS,
    provider::Provider,
    translate::{
        anthropic,
        chat::{self, request_out::Manner},
        gemini,
        request::Request,
        responses,
    },
    vertex,
};

/// The request on the provider's wire.
///
/// # Errors
/// 422 for what that wire cannot express.
pub(crate) fn wire(
    provider: &Provider,
    operation: Operation,
    request: &Request<'_>,
) -> Result<Bytes> {
    match operation {
        Operation::Messages | Operation::CountTokens => anthropic::request_out::body(request),
        Operation::Responses => responses::request_out::body(request),
        Operation::GenerateContent => gemini::request_out::body(request),
        Operation::CountInput => responses::request_out::count(request),
        Operation::CountContents => gemini::request_out::count(request),
        Operation::Chat | Operation::Embeddings => {
            let counted = !provider.refuses_stream_options.load(Ordering::Relaxed);
            chat::request_out::body(request, Manner { counted, vendor: provider.is_openai() })
        }
    }
}

impl Provider {
    /// How it is asked what comes in another form: OpenAI itself by responses, which alone gives its
    /// reasoning back, but for what only chat takes: stop sequences, and the limit of a token or so
    /// by which some clients try whether they are let in.
    pub(crate) fn asked_by(&self, request: &Request<'_>) -> Operation {
        match self.dialect {
            Dialect::Anthropic => Operation::Messages,
            Dialect::OpenAi if self.is_openai() && responses::request_out::takes(request) => {
                Operation::Responses
            }
            Dialect::OpenAi => Operation::Chat,
            Dialect::Gemini if vertex::is_claude(&request.model) => Operation::Messages,
            Dialect::Gemini => Operation::GenerateContent,
        }
    }
}

impl Provider {
    /// How it is asked to count the tokens of a request in another form.
    ///
    /// # Errors
    /// 422 when it has no way to.
    pub(crate) fn counted_by(&self) -> Result<Operation> {
        match self.dialect {
            Dialect::Anthropic => Ok(Operation::CountTokens),
            Dialect::OpenAi if self.is_openai() => Ok(Operation::CountInput),
            Dialect::Gemini => Ok(Operation::CountContents),
            Dialect::OpenAi => Err(Error::invalid(
                "model",
                format!("is of the provider `{}`, which has no way to count tokens", self.name),
            )),
        }
    }
}

/// The few headers of the client's that are meant for whoever answers in the end.
pub(crate) fn along(from: &HeaderMap) -> HeaderMap {
    let names = [
        // Sent to nobody; it chooses the credential.
        HeaderName::from_static(CALLERS),
        header::USER_AGENT,
        HeaderName::from_static("traceparent"),
        HeaderName::from_static("tracestate"),
    ];
    names
        .into_iter()
        .filter_map(|name| from.get(&name).map(|v| (name.clone(), v.clone())))
        .collect()
}

/// By what the provider knows a request.
pub(crate) fn upstream_id(headers: &HeaderMap) -> Option<String> {
    ["x-request-id", "request-id"]
        .iter()
        .find_map(|name| headers.get(*name)?.to_str().ok())
        .map(|id| loom_core::text::cut(id, 200).to_owned())
}

pub(crate) fn is_event_stream(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().to_ascii_lowercase().starts_with(b"text/event-stream"))
}
