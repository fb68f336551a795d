//! The wires, the operations on them, and what an error looks like on each.

use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use loom_core::{
    Error,
    principal::{self, RequestInfo},
};
use serde_json::{Value, json};

use crate::{LlmProxy, limits, record::KEY_REUSED, translate::set};

/// A provider's wire format. Gemini's is a provider's only; no surface has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Dialect {
    Anthropic,
    OpenAi,
    Gemini,
}

/// What is asked of a provider; the form of reply and usage follows from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Messages,
    CountTokens,
    Chat,
    Responses,
    Embeddings,
    /// Gemini's, by Vertex.
    GenerateContent,
    /// The tokens of a request, by OpenAI.
    CountInput,
    /// The tokens of a request, by Gemini.
    CountContents,
}

impl Operation {
    /// One of each name.
    pub(crate) const ALL: [Self; 6] = [
        Self::Messages,
        Self::CountTokens,
        Self::Chat,
        Self::Responses,
        Self::Embeddings,
        Self::GenerateContent,
    ];

    pub(crate) fn dialect(self) -> Dialect {
        match self {
            Self::Messages | Self::CountTokens => Dialect::Anthropic,
            Self::Chat | Self::Responses | Self::Embeddings | Self::CountInput => Dialect::OpenAi,
            Self::GenerateContent | Self::CountContents => Dialect::Gemini,
        }
    }

    /// It counts the tokens of a request, and uses none.
    pub(crate) fn only_counts(self) -> bool {
        matches!(self, Self::CountTokens | Self::CountInput | Self::CountContents)
    }

    /// Behind the provider's base URL; what Vertex is asked has the model in its address.
    pub(crate) fn path(self) -> &'static str {
        match self {
            Self::Messages => "/v1/messages",
            Self::CountTokens => "/v1/messages/count_tokens",
            Self::Chat => "/chat/completions",
            Self::Responses => "/responses",
            Self::Embeddings => "/embeddings",
            Self::CountInput => "/responses/input_tokens",
            Self::GenerateContent => ":generateContent",
            Self::CountContents => ":countTokens",
        }
    }

    /// As in `llm_requests.operation`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Messages => "messages",
            Self::CountTokens | Self::CountInput | Self::CountContents => "count_tokens",
            Self::Chat => "chat",
            Self::Responses => "responses",
            Self::Embeddings => "embeddings",
            Self::GenerateContent => "generate_content",
        }
    }
}

impl Dialect {
    /// The surface that a request came in by.
    fn of(path: &str, headers: &HeaderMap) -> Self {
        let anthropic = path.starts_with("/anthropic/")
            || path.starts_with("/v1/messages")
            || (path.starts_with("/v1/models") && headers.contains_key("anthropic-version"));
        if anthropic { Self::Anthropic } else { Self::OpenAi }
    }

    /// The error object that this wire's clients understand.
    pub(crate) fn error_body(
        self,
        status: StatusCode,
        code: &str,
        message: &str,
        request_id: &str,
    ) -> Value {
        match self {
            Self::Anthropic => json!({
                "type": "error",
                "error": {"type": anthropic_type(status), "message": message},
                "request_id": request_id,
            }),
            Self::OpenAi => json!({
                "error": {"message": message, "type": openai_type(status), "param": null, "code": openai_code(status, code)},
            }),
            Self::Gemini => json!({
                "error": {"code": status.as_u16(), "message": message, "status": code},
            }),
        }
    }

    /// An error in the middle of a stream, as this wire's clients expect it.
    pub(crate) fn error_frame(
        self,
        operation: Operation,
        code: &str,
        message: &str,
        request_id: &str,
    ) -> Bytes {
        let status = StatusCode::BAD_GATEWAY;
        let frame = match (self, operation) {
            (Self::OpenAi, Operation::Responses) => {
                let data = json!({"type": "error", "code": code, "message": message, "param": null, "sequence_number": 0});
                format!("event: error\ndata: {data}\n\n")
            }
            (Self::OpenAi | Self::Gemini, _) => {
                format!("data: {}\n\n", self.error_body(status, code, message, request_id))
            }
            (Self::Anthropic, _) => {
                format!(
                    "event: error\ndata: {}\n\n",
                    self.error_body(status, code, message, request_id)
                )
            }
        };
        frame.into()
    }
}

