//! Replies on OpenAI's responses wire, whole and streamed.
//! <https://platform.openai.com/docs/api-reference/responses-streaming>

use std::borrow::Cow;

use serde::Deserialize;

use crate::translate::{
    reply::{Block, Event, Failure, Finish, Kind, Reply},
    request::Thought,
    thinking::from_encrypted,
};

#[derive(Deserialize)]
struct Response {
    id: Option<String>,
    model: Option<String>,
    #[serde(default)]
    output: Vec<Item>,
    status: Option<String>,
    incomplete_details: Option<Incomplete>,
    error: Option<Told>,
}

#[derive(Deserialize)]
struct Incomplete {
    reason: Option<String>,
}

#[derive(Default, Deserialize)]
struct Told {
    code: Option<String>,
    message: Option<String>,
}

impl Told {
    fn failure(self) -> Failure {
        Failure::told(&self.code.unwrap_or_default(), &self.message.unwrap_or_default())
    }
}

#[derive(Deserialize)]
struct Item {
    #[serde(rename = "type")]
    kind: String,
    id: Option<String>,
    call_id: Option<String>,
    name: Option<String>,
    arguments: Option<String>,
    #[serde(default)]
    content: Option<Vec<Part>>,
    #[serde(default)]
    summary: Vec<Part>,
    encrypted_content: Option<String>,
}

#[derive(Default, Deserialize)]
struct Part {
    #[serde(rename = "type", default)]
    kind: String,
    text: Option<String>,
    refusal: Option<String>,
}

impl Item {
    /// What a client can be told of it in another form; what OpenAI's own tools did is none.
    fn blocks(self) -> Vec<Block> {
        match self.kind.as_str() {
            "message" => self.content.into_iter().flatten().filter_map(Part::block).collect(),
            "function_call" => vec![Block::Call {
                id: self.call_id.or(self.id).unwrap_or_default(),
                name: self.name.unwrap_or_default(),
                arguments: self.arguments.unwrap_or_default(),
            }],
            "reasoning" => {
                let shown = self.content.filter(|parts| !parts.is_empty()).unwrap_or(self.summary);
                let texts: Vec<String> = shown.into_iter().filter_map(|part| part.text).collect();
                let id = self.id.unwrap_or_default();
                vec![Block::Thinking(Thought {
                    text: texts.join("\n\n").into(),
                    seal: self
                        .encrypted_content
                        .map(|content| from_encrypted(id.into(), content.into())),
                })]
            }
            _ => Vec::new(),
        }
    }
}

impl Part {
    fn block(self) -> Option<Block> {
        match self.kind.as_str() {
            "output_text" => Some(Block::Text(self.text.unwrap_or_default(), Vec::new())),
            "refusal" => Some(Block::Refusal(self.refusal.unwrap_or_default())),
            _ => None,
        }
    }
}

/// # Errors
/// When it is not such a reply, or one of a failure.
pub(crate) fn whole(body: &[u8]) -> Result<Reply, serde_json::Error> {
    let response: Response = serde_json::from_slice(body)?;
    if response.status.is_none() || response.error.is_some() {
        return Err(serde::de::Error::custom("no status, or an error"));
    }
    let refused = response.output.iter().any(has_refusal);
    let calls = response.output.iter().any(|item| item.kind == "function_call");
    let finish = finish(response.incomplete_details, refused, calls);
    Ok(Reply {
        id: response.id,
        model: response.model,
        blocks: response.output.into_iter().flat_map(Item::blocks).collect(),
        finish: Some(finish),
        ..Reply::default()
    })
}

fn has_refusal(item: &Item) -> bool {
    item.content.iter().flatten().any(|part| part.kind == "refusal")
}

fn finish(incomplete: Option<Incomplete>, refused: bool, calls: bool) -> Finish {
    match incomplete.and_then(|details| details.reason).as_deref() {
        Some("content_filter") => Finish::Refused,
        Some(_) => Finish::MaxTokens,
        None if refused => Finish::Refused,
        None if calls => Finish::ToolUse,
        None => Finish::EndTurn,
    }
}

/// All that is looked at in any event but those with a whole response or item.
#[derive(Deserialize)]
struct Frame<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(default)]
    output_index: u64,
    #[serde(default)]
    content_index: u64,
    #[serde(default)]
    summary_index: u64,
    delta: Option<String>,
    text: Option<String>,
    arguments: Option<String>,
    part: Option<Part>,
    item: Option<Item>,
    response: Option<Response>,
    code: Option<String>,
    message: Option<String>,
    error: Option<Told>,
}

/// Reads the payloads of a stream's events.
#[derive(Default)]
pub(crate) struct Decoder {
    open: Vec<Slot>,
    blocks: usize,
    refused: bool,
    calls: bool,
}

/// An open block, by the places of its item and, of a message, of its part.
struct Slot {
    item: u64,
    part: Option<u64>,
    block: usize,
    said: bool,
    /// Of reasoning: the part of the summary that is being told.
    summary: u64,
}

