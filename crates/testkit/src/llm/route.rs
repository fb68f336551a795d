//! Which operation of which vendor a request is.

use http::{HeaderMap, Method, header};
use serde_json::Value;

/// Whose protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wire {
    Anthropic,
    OpenAi,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Route {
    Messages,
    CountTokens,
    Chat,
    Responses,
    Embeddings,
    Models,
    Model(String),
}

/// A request that has been understood.
pub(super) struct Ask {
    pub(super) wire: Wire,
    pub(super) route: Route,
    pub(super) body: Value,
    pub(super) number: usize,
}

impl Ask {
    pub(super) fn model(&self) -> &str {
        match &self.route {
            Route::Model(id) => id,
            _ => self.body["model"].as_str().unwrap_or_default(),
        }
    }

    pub(super) fn streams(&self) -> bool {
        matches!(self.route, Route::Messages | Route::Chat | Route::Responses)
            && self.body["stream"] == true
    }
}

/// The vendor, and the operation unless there is none at that path or with that method.
pub(super) fn find(method: &Method, path: &str, headers: &HeaderMap) -> (Wire, Option<Route>) {
    let (prefix, path) = if let Some(rest) = path.strip_prefix("/openai") {
        (Some(Wire::OpenAi), rest)
    } else if let Some(rest) = path.strip_prefix("/anthropic") {
        (Some(Wire::Anthropic), rest)
    } else {
        (None, path)
    };
    let looks = if headers.contains_key("anthropic-version") || headers.contains_key("x-api-key") {
        Wire::Anthropic
    } else {
        Wire::OpenAi
    };
    let path = path.trim_end_matches('/');
    let found = match (method.as_str(), path) {
        ("POST", "/v1/messages") => Some((Wire::Anthropic, Route::Messages)),
        ("POST", "/v1/messages/count_tokens") => Some((Wire::Anthropic, Route::CountTokens)),
        ("POST", "/v1/chat/completions") => Some((Wire::OpenAi, Route::Chat)),
        ("POST", "/v1/responses") => Some((Wire::OpenAi, Route::Responses)),
        ("POST", "/v1/embeddings") => Some((Wire::OpenAi, Route::Embeddings)),
        ("GET", "/v1/models") => Some((prefix.unwrap_or(looks), Route::Models)),
        ("GET", path) => path
            .strip_prefix("/v1/models/")
            .map(|id| (prefix.unwrap_or(looks), Route::Model(id.to_owned()))),
        _ => None,
    };
    match found {
        Some((wire, route)) if prefix.is_none_or(|prefix| prefix == wire) => (wire, Some(route)),
        Some((wire, _)) => (prefix.unwrap_or(wire), None),
        None => (prefix.unwrap_or(looks), None),
    }
}

/// Whether the provider key is the right one, where this vendor looks for it.
pub(super) fn authorized(wire: Wire, headers: &HeaderMap, key: &str) -> bool {
    let bearer = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "))
        .is_some_and(|token| token == key);
    match wire {
        Wire::OpenAi => bearer,
        Wire::Anthropic => {
            bearer
                || headers.get("x-api-key").is_some_and(|value| value.as_bytes() == key.as_bytes())
        }
    }
}
