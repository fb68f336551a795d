//! The routes of the wires: bytes forwarded as they came where the provider speaks the same.

use std::sync::{Arc, atomic::Ordering};

use axum::{
    Extension,
    extract::State,
    http::{HeaderMap, StatusCode, Uri, header},
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
    dialect::{Operation, surface},
    forward::{Outgoing, read_to},
    ledger::Opening,
    models,
    relay::{Relay, relay},
    stream_options,
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
        .layer(middleware::from_fn(surface))
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
}

pub(crate) fn bad_request(detail: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::malformed("invalid_request", detail)
}

/// A request of one of the wires, ready to be sent on.
pub(crate) struct Incoming {
    pub(crate) principal: Principal,
    pub(crate) info: RequestInfo,
    pub(crate) headers: HeaderMap,
    pub(crate) uri: Uri,
    pub(crate) body: Bytes,
}

impl LlmProxy {
    async fn pass(&self, incoming: Incoming, operation: Operation) -> Result<Response> {
        authorize(&incoming.principal, Action::Use(Scope::LlmUse))?;
        let text = std::str::from_utf8(&incoming.body)
            .map_err(|_| bad_request("the body is not valid UTF-8"))?;
        let ask: Ask<'_> = serde_json::from_str(text).map_err(|error| {
            bad_request(format!("the body is not a JSON object of the expected form: {error}"))
        })?;
        let model = ask.model.ok_or_else(|| bad_request("`model` is missing"))?;
        let model_name: String = serde_json::from_str(model.get())
            .ok()
            .filter(|name: &String| !name.is_empty())
            .ok_or_else(|| bad_request("`model` must be a string that is not empty"))?;
        let streamed = match ask.stream.map(RawValue::get) {
            None | Some("false" | "null") => false,
            Some("true") => true,
            Some(_) => return Err(bad_request("`stream` must be true or false")),
        };
        let target = self.serving(operation, &model_name)?;
        if !target.provider.speaks(operation) {
            // Boxed: it is far larger than what the usual case needs.
            return Box::pin(self.translated(incoming, operation, target)).await;
        }
        let Incoming { principal, info, headers, uri, body } = &incoming;
        let provider = &target.provider;
        let renamed = match &target.rename {
            Some(name) => {
                let name = serde_json::to_string(name).map_err(Error::internal)?;
                stream_options::replace(text, model, &name)
            }
            None => None,
        };
        let plain = renamed.clone().unwrap_or_else(|| body.clone());
        let asks = operation == Operation::Chat
            && streamed
            && !provider.refuses_stream_options.load(Ordering::Relaxed);
        let counted = if asks { with_usage_asked(&plain) } else { None };
        let withhold_usage = counted.is_some();

        let mut meter = self
            .open_account(&Opening {
                principal,
                info,
                headers,
                operation,
                provider,
                model: &model_name,
                streamed,
                request_bytes: body.len(),
            })
            .await?;
        let outgoing =
            |body: Bytes| Outgoing { provider, operation, headers, query: uri.query(), body };
        let first = counted.unwrap_or_else(|| plain.clone());
        let mut answer = match self.send(outgoing(first), &mut meter).await {
            Ok(answer) => answer,
            Err(error) => {
                meter.fail(error.status(), error.code());
                return Err(error);
            }
        };
        let mut withheld = withhold_usage;
        if withhold_usage && answer.status() == StatusCode::BAD_REQUEST {
            let (mut parts, body) = answer.into_parts();
            parts.headers.remove(header::CONTENT_LENGTH);
            let told = read_to(body, 64 << 10).await;
            if memchr::memmem::find(&told, b"stream_options").is_some() {
                withheld = false;
                answer = match self.send(outgoing(plain), &mut meter).await {
                    Ok(answer) => answer,
                    Err(error) => {
                        meter.fail(error.status(), error.code());
                        return Err(error);
                    }
                };
                // Options of the client's own may be what was refused, and any request can make a
                // provider repeat the word: only that it goes well without them tells.
                if ask.stream_options.is_none() && answer.status().is_success() {
                    provider.note_refusal_of_stream_options();
                }
            } else {
                answer = http::Response::from_parts(parts, told.into());
            }
        }
        Ok(relay(answer, self.relay(operation, withheld, info), meter))
    }

    pub(crate) fn relay(
        &self,
        operation: Operation,
        withhold_usage: bool,
        info: &RequestInfo,
    ) -> Relay {
        Relay {
            operation,
            withhold_usage,
            idle: self.timeouts.idle,
            request_id: Arc::clone(&info.id),
            stop: self.stop.clone().cancelled_owned(),
        }
    }
}

fn with_usage_asked(body: &Bytes) -> Option<Bytes> {
    let text = std::str::from_utf8(body).ok()?;
    let ask: Ask<'_> = serde_json::from_str(text).ok()?;
    stream_options::ask_for_usage(text, ask.stream_options)
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
            proxy.pass(incoming, $operation).await.into_response()
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
        request_body(content = Object, content_type = "application/json"),
        responses((status = 200, description = "JSON, or a stream when `stream` is true", content_type = "application/json", body = Object),
            (status = 400, body = Object), (status = 401, body = Object), (status = 429, body = Object), (status = 502, body = Object)))]
    create_message, Operation::Messages
}

operation! {
    /// Anthropic's token counting
    #[utoipa::path(post, path = "/v1/messages/count_tokens", tag = "llm", security(("api_key" = [])),
        request_body(content = Object, content_type = "application/json"),
        responses((status = 200, body = Object), (status = 400, body = Object), (status = 401, body = Object)))]
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
        request_body(content = Object, content_type = "application/json"),
        responses((status = 200, description = "JSON, or a stream when `stream` is true", content_type = "application/json", body = Object),
            (status = 400, body = Object), (status = 401, body = Object), (status = 429, body = Object), (status = 502, body = Object)))]
    create_chat_completion, Operation::Chat
}

operation! {
    /// OpenAI's responses
    ///
    /// As with chat completions; what is stored at OpenAI cannot be told to another provider.
    #[utoipa::path(post, path = "/v1/responses", tag = "llm", security(("api_key" = [])),
        request_body(content = Object, content_type = "application/json"),
        responses((status = 200, description = "JSON, or a stream when `stream` is true", content_type = "application/json", body = Object),
            (status = 400, body = Object), (status = 401, body = Object)))]
    create_response, Operation::Responses
}

operation! {
    /// OpenAI's embeddings
    #[utoipa::path(post, path = "/v1/embeddings", tag = "llm", security(("api_key" = [])),
        request_body(content = Object, content_type = "application/json"),
        responses((status = 200, body = Object), (status = 400, body = Object), (status = 401, body = Object)))]
    create_embedding, Operation::Embeddings
}
