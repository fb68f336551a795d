//! Replies on Anthropic's Messages wire, whole and streamed.
//! <https://platform.claude.com/docs/en/api/messages-streaming>

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::translate::{
    reply::{Block, Citation, Event, Failure, Finish, Kind, Reply},
    request::{Seal, Thought},
    thinking::from_signature,
};

#[derive(Deserialize)]
struct Message<'a> {
    id: Option<String>,
    model: Option<String>,
    /// Always there, if only empty; without it, this is no reply.
    #[serde(borrow)]
    content: Vec<Content<'a>>,
    stop_reason: Option<String>,
    stop_sequence: Option<String>,
}

#[derive(Deserialize)]
struct Content<'a> {
    #[serde(rename = "type")]
    kind: String,
    text: Option<String>,
    citations: Option<Vec<Cited>>,
    thinking: Option<String>,
    signature: Option<String>,
    data: Option<String>,
    id: Option<String>,
    name: Option<String>,
    #[serde(borrow)]
    input: Option<&'a RawValue>,
}

/// What the text of a block is from: a page that was found, or a place in what the client sent, which
/// has no address.
#[derive(Deserialize)]
struct Cited {
    url: Option<String>,
    title: Option<String>,
}

impl Cited {
    fn citation(self) -> Option<Citation> {
        let url = self.url.filter(|url| !url.is_empty())?;
        Some(Citation { url, title: self.title.unwrap_or_default(), span: None })
    }
}

/// # Errors
/// When it is not such a reply.
pub(crate) fn whole(body: &[u8]) -> Result<Reply, serde_json::Error> {
    let message: Message<'_> = serde_json::from_slice(body)?;
    Ok(Reply {
        id: message.id,
        model: message.model,
        blocks: message.content.into_iter().filter_map(block).collect(),
        finish: message.stop_reason.as_deref().map(finish),
        stop_sequence: message.stop_sequence,
        ..Reply::default()
    })
}

/// What no other wire has a place for, as what a provider's own tools do, is none.
fn block(content: Content<'_>) -> Option<Block> {
    Some(match content.kind.as_str() {
        "text" => Block::Text(
            content.text.unwrap_or_default(),
            content.citations.into_iter().flatten().filter_map(Cited::citation).collect(),
        ),
        "thinking" => Block::Thinking(Thought {
            text: content.thinking.unwrap_or_default().into(),
            seal: content.signature.and_then(|signature| from_signature(signature.into())),
        }),
        "redacted_thinking" => Block::Thinking(Thought {
            text: "".into(),
            seal: content.data.map(|data| Seal::Redacted(data.into())),
        }),
        "tool_use" => Block::Call {
            id: content.id.unwrap_or_default(),
            name: content.name.unwrap_or_default(),
            arguments: content.input.map(|input| input.get().to_owned()).unwrap_or_default(),
        },
        _ => return None,
    })
}

fn finish(stop_reason: &str) -> Finish {
    match stop_reason {
        "tool_use" => Finish::ToolUse,
        "max_tokens" => Finish::MaxTokens,
        "model_context_window_exceeded" => Finish::ContextFull,
        "stop_sequence" => Finish::Stop,
        "refusal" => Finish::Refused,
        "pause_turn" => Finish::Paused,
        _ => Finish::EndTurn,
    }
}

#[derive(Deserialize)]
struct KindOnly<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
}

#[derive(Deserialize)]
struct MessageStart {
    message: StartedMessage,
}

#[derive(Deserialize)]
struct StartedMessage {
    id: Option<String>,
    model: Option<String>,
}

#[derive(Deserialize)]
struct BlockStart<'a> {
    index: u64,
    #[serde(borrow)]
    content_block: Content<'a>,
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
    citation: Option<Cited>,
}

#[derive(Deserialize)]
struct BlockStop {
    index: u64,
}

#[derive(Deserialize)]
struct MessageDelta {
    delta: Stop,
}

