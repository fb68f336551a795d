//! A reply, put on Anthropic's Messages wire: whole, and as its stream of events.

use std::borrow::Cow;

use bytes::{BufMut, BytesMut};
use serde::Serialize;
use serde_json::{
    Value, json,
    value::{RawValue, to_raw_value},
};

use crate::{
    translate::{
        Facts,
        reply::{Block, Event, Finish, Kind, Reply},
        request::{Seal, Thought},
        set,
        thinking::to_signature,
    },
    usage::Usage,
};

pub(crate) fn whole(reply: &Reply, facts: &Facts<'_>) -> Value {
    let content: Vec<Value> = reply.blocks.iter().filter_map(block).collect();
    let mut message = message(reply.id.as_deref(), reply.model.as_deref(), facts);
    set(&mut message, "content", content);
    set(&mut message, "stop_reason", stop_reason(reply.finish()));
    set(&mut message, "stop_sequence", reply.stop_sequence.clone());
    message
}

fn message(id: Option<&str>, model: Option<&str>, facts: &Facts<'_>) -> Value {
    json!({
        "id": format!("msg_{}", facts.id(id)),
        "type": "message",
        "role": "assistant",
        "model": model.unwrap_or(facts.model),
        "content": [],
        "stop_reason": null,
        "stop_sequence": null,
        "usage": usage(facts.usage),
    })
}

fn usage(usage: &Usage) -> Value {
    let mut told = json!({
        "input_tokens": usage.input.unwrap_or_default(),
        "output_tokens": usage.output.unwrap_or_default(),
        "cache_read_input_tokens": usage.cache_read.unwrap_or_default(),
        "cache_creation_input_tokens": usage.cache_write().unwrap_or_default(),
    });
    if let Some(thinking) = usage.reasoning.filter(|thinking| *thinking > 0) {
        set(&mut told, "output_tokens_details", json!({"thinking_tokens": thinking}));
    }
    if let Some(searches) = usage.web_searches.filter(|searches| *searches > 0) {
        set(&mut told, "server_tool_use", json!({"web_search_requests": searches}));
    }
    told
}

fn block(block: &Block) -> Option<Value> {
    Some(match block {
        // An empty text says nothing, and could not be sent back.
        Block::Text(text, _) | Block::Refusal(text) if text.is_empty() => return None,
        Block::Text(text, _) | Block::Refusal(text) => json!({"type": "text", "text": text}),
        // Reasoning of which nothing is shown and nothing can be sent back. Who did not ask for any
        // looks for the text in the first block.
        Block::Thinking(Thought { text, seal: None }) if text.is_empty() => return None,
        Block::Thinking(thought) => match &thought.seal {
            Some(Seal::Redacted(data)) => json!({"type": "redacted_thinking", "data": data}),
            seal => {
                let signature = seal.as_ref().and_then(to_signature).unwrap_or_default();
                json!({"type": "thinking", "thinking": thought.text, "signature": signature})
            }
        },
        Block::Call { id, name, arguments } => {
            json!({"type": "tool_use", "id": id, "name": name, "input": input(arguments)})
        }
    })
}

/// An object, as this wire wants it; what is none in the form that Anthropic advises for it.
fn input(arguments: &str) -> Box<RawValue> {
    let text = if arguments.trim().is_empty() { "{}" } else { arguments.trim() };
    match serde_json::from_str::<Box<RawValue>>(text) {
        Ok(object) if object.get().starts_with('{') => object,
        _ => to_raw_value(&json!({"INVALID_JSON": arguments}))
            .unwrap_or_else(|_| RawValue::NULL.to_owned()),
    }
}

fn stop_reason(finish: Finish) -> &'static str {
    match finish {
        Finish::EndTurn => "end_turn",
        Finish::ToolUse => "tool_use",
        Finish::MaxTokens => "max_tokens",
        Finish::Stop => "stop_sequence",
        Finish::Refused => "refusal",
        Finish::Paused => "pause_turn",
        Finish::ContextFull => "model_context_window_exceeded",
    }
}

