//! A reply as the stream of events of OpenAI's responses wire. Each block is an item of its own.

use bytes::BytesMut;
use serde::Serialize;
use serde_json::{Value, json};

use super::{
    reply_out::{annotations, item, item_id, part, response, status, summary, usage},
    request_in::Echo,
};
use crate::translate::{
    Facts,
    anthropic::reply_out::frame,
    reply::{Block, Event, Reply},
    set,
};

pub(crate) struct Encoder {
    echo: Echo,
    sequence: u64,
    started: bool,
    /// What makes the ids of this reply its own.
    own: String,
    model: String,
    reply: Reply,
    /// Of each block: how far it is told.
    told: Vec<Told>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Told {
    /// Its item, and of a text also its part.
    Added,
    /// Of reasoning: a part of its summary.
    Part,
    Done,
}

#[derive(Serialize)]
struct Delta<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    sequence_number: u64,
    item_id: &'a str,
    output_index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_index: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    summary_index: Option<u8>,
    delta: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    logprobs: Option<[u8; 0]>,
}

impl Encoder {
    pub(crate) fn new(echo: Echo) -> Self {
        Self {
            echo,
            sequence: 0,
            started: false,
            own: String::new(),
            model: String::new(),
            reply: Reply::default(),
            told: Vec::new(),
        }
    }

    pub(crate) fn event(&mut self, event: Event, facts: &Facts<'_>, out: &mut BytesMut) {
        self.reply.take(&event);
        match event {
            Event::Start { .. } => self.start(facts, out),
            Event::Open { block, .. } => {
                self.told.push(Told::Added);
                self.added(block, out);
            }
            Event::Delta { block, text } => self.delta(block, &text, out),
            // Told with the end of its item.
            Event::Seal { .. } | Event::Cite { .. } => {}
            Event::Close { block } => self.close(block, out),
            Event::Finished { .. } => {
                self.start(facts, out);
                for block in 0..self.told.len() {
                    self.close(block, out);
                }
                self.finished(facts, out);
            }
            Event::Failed(failure) => {
                let told = json!({"code": failure.code, "message": failure.message, "param": null});
                self.tell("error", told, out);
            }
        }
    }

    fn start(&mut self, facts: &Facts<'_>, out: &mut BytesMut) {
        if std::mem::replace(&mut self.started, true) {
            return;
        }
        self.own = facts.id(self.reply.id.as_deref()).into_owned();
        self.model = self.reply.model.clone().unwrap_or_else(|| facts.model.to_owned());
        let begun = response(&self.own, &self.model, &self.echo, facts);
        self.tell("response.created", json!({"response": begun}), out);
        self.tell("response.in_progress", json!({"response": begun}), out);
    }

    fn finished(&mut self, facts: &Facts<'_>, out: &mut BytesMut) {
        let (status, reason) = status(&self.reply);
        let mut whole = response(&self.own, &self.model, &self.echo, facts);
        set(&mut whole, "status", status);
        match reason {
            Some(reason) => set(&mut whole, "incomplete_details", json!({"reason": reason})),
            None => set(&mut whole, "completed_at", facts.now),
        }
        let blocks = self.reply.blocks.iter().enumerate();
        let items: Vec<Value> =
            blocks.map(|(at, block)| item(block, &self.own, at, Some("completed"))).collect();
        set(&mut whole, "output", items);
        set(&mut whole, "usage", usage(facts.usage));
        let kind = if reason.is_some() { "response.incomplete" } else { "response.completed" };
        self.tell(kind, json!({"response": whole}), out);
    }

    fn tell(&mut self, kind: &'static str, mut data: Value, out: &mut BytesMut) {
        set(&mut data, "type", kind);
        set(&mut data, "sequence_number", self.sequence);
        self.sequence += 1;
        frame(kind, &data, out);
    }

