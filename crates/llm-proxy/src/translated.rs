//! A request on one wire for a provider that speaks another.

use std::collections::VecDeque;

use axum::{
    body::Body,
    http::{HeaderMap, HeaderValue, StatusCode, header, response::Parts},
    response::{IntoResponse, Response},
};
use bytes::{Bytes, BytesMut};
use loom_core::{Result, principal::RequestInfo};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{
    LlmProxy,
    dialect::{Dialect, Operation},
    exchange::{Answer, is_event_stream, upstream_id, wire},
    http::{Incoming, bad_request},
    ledger::{Meter, Opening, Outcome},
    live::{Account, Live},
    observe::Observer,
    provider::{Provider, Target},
    translate::{
        Facts, anthropic, chat,
        object::Faults,
        reply::{Event, Reply},
        request::Request,
        responses::{self, request_in::Echo},
        stream::{Decoder, Encoder},
    },
};

/// What the client's form of a reply depends on, beside the reply.
struct Form {
    surface: Operation,
    /// Of a chat stream: the client asked for usage.
    with_usage: bool,
    echo: Echo,
    request_id: std::sync::Arc<str>,
    now: i64,
}

impl Form {
    fn facts<'f>(&'f self, account: &'f Account) -> Facts<'f> {
        Facts {
            usage: account.usage(),
            model: account.asked(),
            request_id: &self.request_id,
            now: self.now,
        }
    }

    fn encoder(&mut self) -> Encoder {
        match self.surface {
            Operation::Messages | Operation::CountTokens => Encoder::Anthropic(Default::default()),
            Operation::Responses => {
                let echo = std::mem::take(&mut self.echo);
                Encoder::Responses(Box::new(responses::reply_stream::Encoder::new(echo)))
            }
            Operation::Chat | Operation::Embeddings => {
                Encoder::Chat(chat::reply_out::Encoder::new(self.with_usage))
            }
        }
    }

    fn whole(&self, reply: &Reply, facts: &Facts<'_>) -> serde_json::Value {
        match self.surface {
            Operation::Messages | Operation::CountTokens => {
                anthropic::reply_out::whole(reply, facts)
            }
            Operation::Responses => responses::reply_out::whole(reply, &self.echo, facts),
            Operation::Chat | Operation::Embeddings => chat::reply_out::whole(reply, facts),
        }
    }
}

fn read<'a>(surface: Operation, body: &'a RawValue, faults: &mut Faults) -> Request<'a> {
    match surface {
        Operation::Messages | Operation::CountTokens => anthropic::request_in::read(body, faults),
        Operation::Responses => responses::request_in::read(body, faults),
        Operation::Chat | Operation::Embeddings => chat::request_in::read(body, faults),
    }
}

fn wants_usage(body: &RawValue) -> bool {
    #[derive(Deserialize)]
    struct Ask {
        stream_options: Option<Options>,
    }
    #[derive(Deserialize)]
    struct Options {
        include_usage: Option<bool>,
    }
    let ask = serde_json::from_str::<Ask>(body.get()).ok();
    ask.and_then(|ask| ask.stream_options?.include_usage).unwrap_or_default()
}

impl LlmProxy {
    /// # Errors
    /// 422 for what cannot be told to the provider, and as [`LlmProxy::send`].
    pub(crate) async fn translated(
        &self,
        incoming: Incoming,
        surface: Operation,
        target: Target,
    ) -> Result<Response> {
        let Incoming { principal, info, headers, uri: _, body } = incoming;
        let provider = &target.provider;
        let request_bytes = body.len();
        let mut form = Form {
            surface,
            with_usage: false,
            echo: Echo::new(),
            request_id: std::sync::Arc::clone(&info.id),
            now: self.clock.now().timestamp(),
        };
        let (operation, asked, streamed, sent) = {
            let raw: &RawValue = serde_json::from_slice(&body)
                .map_err(|error| bad_request(format!("the body is not valid JSON: {error}")))?;
            let mut faults = Faults::default();
            let mut request = read(surface, raw, &mut faults);
            faults.finish()?;
            let asked = request.model.clone().into_owned();
            if let Some(name) = target.rename {
                request.model = name.into();
            }
            match surface {
                Operation::Responses => form.echo = responses::request_in::echo(raw),
                _ => form.with_usage = wants_usage(raw),
            }
            let operation = provider.asked_by(&request);
            let sent = wire(provider, operation, &request)?;
            (operation, asked, request.stream, sent)
        };
        // All that is needed of it has been put into the other form.
        drop(body);
        let mut meter = self
            .open_account(&Opening {
                principal: &principal,
                info: &info,
                headers: &headers,
                operation,
                provider,
                model: &asked,
                streamed,
                request_bytes,
            })
            .await?;
        let answer = match self.ask(provider, operation, &headers, sent, &mut meter).await {
            Ok(Answer::Reply(answer)) => answer,
            Ok(Answer::Refusal(parts, told)) => {
                return Ok(refusal(surface, provider, &parts, &told, meter, &info));
            }
            Err(error) => {
                meter.fail(error.status(), error.code());
                return Err(error);
            }
        };
        let id = upstream_id(answer.headers());
        let streams = is_event_stream(answer.headers());
        let observer = if streams && streamed {
            Observer::stream(operation)
        } else {
            Observer::json(operation)
        };
        let account = Account::new(meter, asked, observer);
        let mut told = HeaderMap::new();
        account.tell(&mut told);
        let body = answer.into_body();
        let mut response = if streams && streamed {
            self.stream(Some(body), operation, VecDeque::new(), account, form)
        } else {
            self.at_once(provider, operation, body, streamed, account, form).await?
        };
        response.headers_mut().extend(told);
        with_id(surface, id, response.headers_mut());
        Ok(response)
    }