impl Decoder {
    /// # Errors
    /// When it cannot be read.
    pub(crate) fn event(
        &mut self,
        data: &[u8],
        events: &mut Vec<Event>,
    ) -> Result<(), serde_json::Error> {
        // Chat's end, which some compatible providers send here too.
        if data.is_empty() || data == b"[DONE]" {
            return Ok(());
        }
        let frame: Frame<'_> = serde_json::from_slice(data)?;
        let item = frame.output_index;
        match &*frame.kind {
            "response.output_text.delta" | "response.refusal.delta" => {
                let part = Some(frame.content_index);
                if let Some(slot) = self.slot(item, part) {
                    say(slot, frame.delta, events);
                } else {
                    let kind = prose(frame.kind.contains("refusal"));
                    self.open(item, part, kind, frame.delta, events);
                }
            }
            "response.function_call_arguments.delta" => {
                if let Some(slot) = self.slot(item, None) {
                    say(slot, frame.delta, events);
                }
            }
            "response.function_call_arguments.done" => {
                if let Some(slot) = self.slot(item, None).filter(|slot| !slot.said) {
                    say(slot, frame.arguments, events);
                }
            }
            "response.reasoning_summary_text.delta" => {
                if let Some(slot) = self.slot(item, None) {
                    if slot.said && frame.summary_index != slot.summary {
                        say(slot, Some("\n\n".to_owned()), events);
                    }
                    slot.summary = frame.summary_index;
                    say(slot, frame.delta, events);
                }
            }
            "response.reasoning_text.delta" => {
                if let Some(slot) = self.slot(item, None) {
                    say(slot, frame.delta, events);
                }
            }
            "response.content_part.added" => {
                let Some(part) = frame.part else { return Ok(()) };
                let is_refusal = part.kind == "refusal";
                if is_refusal || part.kind == "output_text" {
                    let at = Some(frame.content_index);
                    self.open(item, at, prose(is_refusal), part.text.or(part.refusal), events);
                }
            }
            "response.output_text.done" => {
                let part = Some(frame.content_index);
                if let Some(slot) = self.slot(item, part).filter(|slot| !slot.said) {
                    say(slot, frame.text, events);
                }
            }
            "response.content_part.done" => {
                let part = frame.content_index;
                self.close(|slot| slot.item == item && slot.part == Some(part), events);
            }
            "response.output_item.added" => {
                if let Some(added) = frame.item {
                    self.added(item, added, events);
                }
            }
            "response.output_item.done" => {
                if let Some(done) = frame.item {
                    self.done(item, done, events);
                }
            }
            "response.created" => {
                let response = frame.response;
                let (id, model) = response.map(|r| (r.id, r.model)).unwrap_or_default();
                events.push(Event::Start { id, model });
            }
            "response.completed" | "response.incomplete" => {
                self.close(|_| true, events);
                let incomplete = frame.response.and_then(|response| response.incomplete_details);
                events.push(Event::Finished {
                    finish: Some(finish(incomplete, self.refused, self.calls)),
                    stop_sequence: None,
                });
            }
            "response.failed" => {
                let told = frame.response.and_then(|response| response.error).unwrap_or_default();
                events.push(Event::Failed(told.failure()));
            }
            "error" => {
                let told = frame.error.unwrap_or(Told { code: frame.code, message: frame.message });
                events.push(Event::Failed(told.failure()));
            }
            _ => {}
        }
        Ok(())
    }

    fn added(&mut self, at: u64, item: Item, events: &mut Vec<Event>) {
        match item.blocks().into_iter().next() {
            Some(Block::Call { id, name, arguments }) => {
                self.open(at, None, Kind::Call { id, name }, Some(arguments), events);
            }
            Some(Block::Thinking(_)) => {
                self.open(at, None, Kind::Thinking, None, events);
            }
            // The parts of a message are told one by one.
            _ => {}
        }
    }

    fn done(&mut self, at: u64, item: Item, events: &mut Vec<Event>) {
        if let Some(slot) = self.slot(at, None)
            && let Some(Block::Thinking(thought)) = item.blocks().into_iter().next()
        {
            if !slot.said {
                say(slot, Some(thought.text.into_owned()), events);
            }
            let block = slot.block;
            events.extend(thought.seal.map(|seal| Event::Seal { block, seal }));
        }
        self.close(|slot| slot.item == at, events);
    }

    fn slot(&mut self, item: u64, part: Option<u64>) -> Option<&mut Slot> {
        self.open.iter_mut().find(|slot| slot.item == item && slot.part == part)
    }

    fn open(
        &mut self,
        item: u64,
        part: Option<u64>,
        kind: Kind,
        text: Option<String>,
        events: &mut Vec<Event>,
    ) {
        let block = self.blocks;
        self.blocks += 1;
        self.refused |= kind == Kind::Refusal;
        self.calls |= matches!(kind, Kind::Call { .. });
        events.push(Event::Open { block, kind });
        let mut slot = Slot { item, part, block, said: false, summary: 0 };
        say(&mut slot, text, events);
        self.open.push(slot);
    }

    fn close(&mut self, which: impl Fn(&Slot) -> bool, events: &mut Vec<Event>) {
        for slot in self.open.extract_if(.., |slot| which(slot)) {
            events.push(Event::Close { block: slot.block });
        }
    }
}

fn prose(is_refusal: bool) -> Kind {
    if is_refusal { Kind::Refusal } else { Kind::Text }
}

fn say(slot: &mut Slot, text: Option<String>, events: &mut Vec<Event>) {
    if let Some(text) = text.filter(|text| !text.is_empty()) {
        slot.said = true;
        events.push(Event::Delta { block: slot.block, text });
    }
}
