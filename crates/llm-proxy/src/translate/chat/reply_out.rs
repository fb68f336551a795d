//! A reply, put on OpenAI's chat completions wire: whole, and as its stream of chunks.
//!
//! Thinking is in `reasoning_content`, as many providers have it, and with what a provider knows it by
//! in `reasoning_details`, which a client sends back with the turn.

use std::borrow::Cow;

use bytes::{BufMut, BytesMut};
use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    dialect::Dialect,
    translate::{
        Facts,
        reply::{Block, Citation, Event, Finish, Kind, Reply},
        request::{Seal, Thought},
        set,
        thinking::to_encrypted,
    },
    usage::Usage,
};

pub(crate) fn whole(reply: &Reply, facts: &Facts<'_>) -> Value {
    let (mut text, mut refusal, mut thought) = (None::<String>, None::<String>, String::new());
    let (mut calls, mut details, mut cited) = (Vec::new(), Vec::new(), Vec::new());
    for block in &reply.blocks {
        match block {
            Block::Text(more, citations) => {
                let text = text.get_or_insert_default();
                cited.extend(annotations(citations, text.chars().count(), more.chars().count()));
                text.push_str(more);
            }
            Block::Refusal(more) => refusal.get_or_insert_default().push_str(more),
            // Reasoning of which nothing is shown and nothing can be sent back.
            Block::Thinking(Thought { text, seal: None }) if text.is_empty() => {}
            Block::Thinking(thinking) => {
                thought.push_str(&thinking.text);
                details.push(detail(details.len(), thinking));
            }
            Block::Call { id, name, arguments } => {
                let arguments = if arguments.is_empty() { "{}" } else { arguments };
                calls.push(json!({"id": id, "type": "function",
                    "function": {"name": name, "arguments": arguments}}));
            }
        }
    }
    let mut message =
        json!({"role": "assistant", "content": text, "refusal": refusal, "annotations": cited});
    if !calls.is_empty() {
        set(&mut message, "tool_calls", calls);
    }
    if !details.is_empty() {
        set(&mut message, "reasoning_content", thought);
        set(&mut message, "reasoning_details", details);
    }
    json!({
        "id": format!("chatcmpl-{}", facts.id(reply.id.as_deref())),
        "object": "chat.completion",
        "created": facts.now,
        "model": reply.model.as_deref().unwrap_or(facts.model),
        "choices": [{
            "index": 0,
            "message": message,
            "logprobs": null,
            "finish_reason": finish_reason(reply.finish(), reply.is_refusal()),
        }],
        "usage": usage(facts.usage),
    })
}

/// Where a text has it from that begins behind so many characters of the message and is so long.
fn annotations(citations: &[Citation], start: usize, len: usize) -> impl Iterator<Item = Value> {
    citations.iter().map(move |citation| {
        let span = citation.span(len);
        json!({"type": "url_citation", "url_citation": {"start_index": start + span.start,
            "end_index": start + span.end, "url": citation.url, "title": citation.title}})
    })
}

fn detail(index: usize, thought: &Thought<'_>) -> Value {
    let format = "anthropic-claude-v1";
    match &thought.seal {
        Some(Seal::Signature(signature)) => json!({"type": "reasoning.text", "index": index,
            "text": thought.text, "signature": signature, "format": format}),
        Some(Seal::Redacted(data)) => json!({"type": "reasoning.encrypted", "index": index,
            "data": data, "format": format}),
        Some(seal @ Seal::Encrypted { id, .. }) => json!({"type": "reasoning.encrypted",
            "index": index, "id": id, "summary": thought.text, "data": to_encrypted(seal),
            "format": "openai-responses-v1"}),
        Some(seal @ Seal::Google { .. }) => json!({"type": "reasoning.encrypted", "index": index,
            "summary": thought.text, "data": to_encrypted(seal), "format": "google-gemini-v1"}),
        None => json!({"type": "reasoning.text", "index": index, "text": thought.text}),
    }
}

/// The ends that only Anthropic knows are those of a reply that is not whole. A model that says itself
/// that it will not has come to its end.
fn finish_reason(finish: Finish, said_so: bool) -> &'static str {
    match finish {
        Finish::Refused if said_so => "stop",
        Finish::EndTurn | Finish::Stop => "stop",
        Finish::ToolUse => "tool_calls",
        Finish::MaxTokens | Finish::Paused | Finish::ContextFull => "length",
        Finish::Refused => "content_filter",
    }
}