    /// A reply that comes whole, if need be as a stream.
    async fn at_once(
        &self,
        provider: &Provider,
        operation: Operation,
        body: reqwest::Body,
        streamed: bool,
        mut account: Account,
        form: Form,
    ) -> Result<Response> {
        let reply = match self.whole(provider, operation, body, &mut account).await {
            Ok(reply) => reply,
            Err(error) => {
                account.fail(&error);
                return Err(error);
            }
        };
        account.finish();
        if streamed {
            let events = reply.events().into();
            return Ok(self.stream(None, operation, events, account, form));
        }
        let told = form.whole(&reply, &form.facts(&account)).to_string();
        account.passed(told.len());
        account.settle(Outcome::Succeeded, None);
        let kind = [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))];
        let mut response = (kind, told).into_response();
        account.tell_cost(response.headers_mut());
        Ok(response)
    }

    fn stream(
        &self,
        upstream: Option<reqwest::Body>,
        operation: Operation,
        waiting: VecDeque<Event>,
        account: Account,
        mut form: Form,
    ) -> Response {
        let telling = Telling {
            live: Live {
                upstream,
                decoder: Decoder::new(operation),
                account,
                idle: self.timeouts.idle,
                stop: self.stop.clone(),
                waiting,
                received: 0,
            },
            encoder: form.encoder(),
            form,
        };
        let chunks = futures::stream::unfold(telling, |mut telling| async move {
            let chunk = telling.next().await?;
            Some((Ok::<_, std::convert::Infallible>(chunk), telling))
        });
        let headers = [
            (header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8")),
            (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
            // A proxy before us must not gather what we pass on at once.
            (header::HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")),
        ];
        (headers, Body::from_stream(chunks)).into_response()
    }
}

/// A stream that is being told in another form.
struct Telling {
    live: Live,
    encoder: Encoder,
    form: Form,
}

impl Telling {
    /// All that can be told now, in one piece.
    async fn next(&mut self) -> Option<Bytes> {
        let mut out = BytesMut::new();
        // What comes may say nothing in the other form.
        while out.is_empty() {
            let mut next = Some(self.live.next().await?);
            while let Some(event) = next {
                self.tell(event, &mut out);
                next = self.live.at_hand();
            }
        }
        Some(out.freeze())
    }

    fn tell(&mut self, event: Event, out: &mut BytesMut) {
        let end = match &event {
            Event::Finished { .. } => Some((Outcome::Succeeded, None)),
            Event::Failed(failure) => Some((Outcome::Failed, Some(failure.code))),
            _ => None,
        };
        let before = out.len();
        self.encoder.event(event, &self.form.facts(&self.live.account), out);
        self.live.account.passed(out.len() - before);
        if let Some((outcome, code)) = end {
            self.live.account.finish();
            self.live.account.settle(outcome, code);
        }
    }
}

/// A provider's refusal in the client's form, with its status and what it says of trying again.
fn refusal(
    surface: Operation,
    provider: &Provider,
    parts: &Parts,
    told: &[u8],
    mut meter: Meter,
    info: &RequestInfo,
) -> Response {
    let (message, code) = said(told);
    let status = parts.status;
    let message = message.filter(|message| !message.is_empty()).unwrap_or_else(|| {
        format!("the provider `{}` answered with {}", provider.name, status.as_u16())
    });
    // Each wire has words of its own.
    let code = match code.as_deref() {
        Some("rate_limit_error") => "rate_limit_exceeded",
        Some("not_found_error") if status == StatusCode::NOT_FOUND => "model_not_found",
        Some("overloaded_error") => "overloaded",
        Some(code) => code,
        None => "upstream_error",
    };
    let body = surface.dialect().error_body(status, code, &message, &info.id).to_string();
    meter.passed(body.len());
    let mut response = Response::new(Body::from(body));
    meter.tell(response.headers_mut());
    meter.end(Outcome::Failed, Some("upstream_error"));
    // Anything but an error would be taken for a reply.
    let is_error = status.is_client_error() || status.is_server_error();
    *response.status_mut() = if is_error { status } else { StatusCode::BAD_GATEWAY };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    for name in ["retry-after", "retry-after-ms", "x-should-retry"] {
        if let Some(value) = parts.headers.get(name) {
            headers.insert(name, value.clone());
        }
    }
    with_id(surface, upstream_id(&parts.headers), headers);
    response
}

/// The message and the code in an error's body, whichever wire it is of.
pub(crate) fn said(told: &[u8]) -> (Option<String>, Option<String>) {
    #[derive(Deserialize)]
    struct Told {
        error: Inner,
    }
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Inner {
        Object {
            message: Option<String>,
            code: Option<serde_json::Value>,
            #[serde(rename = "type")]
            kind: Option<String>,
        },
        Text(String),
    }
    match serde_json::from_slice::<Told>(told) {
        Ok(Told { error: Inner::Text(message) }) => (Some(message), None),
        Ok(Told { error: Inner::Object { message, code, kind } }) => {
            (message, code.and_then(|code| code.as_str().map(str::to_owned)).or(kind))
        }
        Err(_) => (None, None),
    }
}

/// By what the provider knows the request, where this wire's clients look for it.
fn with_id(surface: Operation, id: Option<String>, headers: &mut HeaderMap) {
    let name = match surface.dialect() {
        Dialect::Anthropic => "request-id",
        Dialect::OpenAi => "x-request-id",
    };
    if let Some(id) = id.and_then(|id| HeaderValue::from_str(&id).ok()) {
        headers.insert(name, id);
    }
}
