//! The handlers of the native routes.

use std::{collections::VecDeque, sync::atomic::Ordering};

use axum::{
    Extension,
    extract::State,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    middleware,
    response::{IntoResponse, Response},
};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
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
    draft::{Draft, Event},
    from_anthropic, from_openai,
    model::{Reply, Request, StreamEvent},
    stream::{Account, Decoder, Live},
    to_anthropic,
    to_openai::{self, Manner},
    upstream,
};
use crate::{
    LlmProxy,
    dialect::{Dialect, Operation},
    forward::{Incoming, Outgoing, read_to},
    http::BODY_LIMIT,
    ledger::{Meter, Opening},
    observe::Observer,
    provider::Provider,
};

/// A whole reply longer than this is none.
const MAX_REPLY: usize = 64 << 20;
const MAX_ERROR: usize = 256 << 10;

pub(crate) fn routes(proxy: LlmProxy) -> OpenApiRouter {
    OpenApiRouter::new()
        .routes(routes!(complete))
        .routes(routes!(stream))
        .route_layer(middleware::from_fn(required))
        .layer(Extension(BodyLimit(BODY_LIMIT)))
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
    let asked = proxy.ask(&principal, &info, &provider, &headers, &body, false).await?;
    let Asked { provider, operation, answer, meter, model } = asked;
    let observer = Observer::json(operation);
    let mut account = Account::new(meter, model, observer);
    let whole = match proxy.whole(&provider, answer.into_body(), &mut account).await {
        Ok(whole) => whole,
        Err(error) => {
            account.fail(&error);
            return Err(error);
        }
    };
    let draft = match read(&provider, operation, &whole) {
        Ok(draft) => draft,
        Err(error) => {
            account.fail(&error);
            return Err(error);
        }
    };
    let reply = account.complete(draft);
    Ok(marked(&provider, Json(reply).into_response()))
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
    let asked = proxy.ask(&principal, &info, &provider, &headers, &body, true).await?;
    let Asked { provider, operation, answer, meter, model } = asked;
    let streams = is_event_stream(answer.headers());
    let mut waiting = VecDeque::new();
    let mut upstream = Some(answer.into_body());
    let observer = if streams { Observer::stream(operation) } else { Observer::json(operation) };
    let mut account = Account::new(meter, model, observer);
    if !streams && let Some(body) = upstream.take() {
        // It does not stream, whatever it was asked: all of it at once.
        let outcome = match proxy.whole(&provider, body, &mut account).await {
            Ok(whole) => read(&provider, operation, &whole),
            Err(error) => Err(error),
        };
        match outcome {
            Ok(draft) => waiting.extend(at_once(draft)),
            Err(error) => {
                account.fail(&error);
                return Err(error);
            }
        }
    }
    let live = Live {
        upstream,
        decoder: Decoder::new(operation.dialect()),
        account,
        idle: proxy.timeouts.idle,
        stop: proxy.stop.clone(),
        waiting,
        received: 0,
    };
    Ok(marked(&provider, loom_core::sse::response(live.events())))
}

/// A reply that begins.
struct Asked {
    provider: std::sync::Arc<Provider>,
    operation: Operation,
    answer: Incoming,
    meter: Meter,
    model: String,
}