    /// The places of a block that an event about it names, and what the event says.
    fn about(&self, block: usize, mut data: Value) -> Value {
        if let Some(of) = self.reply.blocks.get(block) {
            set(&mut data, "item_id", item_id(of, &self.own, block));
            set(&mut data, "output_index", block);
            match of {
                Block::Text(..) | Block::Refusal(_) => set(&mut data, "content_index", 0),
                Block::Thinking(_) => set(&mut data, "summary_index", 0),
                Block::Call { .. } => {}
            }
        }
        data
    }

    fn added(&mut self, block: usize, out: &mut BytesMut) {
        let Some(of) = self.reply.blocks.get(block) else { return };
        let begun = item(of, &self.own, block, None);
        let is_prose = matches!(of, Block::Text(..) | Block::Refusal(_));
        let empty = part(of);
        let data = json!({"output_index": block, "item": begun});
        self.tell("response.output_item.added", data, out);
        if is_prose {
            let data = self.about(block, json!({"part": empty}));
            self.tell("response.content_part.added", data, out);
        }
    }

    fn delta(&mut self, block: usize, text: &str, out: &mut BytesMut) {
        let Some(of) = self.reply.blocks.get(block) else { return };
        if matches!(of, Block::Thinking(_)) && self.told.get(block) == Some(&Told::Added) {
            if let Some(told) = self.told.get_mut(block) {
                *told = Told::Part;
            }
            let data = self.about(block, json!({"part": summary("")}));
            self.tell("response.reasoning_summary_part.added", data, out);
        }
        let Some(of) = self.reply.blocks.get(block) else { return };
        let (kind, content, summary) = match of {
            Block::Text(..) => ("response.output_text.delta", Some(0), None),
            Block::Refusal(_) => ("response.refusal.delta", Some(0), None),
            Block::Thinking(_) => ("response.reasoning_summary_text.delta", None, Some(0)),
            Block::Call { .. } => ("response.function_call_arguments.delta", None, None),
        };
        let delta = Delta {
            kind,
            sequence_number: self.sequence,
            item_id: &item_id(of, &self.own, block),
            output_index: block,
            content_index: content,
            summary_index: summary,
            delta: text,
            logprobs: matches!(of, Block::Text(..)).then_some([]),
        };
        self.sequence += 1;
        frame(kind, &delta, out);
    }

    fn close(&mut self, block: usize, out: &mut BytesMut) {
        let Some(told) = self.told.get_mut(block) else { return };
        let told = std::mem::replace(told, Told::Done);
        let Some(of) = self.reply.blocks.get(block).filter(|_| told != Told::Done) else { return };
        let done = item(of, &self.own, block, Some("completed"));
        match of {
            Block::Text(text, _) => {
                let cited: Vec<Value> = annotations(of)
                    .into_iter()
                    .enumerate()
                    .map(|(at, annotation)| {
                        let data = json!({"annotation_index": at, "annotation": annotation});
                        self.about(block, data)
                    })
                    .collect();
                let text = self.about(block, json!({"text": text, "logprobs": []}));
                let part = self.about(block, json!({"part": part(of)}));
                for data in cited {
                    self.tell("response.output_text.annotation.added", data, out);
                }
                self.tell("response.output_text.done", text, out);
                self.tell("response.content_part.done", part, out);
            }
            Block::Refusal(text) => {
                let text = self.about(block, json!({"refusal": text}));
                let part = self.about(block, json!({"part": part(of)}));
                self.tell("response.refusal.done", text, out);
                self.tell("response.content_part.done", part, out);
            }
            Block::Thinking(thought) if told == Told::Part => {
                let text = self.about(block, json!({"text": thought.text}));
                let part = self.about(block, json!({"part": summary(&thought.text)}));
                self.tell("response.reasoning_summary_text.done", text, out);
                self.tell("response.reasoning_summary_part.done", part, out);
            }
            Block::Thinking(_) => {}
            Block::Call { name, .. } => {
                let data = json!({"arguments": done.get("arguments"), "name": name});
                let data = self.about(block, data);
                self.tell("response.function_call_arguments.done", data, out);
            }
        }
        self.tell("response.output_item.done", json!({"output_index": block, "item": done}), out);
    }
}
