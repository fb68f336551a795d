//! The handlers of the native routes.

use std::{collections::VecDeque, sync::Arc};

use axum::{
    Extension,
    extract::State,
    http::{HeaderMap, HeaderValue},
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
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    check::check,
    model::{Reply, Request, StreamEvent},
    stream::{complete as complete_reply, events},
    upstream,
};
use crate::{
    LlmProxy,
    dialect::{Dialect, Operation},
    exchange::{Answer, is_event_stream, wire},
    forward::Incoming,
    http::BODY_LIMIT,
    ledger::{Meter, Opening},
    live::{Account, Live},
    observe::Observer,
    provider::Provider,
    trailer::trailers,
    translate::stream::Decoder,
};

pub(crate) fn routes(proxy: LlmProxy) -> OpenApiRouter {
    OpenApiRouter::new()
        .routes(routes!(complete))
        .routes(routes!(stream))
        .route_layer(middleware::from_fn(required))
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
    params(("provider" = String, Path, description = "`anthropic`, `openai`, or the name of a configured compatible one"),
        ("x-loom-thread-id" = Option<String>, Header, description = "The thread that the usage belongs to"),
        ("x-loom-weaver-id" = Option<String>, Header, description = "The weaver that the usage belongs to"),
        ("x-loom-tags" = Option<String>, Header, description = "Words with commas between, for the usage")),
    request_body = Request,
    responses((status = 200, body = Reply), (status = 400, body = Problem), (status = 401, body = Problem),
        (status = 403, body = Problem), (status = 404, body = Problem), (status = 413, body = Problem),
        (status = 415, body = Problem), (status = 422, body = Problem), (status = 429, body = Problem),
        (status = 502, body = Problem), (status = 503, body = Problem), (status = 504, body = Problem)))]
async fn complete(
    State(proxy): State<LlmProxy>,
    principal: Principal,
    info: RequestInfo,
    Path(provider): Path<String>,
    headers: HeaderMap,
    Body(body): Body,
) -> Result<Response> {
    let asked = proxy.ask_native(&principal, &info, &provider, &headers, &body, false).await?;
    let Asked { provider, operation, answer, meter, model } = asked;
    let mut account = Account::new(meter, model, Observer::json(operation));
    match proxy.whole(&provider, operation, answer.into_body(), &mut account).await {
        Ok(reply) => {
            let mut told = HeaderMap::new();
            account.tell(&mut told);
            let reply = complete_reply(&mut account, reply);
            account.tell_cost(&mut told);
            Ok(marked(&provider, told, Json(reply).into_response()))
        }
        Err(error) => {
            account.fail(&error);
            Err(error)
        }
    }
}

/// Ask a model, and hear it as it speaks
///
/// Server-sent events named `llm`. The last one is `completed`, with the whole reply, or `error`,
/// whatever became of the provider; an error before the first event is a problem document.
#[utoipa::path(post, path = "/proxy/{provider}/stream", operation_id = "stream_native", tag = "llm",
    security(("api_key" = [])),
    params(("provider" = String, Path, description = "`anthropic`, `openai`, or the name of a configured compatible one"),
        ("x-loom-thread-id" = Option<String>, Header, description = "The thread that the usage belongs to"),
        ("x-loom-weaver-id" = Option<String>, Header, description = "The weaver that the usage belongs to"),
        ("x-loom-tags" = Option<String>, Header, description = "Words with commas between, for the usage")),
    request_body = Request,
    responses((status = 200, description = "Each event's data", content_type = "text/event-stream", body = StreamEvent),
        (status = 400, body = Problem), (status = 401, body = Problem), (status = 403, body = Problem),
        (status = 404, body = Problem), (status = 413, body = Problem), (status = 415, body = Problem),
        (status = 422, body = Problem), (status = 429, body = Problem), (status = 502, body = Problem),
        (status = 503, body = Problem), (status = 504, body = Problem)))]
