//! Replies on Anthropic's Messages wire, whole and streamed.
//! <https://platform.claude.com/docs/en/api/messages-streaming>

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    draft::{Call, Draft, Event, Failure},
    model::{FinishReason, ThinkingBlock},
};
use crate::scan::DataLines;

#[derive(Deserialize)]
struct Message<'a> {
    model: Option<String>,
    /// Always there, if only empty; without it, this is no reply.
    #[serde(borrow)]
    content: Vec<Block<'a>>,
    stop_reason: Option<String>,
}

#[derive(Deserialize)]
struct Block<'a> {
    #[serde(rename = "type")]
    kind: String,
    text: Option<String>,
    thinking: Option<String>,
    signature: Option<String>,
    data: Option<String>,
    id: Option<String>,
    name: Option<String>,
    #[serde(borrow)]
    input: Option<&'a RawValue>,
}

/// # Errors
/// When it is not such a reply.
pub(super) fn whole(body: &[u8]) -> Result<Draft, serde_json::Error> {
    let message: Message<'_> = serde_json::from_slice(body)?;
    let mut draft = Draft { model: message.model, ..Draft::default() };
    draft.finish = message.stop_reason.as_deref().map(finish_reason);
    for block in message.content {
        start(&mut draft, block);
    }
    Ok(draft)
}

fn finish_reason(stop_reason: &str) -> FinishReason {
    match stop_reason {
        "tool_use" => FinishReason::ToolUse,
        "max_tokens" | "model_context_window_exceeded" => FinishReason::MaxTokens,
        "stop_sequence" => FinishReason::Stop,
        "refusal" => FinishReason::ContentFilter,
        _ => FinishReason::EndTurn,
    }
}

/// What an open content block adds to.
#[derive(Clone, Copy)]
enum Slot {
    Text,
    /// The place of a block among the thinking.
    Thinking(usize),
    /// The place of a call.
    Call(usize),
    /// Something that this API has no place for, as what a provider's own tools do.
    Other,
}

/// Takes up a content block, or the beginning of one.
fn start(draft: &mut Draft, block: Block<'_>) -> Slot {
    match block.kind.as_str() {
        "text" => {
            draft.text.push_str(&block.text.unwrap_or_default());
            Slot::Text
        }
        "thinking" => {
            draft.thinking.push(ThinkingBlock {
                thinking: block.thinking.unwrap_or_default(),
                signature: block.signature.filter(|signature| !signature.is_empty()),
                redacted: None,
            });
            Slot::Thinking(draft.thinking.len() - 1)
        }
        "redacted_thinking" => {
            draft.thinking.push(ThinkingBlock { redacted: block.data, ..ThinkingBlock::default() });
            Slot::Other
        }
        "tool_use" => {
            // In a stream it begins with an empty object, and the fragments follow.
            let input = block.input.map(RawValue::get).unwrap_or_default();
            let is_empty = input.bytes().all(|b| b == b'{' || b == b'}' || b.is_ascii_whitespace());
            draft.calls.push(Call {
                id: block.id.unwrap_or_default(),
                name: block.name.unwrap_or_default(),
                arguments: if is_empty { String::new() } else { input.to_owned() },
            });
            Slot::Call(draft.calls.len() - 1)
        }
        _ => Slot::Other,
    }
}

#[derive(Deserialize)]
struct Kind<'a> {
    #[serde(rename = "type", borrow)]
    kind: std::borrow::Cow<'a, str>,
}

#[derive(Deserialize)]
struct MessageStart {
    message: StartedMessage,
}

#[derive(Deserialize)]
struct StartedMessage {
    model: Option<String>,
}

#[derive(Deserialize)]
struct BlockStart<'a> {
    index: u64,
    #[serde(borrow)]
    content_block: Block<'a>,
}

#[derive(Deserialize)]
struct BlockDelta {
    index: u64,
    delta: Delta,
}

#[derive(Deserialize)]
struct Delta {
    text: Option<String>,
    thinking: Option<String>,
    signature: Option<String>,
    partial_json: Option<String>,
}

#[derive(Deserialize)]
struct MessageDelta {
    delta: Stop,
}

#[derive(Deserialize)]
struct Stop {
    stop_reason: Option<String>,
}

#[derive(Deserialize)]
struct Failed {
    error: Told,
}

#[derive(Deserialize)]
struct Told {
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    message: String,
}

/// Reads a stream in any pieces.
#[derive(Default)]
pub(super) struct Decoder {
    lines: DataLines,
    state: State,
}

