//! Which operation of which vendor a request is.

use http::{HeaderMap, Method, Uri, header};
use serde_json::Value;

/// Whose protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wire {
    Anthropic,
    OpenAi,
    Gemini,
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
    Generate,
    CountContents,
    CountInput,
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
        matches!(self.route, Route::Messages | Route::Chat | Route::Responses | Route::Generate)
            && self.body["stream"] == true
    }
}

/// What Vertex has in a path: also the model, and whether it streams.
pub(super) struct Vertex {
    pub(super) wire: Wire,
    pub(super) route: Route,
    pub(super) model: String,
    pub(super) streams: bool,
}

/// `/v1/projects/{project}/locations/{region}/publishers/{publisher}/models/{model}:{method}`
pub(super) fn vertex(method: &Method, uri: &Uri) -> Option<Vertex> {
    let path = uri.path().strip_prefix("/v1/projects/").filter(|_| method == Method::POST)?;
    let [_, "locations", _, "publishers", publisher, "models", model] =
        path.split('/').collect::<Vec<_>>()[..]
    else {
        return None;
    };
    let (model, method) = model.split_once(':')?;
    let is_sse = uri.query() == Some("alt=sse");
    let (wire, route, streams) = match (publisher, model, method) {
        ("anthropic", "count-tokens", "rawPredict") => (Wire::Anthropic, Route::CountTokens, false),
        ("anthropic", _, "rawPredict") => (Wire::Anthropic, Route::Messages, false),
        ("anthropic", _, "streamRawPredict") => (Wire::Anthropic, Route::Messages, true),
        ("google", _, "generateContent") => (Wire::Gemini, Route::Generate, false),
        ("google", _, "streamGenerateContent") if is_sse => (Wire::Gemini, Route::Generate, true),
        ("google", _, "countTokens") => (Wire::Gemini, Route::CountContents, false),
        _ => return None,
    };
    Some(Vertex { wire, route, model: model.to_owned(), streams })
}

/// What Vertex refuses in a body.
pub(super) fn is_vertex_body(of: &Vertex, body: &Value) -> bool {
    let known = match of.wire {
        Wire::Gemini => body["contents"].is_array() && body.get("stream").is_none(),
        _ => body["anthropic_version"] == "vertex-2023-10-16",
    };
    let signed = !of.model.starts_with("gemini-3") || has_signatures(&body["contents"]);
    known && signed && (of.route == Route::CountTokens || body.get("model").is_none())
}

/// Gemini 3 wants the signature of the first call of each turn of its own.
fn has_signatures(contents: &Value) -> bool {
    contents.as_array().into_iter().flatten().all(|content| {
        let mut parts = content["parts"].as_array().into_iter().flatten();
        let first = parts.find(|part| part["functionCall"].is_object());
        first.is_none_or(|call| call["thoughtSignature"].is_string())
    })
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
        ("POST", "/v1/responses/input_tokens") => Some((Wire::OpenAi, Route::CountInput)),
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
        Wire::OpenAi | Wire::Gemini => bearer,
        Wire::Anthropic => {
            bearer
                || headers.get("x-api-key").is_some_and(|value| value.as_bytes() == key.as_bytes())
        }
    }
}