#[derive(Serialize)]
struct DeltaEvent<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    index: usize,
    delta: Delta<'a>,
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[expect(clippy::enum_variant_names, reason = "the wire's own names")]
enum Delta<'a> {
    TextDelta { text: Cow<'a, str> },
    ThinkingDelta { thinking: Cow<'a, str> },
    SignatureDelta { signature: Cow<'a, str> },
    InputJsonDelta { partial_json: Cow<'a, str> },
}

/// On this wire one block follows another: what comes for a later one while an earlier one is open
/// waits for its end.
#[derive(Default)]
pub(crate) struct Encoder {
    started: bool,
    /// The block that is being told, among all of the reply.
    blocks: Vec<Held>,
    current: usize,
    /// Blocks as the client counts them: empty ones are left out.
    told: usize,
    calls: bool,
}

#[derive(Default)]
struct Held {
    kind: Option<Kind>,
    /// Its start has been told.
    open: bool,
    waiting: Vec<Event>,
    closed: bool,
}

impl Encoder {
    pub(crate) fn event(&mut self, event: Event, facts: &Facts<'_>, out: &mut BytesMut) {
        match event {
            Event::Start { id, model } => self.start(id.as_deref(), model.as_deref(), facts, out),
            Event::Open { kind, .. } => {
                self.calls |= matches!(kind, Kind::Call { .. });
                self.blocks.push(Held { kind: Some(kind), ..Held::default() });
                self.advance(out);
            }
            Event::Delta { block, .. } | Event::Seal { block, .. } if block != self.current => {
                if let Some(held) = self.blocks.get_mut(block) {
                    held.waiting.push(event);
                }
            }
            Event::Delta { .. } | Event::Seal { .. } => self.tell(event, out),
            // Citations of this wire can be sent back, and only Anthropic could vouch for them then.
            Event::Cite { .. } => {}
            Event::Close { block } => {
                if let Some(held) = self.blocks.get_mut(block) {
                    held.closed = true;
                }
                self.advance(out);
            }
            Event::Finished { finish, stop_sequence } => {
                self.start(None, None, facts, out);
                for held in &mut self.blocks {
                    held.closed = true;
                }
                self.advance(out);
                let otherwise = if self.calls { Finish::ToolUse } else { Finish::EndTurn };
                let reason = stop_reason(finish.unwrap_or(otherwise));
                let delta = json!({"type": "message_delta",
                    "delta": {"stop_reason": reason, "stop_sequence": stop_sequence},
                    "usage": usage(facts.usage)});
                frame("message_delta", &delta, out);
                frame("message_stop", &json!({"type": "message_stop"}), out);
            }
            Event::Failed(failure) => {
                let kind = match failure.code {
                    "unavailable" => "overloaded_error",
                    "rate_limited" => "rate_limit_error",
                    "invalid_request" => "invalid_request_error",
                    "upstream_timeout" => "timeout_error",
                    _ => "api_error",
                };
                let error = json!({"type": "error",
                    "error": {"type": kind, "message": failure.message},
                    "request_id": facts.request_id});
                frame("error", &error, out);
            }
        }
    }

    fn start(
        &mut self,
        id: Option<&str>,
        model: Option<&str>,
        facts: &Facts<'_>,
        out: &mut BytesMut,
    ) {
        if !std::mem::replace(&mut self.started, true) {
            // The account has more by now, or less, as the pieces came: all of it stands at the end.
            let none = Usage::default();
            let message = message(id, model, &Facts { usage: &none, ..*facts });
            frame("message_start", &json!({"type": "message_start", "message": message}), out);
        }
    }

    /// Tells what waits, as far as the blocks before it are at their end.
    fn advance(&mut self, out: &mut BytesMut) {
        while let Some(held) = self.blocks.get_mut(self.current) {
            let closed = held.closed;
            for event in std::mem::take(&mut held.waiting) {
                self.tell(event, out);
            }
            if !closed {
                return;
            }
            if let Some(held) = self.blocks.get_mut(self.current) {
                if !held.open && matches!(held.kind, Some(Kind::Call { .. })) {
                    self.open(None, out);
                }
                self.close(out);
            }
            self.current += 1;
        }
    }

    /// The start of the current block, which waits for the first that is in it: what is redacted
    /// begins otherwise than thinking.
    fn open(&mut self, redacted: Option<&str>, out: &mut BytesMut) {
        let index = self.told;
        let Some(held) = self.blocks.get_mut(self.current) else { return };
        if std::mem::replace(&mut held.open, true) {
            return;
        }
        let content = match (&held.kind, redacted) {
            (_, Some(data)) => json!({"type": "redacted_thinking", "data": data}),
            (Some(Kind::Thinking), None) => {
                json!({"type": "thinking", "thinking": "", "signature": ""})
            }
            (Some(Kind::Call { id, name }), None) => {
                json!({"type": "tool_use", "id": id, "name": name, "input": {}})
            }
            (Some(Kind::Text | Kind::Refusal) | None, None) => json!({"type": "text", "text": ""}),
        };
        let start =
            json!({"type": "content_block_start", "index": index, "content_block": content});
        frame("content_block_start", &start, out);
    }

    fn close(&mut self, out: &mut BytesMut) {
        let index = self.told;
        if self.blocks.get(self.current).is_some_and(|held| held.open) {
            self.told += 1;
            let stop = json!({"type": "content_block_stop", "index": index});
            frame("content_block_stop", &stop, out);
        }
    }

    /// Something of the current block.
    fn tell(&mut self, event: Event, out: &mut BytesMut) {
        let delta = match event {
            Event::Delta { text, .. } => {
                self.open(None, out);
                match self.blocks.get(self.current).and_then(|held| held.kind.as_ref()) {
                    Some(Kind::Thinking) => Delta::ThinkingDelta { thinking: text.into() },
                    Some(Kind::Call { .. }) => Delta::InputJsonDelta { partial_json: text.into() },
                    _ => Delta::TextDelta { text: text.into() },
                }
            }
            Event::Seal { seal: Seal::Redacted(data), .. } => {
                self.open(Some(&data), out);
                return;
            }
            Event::Seal { seal, .. } => {
                self.open(None, out);
                let Some(signature) = to_signature(&seal) else { return };
                Delta::SignatureDelta { signature: signature.into_owned().into() }
            }
            _ => return,
        };
        let event = DeltaEvent { kind: "content_block_delta", index: self.told, delta };
        frame("content_block_delta", &event, out);
    }
}

pub(crate) fn frame(name: &str, data: &impl Serialize, out: &mut BytesMut) {
    out.extend_from_slice(b"event: ");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\ndata: ");
    // Into memory, of what has no maps with odd keys: it does not fail.
    drop(serde_json::to_writer((&mut *out).writer(), data));
    out.extend_from_slice(b"\n\n");
}