fn anthropic_type(status: StatusCode) -> &'static str {
    match status.as_u16() {
        400 | 405 | 415 | 422 => "invalid_request_error",
        401 => "authentication_error",
        403 => "permission_error",
        404 => "not_found_error",
        409 => "conflict_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        504 => "timeout_error",
        529 => "overloaded_error",
        _ => "api_error",
    }
}

fn openai_type(status: StatusCode) -> &'static str {
    match status.as_u16() {
        401 => "authentication_error",
        403 => "permission_error",
        429 => "rate_limit_error",
        400..=499 => "invalid_request_error",
        _ => "server_error",
    }
}

/// The codes that OpenAI's clients look at; else our own.
fn openai_code(status: StatusCode, code: &str) -> &str {
    match status.as_u16() {
        401 => "invalid_api_key",
        429 if matches!(code, "overloaded" | "rate_limited") => "rate_limit_exceeded",
        429 if code == "quota_exceeded" => "insufficient_quota",
        _ => code,
    }
}

/// A layer: lets nobody in without a principal, and gives every error that arises inside (ours, not the
/// provider's) the shape of its surface.
pub(crate) async fn surface(
    State(proxy): State<LlmProxy>,
    request: Request,
    next: Next,
) -> Response {
    let dialect = Dialect::of(request.uri().path(), request.headers());
    let request_id =
        request.extensions().get::<RequestInfo>().map(|info| info.id.clone()).unwrap_or_default();
    let mut response = match principal::of(&request) {
        Ok(_) => next.run(request).await,
        Err(error) => error.into_response(),
    };
    let error = response.extensions().get::<Error>().cloned();
    if let Some(error) = error {
        let allow = response.headers_mut().remove(header::ALLOW);
        response = error_response(dialect, error.clone(), &request_id);
        limits::tell_refusal(dialect.into(), &error, proxy.clock.now(), response.headers_mut());
        if let Some(allow) = allow {
            response.headers_mut().insert(header::ALLOW, allow);
        }
    }
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(&request_id) {
        headers.insert("x-loom-request-id", id.clone());
        if dialect == Dialect::Anthropic {
            headers.entry("request-id").or_insert(id);
        }
    }
    response
}

fn error_response(dialect: Dialect, error: Error, request_id: &str) -> Response {
    // Both wires know 400 where we say 422, but for what they do not know at all.
    let status = match error.status() {
        status if error.code() == KEY_REUSED => status,
        StatusCode::UNPROCESSABLE_ENTITY => StatusCode::BAD_REQUEST,
        status => status,
    };
    let faults = error.problem("").errors;
    let mut body = dialect.error_body(status, error.code(), error.detail(), request_id);
    if let Some(first) = faults.first() {
        // Neither wire has a place for a list of them.
        let told: Vec<_> =
            faults.iter().map(|fault| format!("{}: {}", fault.path, fault.message)).collect();
        if let Some(error) = body.get_mut("error") {
            set(error, "message", told.join("; "));
            if dialect == Dialect::OpenAi {
                set(error, "param", first.path.as_str());
            }
        }
    }
    let mut response = (status, axum::Json(body)).into_response();
    let headers = response.headers_mut();
    if let Some(secs) = error.retry_after_secs() {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(secs));
    }
    // The SDKs try again on any 5xx; a server without a provider stays so.
    if error.code() == "feature_disabled" {
        headers.insert("x-should-retry", HeaderValue::from_static("false"));
    }
    response.extensions_mut().insert(error);
    response
}
