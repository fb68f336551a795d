//! Replies on Gemini's wire. A whole reply and a piece of a stream have the same form, and a stream
//! ends without a word.
//! <https://cloud.google.com/vertex-ai/generative-ai/docs/reference/rest/v1/GenerateContentResponse>

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::translate::{
    reply::{Citation, Event, Failure, Finish, Kind, Reply},
    request::Seal,
};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Chunk {
    response_id: Option<String>,
    model_version: Option<String>,
    #[serde(default)]
    candidates: Vec<Candidate>,
    prompt_feedback: Option<Feedback>,
    error: Option<Told>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Candidate {
    content: Option<Content>,
    finish_reason: Option<String>,
    finish_message: Option<String>,
    #[serde(default)]
    index: u64,
    grounding_metadata: Option<Grounding>,
}

/// What Google found, and what in the texts is from which of it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Grounding {
    #[serde(default)]
    grounding_chunks: Vec<Found>,
    #[serde(default)]
    grounding_supports: Vec<Support>,
}

#[derive(Deserialize)]
struct Found {
    web: Option<Page>,
}

#[derive(Deserialize)]
struct Page {
    uri: Option<String>,
    title: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Support {
    segment: Option<Segment>,
    #[serde(default)]
    grounding_chunk_indices: Vec<usize>,
}

#[derive(Default, Deserialize)]
struct Segment {
    #[serde(default)]
    text: String,
}

#[derive(Deserialize)]
struct Content {
    #[serde(default)]
    parts: Vec<Part>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Part {
    text: Option<String>,
    #[serde(default)]
    thought: bool,
    thought_signature: Option<String>,
    function_call: Option<Call>,
}

#[derive(Deserialize)]
struct Call {
    #[serde(default)]
    name: String,
    args: Option<Box<RawValue>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Feedback {
    block_reason: Option<String>,
}

#[derive(Deserialize)]
struct Told {
    #[serde(default)]
    message: String,
    #[serde(default)]
    status: String,
}

/// # Errors
/// When it is not such a reply, or has nothing in it.
pub(crate) fn whole(body: &[u8]) -> Result<Reply, serde_json::Error> {
    let chunk: Chunk = serde_json::from_slice(body)?;
    let mut decoder = Decoder::default();
    let mut events = Vec::new();
    decoder.take(chunk, &mut events);
    decoder.at_end(&mut events);
    let mut reply = Reply::default();
    for event in &events {
        if let Event::Failed(failure) = event {
            return Err(serde::de::Error::custom(&failure.message));
        }
        reply.take(event);
    }
    Ok(reply)
}

/// Reads the payloads of a stream's events.
#[derive(Default)]
pub(crate) struct Decoder {
    started: bool,
    /// What makes the ids of calls, which have none here, those of this reply.
    own: String,
    blocks: usize,
    calls: usize,
    one_call: bool,
    /// The block of prose that is open.
    prose: Option<(usize, Kind)>,
    /// The texts by their blocks, in which what was found is to be placed.
    texts: Vec<(usize, String)>,
    grounding: Option<Grounding>,
    finish: Option<Finish>,
    ended: bool,
}

impl Decoder {
    pub(crate) fn of_one_call() -> Self {
        Self { one_call: true, ..Self::default() }
    }

    /// # Errors
    /// When it cannot be read.
    pub(crate) fn event(
        &mut self,
        data: &[u8],
        events: &mut Vec<Event>,
    ) -> Result<(), serde_json::Error> {
        if !data.is_empty() && !self.ended {
            let chunk = serde_json::from_slice::<Chunk>(data)?;
            self.take(chunk, events);
        }
        Ok(())
    }

    /// The stream is at its end.
    pub(crate) fn at_end(&mut self, events: &mut Vec<Event>) {
        if self.ended {
            return;
        }
        self.close_prose(events);
        self.cite(events);
        let Some(finish) = self.finish else {
            events.push(Event::Failed(Failure::incomplete()));
            return;
        };
        let finish =
            if finish == Finish::EndTurn && self.calls > 0 { Finish::ToolUse } else { finish };
        events.push(Event::Finished { finish: Some(finish), stop_sequence: None });
    }

    fn take(&mut self, chunk: Chunk, events: &mut Vec<Event>) {
        if let Some(told) = chunk.error {
            return self.fail(Failure::told(&told.status, &told.message), events);
        }
        if !std::mem::replace(&mut self.started, true) {
            let id = chunk.response_id.filter(|id| !id.is_empty());
            let known = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
            self.own = id.iter().flat_map(|id| id.chars()).filter(known).take(64).collect();
            let model = chunk.model_version.filter(|model| !model.is_empty());
            events.push(Event::Start { id, model });
        }
        // The prompt itself was kept from the model.
        if chunk.prompt_feedback.is_some_and(|feedback| feedback.block_reason.is_some()) {
            self.finish = Some(Finish::Refused);
        }
        for mut candidate in chunk.candidates.into_iter().filter(|candidate| candidate.index == 0) {
            // Told when the text ends, which may be with a part of this very piece.
            self.grounding = candidate.grounding_metadata.take().or(self.grounding.take());
            for part in candidate.content.into_iter().flat_map(|content| content.parts) {
                self.part(part, events);
            }
            let Some(reason) = candidate.finish_reason else { continue };
            match finish(&reason) {
                Some(finish) => self.finish = Some(finish),
                None => {
                    let message = candidate.finish_message.unwrap_or(reason);
                    return self.fail(Failure::told("", &message), events);
                }
            }
        }
    }

