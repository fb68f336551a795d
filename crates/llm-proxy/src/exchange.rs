//! Asking a provider something that was put into its own terms, and reading what it says.

use std::sync::atomic::Ordering;

use axum::http::{HeaderMap, HeaderName, StatusCode, header, response::Parts};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use loom_core::{Error, Result};

use crate::{
    LlmProxy,
    dialect::{Dialect, Operation},
    forward::{Incoming, Outgoing, read_to},
    ledger::Meter,
    live::Account,
    pool::CALLERS,
    provider::Provider,
    translate::{
        anthropic,
        chat::{self, request_out::Manner},
        reply::Reply,
        request::Request,
        responses, stream,
    },
    translated::said,
};

/// A whole reply longer than this is none.
const MAX_REPLY: usize = 64 << 20;
const MAX_ERROR: usize = 256 << 10;
/// How a chat request ends that asks for usage.
const ASKS_FOR_USAGE: &[u8] = br#","stream_options":{"include_usage":true}}"#;

/// What a provider answers.
pub(crate) enum Answer {
    /// A success; its body is still on the way.
    Reply(Incoming),
    Refusal(Parts, Bytes),
}

/// The request on the provider's wire.
///
/// # Errors
/// 422 for what that wire cannot express.
pub(crate) fn wire(
    provider: &Provider,
    operation: Operation,
    request: &Request<'_>,
) -> Result<Bytes> {
    match operation {
        Operation::Messages | Operation::CountTokens => anthropic::request_out::body(request),
        Operation::Responses => responses::request_out::body(request),
        Operation::Chat | Operation::Embeddings => {
            let counted = !provider.refuses_stream_options.load(Ordering::Relaxed);
            chat::request_out::body(request, Manner { counted, vendor: provider.is_openai() })
        }
    }
}

impl LlmProxy {
    /// # Errors
    /// As [`LlmProxy::send`].
    pub(crate) async fn ask(
        &self,
        provider: &Provider,
        operation: Operation,
        from: &HeaderMap,
        body: Bytes,
        meter: &mut Meter,
    ) -> Result<Answer> {
        let headers = along(from);
        let outgoing =
            |body: Bytes| Outgoing { provider, operation, headers: &headers, query: None, body };
        let plain = body.strip_suffix(ASKS_FOR_USAGE).map(|rest| [rest, b"}"].concat());
        let answer = self.noted(self.send(outgoing(body), meter).await?, meter).await;
        if let (Answer::Refusal(parts, told), Some(plain)) = (&answer, plain)
            && parts.status == StatusCode::BAD_REQUEST
            && memchr::memmem::find(told, b"stream_options").is_some()
        {
            let again = self.send(outgoing(plain.into()), meter).await?;
            let again = self.noted(again, meter).await;
            if matches!(again, Answer::Reply(_)) {
                // Only now is it known that they were the fault, and not a word in the request.
                provider.note_refusal_of_stream_options();
            }
            return Ok(again);
        }
        Ok(answer)
    }

    /// Writes down that the provider answered; the status is what the client gets, unless it gets an
    /// error of ours.
    async fn noted(&self, answer: Incoming, meter: &mut Meter) -> Answer {
        meter.answered(answer.status(), upstream_id(answer.headers()));
        if answer.status().is_success() {
            return Answer::Reply(answer);
        }
        let (parts, body) = answer.into_parts();
        // Without waiting for it for long.
        let told = tokio::time::timeout(self.timeouts.idle, read_to(body, MAX_ERROR));
        Answer::Refusal(parts, told.await.unwrap_or_default())
    }

    /// All of a reply that is not streamed.
    ///
    /// # Errors
    /// 502 when it breaks off or cannot be read, 504 when it does not go on, 503 at the end of the
    /// server.
    pub(crate) async fn whole(
        &self,
        provider: &Provider,
        operation: Operation,
        mut body: reqwest::Body,
        account: &mut Account,
    ) -> Result<Reply> {
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
                Ok(None) => break,
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
        stream::whole(operation, &whole).map_err(|error| {
            // Some tell of an error with the status of a success.
            let what = match said(&whole) {
                (Some(message), _) => format!("failed: {}", loom_core::text::cut(&message, 2000)),
                (None, _) => "sent a reply that cannot be read".to_owned(),
            };
            broken(&what).because(error)
        })
    }
}

impl Provider {
    /// How it is asked what comes in another form: OpenAI itself by responses, which alone gives its
    /// reasoning back, but for what only chat takes: stop sequences, and the limit of a token or so
    /// by which some clients try whether they are let in.
    pub(crate) fn asked_by(&self, request: &Request<'_>) -> Operation {
        match self.dialect {
            Dialect::Anthropic => Operation::Messages,
            Dialect::OpenAi if self.is_openai() && responses::request_out::takes(request) => {
                Operation::Responses
            }
            Dialect::OpenAi => Operation::Chat,
        }
    }
}

/// The few headers of the client's that are meant for whoever answers in the end.
pub(crate) fn along(from: &HeaderMap) -> HeaderMap {
    let names = [
        // Sent to nobody; it chooses the credential.
        HeaderName::from_static(CALLERS),
        header::USER_AGENT,
        HeaderName::from_static("traceparent"),
        HeaderName::from_static("tracestate"),
    ];
    names
        .into_iter()
        .filter_map(|name| from.get(&name).map(|v| (name.clone(), v.clone())))
        .collect()
}

/// By what the provider knows a request.
pub(crate) fn upstream_id(headers: &HeaderMap) -> Option<String> {
    ["x-request-id", "request-id"]
        .iter()
        .find_map(|name| headers.get(*name)?.to_str().ok())
        .map(|id| loom_core::text::cut(id, 200).to_owned())
}

pub(crate) fn is_event_stream(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().to_ascii_lowercase().starts_with(b"text/event-stream"))
}