async fn stream(
    State(proxy): State<LlmProxy>,
    principal: Principal,
    info: RequestInfo,
    Path(provider): Path<String>,
    headers: HeaderMap,
    Body(body): Body,
) -> Result<Response> {
    let asked = proxy.ask_native(&principal, &info, &provider, &headers, &body, true).await?;
    let Asked { provider, operation, answer, meter, model } = asked;
    let streams = is_event_stream(answer.headers());
    let mut waiting = VecDeque::new();
    let mut upstream = Some(answer.into_body());
    let observer = if streams { Observer::stream(operation) } else { Observer::json(operation) };
    let mut account = Account::new(meter, model, observer);
    if !streams && let Some(body) = upstream.take() {
        // It does not stream, whatever it was asked: all of it at once.
        match proxy.whole(&provider, operation, body, &mut account).await {
            Ok(reply) => waiting.extend(reply.events()),
            Err(error) => {
                account.fail(&error);
                return Err(error);
            }
        }
    }
    let mut told = HeaderMap::new();
    account.tell(&mut told);
    let live = Live {
        upstream,
        decoder: Decoder::new(operation),
        account,
        idle: proxy.timeouts.idle,
        stop: proxy.stop.clone(),
        waiting,
        received: 0,
    };
    Ok(marked(&provider, told, loom_core::sse::response(events(live))))
}

/// A reply that begins.
struct Asked {
    provider: Arc<Provider>,
    operation: Operation,
    answer: Incoming,
    meter: Meter,
    model: String,
}

impl LlmProxy {
    async fn ask_native(
        &self,
        principal: &Principal,
        info: &RequestInfo,
        provider: &str,
        headers: &HeaderMap,
        body: &Bytes,
        streamed: bool,
    ) -> Result<Asked> {
        authorize(principal, Action::Use(Scope::LlmUse))?;
        let provider = self.providers.named(provider).cloned().ok_or_else(|| {
            let names: Vec<_> = self.providers.iter().map(|provider| &*provider.name).collect();
            Error::not_found(&format!("provider; there are {}", names.join(", ")))
        })?;
        // Before the account begins: nobody is asked anything.
        self.refresh_credentials_if_old();
        provider.must_be_configured()?;
        require_json(headers)?;
        let request: Request = parse_json(body)?;
        check(&request)?;
        let operation = match provider.dialect {
            Dialect::Anthropic => Operation::Messages,
            Dialect::OpenAi => Operation::Chat,
        };
        let sent = wire(&provider, operation, &request.neutral(streamed))?;
        let mut meter = self
            .open_account(&Opening {
                principal,
                info,
                headers,
                operation,
                provider: &provider,
                model: &request.model,
                streamed,
                request_bytes: body.len(),
            })
            .await?;
        let answer = tokio::select! {
            biased;
            () = self.stop.cancelled() => {
                Err(Error::unavailable("this server is going down; try again"))
            }
            answer = self.ask(&provider, operation, headers, sent, &mut meter) => answer,
        };
        let answer = match answer {
            Ok(Answer::Reply(answer)) => Ok(answer),
            Ok(Answer::Refusal(parts, told)) => {
                let now = self.clock.now();
                let (status, headers) = (parts.status, &parts.headers);
                let name = &provider.name;
                Err(upstream::problem(name, &request.model, status, headers, &told, now))
            }
            Err(error) => Err(error),
        };
        match answer {
            Ok(answer) => Ok(Asked { provider, operation, answer, meter, model: request.model }),
            Err(error) => {
                meter.fail(error.status(), error.code());
                Err(error)
            }
        }
    }
}

/// What a reply says of its account; one of the demo says so, too.
fn marked(provider: &Provider, told: HeaderMap, mut response: Response) -> Response {
    response.headers_mut().extend(told);
    if provider.is_demo() {
        response.headers_mut().insert("x-loom-demo", HeaderValue::from_static("true"));
    }
    response
}