#[derive(Default, Deserialize)]
struct Stop {
    stop_reason: Option<String>,
    stop_sequence: Option<String>,
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

/// Reads the payloads of a stream's events.
#[derive(Default)]
pub(crate) struct Decoder {
    /// The blocks that are open, by their index on the wire.
    open: Vec<(u64, Slot)>,
    blocks: usize,
    stop: Stop,
}

enum Slot {
    Block {
        block: usize,
        signature: String,
    },
    /// Something that is left out.
    Other,
}

impl Decoder {
    /// # Errors
    /// When it cannot be read.
    pub(crate) fn event(
        &mut self,
        data: &[u8],
        events: &mut Vec<Event>,
    ) -> Result<(), serde_json::Error> {
        if data.is_empty() {
            return Ok(());
        }
        let kind = serde_json::from_slice::<KindOnly<'_>>(data)?.kind;
        match &*kind {
            "content_block_delta" => self.delta(serde_json::from_slice(data)?, events),
            "message_start" => {
                let StartedMessage { id, model } =
                    serde_json::from_slice::<MessageStart>(data)?.message;
                events.push(Event::Start { id, model });
            }
            "content_block_start" => self.start(serde_json::from_slice(data)?, events),
            "content_block_stop" => {
                let BlockStop { index } = serde_json::from_slice(data)?;
                self.close(|of| of == index, events);
            }
            "message_delta" => {
                let stop = serde_json::from_slice::<MessageDelta>(data)?.delta;
                if stop.stop_reason.is_some() {
                    self.stop = stop;
                }
            }
            "message_stop" => {
                self.close(|_| true, events);
                events.push(Event::Finished {
                    finish: self.stop.stop_reason.as_deref().map(finish),
                    stop_sequence: self.stop.stop_sequence.take(),
                });
            }
            "error" => {
                let told = serde_json::from_slice::<Failed>(data)?.error;
                events.push(Event::Failed(Failure::told(&told.kind, &told.message)));
            }
            _ => {}
        }
        Ok(())
    }

    fn start(&mut self, started: BlockStart<'_>, events: &mut Vec<Event>) {
        let Some(content) = block(started.content_block) else {
            self.open.push((started.index, Slot::Other));
            return;
        };
        let block = self.blocks;
        self.blocks += 1;
        let (mut signature, mut cited) = (String::new(), Vec::new());
        let (kind, text) = match content {
            Block::Text(text, citations) => {
                cited = citations;
                (Kind::Text, text)
            }
            Block::Refusal(text) => (Kind::Refusal, text),
            Block::Thinking(thought) => {
                match thought.seal {
                    Some(Seal::Signature(begun)) => signature = begun.into_owned(),
                    Some(seal) => {
                        events.push(Event::Open { block, kind: Kind::Thinking });
                        events.push(Event::Seal { block, seal });
                        self.open.push((started.index, Slot::Block { block, signature }));
                        return;
                    }
                    None => {}
                }
                (Kind::Thinking, thought.text.into_owned())
            }
            Block::Call { id, name, arguments } => {
                // It begins with an empty object, and the fragments follow.
                let is_empty =
                    arguments.bytes().all(|b| b == b'{' || b == b'}' || b.is_ascii_whitespace());
                (Kind::Call { id, name }, if is_empty { String::new() } else { arguments })
            }
        };
        events.push(Event::Open { block, kind });
        if !text.is_empty() {
            events.push(Event::Delta { block, text });
        }
        events.extend(cited.into_iter().map(|citation| Event::Cite { block, citation }));
        self.open.push((started.index, Slot::Block { block, signature }));
    }

    fn delta(&mut self, BlockDelta { index, delta }: BlockDelta, events: &mut Vec<Event>) {
        let Some((_, Slot::Block { block, signature })) =
            self.open.iter_mut().rev().find(|(of, _)| *of == index)
        else {
            return;
        };
        if let Some(more) = delta.signature {
            signature.push_str(&more);
        }
        if let Some(citation) = delta.citation.and_then(Cited::citation) {
            events.push(Event::Cite { block: *block, citation });
        }
        let text = delta.text.or(delta.thinking).or(delta.partial_json);
        if let Some(text) = text.filter(|text| !text.is_empty()) {
            events.push(Event::Delta { block: *block, text });
        }
    }

    fn close(&mut self, which: impl Fn(u64) -> bool, events: &mut Vec<Event>) {
        for (_, slot) in self.open.extract_if(.., |(index, _)| which(*index)) {
            let Slot::Block { block, signature } = slot else { continue };
            if let Some(seal) = from_signature(signature.into()) {
                events.push(Event::Seal { block, seal });
            }
            events.push(Event::Close { block });
        }
    }
}
