//! The routes of the wires: bytes forwarded as they came where the provider speaks the same.

use std::sync::atomic::Ordering;

use axum::{
    Extension,
    extract::State,
    http::{HeaderMap, StatusCode, Uri},
    middleware,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use loom_core::{
    Error, Principal, Result,
    authorize::{Action, authorize},
    extract::{Body, BodyLimit},
    principal::{RequestInfo, Scope},
};
use serde::Deserialize;
use serde_json::value::RawValue;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    LlmProxy,
    attempt::{Prepared, Way},
    dialect::{Operation, surface},
    flow::{self, Asking},
    frames::Surface,
    limits, models,
    provider::Target,
    record, stream_options,
    trailer::trailers,
};

/// A conversation with images is large.
pub(crate) const BODY_LIMIT: usize = 32 << 20;

pub(crate) fn routes(proxy: LlmProxy) -> OpenApiRouter {
    // Each wire also under a base of its own, for clients that are given both.
    let aliases = axum::Router::new()
        .route("/anthropic/v1/messages", axum::routing::post(create_message))
        .route("/anthropic/v1/messages/count_tokens", axum::routing::post(count_message_tokens))
        .route("/anthropic/v1/models", axum::routing::get(models::list_models))
        .route("/anthropic/v1/models/{*id}", axum::routing::get(models::get_model))
        .route("/openai/v1/chat/completions", axum::routing::post(create_chat_completion))
        .route("/openai/v1/responses", axum::routing::post(create_response))
        .route("/openai/v1/embeddings", axum::routing::post(create_embedding))
        .route("/openai/v1/models", axum::routing::get(models::list_models))
        .route("/openai/v1/models/{*id}", axum::routing::get(models::get_model))
        .route("/v1/models/{vendor}/{*name}", axum::routing::get(models::get_model_with_slashes))
        .route("/v1/{*rest}", axum::routing::any(no_such_route))
        .route("/anthropic/{*rest}", axum::routing::any(no_such_route))
        .route("/openai/{*rest}", axum::routing::any(no_such_route));
    let (router, document) = OpenApiRouter::new()
        .routes(routes!(create_message))
        .routes(routes!(count_message_tokens))
        .routes(routes!(create_chat_completion))
        .routes(routes!(create_response))
        .routes(routes!(create_embedding))
        .routes(routes!(models::list_models))
        .routes(routes!(models::get_model))
        .merge(aliases.into())
        .split_for_parts();
    // Inside of `surface`; the server's own answer to a wrong method would have the native shape.
    let router = router
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn_with_state(proxy.clone(), surface))
        .layer(Extension(BodyLimit(BODY_LIMIT)))
        .layer(middleware::from_fn(trailers))
        .with_state(proxy);
    OpenApiRouter::with_openapi(document).merge(router.into())
}

async fn wrong_method() -> Error {
    Error::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        "this route takes another method; see `allow`",
    )
}

async fn no_such_route(uri: Uri) -> Error {
    Error::new(
        StatusCode::NOT_FOUND,
        "not_found",
        format!(
            "there is no {} here; GET /api/openapi.json lists the routes",
            loom_core::text::cut(uri.path(), 200)
        ),
    )
}

/// What must be known of a body to send it on; the rest is the provider's business.
#[derive(Deserialize)]
struct Ask<'a> {
    #[serde(borrow)]
    model: Option<&'a RawValue>,
    stream: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "stream_options::present")]
    stream_options: Option<&'a RawValue>,
    #[serde(borrow)]
    max_tokens: Option<&'a RawValue>,
    max_completion_tokens: Option<&'a RawValue>,
    max_output_tokens: Option<&'a RawValue>,
    n: Option<&'a RawValue>,
}

impl Ask<'_> {
    fn max_output(&self) -> Option<u64> {
        let names = [self.max_completion_tokens, self.max_tokens, self.max_output_tokens];
        limits::max_output(names, self.n)
    }
}

pub(crate) fn bad_request(detail: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::malformed("invalid_request", detail)
}

/// A request of one of the wires.
pub(crate) struct Incoming {
    pub(crate) principal: Principal,
    pub(crate) info: RequestInfo,
    pub(crate) headers: HeaderMap,
    pub(crate) uri: Uri,
    pub(crate) body: Bytes,
}

