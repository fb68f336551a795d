//! The handlers of the native routes.

use std::sync::Arc;

use axum::{
    Extension,
    extract::State,
    http::{HeaderMap, HeaderValue, Uri},
    middleware,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use loom_core::{
    Error, Json, Path, Principal, Result,
    authorize::{Action, authorize},
    error::Problem,
    extract::{Body, BodyLimit, parse_json, require_json},
    principal::{RequestInfo, Scope, required},
};
use tokio::time::Instant;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    check::check,
    model::{Reply, Request, StreamEvent},
    stream::{complete as complete_reply, events},
};
use crate::{
    LlmProxy,
    attempt::{Begun, Prepared, Way},
    candidates::Candidates,
    exchange::wire,
    flow::{Ask, Asking},
    frames::Surface,
    http::{self, BODY_LIMIT},
    live::Account,
    provider::{Provider, Target},
    record,
    trailer::trailers,
};

pub(crate) fn routes(proxy: LlmProxy) -> OpenApiRouter {
    OpenApiRouter::new()
        .routes(routes!(complete))
        .routes(routes!(stream))
        .route_layer(middleware::from_fn(required))
        .route_layer(middleware::from_fn_with_state(proxy.clone(), crate::limits::of_native))
        .layer(Extension(BodyLimit(BODY_LIMIT)))
        .layer(middleware::from_fn(trailers))
        .with_state(proxy)
}

/// Ask a model
///
/// The same request and reply for every provider. What a provider cannot express is a 422 that names
/// the field; what it can do beyond this is on its own wire, `/v1/…`.
#[utoipa::path(post, path = "/proxy/{provider}/complete", operation_id = "complete_native", tag = "llm",
    security(("api_key" = [])),
    params(("provider" = String, Path, description = "`anthropic`, `openai`, `vertex`, or the name of a configured compatible one"),
        http::Sent),
    request_body = Request,
    responses((status = 200, body = Reply), (status = 400, body = Problem), (status = 401, body = Problem),
        (status = 403, body = Problem), (status = 404, body = Problem), (status = 409, body = Problem), (status = 413, body = Problem),
        (status = 415, body = Problem), (status = 422, body = Problem), (status = 429, body = Problem),
        (status = 502, body = Problem), (status = 503, body = Problem), (status = 504, body = Problem)))]
async fn complete(
    State(proxy): State<LlmProxy>,
    principal: Principal,
    info: RequestInfo,
    Path(provider): Path<String>,
    headers: HeaderMap,
    uri: Uri,
    Body(body): Body,
) -> Response {
    let surface = record::Surface::Native { provider: provider.clone(), streamed: false };
    let incoming = http::Incoming { principal, info, headers, uri, body };
    let answer = |proxy: LlmProxy, incoming| async move {
        proxy.ask_native(Native::of(provider, incoming, false)).await.into_response()
    };
    proxy.recorded(surface, incoming, answer).await
}

/// Ask a model, and hear it as it speaks
///
/// Server-sent events named `llm`. The last one is `completed`, with the whole reply, or `error`,
/// whatever became of the provider; an error before the first event is a problem document.
#[utoipa::path(post, path = "/proxy/{provider}/stream", operation_id = "stream_native", tag = "llm",
    security(("api_key" = [])),
    params(("provider" = String, Path, description = "`anthropic`, `openai`, `vertex`, or the name of a configured compatible one"),
        http::Sent),
    request_body = Request,
    responses((status = 200, description = "Each event's data", content_type = "text/event-stream", body = StreamEvent),
        (status = 400, body = Problem), (status = 401, body = Problem), (status = 403, body = Problem),
        (status = 404, body = Problem), (status = 409, body = Problem), (status = 413, body = Problem), (status = 415, body = Problem),
        (status = 422, body = Problem), (status = 429, body = Problem), (status = 502, body = Problem),
        (status = 503, body = Problem), (status = 504, body = Problem)))]
async fn stream(
    State(proxy): State<LlmProxy>,
    principal: Principal,
    info: RequestInfo,
    Path(provider): Path<String>,
    headers: HeaderMap,
    uri: Uri,
    Body(body): Body,
) -> Response {
    let surface = record::Surface::Native { provider: provider.clone(), streamed: true };
    let incoming = http::Incoming { principal, info, headers, uri, body };
    let answer = |proxy: LlmProxy, incoming| async move {
        proxy.ask_native(Native::of(provider, incoming, true)).await.into_response()
    };
    proxy.recorded(surface, incoming, answer).await
}

/// A request of one of the two routes.
struct Native {
    principal: Principal,
    info: RequestInfo,
    /// Its name.
    provider: String,
    headers: HeaderMap,
    uri: Uri,
    body: Bytes,
    streamed: bool,
}

impl Native {
    fn of(provider: String, incoming: http::Incoming, streamed: bool) -> Self {
        let http::Incoming { principal, info, headers, uri, body } = incoming;
        Self { principal, info, provider, headers, uri, body, streamed }
    }
}

impl LlmProxy {
    async fn ask_native(&self, native: Native) -> Result<Response> {
        let Native { principal, info, provider, headers, uri, body, streamed } = native;
        authorize(&principal, Action::Use(Scope::LlmUse))?;
        let provider = self.providers.named(&provider).cloned().ok_or_else(|| {
            let names: Vec<_> = self.providers.iter().map(|provider| &*provider.name).collect();
            Error::not_found(&format!("provider; there are {}", names.join(", ")))
        })?;
        // Before the account begins: nobody is asked anything.
        provider.must_be_configured()?;
        require_json(&headers)?;
        let request: Request = parse_json(&body)?;
        check(&request)?;
        let asking = Asking {
            principal,
            info,
            headers,
            uri,
            surface: Surface::Native,
            model: request.model.clone(),
            streamed,
            request_bytes: body.len(),
            max_output: request.max_tokens.map(u64::from),
            input_estimate: crate::limits::input_estimate(&body),
            ask: Ask::Native(Box::new(request)),
        };
        let target = Target { provider, rename: None, is_routed: false };
        self.ask(asking, Candidates::from(target)).await
    }

    /// A reply that begins, in the native form.
    pub(crate) fn tell_natively(
        &self,
        mut begun: Begun,
        mut account: Account,
        streamed: bool,
        deadline: Instant,
    ) -> Response {
        let provider = Arc::clone(&begun.provider);
        let mut told = HeaderMap::new();
        account.tell(&mut told);
        let reply = begun.reply.take();
        let mut response = match reply {
            Some(reply) if !streamed => {
                let reply = complete_reply(&mut account, reply);
                account.tell_cost(&mut told);
                Json(reply).into_response()
            }
            reply => {
                let mut live = begun.live(self, account, deadline);
                if let Some(reply) = reply {
                    // It does not stream, whatever it was asked: all of it at once.
                    live.waiting = reply.events().into();
                    live.upstream = None;
                }
                loom_core::sse::response_every(self.timeouts.keep_alive, events(live))
            }
        };
        response.headers_mut().extend(told);
        if provider.is_demo() {
            // A reply of the demo says so.
            response.headers_mut().insert("x-loom-demo", HeaderValue::from_static("true"));
        }
        response
    }
}

/// A native request in a provider's words.
///
/// # Errors
/// 422 for what they cannot express.
pub(crate) fn told(
    request: &Request,
    provider: &Arc<Provider>,
    streamed: bool,
) -> Result<Prepared> {
    let operation = provider.native_operation(&request.model);
    let body = wire(provider, operation, &request.neutral(streamed))?;
    Ok(Prepared { operation, body, plain: None, way: Way::Told(None) })
}