    fn fail(&mut self, failure: Failure, events: &mut Vec<Event>) {
        self.ended = true;
        events.push(Event::Failed(failure));
    }

    fn part(&mut self, part: Part, events: &mut Vec<Event>) {
        let signature = part.thought_signature.filter(|signature| !signature.is_empty());
        if let Some(call) = part.function_call {
            return self.call(call, signature, events);
        }
        // Neither text nor call: code that Google ran, or media, for which nobody asked.
        let Some(text) = part.text else { return };
        let kind = if part.thought { Kind::Thinking } else { Kind::Text };
        let is_thought = part.thought;
        if !text.is_empty() {
            self.say(kind, text, events);
        }
        if let Some(signature) = signature {
            if !is_thought {
                self.close_prose(events);
            }
            self.seal(None, signature, events);
        }
    }

    /// Gemini signs what comes of its thinking; others have a place for that on the thinking alone. So
    /// it is on the thinking that is being told, or on some without a text.
    fn seal(&mut self, call: Option<&str>, signature: String, events: &mut Vec<Event>) {
        if !matches!(self.prose, Some((_, Kind::Thinking))) {
            self.open(Kind::Thinking, events);
        }
        if let Some((block, _)) = self.prose {
            let call = call.map(|id| id.to_owned().into());
            let seal = Seal::Google { call, signature: signature.into() };
            events.push(Event::Seal { block, seal });
        }
        self.close_prose(events);
    }

    fn call(&mut self, call: Call, signature: Option<String>, events: &mut Vec<Event>) {
        if self.one_call && self.calls > 0 {
            return;
        }
        let id = format!("call_{}_{}", self.own, self.calls);
        self.calls += 1;
        if let Some(signature) = signature {
            self.seal(Some(&id), signature, events);
        }
        self.close_prose(events);
        let block = self.blocks;
        self.blocks += 1;
        let arguments = call.args.map(|args| args.get().to_owned());
        events.push(Event::Open { block, kind: Kind::Call { id, name: call.name } });
        if let Some(text) = arguments.filter(|args| args.starts_with('{') && args != "{}") {
            events.push(Event::Delta { block, text });
        }
        events.push(Event::Close { block });
    }

    fn say(&mut self, kind: Kind, text: String, events: &mut Vec<Event>) {
        let is_text = kind == Kind::Text;
        let block = match &self.prose {
            Some((block, open)) if *open == kind => *block,
            _ => self.open(kind, events),
        };
        if let Some((_, said)) = self.texts.last_mut().filter(|_| is_text) {
            said.push_str(&text);
        }
        events.push(Event::Delta { block, text });
    }

    fn open(&mut self, kind: Kind, events: &mut Vec<Event>) -> usize {
        self.close_prose(events);
        let block = self.blocks;
        self.blocks += 1;
        if kind == Kind::Text {
            self.texts.push((block, String::new()));
        }
        self.prose = Some((block, kind.clone()));
        events.push(Event::Open { block, kind });
        block
    }

    fn close_prose(&mut self, events: &mut Vec<Event>) {
        if let Some((block, kind)) = self.prose.take() {
            if kind == Kind::Text {
                self.cite(events);
            }
            events.push(Event::Close { block });
        }
    }

    /// The places that Google gives are in bytes, of a part or of the whole reply; the words that it
    /// gives with them tell which. What it does not place is about the last text.
    fn cite(&mut self, events: &mut Vec<Event>) {
        let (Some(grounding), Some((last, _))) = (self.grounding.take(), self.texts.last()) else {
            return;
        };
        let cite = |block, span, found: &Found| {
            let page = found.web.as_ref()?;
            let citation = Citation {
                url: page.uri.clone()?,
                title: page.title.clone().unwrap_or_default(),
                span,
            };
            Some(Event::Cite { block, citation })
        };
        let found = &grounding.grounding_chunks;
        if grounding.grounding_supports.is_empty() {
            events.extend(found.iter().filter_map(|found| cite(*last, None, found)));
        }
        for support in grounding.grounding_supports {
            let words = support.segment.unwrap_or_default().text;
            let place =
                self.texts.iter().filter(|_| !words.is_empty()).find_map(|(block, text)| {
                    let (before, _) = text.split_once(&words)?;
                    let start = before.chars().count();
                    Some((*block, start..start + words.chars().count()))
                });
            let (block, span) = place.map_or((*last, None), |(block, span)| (block, Some(span)));
            let indices = support.grounding_chunk_indices;
            let found = indices.into_iter().filter_map(|at| found.get(at));
            events.extend(found.filter_map(|found| cite(block, span.clone(), found)));
        }
    }
}

/// None: what the model said came to nothing, and it may be asked again.
fn finish(reason: &str) -> Option<Finish> {
    Some(match reason {
        "MAX_TOKENS" => Finish::MaxTokens,
        "SAFETY" | "RECITATION" | "BLOCKLIST" | "PROHIBITED_CONTENT" | "SPII" | "LANGUAGE"
        | "IMAGE_SAFETY" | "MODEL_ARMOR" => Finish::Refused,
        "MALFORMED_FUNCTION_CALL"
        | "UNEXPECTED_TOOL_CALL"
        | "TOO_MANY_TOOL_CALLS"
        | "MISSING_THOUGHT_SIGNATURE"
        | "MALFORMED_RESPONSE" => return None,
        _ => Finish::EndTurn,
    })
}
