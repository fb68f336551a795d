//! Replies on OpenAI's chat completions wire, whole and streamed, with the liberties that the
//! compatible providers take.
//! <https://platform.openai.com/docs/api-reference/chat-streaming>

use serde::{Deserialize, de::IgnoredAny};
use serde_json::Value;

use crate::translate::reply::{Citation, Event, Failure, Finish, Kind, Reply};

/// A whole reply, or a chunk of one.
#[derive(Deserialize)]
struct Chunk {
    id: Option<String>,
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
    content: Option<Said>,
    /// Two names for the same, by different providers.
    reasoning_content: Option<Said>,
    reasoning: Option<Said>,
    refusal: Option<String>,
    annotations: Option<Vec<Value>>,
    tool_calls: Option<Vec<Fragment>>,
}

/// A text, or a list of parts with texts.
#[derive(Deserialize)]
#[serde(untagged)]
enum Said {
    Text(String),
    Parts(Vec<Value>),
    Other(IgnoredAny),
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

fn finish(reason: &str) -> Finish {
    match reason {
        "length" => Finish::MaxTokens,
        "tool_calls" | "function_call" => Finish::ToolUse,
        "content_filter" => Finish::Refused,
        _ => Finish::EndTurn,
    }
}

fn text(said: Option<Said>) -> Option<String> {
    let text = match said? {
        Said::Text(text) => text,
        Said::Parts(parts) => {
            parts.iter().filter_map(|part| part.get("text").and_then(Value::as_str)).collect()
        }
        Said::Other(_) => return None,
    };
    (!text.is_empty()).then_some(text)
}

/// A page of the web that the message names; with the characters of the message that are from it.
fn citation(annotation: &Value) -> Option<Citation> {
    let cited = annotation.get("url_citation")?;
    let text = |name: &str| cited.get(name).and_then(Value::as_str).map(str::to_owned);
    let place = |name: &str| usize::try_from(cited.get(name)?.as_u64()?).ok();
    let span = place("start_index").zip(place("end_index")).map(|(start, end)| start..end);
    Some(Citation {
        url: text("url")?,
        title: text("title").unwrap_or_default(),
        span: span.filter(|span| span.start < span.end),
    })
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
pub(crate) fn whole(body: &[u8]) -> Result<Reply, serde_json::Error> {
    let chunk: Chunk = serde_json::from_slice(body)?;
    let failed = chunk.error.as_ref().is_some_and(|error| !error.is_null());
    if failed || chunk.choices.is_empty() {
        return Err(serde::de::Error::custom("no choices, or an error"));
    }
    let mut decoder = Decoder::default();
    let mut events = Vec::new();
    decoder.take(chunk, &mut events);
    decoder.complete(&mut events);
    let mut reply = Reply::default();
    for event in &events {
        reply.take(event);
    }
    Ok(reply)
}

/// Reads the payloads of a stream's events.
#[derive(Default)]
pub(crate) struct Decoder {
    started: bool,
    blocks: usize,
    /// The block of prose that is open.
    prose: Option<(usize, Kind)>,
    /// The last block of text, and the characters of the message before it and with it.
    text: Option<(usize, usize)>,
    said: usize,
    calls: Vec<Call>,
    refused: bool,
    finish: Option<Finish>,
}

/// A tool call that comes together.
struct Call {
    index: u64,
    id: String,
    name: String,
    arguments: String,
    /// None until its name is known.
    block: Option<usize>,
    closed: bool,
}

impl Decoder {
    /// # Errors
    /// When it cannot be read.
    pub(crate) fn event(
        &mut self,
        data: &[u8],
        events: &mut Vec<Event>,
    ) -> Result<(), serde_json::Error> {
        match data {
            b"" => {}
            b"[DONE]" => self.complete(events),
            data => {
                let chunk = serde_json::from_slice::<Chunk>(data)?;
                self.take(chunk, events);
            }
        }
        Ok(())
    }

    /// The stream is at its end. Some providers send no `[DONE]`; a reason for the end is as good.
    pub(crate) fn at_end(&mut self, events: &mut Vec<Event>) {
        if self.finish.is_some() {
            self.complete(events);
        } else {
            events.push(Event::Failed(Failure::incomplete()));
        }
    }

    fn complete(&mut self, events: &mut Vec<Event>) {
        self.close_prose(events);
        for call in &mut self.calls {
            open(call, &mut self.blocks, events);
            close(call, events);
        }
        let finish = match self.finish {
            _ if self.refused => Some(Finish::Refused),
            // Some providers, and OpenAI for a tool that it was told to call, say `stop`.
            Some(Finish::EndTurn) if !self.calls.is_empty() => Some(Finish::ToolUse),
            finish => finish,
        };
        events.push(Event::Finished { finish, stop_sequence: None });
    }

    fn take(&mut self, chunk: Chunk, events: &mut Vec<Event>) {
        if let Some(error) = chunk.error.filter(|error| !error.is_null()) {
            let member = |name: &str| error.get(name).and_then(Value::as_str);
            let kind = member("code").or_else(|| member("type")).unwrap_or_default();
            let message = member("message").or(error.as_str()).unwrap_or_default();
            events.push(Event::Failed(Failure::told(kind, message)));
            return;
        }
        if !std::mem::replace(&mut self.started, true) {
            let model = chunk.model.filter(|model| !model.is_empty());
            events.push(Event::Start { id: chunk.id, model });
        }
        for choice in chunk.choices.into_iter().filter(|choice| choice.index == 0) {
            self.delta(choice.delta.unwrap_or_default(), events);
            if let Some(reason) = choice.finish_reason.filter(|reason| !reason.is_empty()) {
                self.finish = Some(finish(&reason));
            }
        }
    }

    fn delta(&mut self, delta: Delta, events: &mut Vec<Event>) {
        if let Some(thought) = text(delta.reasoning_content).or_else(|| text(delta.reasoning)) {
            self.say(Kind::Thinking, thought, events);
        }
        if let Some(text) = text(delta.content) {
            self.say(Kind::Text, text, events);
        }
        if let Some(refusal) = delta.refusal.filter(|refusal| !refusal.is_empty()) {
            self.refused = true;
            self.say(Kind::Refusal, refusal, events);
        }
        for annotation in delta.annotations.into_iter().flatten() {
            let cited = self.text.zip(citation(&annotation));
            if let Some(((block, start), mut citation)) = cited {
                // What is about an earlier text is about all of this one, for want of a better place.
                citation.span = citation.span.filter(|span| span.start >= start);
                if let Some(span) = &mut citation.span {
                    (span.start, span.end) = (span.start - start, span.end - start);
                }
                events.push(Event::Cite { block, citation });
            }
        }
        for (place, fragment) in (0..).zip(delta.tool_calls.into_iter().flatten()) {
            self.close_prose(events);
            self.fragment(place, fragment, events);
        }
    }

    fn say(&mut self, kind: Kind, text: String, events: &mut Vec<Event>) {
        let is_text = kind == Kind::Text;
        if self.prose.as_ref().is_some_and(|(_, open)| *open != kind) {
            self.close_prose(events);
        }
        let block = match &self.prose {
            Some((block, _)) => *block,
            None => {
                let block = self.blocks;
                self.blocks += 1;
                self.prose = Some((block, kind.clone()));
                if is_text {
                    self.text = Some((block, self.said));
                }
                events.push(Event::Open { block, kind });
                block
            }
        };
        if is_text {
            self.said += text.chars().count();
        }
        events.push(Event::Delta { block, text });
    }

    fn close_prose(&mut self, events: &mut Vec<Event>) {
        if let Some((block, _)) = self.prose.take() {
            events.push(Event::Close { block });
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
        let known = self
            .calls
            .iter()
            .rposition(|call| call.index == index && id.as_ref().is_none_or(|id| call.id == *id));
        if known.is_none() {
            // Nothing can follow arguments that are whole.
            for call in &mut self.calls {
                if serde_json::from_str::<IgnoredAny>(&call.arguments).is_ok() {
                    open(call, &mut self.blocks, events);
                    close(call, events);
                }
            }
            let id = id.unwrap_or_else(|| format!("call_{}", self.calls.len()));
            self.calls.push(Call {
                index,
                id,
                name: String::new(),
                arguments: String::new(),
                block: None,
                closed: false,
            });
        }
        let at = known.unwrap_or(self.calls.len() - 1);
        let Some(call) = self.calls.get_mut(at).filter(|call| !call.closed) else { return };
        if call.name.is_empty() {
            call.name = name;
        }
        call.arguments.push_str(&arguments);
        match call.block {
            Some(block) if !arguments.is_empty() => {
                events.push(Event::Delta { block, text: arguments });
            }
            Some(_) => {}
            None if call.name.is_empty() => {}
            None => open(call, &mut self.blocks, events),
        }
    }
}

/// With what came until now.
fn open(call: &mut Call, blocks: &mut usize, events: &mut Vec<Event>) {
    if call.block.is_some() {
        return;
    }
    let block = *blocks;
    *blocks += 1;
    call.block = Some(block);
    let kind = Kind::Call { id: call.id.clone(), name: call.name.clone() };
    events.push(Event::Open { block, kind });
    if !call.arguments.is_empty() {
        events.push(Event::Delta { block, text: call.arguments.clone() });
    }
}

fn close(call: &mut Call, events: &mut Vec<Event>) {
    if let Some(block) = call.block
        && !std::mem::replace(&mut call.closed, true)
    {
        events.push(Event::Close { block });
    }
}
