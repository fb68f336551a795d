//! A request on one wire for a provider that speaks another.

use std::sync::Arc;

use axum::{
    body::Body,
    http::{HeaderMap, HeaderValue, header},
    response::{IntoResponse, Response},
};
use bytes::{Bytes, BytesMut};
use loom_core::Result;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::time::{Instant, timeout};

use crate::{
    LlmProxy,
    attempt::{Begun, Prepared, Way},
    dialect::{Dialect, Operation},
    exchange::{upstream_id, wire},
    frames::Surface,
    http::bad_request,
    ledger::Outcome,
    live::{Account, Live},
    provider::Target,
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
pub(crate) struct Form {
    surface: Operation,
    streamed: bool,
    /// Of a chat stream: the client asked for usage.
    with_usage: bool,
    /// The client takes one call at once, and the provider cannot be told so.
    one_call: bool,
    echo: Echo,
    request_id: Arc<str>,
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
            _ => Encoder::Chat(chat::reply_out::Encoder::new(self.with_usage)),
        }
    }

    fn whole(&self, reply: &Reply, facts: &Facts<'_>) -> serde_json::Value {
        match self.surface {
            Operation::CountTokens => serde_json::json!({"input_tokens": reply.counted}),
            Operation::Messages => anthropic::reply_out::whole(reply, facts),
            Operation::Responses => responses::reply_out::whole(reply, &self.echo, facts),
            _ => chat::reply_out::whole(reply, facts),
        }
    }
}

fn read<'a>(surface: Operation, body: &'a RawValue, faults: &mut Faults) -> Request<'a> {
    match surface {
        Operation::Messages | Operation::CountTokens => anthropic::request_in::read(body, faults),
        Operation::Responses => responses::request_in::read(body, faults),
        // The only other that has a surface.
        _ => chat::request_in::read(body, faults),
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

/// A request of one wire in the words of a provider of another.
///
/// # Errors
/// 422 for what cannot be told to the provider.
pub(crate) fn told(
    surface: Operation,
    body: &Bytes,
    target: &Target,
    request_id: &Arc<str>,
    now: i64,
) -> Result<Prepared> {
    let provider = &target.provider;
    let raw: &RawValue = serde_json::from_slice(body)
        .map_err(|error| bad_request(format!("the body is not valid JSON: {error}")))?;
    let mut faults = Faults::default();
    let mut request = read(surface, raw, &mut faults);
    faults.finish()?;
    if let Some(name) = &target.rename {
        request.model = name.as_str().into();
    }
    let mut form = Form {
        surface,
        streamed: request.stream,
        with_usage: false,
        one_call: false,
        echo: Echo::new(),
        request_id: Arc::clone(request_id),
        now,
    };
    match surface {
        Operation::Responses => form.echo = responses::request_in::echo(raw),
        _ => form.with_usage = wants_usage(raw),
    }
    let operation = match surface {
        Operation::CountTokens => provider.counted_by()?,
        _ => provider.asked_by(&request),
    };
    form.one_call =
        operation == Operation::GenerateContent && request.parallel_tools == Some(false);
    let body = wire(provider, operation, &request)?;
    Ok(Prepared { operation, body, plain: None, way: Way::Told(Some(Box::new(form))) })
}

impl LlmProxy {
    /// A reply that begins, in the client's form.
    pub(crate) fn tell(
        &self,
        mut begun: Begun,
        form: Form,
        mut account: Account,
        deadline: Instant,
    ) -> Response {
        let (surface, id) = (form.surface, upstream_id(&begun.parts.headers));
        let mut told = HeaderMap::new();
        account.tell(&mut told);
        let mut response = match begun.reply.take() {
            None => {
                let mut live = begun.live(self, account, deadline);
                if form.one_call {
                    live.decoder = Decoder::of_one_call();
                }
                self.stream(live, form)
            }
            Some(mut reply) => {
                if form.one_call {
                    reply.keep_one_call();
                }
                account.finish();
                account.tell_cost(&mut told);
                if form.streamed {
                    let mut live = begun.live(self, account, deadline);
                    live.waiting = reply.events().into();
                    live.upstream = None;
                    self.stream(live, form)
                } else {
                    let whole = form.whole(&reply, &form.facts(&account)).to_string();
                    account.passed(whole.len());
                    account.settle(Outcome::Succeeded, None);
                    let json = HeaderValue::from_static("application/json");
                    ([(header::CONTENT_TYPE, json)], whole).into_response()
                }
            }
        };
        response.headers_mut().extend(told);
        with_id(surface, id, response.headers_mut());
        response
    }

    fn stream(&self, live: Live, mut form: Form) -> Response {
        let keep_alive = self.timeouts.keep_alive;
        let telling = Telling { live, encoder: form.encoder(), form };
        let chunks = futures::stream::unfold(telling, move |mut telling| async move {
            let chunk = match timeout(keep_alive, telling.next()).await {
                Ok(chunk) => chunk?,
                Err(_) => Surface::Wire(telling.form.surface).keep_alive(),
            };
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
    /// All that can be told now, in one piece. Dropped while it waits, nothing is lost.
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

/// The message and the code in an error's body, whichever wire it is of.
pub(crate) fn said(told: &[u8]) -> (Option<String>, Option<String>) {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Any {
        /// As Google has it where a stream was asked for.
        First([Told; 1]),
        One(Told),
    }
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
            #[serde(rename = "type", alias = "status")]
            kind: Option<String>,
        },
        Text(String),
    }
    match serde_json::from_slice::<Any>(told) {
        Ok(Any::One(Told { error }) | Any::First([Told { error }])) => match error {
            Inner::Text(message) => (Some(message), None),
            Inner::Object { message, code, kind } => {
                (message, code.and_then(|code| code.as_str().map(str::to_owned)).or(kind))
            }
        },
        Err(_) => (None, None),
    }
}

/// By what the provider knows the request, where this wire's clients look for it.
pub(crate) fn with_id(surface: Operation, id: Option<String>, headers: &mut HeaderMap) {
    let name = match surface.dialect() {
        Dialect::Anthropic => "request-id",
        Dialect::OpenAi | Dialect::Gemini => "x-request-id",
    };
    if let Some(id) = id.and_then(|id| HeaderValue::from_str(&id).ok()) {
        headers.insert(name, id);
    }
}