impl LlmProxy {
    async fn pass(&self, incoming: Incoming, surface: Operation) -> Result<Response> {
        let Incoming { principal, info, headers, uri, body } = incoming;
        authorize(&principal, Action::Use(Scope::LlmUse))?;
        let ask = read(&body)?;
        let model: String = ask
            .model
            .ok_or_else(|| bad_request("`model` is missing"))
            .map(|model| serde_json::from_str(model.get()).unwrap_or_default())?;
        if model.is_empty() {
            return Err(bad_request("`model` must be a string that is not empty"));
        }
        let streamed = match ask.stream.map(RawValue::get) {
            None | Some("false" | "null") => false,
            Some("true") => true,
            Some(_) => return Err(bad_request("`stream` must be true or false")),
        };
        let own_options = ask.stream_options.is_some();
        let max_output = ask.max_output();
        let candidates = self.candidates(principal.org, surface, &model)?;
        let asking = Asking {
            principal,
            info,
            headers,
            uri,
            surface: Surface::Wire(surface),
            model,
            streamed,
            request_bytes: body.len(),
            max_output,
            input_estimate: limits::input_estimate(&body),
            ask: flow::Ask::Wire { surface, body, own_options },
        };
        self.ask(asking, candidates).await
    }
}

fn read(body: &Bytes) -> Result<Ask<'_>> {
    let text = std::str::from_utf8(body).map_err(|_| bad_request("the body is not valid UTF-8"))?;
    serde_json::from_str(text).map_err(|error| {
        bad_request(format!("the body is not a JSON object of the expected form: {error}"))
    })
}

/// The body for a provider that speaks the surface: as it came, but for the model's name where it has
/// another there, and for the usage of a chat stream, which is asked for on the client's behalf.
pub(crate) fn passed(
    surface: Operation,
    body: &Bytes,
    own_options: bool,
    streamed: bool,
    target: &Target,
) -> Result<Prepared> {
    let renamed = match &target.rename {
        Some(name) => renamed(body, name)?,
        None => None,
    };
    let plain = renamed.unwrap_or_else(|| body.clone());
    let asks = surface == Operation::Chat
        && streamed
        && !target.provider.refuses_stream_options.load(Ordering::Relaxed);
    let way = Way::Passed { own_options };
    Ok(match asks.then(|| with_usage_asked(&plain)).flatten() {
        Some(counted) => Prepared { operation: surface, body: counted, plain: Some(plain), way },
        None => Prepared { operation: surface, body: plain, plain: None, way },
    })
}

fn renamed(body: &Bytes, name: &str) -> Result<Option<Bytes>> {
    let (Some(model), Ok(text)) = (read(body)?.model, std::str::from_utf8(body)) else {
        return Ok(None);
    };
    let name = serde_json::to_string(name).map_err(Error::internal)?;
    Ok(stream_options::replace(text, model, &name))
}

fn with_usage_asked(body: &Bytes) -> Option<Bytes> {
    let text = std::str::from_utf8(body).ok()?;
    let ask: Ask<'_> = serde_json::from_str(text).ok()?;
    stream_options::ask_for_usage(text, ask.stream_options)
}

/// What a request to a model can say beside its body.
#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "each is read where it matters; this describes them")]
pub(crate) struct Sent {
    /// The thread that the usage belongs to
    #[param(rename = "x-loom-thread-id")]
    thread: Option<String>,
    /// The weaver that the usage belongs to
    #[param(rename = "x-loom-weaver-id")]
    weaver: Option<String>,
    /// Words with commas between, for the usage
    #[param(rename = "x-loom-tags")]
    tags: Option<String>,
    /// 1 to 255 printable ASCII characters: for 24 hours a request with the same key gets the same reply
    #[param(rename = "idempotency-key")]
    idempotency_key: Option<String>,
    /// `no-cache`: asks the provider, whatever is cached; `no-store`: and does not cache its reply
    #[param(rename = "cache-control")]
    cache_control: Option<String>,
    /// Used in place of the server's credential, where the operator allows it for the provider
    #[param(rename = "x-loom-provider-token")]
    provider_token: Option<String>,
}