impl LlmProxy {
    async fn ask(
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
        let counted = !provider.refuses_stream_options.load(Ordering::Relaxed);
        let first = wire(&provider, &request, streamed, counted)?;
        let mut meter = self.ledger.open(&Opening {
            principal,
            info,
            headers,
            operation,
            provider: &provider,
            model: &request.model,
            streamed,
            request_bytes: body.len(),
        })?;
        let answer = tokio::select! {
            biased;
            () = self.stop.cancelled() => {
                Err(Error::unavailable("this server is going down; try again"))
            }
            answer = self.answer(&provider, operation, &request, headers, first, &mut meter) => answer,
        };
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => {
                meter.fail(error.status(), error.code());
                return Err(error);
            }
        };
        Ok(Asked { provider, operation, answer, meter, model: request.model })
    }

    /// The provider's answer, when it is a success.
    async fn answer(
        &self,
        provider: &Provider,
        operation: Operation,
        request: &Request,
        from: &HeaderMap,
        body: Bytes,
        meter: &mut Meter,
    ) -> Result<Incoming> {
        let headers = along(from);
        let outgoing =
            |body: Bytes| Outgoing { provider, operation, headers: &headers, query: None, body };
        let asks = memchr::memmem::find(&body, b"\"stream_options\"").is_some();
        let answer = self.send(outgoing(body), meter).await?;
        let (status, answer) = noted(answer, meter);
        if status.is_success() {
            return Ok(answer);
        }
        let (parts, body) = answer.into_parts();
        let told = self.refusal(body).await;
        if asks
            && status == StatusCode::BAD_REQUEST
            && memchr::memmem::find(&told, b"stream_options").is_some()
        {
            let again = self.send(outgoing(wire(provider, request, true, false)?), meter).await?;
            let (status, again) = noted(again, meter);
            if status.is_success() {
                // Only now is it known that they were the fault, and not a word in the request.
                provider.note_refusal_of_stream_options();
                return Ok(again);
            }
            let (parts, body) = again.into_parts();
            let told = self.refusal(body).await;
            return Err(self.problem(provider, request, &parts, &told));
        }
        Err(self.problem(provider, request, &parts, &told))
    }

    /// What a refusal says, without waiting for it for long.
    async fn refusal(&self, body: reqwest::Body) -> Bytes {
        tokio::time::timeout(self.timeouts.idle, read_to(body, MAX_ERROR)).await.unwrap_or_default()
    }

    fn problem(
        &self,
        provider: &Provider,
        request: &Request,
        parts: &http::response::Parts,
        told: &[u8],
    ) -> Error {
        let now = self.clock.now();
        upstream::problem(&provider.name, &request.model, parts.status, &parts.headers, told, now)
    }

    /// All of a reply that is not streamed.
    async fn whole(
        &self,
        provider: &Provider,
        mut body: reqwest::Body,
        account: &mut Account,
    ) -> Result<Bytes> {
        let mut whole = BytesMut::new();
        let name = &provider.name;
        let broken = |what: &str| {
            let detail = format!("the provider `{name}` {what}");
            Error::new(StatusCode::BAD_GATEWAY, "upstream_error", detail)
        };
        loop {
            let frame = tokio::select! {
                biased;
                () = self.stop.cancelled() => {
                    return Err(Error::unavailable("this server is going down; try again"));
                }
                frame = tokio::time::timeout(self.timeouts.idle, body.frame()) => frame,
            };
            let data = match frame {
                Ok(None) => return Ok(whole.freeze()),
                Ok(Some(Ok(frame))) => frame.into_data().unwrap_or_default(),
                Ok(Some(Err(error))) => {
                    return Err(broken("broke off in the middle of its reply").because(error));
                }
                Err(_) => {
                    return Err(Error::new(
                        StatusCode::GATEWAY_TIMEOUT,
                        "upstream_timeout",
                        format!("the provider `{name}` fell silent in the middle of its reply"),
                    ));
                }
            };
            if whole.len() + data.len() > MAX_REPLY {
                return Err(broken("sent a reply that is larger than this server takes"));
            }
            account.see(&data);
            whole.extend_from_slice(&data);
        }
    }
}

/// Writes down that the provider answered; the status is what the client gets, unless it gets an
/// error of ours.
fn noted(answer: Incoming, meter: &mut Meter) -> (StatusCode, Incoming) {
    let upstream_id = ["x-request-id", "request-id"]
        .iter()
        .find_map(|name| answer.headers().get(*name)?.to_str().ok())
        .map(|id| loom_core::text::cut(id, 200).to_owned());
    meter.answered(answer.status(), upstream_id);
    (answer.status(), answer)
}

/// The few headers of the client's that are meant for whoever answers in the end.
fn along(from: &HeaderMap) -> HeaderMap {
    let names = [
        header::USER_AGENT,
        HeaderName::from_static("traceparent"),
        HeaderName::from_static("tracestate"),
    ];
    names
        .into_iter()
        .filter_map(|name| from.get(&name).map(|v| (name.clone(), v.clone())))
        .collect()
}

/// The request on the provider's wire.
fn wire(provider: &Provider, request: &Request, stream: bool, counted: bool) -> Result<Bytes> {
    match provider.dialect {
        Dialect::Anthropic => to_anthropic::body(request, stream),
        Dialect::OpenAi => {
            let vendor = &*provider.name == "openai";
            to_openai::body(request, Manner { stream, counted, vendor })
        }
    }
}

fn read(provider: &Provider, operation: Operation, body: &[u8]) -> Result<Draft> {
    let draft = match operation.dialect() {
        Dialect::Anthropic => from_anthropic::whole(body),
        Dialect::OpenAi => from_openai::whole(body),
    };
    draft.map_err(|error| {
        let detail = format!("the provider `{}` sent a reply that cannot be read", provider.name);
        Error::new(StatusCode::BAD_GATEWAY, "upstream_error", detail).because(error)
    })
}

/// The events of a reply that came whole.
fn at_once(draft: Draft) -> Vec<Event> {
    let mut events = Vec::new();
    let thinking: String = draft.thinking.iter().map(|block| block.thinking.as_str()).collect();
    if !thinking.is_empty() {
        events.push(Event::Thinking(thinking));
    }
    if !draft.text.is_empty() {
        events.push(Event::Text(draft.text.clone()));
    }
    events.extend(draft.calls.iter().map(|call| Event::ToolCall {
        id: call.id.clone(),
        name: call.name.clone(),
        fragment: call.arguments.clone(),
    }));
    events.push(Event::Completed(Box::new(draft)));
    events
}

fn is_event_stream(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().to_ascii_lowercase().starts_with(b"text/event-stream"))
}

/// A reply of the demo says so.
fn marked(provider: &Provider, mut response: Response) -> Response {
    if provider.is_demo() {
        response.headers_mut().insert("x-loom-demo", HeaderValue::from_static("true"));
    }
    response
}
