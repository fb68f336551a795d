//! A reply of a model, whichever wire it came by: whole, and as the events of a stream.

use std::ops::Range;

use super::request::{Seal, Thought};

/// Why a reply ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Finish {
    EndTurn,
    ToolUse,
    MaxTokens,
    /// One of the request's stop sequences.
    Stop,
    /// The model would not say it, or was kept from it.
    Refused,
    /// The provider stopped in the middle of a long turn, which goes on when it is asked again.
    Paused,
    /// There is no room for more in the model's context.
    ContextFull,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) id: Option<String>,
    pub(crate) model: Option<String>,
    pub(crate) blocks: Vec<Block>,
    pub(crate) finish: Option<Finish>,
    pub(crate) stop_sequence: Option<String>,
    /// It is no reply, but the count of a request's tokens.
    pub(crate) counted: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Block {
    /// With where it has it from.
    Text(String, Vec<Citation>),
    Refusal(String),
    Thinking(Thought<'static>),
    Call {
        id: String,
        name: String,
        arguments: String,
    },
}

/// A page of the web that something in a text is from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Citation {
    pub(crate) url: String,
    pub(crate) title: String,
    /// The characters of the block that it is about. None: all of them.
    pub(crate) span: Option<Range<usize>>,
}

impl Citation {
    /// What it is about in a text of this length.
    pub(crate) fn span(&self, len: usize) -> Range<usize> {
        match &self.span {
            Some(span) => span.start.min(len)..span.end.min(len),
            None => 0..len,
        }
    }
}

/// What a block of a stream will be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Text,
    Refusal,
    Thinking,
    Call { id: String, name: String },
}

/// What a decoder makes of a stream. Blocks are numbered in the order in which they open, from 0.
/// After `Finished` or `Failed` nothing comes any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    Start { id: Option<String>, model: Option<String> },
    Open { block: usize, kind: Kind },
    Delta { block: usize, text: String },
    Seal { block: usize, seal: Seal<'static> },
    Cite { block: usize, citation: Citation },
    Close { block: usize },
    Finished { finish: Option<Finish>, stop_sequence: Option<String> },
    Failed(Failure),
}

/// Why a stream went wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) code: &'static str,
    pub(crate) message: String,
}

impl Failure {
    pub(crate) fn upstream(message: impl Into<String>) -> Self {
        Self { code: "upstream_error", message: message.into() }
    }

    /// An event that the provider sent when something went wrong on its side.
    pub(crate) fn told(kind: &str, message: &str) -> Self {
        let code = match kind {
            "overloaded_error"
            | "server_is_overloaded"
            | "service_unavailable_error"
            | "UNAVAILABLE" => "unavailable",
            "rate_limit_error" | "rate_limit_exceeded" | "RESOURCE_EXHAUSTED" => "rate_limited",
            "invalid_request_error" | "INVALID_ARGUMENT" => "invalid_request",
            "timeout_error" | "DEADLINE_EXCEEDED" => "upstream_timeout",
            _ => "upstream_error",
        };
        let message = match message {
            "" => "the provider failed in the middle of its reply".to_owned(),
            told => format!(
                "the provider failed in the middle of its reply: {}",
                loom_core::text::cut(told, 2000)
            ),
        };
        Self { code, message }
    }

    pub(crate) fn too_long() -> Self {
        Self::upstream("the provider sent an event that is larger than this server takes")
    }

    pub(crate) fn unreadable() -> Self {
        Self::upstream("the provider sent an event that cannot be read")
    }

    pub(crate) fn incomplete() -> Self {
        Self::upstream("the provider ended its reply before it was complete")
    }
}

impl Block {
    pub(crate) fn new(kind: Kind) -> Self {
        match kind {
            Kind::Text => Self::Text(String::new(), Vec::new()),
            Kind::Refusal => Self::Refusal(String::new()),
            Kind::Thinking => Self::Thinking(Thought::default()),
            Kind::Call { id, name } => Self::Call { id, name, arguments: String::new() },
        }
    }

    fn kind(&self) -> Kind {
        match self {
            Self::Text(..) => Kind::Text,
            Self::Refusal(_) => Kind::Refusal,
            Self::Thinking(_) => Kind::Thinking,
            Self::Call { id, name, .. } => Kind::Call { id: id.clone(), name: name.clone() },
        }
    }

    pub(crate) fn push(&mut self, more: &str) {
        match self {
            Self::Text(text, _) | Self::Refusal(text) | Self::Call { arguments: text, .. } => {
                text.push_str(more);
            }
            Self::Thinking(thought) => thought.text.to_mut().push_str(more),
        }
    }

    pub(crate) fn text(&self) -> &str {
        match self {
            Self::Text(text, _) | Self::Refusal(text) | Self::Call { arguments: text, .. } => text,
            Self::Thinking(thought) => &thought.text,
        }
    }
}

impl Reply {
    /// Takes an event up into what came before it.
    pub(crate) fn take(&mut self, event: &Event) {
        match event {
            Event::Start { id, model } => {
                self.id.clone_from(id);
                self.model.clone_from(model);
            }
            Event::Open { kind, .. } => self.blocks.push(Block::new(kind.clone())),
            Event::Delta { block, text } => {
                if let Some(block) = self.blocks.get_mut(*block) {
                    block.push(text);
                }
            }
            Event::Seal { block, seal } => {
                if let Some(Block::Thinking(thought)) = self.blocks.get_mut(*block) {
                    thought.seal = Some(seal.clone());
                }
            }
            Event::Cite { block, citation } => {
                if let Some(Block::Text(_, citations)) = self.blocks.get_mut(*block) {
                    citations.push(citation.clone());
                }
            }
            Event::Finished { finish, stop_sequence } => {
                self.finish = *finish;
                self.stop_sequence.clone_from(stop_sequence);
            }
            Event::Close { .. } | Event::Failed(_) => {}
        }
    }

    /// The events of a reply that came whole.
    pub(crate) fn events(self) -> Vec<Event> {
        let mut events = vec![Event::Start { id: self.id, model: self.model }];
        for (block, of) in self.blocks.into_iter().enumerate() {
            events.push(Event::Open { block, kind: of.kind() });
            if !of.text().is_empty() {
                events.push(Event::Delta { block, text: of.text().to_owned() });
            }
            match of {
                Block::Thinking(Thought { seal: Some(seal), .. }) => {
                    events.push(Event::Seal { block, seal });
                }
                Block::Text(_, citations) => {
                    let cite = |citation| Event::Cite { block, citation };
                    events.extend(citations.into_iter().map(cite));
                }
                _ => {}
            }
            events.push(Event::Close { block });
        }
        events.push(Event::Finished { finish: self.finish, stop_sequence: self.stop_sequence });
        events
    }

    /// Leaves out all calls but the first.
    pub(crate) fn keep_one_call(&mut self) {
        let mut calls = 0;
        self.blocks.retain(|block| {
            calls += usize::from(matches!(block, Block::Call { .. }));
            !matches!(block, Block::Call { .. }) || calls == 1
        });
    }

    /// Does the model say itself that it will not?
    pub(crate) fn is_refusal(&self) -> bool {
        self.blocks.iter().any(|block| matches!(block, Block::Refusal(_)))
    }

    /// The reason for the end; where the provider told none, what it did.
    pub(crate) fn finish(&self) -> Finish {
        let calls = self.blocks.iter().any(|block| matches!(block, Block::Call { .. }));
        self.finish.unwrap_or(if calls { Finish::ToolUse } else { Finish::EndTurn })
    }
}