/// All that was read, cached or not, is of the prompt on this wire. Null when nothing is known.
fn usage(usage: &Usage) -> Value {
    if usage.is_unknown() {
        return Value::Null;
    }
    let read = usage.cache_read.unwrap_or_default();
    let written = usage.cache_write().unwrap_or_default();
    let prompt = usage.input.unwrap_or_default() + read + written;
    let completion = usage.output.unwrap_or_default();
    json!({
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {
            "cached_tokens": read, "cache_write_tokens": written, "audio_tokens": 0,
        },
        "completion_tokens_details": {
            "reasoning_tokens": usage.reasoning.unwrap_or_default(),
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    })
}

#[derive(Serialize)]
struct Chunk<'a> {
    id: &'a str,
    object: &'static str,
    created: i64,
    model: &'a str,
    choices: &'a [Choice<'a>],
    /// Null in all chunks but the last one, when it was asked for; else absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Value>,
}

#[derive(Serialize)]
struct Choice<'a> {
    index: u8,
    delta: Delta<'a>,
    logprobs: Option<u8>,
    finish_reason: Option<&'static str>,
}

#[derive(Default, Serialize)]
struct Delta<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refusal: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_content: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_details: Option<[Value; 1]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    annotations: Option<Vec<Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_calls: Option<[Fragment<'a>; 1]>,
}

#[derive(Serialize)]
struct Fragment<'a> {
    index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    function: Function<'a>,
}

#[derive(Serialize)]
struct Function<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    arguments: &'a str,
}

pub(crate) struct Encoder {
    /// The client wants the chunk with usage.
    with_usage: bool,
    id: String,
    model: String,
    blocks: Vec<Slot>,
    /// The characters of the message's content.
    said: usize,
    calls: usize,
    thoughts: usize,
    /// The model says itself that it will not.
    refuses: bool,
}

enum Slot {
    /// From where in the message, how long, and where it is from, which is told at the end.
    Text {
        start: usize,
        len: usize,
        citations: Vec<Citation>,
    },
    Refusal,
    /// What it said is told again with its seal.
    Thinking {
        index: usize,
        text: String,
    },
    Call {
        index: usize,
        is_empty: bool,
    },
}

impl Encoder {
    pub(crate) fn new(with_usage: bool) -> Self {
        Self {
            with_usage,
            id: String::new(),
            model: String::new(),
            blocks: Vec::new(),
            said: 0,
            calls: 0,
            thoughts: 0,
            refuses: false,
        }
    }

    pub(crate) fn event(&mut self, event: Event, facts: &Facts<'_>, out: &mut BytesMut) {
        match event {
            Event::Start { id, model } => {
                self.start(id.as_deref(), model.as_deref(), facts);
                let delta =
                    Delta { role: Some("assistant"), content: Some("".into()), ..Delta::default() };
                self.chunk(delta, facts, out);
            }
            Event::Open { kind, .. } => self.open(kind, facts, out),
            Event::Delta { block, text } => self.delta(block, &text, facts, out),
            Event::Seal { block, seal } => {
                if let Some(Slot::Thinking { index, text }) = self.blocks.get_mut(block) {
                    let (index, text) = (*index, std::mem::take(text));
                    let thought = Thought { text: text.into(), seal: Some(seal) };
                    let detail = detail(index, &thought);
                    let delta = Delta { reasoning_details: Some([detail]), ..Delta::default() };
                    self.chunk(delta, facts, out);
                }
            }
            Event::Cite { block, citation } => {
                if let Some(Slot::Text { citations, .. }) = self.blocks.get_mut(block) {
                    citations.push(citation);
                }
            }
            Event::Close { block } => {
                // Arguments are JSON on this wire, also when there are none.
                if let Some(Slot::Call { index, is_empty: true }) = self.blocks.get(block) {
                    let delta = fragment(*index, "{}");
                    self.chunk(delta, facts, out);
                }
            }
            Event::Finished { finish, .. } => {
                self.start(None, None, facts);
                // All at once: OpenAI's SDK could not put several lists together.
                let mut cited = Vec::new();
                for slot in &self.blocks {
                    if let Slot::Text { start, len, citations } = slot {
                        cited.extend(annotations(citations, *start, *len));
                    }
                }
                if !cited.is_empty() {
                    let delta = Delta { annotations: Some(cited), ..Delta::default() };
                    self.chunk(delta, facts, out);
                }
                let otherwise = if self.calls > 0 { Finish::ToolUse } else { Finish::EndTurn };
                let reason = finish_reason(finish.unwrap_or(otherwise), self.refuses);
                self.write(Delta::default(), Some(reason), facts, out);
                if self.with_usage && !facts.usage.is_unknown() {
                    self.raw(&[], Some(usage(facts.usage)), facts, out);
                }
                out.extend_from_slice(b"data: [DONE]\n\n");
            }
            Event::Failed(failure) => {
                let status = failure.status();
                let error = Dialect::OpenAi.error_body(
                    status,
                    failure.code,
                    &failure.message,
                    facts.request_id,
                );
                frame(&error, out);
            }
        }
    }

