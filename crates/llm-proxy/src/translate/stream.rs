//! The decoder of a provider's stream, and the encoder of a client's, whichever wire each is on.

use axum::http::StatusCode;
use bytes::BytesMut;
use serde::Deserialize;

use super::{
    Facts, anthropic, chat, gemini,
    reply::{Event, Failure, Reply},
    responses,
};
use crate::{dialect::Operation, scan::DataLines};

/// Reads a stream in any pieces. Its last event is one `Finished` or `Failed`.
pub(crate) struct Decoder {
    lines: DataLines,
    wire: Wire,
    ended: bool,
}

enum Wire {
    Anthropic(anthropic::reply_in::Decoder),
    Chat(chat::reply_in::Decoder),
    Responses(responses::reply_in::Decoder),
    Gemini(gemini::reply_in::Decoder),
}

impl Wire {
    fn event(&mut self, data: &[u8], events: &mut Vec<Event>) -> Result<(), serde_json::Error> {
        match self {
            Self::Anthropic(decoder) => decoder.event(data, events),
            Self::Chat(decoder) => decoder.event(data, events),
            Self::Responses(decoder) => decoder.event(data, events),
            Self::Gemini(decoder) => decoder.event(data, events),
        }
    }
}

impl Decoder {
    pub(crate) fn new(operation: Operation) -> Self {
        let wire = match operation {
            Operation::Messages | Operation::CountTokens => Wire::Anthropic(Default::default()),
            Operation::Chat | Operation::Embeddings => Wire::Chat(Default::default()),
            Operation::Responses | Operation::CountInput => Wire::Responses(Default::default()),
            Operation::GenerateContent | Operation::CountContents => {
                Wire::Gemini(Default::default())
            }
        };
        Self { lines: DataLines::default(), wire, ended: false }
    }

    /// Of a stream of Gemini's, which makes several calls at once also for a client that takes only
    /// one: the first is as good as all, for the others the model can make again.
    pub(crate) fn of_one_call() -> Self {
        let wire = Wire::Gemini(gemini::reply_in::Decoder::of_one_call());
        Self { lines: DataLines::default(), wire, ended: false }
    }

    pub(crate) fn feed(&mut self, data: &[u8]) -> Vec<Event> {
        let mut events = Vec::new();
        let (wire, ended) = (&mut self.wire, &mut self.ended);
        self.lines.feed(data, |line| {
            if *ended {
                return;
            }
            if wire.event(line.trim_ascii(), &mut events).is_err() {
                events.push(Event::Failed(Failure::unreadable()));
            }
            *ended = matches!(events.last(), Some(Event::Finished { .. } | Event::Failed(_)));
        });
        if self.lines.lost() && !self.ended {
            self.ended = true;
            events.push(Event::Failed(Failure::too_long()));
        }
        events
    }

    /// The stream is at its end.
    pub(crate) fn finish(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        if !std::mem::replace(&mut self.ended, true) {
            match &mut self.wire {
                Wire::Chat(decoder) => decoder.at_end(&mut events),
                Wire::Gemini(decoder) => decoder.at_end(&mut events),
                Wire::Anthropic(_) | Wire::Responses(_) => {
                    events.push(Event::Failed(Failure::incomplete()));
                }
            }
        }
        events
    }
}

/// A whole reply.
///
/// # Errors
/// When it is none.
pub(crate) fn whole(operation: Operation, body: &[u8]) -> Result<Reply, serde_json::Error> {
    match operation {
        Operation::Messages => anthropic::reply_in::whole(body),
        Operation::CountTokens | Operation::CountInput | Operation::CountContents => counted(body),
        Operation::Chat | Operation::Embeddings => chat::reply_in::whole(body),
        Operation::Responses => responses::reply_in::whole(body),
        Operation::GenerateContent => gemini::reply_in::whole(body),
    }
}

/// A count of tokens, of whichever provider.
fn counted(body: &[u8]) -> Result<Reply, serde_json::Error> {
    #[derive(Deserialize)]
    struct Counted {
        #[serde(alias = "totalTokens")]
        input_tokens: u64,
    }
    let Counted { input_tokens } = serde_json::from_slice(body)?;
    Ok(Reply { counted: Some(input_tokens), ..Reply::default() })
}

/// Tells a reply in a client's form.
pub(crate) enum Encoder {
    Anthropic(anthropic::reply_out::Encoder),
    Chat(chat::reply_out::Encoder),
    Responses(Box<responses::reply_stream::Encoder>),
}

impl Encoder {
    pub(crate) fn event(&mut self, event: Event, facts: &Facts<'_>, out: &mut BytesMut) {
        match self {
            Self::Anthropic(encoder) => encoder.event(event, facts, out),
            Self::Chat(encoder) => encoder.event(event, facts, out),
            Self::Responses(encoder) => encoder.event(event, facts, out),
        }
    }
}

impl Failure {
    /// What it would have been, had it come before the reply began.
    pub(crate) fn status(&self) -> StatusCode {
        match self.code {
            "unavailable" => StatusCode::SERVICE_UNAVAILABLE,
            "rate_limited" => StatusCode::TOO_MANY_REQUESTS,
            "invalid_request" => StatusCode::BAD_REQUEST,
            "upstream_timeout" => StatusCode::GATEWAY_TIMEOUT,
            _ => StatusCode::BAD_GATEWAY,
        }
    }
}