macro_rules! operation {
    ($(#[$meta:meta])* $name:ident, $operation:expr) => {
        $(#[$meta])*
        async fn $name(
            State(proxy): State<LlmProxy>,
            principal: Principal,
            info: RequestInfo,
            headers: HeaderMap,
            uri: Uri,
            Body(body): Body,
        ) -> Response {
            let incoming = Incoming { principal, info, headers, uri, body };
            let answer = |proxy: LlmProxy, incoming| async move {
                proxy.pass(incoming, $operation).await.into_response()
            };
            proxy.recorded(record::Surface::Wire($operation), incoming, answer).await
        }
    };
}

operation! {
    /// Anthropic's Messages
    ///
    /// The body goes to Anthropic as it came, and its reply comes back so; see Anthropic's reference
    /// for both. A model of another provider is asked in that one's words, and answers in Anthropic's;
    /// what cannot be told is a 400 that names the field. Errors have Anthropic's shape.
    #[utoipa::path(post, path = "/v1/messages", tag = "llm", security(("api_key" = [])),
        params(Sent), request_body(content = Object, content_type = "application/json"),
        responses((status = 200, description = "JSON, or a stream when `stream` is true", content_type = "application/json", body = Object),
            (status = 400, body = Object), (status = 401, body = Object), (status = 403, body = Object),
            (status = 404, body = Object), (status = 409, body = Object), (status = 413, body = Object),
            (status = 422, body = Object), (status = 429, body = Object), (status = 502, body = Object),
            (status = 503, body = Object), (status = 504, body = Object)))]
    create_message, Operation::Messages
}

operation! {
    /// Anthropic's token counting
    #[utoipa::path(post, path = "/v1/messages/count_tokens", tag = "llm", security(("api_key" = [])),
        params(Sent), request_body(content = Object, content_type = "application/json"),
        responses((status = 200, body = Object), (status = 400, body = Object), (status = 401, body = Object), (status = 403, body = Object),
            (status = 404, body = Object), (status = 409, body = Object), (status = 413, body = Object),
            (status = 422, body = Object), (status = 429, body = Object), (status = 502, body = Object),
            (status = 503, body = Object), (status = 504, body = Object)))]
    count_message_tokens, Operation::CountTokens
}

operation! {
    /// OpenAI's chat completions
    ///
    /// The body goes to OpenAI, or a compatible provider, as it came, and its reply comes back so; see
    /// OpenAI's reference for both. A model of another provider is asked in that one's words, and
    /// answers in OpenAI's; what cannot be told is a 400 that names the field. Errors have OpenAI's
    /// shape.
    #[utoipa::path(post, path = "/v1/chat/completions", tag = "llm", security(("api_key" = [])),
        params(Sent), request_body(content = Object, content_type = "application/json"),
        responses((status = 200, description = "JSON, or a stream when `stream` is true", content_type = "application/json", body = Object),
            (status = 400, body = Object), (status = 401, body = Object), (status = 403, body = Object),
            (status = 404, body = Object), (status = 409, body = Object), (status = 413, body = Object),
            (status = 422, body = Object), (status = 429, body = Object), (status = 502, body = Object),
            (status = 503, body = Object), (status = 504, body = Object)))]
    create_chat_completion, Operation::Chat
}

operation! {
    /// OpenAI's responses
    ///
    /// As with chat completions; what is stored at OpenAI cannot be told to another provider.
    #[utoipa::path(post, path = "/v1/responses", tag = "llm", security(("api_key" = [])),
        params(Sent), request_body(content = Object, content_type = "application/json"),
        responses((status = 200, description = "JSON, or a stream when `stream` is true", content_type = "application/json", body = Object),
            (status = 400, body = Object), (status = 401, body = Object), (status = 403, body = Object),
            (status = 404, body = Object), (status = 409, body = Object), (status = 413, body = Object),
            (status = 422, body = Object), (status = 429, body = Object), (status = 502, body = Object),
            (status = 503, body = Object), (status = 504, body = Object)))]
    create_response, Operation::Responses
}

operation! {
    /// OpenAI's embeddings
    #[utoipa::path(post, path = "/v1/embeddings", tag = "llm", security(("api_key" = [])),
        params(Sent), request_body(content = Object, content_type = "application/json"),
        responses((status = 200, body = Object), (status = 400, body = Object), (status = 401, body = Object), (status = 403, body = Object),
            (status = 404, body = Object), (status = 409, body = Object), (status = 413, body = Object),
            (status = 422, body = Object), (status = 429, body = Object), (status = 502, body = Object),
            (status = 503, body = Object), (status = 504, body = Object)))]
    create_embedding, Operation::Embeddings
}
