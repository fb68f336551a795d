//! Replies on OpenAI's chat completions wire, whole and streamed, with the liberties that the
//! compatible providers take.
//! <https://platform.openai.com/docs/api-reference/chat-streaming>

use serde::Deserialize;
use serde_json::Value;

use super::{
    draft::{Call, Draft, Event, Failure},
    model::FinishReason,
};
use crate::scan::DataLines;

/// A whole reply, or a chunk of one.
#[derive(Deserialize)]
struct Chunk {
    model: Option<String>,
    #[serde(default)]
    choices: Vec<Choice>,
    error: Option<Value>,
}

#[derive(Deserialize)]
struct Choice {
    #[serde(default)]
    index: u64,
    #[serde(alias = "message")]
    delta: Option<Delta>,
    finish_reason: Option<String>,
}

#[derive(Default, Deserialize)]
struct Delta {
    content: Option<Value>,
    /// Two names for the same, by different providers.
    reasoning_content: Option<Value>,
    reasoning: Option<Value>,
    refusal: Option<String>,
    tool_calls: Option<Vec<Fragment>>,
}

#[derive(Deserialize)]
struct Fragment {
    index: Option<u64>,
    id: Option<String>,
    function: Option<Function>,
}

#[derive(Default, Deserialize)]
struct Function {
    name: Option<String>,
    arguments: Option<Value>,
}

fn finish_reason(reason: &str) -> FinishReason {
    match reason {
        "length" => FinishReason::MaxTokens,
        "tool_calls" | "function_call" => FinishReason::ToolUse,
        "content_filter" => FinishReason::ContentFilter,
        _ => FinishReason::EndTurn,
    }
}

/// The text in a member that is a string, or a list of parts with texts.
fn text(value: Option<Value>) -> Option<String> {
    let text = match value? {
        Value::String(text) => text,
        Value::Array(parts) => {
            parts.iter().filter_map(|part| part.get("text").and_then(Value::as_str)).collect()
        }
        _ => return None,
    };
    (!text.is_empty()).then_some(text)
}

/// Arguments are text with JSON in it; some providers send the JSON itself.
fn arguments(value: Option<Value>) -> String {
    match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text,
        Some(other) => other.to_string(),
    }
}

/// # Errors
/// When it is not such a reply, or has nothing in it.
pub(super) fn whole(body: &[u8]) -> Result<Draft, serde_json::Error> {
    let chunk: Chunk = serde_json::from_slice(body)?;
    let failed = chunk.error.as_ref().is_some_and(|error| !error.is_null());
    if failed || chunk.choices.is_empty() {
        return Err(serde::de::Error::custom("no choices, or an error"));
    }
    let mut state = State::default();
    state.take(chunk, &mut Vec::new());
    Ok(state.finished())
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
    /// The index of each call of the draft.
    indices: Vec<u64>,
    refused: bool,
    /// A reason for the end was told; only usage may follow.
    stopped: bool,
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

    /// The stream is at its end. Some providers send no `[DONE]`; a reason for the end is as good.
    pub(super) fn finish(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        if self.state.ended {
        } else if self.state.stopped {
            self.state.complete(&mut events);
        } else {
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

    fn complete(&mut self, events: &mut Vec<Event>) {
        self.ended = true;
        events.push(Event::Completed(Box::new(self.finished())));
    }

    fn finished(&mut self) -> Draft {
        let mut draft = std::mem::take(&mut self.draft);
        if self.refused {
            draft.finish = Some(FinishReason::ContentFilter);
        } else if draft.finish == Some(FinishReason::EndTurn) && !draft.calls.is_empty() {
            // Some providers, and OpenAI for a tool that it was told to call, say `stop`.
            draft.finish = Some(FinishReason::ToolUse);
        }
        draft
    }

    fn line(&mut self, line: &[u8], events: &mut Vec<Event>) {
        let line = line.trim_ascii();
        if self.ended || line.is_empty() {
            return;
        }
        if line == b"[DONE]" {
            self.complete(events);
            return;
        }
        match serde_json::from_slice::<Chunk>(line) {
            Ok(chunk) => self.take(chunk, events),
            Err(_) => self.fail(Failure::unreadable(), events),
        }
    }

    fn take(&mut self, chunk: Chunk, events: &mut Vec<Event>) {
        if let Some(error) = chunk.error.filter(|error| !error.is_null()) {
            let member = |name: &str| error.get(name).and_then(Value::as_str);
            let kind = member("code").or_else(|| member("type")).unwrap_or_default();
            let message = member("message").or(error.as_str()).unwrap_or_default();
            self.fail(Failure::told(kind, message), events);
            return;
        }
        if let Some(model) = chunk.model.filter(|model| !model.is_empty()) {
            self.draft.model = Some(model);
        }
        for choice in chunk.choices.into_iter().filter(|choice| choice.index == 0) {
            self.delta(choice.delta.unwrap_or_default(), events);
            if let Some(reason) = choice.finish_reason.filter(|reason| !reason.is_empty()) {
                self.draft.finish = Some(finish_reason(&reason));
                self.stopped = true;
            }
        }
    }

    fn delta(&mut self, delta: Delta, events: &mut Vec<Event>) {
        if let Some(thought) = text(delta.reasoning_content).or_else(|| text(delta.reasoning)) {
            self.draft.think(&thought);
            events.push(Event::Thinking(thought));
        }
        if let Some(text) = text(delta.content) {
            self.draft.text.push_str(&text);
            events.push(Event::Text(text));
        }
        if let Some(refusal) = delta.refusal.filter(|refusal| !refusal.is_empty()) {
            self.refused = true;
            self.draft.text.push_str(&refusal);
            events.push(Event::Text(refusal));
        }
        for (place, fragment) in (0..).zip(delta.tool_calls.into_iter().flatten()) {
            self.fragment(place, fragment, events);
        }
    }

    /// A call begins with an id; what has none belongs to the one of its index. Where a provider
    /// gives every call the same index, a new id tells them apart.
    fn fragment(&mut self, place: u64, fragment: Fragment, events: &mut Vec<Event>) {
        let index = fragment.index.unwrap_or(place);
        let id = fragment.id.filter(|id| !id.is_empty());
        let function = fragment.function.unwrap_or_default();
        let name = function.name.unwrap_or_default();
        let arguments = arguments(function.arguments);
        let known = self.indices.iter().rposition(|of| *of == index).filter(|at| {
            id.is_none()
                || self.draft.calls.get(*at).is_some_and(|call| Some(&call.id) == id.as_ref())
        });
        let at = known.unwrap_or_else(|| {
            let id = id.unwrap_or_else(|| format!("call_{}", self.draft.calls.len()));
            self.indices.push(index);
            self.draft.calls.push(Call { id, ..Call::default() });
            self.draft.calls.len() - 1
        });
        let Some(call) = self.draft.calls.get_mut(at) else { return };
        if call.name.is_empty() {
            call.name = name;
        }
        call.arguments.push_str(&arguments);
        if known.is_none() || !arguments.is_empty() {
            events.push(Event::ToolCall {
                id: call.id.clone(),
                name: call.name.clone(),
                fragment: arguments,
            });
        }
    }
}