#[derive(Default)]
struct State {
    draft: Draft,
    /// The blocks by their index.
    slots: Vec<(u64, Slot)>,
    ended: bool,
}

impl Decoder {
    pub(super) fn feed(&mut self, data: &[u8]) -> Vec<Event> {
        let mut events = Vec::new();
        let state = &mut self.state;
        self.lines.feed(data, |line| state.line(line, &mut events));
        if self.lines.lost() && !self.state.ended {
            self.state.fail(Failure::too_long(), &mut events);
        }
        events
    }

    /// The stream is at its end.
    pub(super) fn finish(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        if !self.state.ended {
            self.state.fail(Failure::incomplete(), &mut events);
        }
        events
    }
}

impl State {
    fn fail(&mut self, failure: Failure, events: &mut Vec<Event>) {
        self.ended = true;
        events.push(Event::Failed(failure));
    }

    fn line(&mut self, line: &[u8], events: &mut Vec<Event>) {
        if self.ended || line.trim_ascii().is_empty() {
            return;
        }
        if self.event(line, events).is_err() {
            self.fail(Failure::unreadable(), events);
        }
    }

    fn event(&mut self, data: &[u8], events: &mut Vec<Event>) -> Result<(), serde_json::Error> {
        let kind = serde_json::from_slice::<Kind<'_>>(data)?.kind;
        match &*kind {
            "message_start" => {
                self.draft.model = serde_json::from_slice::<MessageStart>(data)?.message.model;
            }
            "content_block_start" => self.start(serde_json::from_slice(data)?, events),
            "content_block_delta" => self.delta(serde_json::from_slice(data)?, events),
            "message_delta" => {
                let stop = serde_json::from_slice::<MessageDelta>(data)?.delta.stop_reason;
                if let Some(reason) = stop {
                    self.draft.finish = Some(finish_reason(&reason));
                }
            }
            "message_stop" => {
                self.ended = true;
                events.push(Event::Completed(Box::new(std::mem::take(&mut self.draft))));
            }
            "error" => {
                let told = serde_json::from_slice::<Failed>(data)?.error;
                self.fail(Failure::told(&told.kind, &told.message), events);
            }
            _ => {}
        }
        Ok(())
    }

    fn start(&mut self, started: BlockStart<'_>, events: &mut Vec<Event>) {
        let text_before = self.draft.text.len();
        let slot = start(&mut self.draft, started.content_block);
        self.slots.push((started.index, slot));
        match slot {
            Slot::Text => {
                let text = self.draft.text.get(text_before..).unwrap_or_default();
                if !text.is_empty() {
                    events.push(Event::Text(text.to_owned()));
                }
            }
            Slot::Thinking(at) => {
                if let Some(block) = self.draft.thinking.get(at)
                    && !block.thinking.is_empty()
                {
                    events.push(Event::Thinking(block.thinking.clone()));
                }
            }
            // Told at once, with what it begins with: a client can show which tool it will be.
            Slot::Call(at) => events.extend(self.draft.calls.get(at).map(|call| Event::ToolCall {
                id: call.id.clone(),
                name: call.name.clone(),
                fragment: call.arguments.clone(),
            })),
            Slot::Other => {}
        }
    }

    fn delta(&mut self, BlockDelta { index, delta }: BlockDelta, events: &mut Vec<Event>) {
        let slot = self.slots.iter().rev().find(|(of, _)| *of == index).map(|(_, slot)| *slot);
        match slot {
            Some(Slot::Text) | None => {
                if let Some(text) = delta.text.filter(|text| !text.is_empty()) {
                    self.draft.text.push_str(&text);
                    events.push(Event::Text(text));
                }
            }
            Some(Slot::Thinking(at)) => {
                let Some(block) = self.draft.thinking.get_mut(at) else { return };
                if let Some(signature) = delta.signature {
                    block.signature.get_or_insert_default().push_str(&signature);
                }
                if let Some(thinking) = delta.thinking.filter(|text| !text.is_empty()) {
                    block.thinking.push_str(&thinking);
                    events.push(Event::Thinking(thinking));
                }
            }
            Some(Slot::Call(at)) => {
                let Some(call) = self.draft.calls.get_mut(at) else { return };
                if let Some(fragment) = delta.partial_json.filter(|text| !text.is_empty()) {
                    call.arguments.push_str(&fragment);
                    events.push(Event::ToolCall {
                        id: call.id.clone(),
                        name: call.name.clone(),
                        fragment,
                    });
                }
            }
            Some(Slot::Other) => {}
        }
    }
}