    fn start(&mut self, id: Option<&str>, model: Option<&str>, facts: &Facts<'_>) {
        if self.id.is_empty() {
            self.id = format!("chatcmpl-{}", facts.id(id));
            model.unwrap_or(facts.model).clone_into(&mut self.model);
        }
    }

    fn open(&mut self, kind: Kind, facts: &Facts<'_>, out: &mut BytesMut) {
        let slot = match kind {
            Kind::Text => Slot::Text { start: self.said, len: 0, citations: Vec::new() },
            Kind::Refusal => {
                self.refuses = true;
                Slot::Refusal
            }
            Kind::Thinking => {
                self.thoughts += 1;
                Slot::Thinking { index: self.thoughts - 1, text: String::new() }
            }
            Kind::Call { id, name } => {
                let index = self.calls;
                self.calls += 1;
                let fragment = Fragment {
                    index,
                    id: Some(&id),
                    kind: Some("function"),
                    function: Function { name: Some(&name), arguments: "" },
                };
                let delta = Delta { tool_calls: Some([fragment]), ..Delta::default() };
                self.chunk(delta, facts, out);
                Slot::Call { index, is_empty: true }
            }
        };
        self.blocks.push(slot);
    }

    fn delta(&mut self, block: usize, text: &str, facts: &Facts<'_>, out: &mut BytesMut) {
        let delta = match self.blocks.get_mut(block) {
            None => return,
            Some(Slot::Text { len, .. }) => {
                let more = text.chars().count();
                (*len, self.said) = (*len + more, self.said + more);
                Delta { content: Some(text.into()), ..Delta::default() }
            }
            Some(Slot::Refusal) => Delta { refusal: Some(text.into()), ..Delta::default() },
            Some(Slot::Thinking { text: all, .. }) => {
                all.push_str(text);
                Delta { reasoning_content: Some(text.into()), ..Delta::default() }
            }
            Some(Slot::Call { index, is_empty }) => {
                *is_empty = false;
                fragment(*index, text)
            }
        };
        self.chunk(delta, facts, out);
    }

    fn chunk(&self, delta: Delta<'_>, facts: &Facts<'_>, out: &mut BytesMut) {
        self.write(delta, None, facts, out);
    }

    fn write(
        &self,
        delta: Delta<'_>,
        finish_reason: Option<&'static str>,
        facts: &Facts<'_>,
        out: &mut BytesMut,
    ) {
        let choice = Choice { index: 0, delta, logprobs: None, finish_reason };
        self.raw(&[choice], self.with_usage.then_some(Value::Null), facts, out);
    }

    fn raw(
        &self,
        choices: &[Choice<'_>],
        usage: Option<Value>,
        facts: &Facts<'_>,
        out: &mut BytesMut,
    ) {
        let chunk = Chunk {
            id: &self.id,
            object: "chat.completion.chunk",
            created: facts.now,
            model: &self.model,
            choices,
            usage,
        };
        frame(&chunk, out);
    }
}

fn fragment(index: usize, arguments: &str) -> Delta<'_> {
    let function = Function { name: None, arguments };
    let fragment = Fragment { index, id: None, kind: None, function };
    Delta { tool_calls: Some([fragment]), ..Delta::default() }
}

fn frame(data: &impl Serialize, out: &mut BytesMut) {
    out.extend_from_slice(b"data: ");
    drop(serde_json::to_writer((&mut *out).writer(), data));
    out.extend_from_slice(b"\n\n");
}
