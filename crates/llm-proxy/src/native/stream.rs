//! A provider's stream as our events: whatever it does, one `completed` or one `error` ends it.

use std::{collections::VecDeque, time::Duration};

use axum::response::sse;
use bytes::Bytes;
use http_body_util::BodyExt;
use loom_core::id::LlmRequestId;
use tokio_util::sync::CancellationToken;

use super::{
    draft::{Draft, Event, Failure},
    from_anthropic, from_openai,
    model::{Reply, StreamEvent},
};
use crate::{
    dialect::Dialect,
    ledger::{Meter, Outcome},
    observe::Observer,
};

/// A reply longer than this is none.
const MAX_REPLY: usize = 256 << 20;

/// Reads either wire.
pub(super) enum Decoder {
    Anthropic(from_anthropic::Decoder),
    OpenAi(from_openai::Decoder),
}

impl Decoder {
    pub(super) fn new(dialect: Dialect) -> Self {
        match dialect {
            Dialect::Anthropic => Self::Anthropic(from_anthropic::Decoder::default()),
            Dialect::OpenAi => Self::OpenAi(from_openai::Decoder::default()),
        }
    }

    pub(super) fn feed(&mut self, data: &[u8]) -> Vec<Event> {
        match self {
            Self::Anthropic(decoder) => decoder.feed(data),
            Self::OpenAi(decoder) => decoder.feed(data),
        }
    }

    pub(super) fn finish(&mut self) -> Vec<Event> {
        match self {
            Self::Anthropic(decoder) => decoder.finish(),
            Self::OpenAi(decoder) => decoder.finish(),
        }
    }
}

/// The account of one reply, with what it takes to tell its cost. Dropped before its end, the client
/// has left; what was seen until then counts.
pub(super) struct Account {
    meter: Option<Meter>,
    observer: Observer,
    id: LlmRequestId,
    asked: String,
}

impl Account {
    pub(super) fn new(meter: Meter, asked: String, observer: Observer) -> Self {
        Self { id: meter.id(), meter: Some(meter), observer, asked }
    }

    pub(super) fn see(&mut self, data: &Bytes) {
        self.observer.feed(data);
    }

    /// The reply, and its bytes on the account, which ends with it.
    pub(super) fn complete(&mut self, draft: Draft) -> Reply {
        self.observer.finish();
        let seen = &self.observer.seen;
        let cost = self.meter.as_mut().and_then(|meter| meter.saw(seen));
        let reply = draft.reply(self.id, &self.asked, &seen.usage, cost);
        let size = serde_json::to_vec(&reply).map_or(0, |json| json.len());
        self.settle(size, Outcome::Succeeded, None);
        reply
    }

    fn settle(&mut self, bytes: usize, outcome: Outcome, code: Option<&str>) {
        if let Some(mut meter) = self.meter.take() {
            meter.passed(bytes);
            meter.saw(&self.observer.seen);
            meter.end(outcome, code);
        }
    }

    /// Ends the account of a reply that came to nothing; the client gets this error instead.
    pub(super) fn fail(&mut self, error: &loom_core::Error) {
        if let Some(mut meter) = self.meter.take() {
            meter.saw(&self.observer.seen);
            meter.fail(error.status(), error.code());
        }
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        let complete = self.observer.seen.complete;
        let outcome = if complete { Outcome::Succeeded } else { Outcome::Cancelled };
        self.settle(0, outcome, None);
    }
}

/// A running stream.
pub(super) struct Live {
    /// None: at its end. Dropping it ends the request at the provider.
    pub(super) upstream: Option<reqwest::Body>,
    pub(super) decoder: Decoder,
    pub(super) account: Account,
    pub(super) idle: Duration,
    pub(super) stop: CancellationToken,
    pub(super) waiting: VecDeque<Event>,
    pub(super) received: usize,
}

impl Live {
    pub(super) fn events(self) -> impl futures::Stream<Item = sse::Event> + Send {
        futures::stream::unfold(self, |mut live| async move {
            let event = live.next().await?;
            Some((event, live))
        })
    }

    async fn next(&mut self) -> Option<sse::Event> {
        loop {
            if let Some(event) = self.waiting.pop_front() {
                return Some(self.told(event));
            }
            let upstream = self.upstream.as_mut()?;
            let more = tokio::select! {
                biased;
                () = self.stop.cancelled() => Err(Failure {
                    code: "unavailable",
                    message: "this server is going down".to_owned(),
                }),
                frame = tokio::time::timeout(self.idle, upstream.frame()) => match frame {
                    Ok(Some(Ok(frame))) => Ok(Some(frame)),
                    Ok(None) => Ok(None),
                    Ok(Some(Err(error))) => {
                        tracing::warn!(%error, "a provider broke off in the middle of its reply");
                        Err(Failure::upstream("the provider broke off in the middle of its reply"))
                    }
                    Err(_) => Err(Failure {
                        code: "upstream_timeout",
                        message: "the provider fell silent in the middle of its reply".to_owned(),
                    }),
                },
            };
            match more {
                Ok(Some(frame)) => {
                    let Ok(data) = frame.into_data() else { continue };
                    self.received = self.received.saturating_add(data.len());
                    if self.received > MAX_REPLY {
                        self.waiting.push_back(Event::Failed(Failure::too_long()));
                        continue;
                    }
                    self.account.see(&data);
                    self.waiting.extend(self.decoder.feed(&data));
                }
                Ok(None) => {
                    self.waiting.extend(self.decoder.finish());
                    self.upstream = None;
                }
                Err(failure) => {
                    self.waiting.push_back(Event::Failed(failure));
                    self.upstream = None;
                }
            }
        }
    }

    /// An event as the client gets it; the last one ends the stream and its account.
    fn told(&mut self, event: Event) -> sse::Event {
        let event = match event {
            Event::Text(content) => StreamEvent::TextDelta { content },
            Event::Thinking(content) => StreamEvent::ThinkingDelta { content },
            Event::ToolCall { id, name, fragment } => StreamEvent::ToolCallDelta {
                call_id: id,
                tool_name: name,
                arguments_fragment: fragment,
            },
            Event::Completed(draft) => {
                self.end();
                let response = Box::new(self.account.complete(*draft));
                return frame(&StreamEvent::Completed { response }).0;
            }
            Event::Failed(failure) => {
                self.end();
                let retry = matches!(failure.code, "unavailable" | "rate_limited");
                let event = StreamEvent::Error {
                    error: failure.code.to_owned(),
                    message: failure.message,
                    retry_after_secs: retry.then_some(5),
                };
                let (frame, size) = frame(&event);
                self.account.settle(size, Outcome::Failed, Some(failure.code));
                return frame;
            }
        };
        let (frame, size) = frame(&event);
        if let Some(meter) = &mut self.account.meter {
            meter.passed(size);
        }
        frame
    }

    fn end(&mut self) {
        self.upstream = None;
        self.waiting.clear();
    }
}

fn frame(event: &StreamEvent) -> (sse::Event, usize) {
    let json = serde_json::to_string(event).unwrap_or_default();
    let size = json.len();
    (sse::Event::default().event("llm").data(json), size)
}
