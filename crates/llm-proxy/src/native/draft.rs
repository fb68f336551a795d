//! A reply as it comes together, whichever wire it comes by.

use loom_core::id::LlmRequestId;
use serde_json::value::{RawValue, to_raw_value};

use super::model::{FinishReason, Reply, ReplyMessage, ReplyUsage, Role, ThinkingBlock, ToolCall};
use crate::usage::Usage;

/// What a provider said until now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Draft {
    pub(super) model: Option<String>,
    pub(super) text: String,
    pub(super) thinking: Vec<ThinkingBlock>,
    pub(super) calls: Vec<Call>,
    pub(super) finish: Option<FinishReason>,
}

/// A tool call, its arguments still text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Call {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) arguments: String,
}

/// What a decoder makes of a stream. After `Completed` or `Failed` nothing comes any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Event {
    Text(String),
    Thinking(String),
    ToolCall { id: String, name: String, fragment: String },
    Completed(Box<Draft>),
    Failed(Failure),
}

/// Why a stream went wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) code: &'static str,
    pub(super) message: String,
}

impl Failure {
    pub(super) fn upstream(message: impl Into<String>) -> Self {
        Self { code: "upstream_error", message: message.into() }
    }

    /// An event that the provider sent when something went wrong on its side.
    pub(super) fn told(kind: &str, message: &str) -> Self {
        let code = match kind {
            "overloaded_error" | "server_is_overloaded" | "service_unavailable_error" => {
                "unavailable"
            }
            "rate_limit_error" | "rate_limit_exceeded" => "rate_limited",
            "invalid_request_error" => "invalid_request",
            "timeout_error" => "upstream_timeout",
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

    pub(super) fn too_long() -> Self {
        Self::upstream("the provider sent an event that is larger than this server takes")
    }

    pub(super) fn unreadable() -> Self {
        Self::upstream("the provider sent an event that cannot be read")
    }

    pub(super) fn incomplete() -> Self {
        Self::upstream("the provider ended its reply before it was complete")
    }
}

impl Draft {
    /// The reply with what the account knows. `cost` is in billionths of a dollar.
    #[expect(clippy::cast_precision_loss, reason = "a reply's cost is far below 2^53")]
    pub(super) fn reply(
        self,
        id: LlmRequestId,
        asked: &str,
        usage: &Usage,
        cost: Option<i64>,
    ) -> Reply {
        let thought = !self.thinking.is_empty();
        let thinking: String = self.thinking.iter().map(|block| block.thinking.as_str()).collect();
        let by_calls =
            if self.calls.is_empty() { FinishReason::EndTurn } else { FinishReason::ToolUse };
        Reply {
            id,
            model: self.model.unwrap_or_else(|| asked.to_owned()),
            message: ReplyMessage {
                role: Role::Assistant,
                content: self.text,
                thinking: (!thinking.is_empty()).then_some(thinking),
                thinking_blocks: self.thinking,
            },
            tool_calls: self.calls.into_iter().map(Call::whole).collect(),
            usage: counted(usage, thought),
            cost_usd: cost.map(|nano| nano as f64 / 1e9),
            finish_reason: self.finish.unwrap_or(by_calls),
        }
    }

    /// Adds thinking to the last block that is not closed by its signature.
    pub(super) fn think(&mut self, text: &str) {
        match self.thinking.last_mut() {
            Some(block) if block.signature.is_none() && block.redacted.is_none() => {
                block.thinking.push_str(text);
            }
            _ => self
                .thinking
                .push(ThinkingBlock { thinking: text.to_owned(), ..ThinkingBlock::default() }),
        }
    }
}

impl Call {
    fn whole(self) -> ToolCall {
        ToolCall { id: self.id, tool_name: self.name, arguments_json: arguments(self.arguments) }
    }
}

/// The arguments as the value that they are; as a string when they are not JSON.
pub(super) fn arguments(text: String) -> Box<RawValue> {
    let text = if text.trim().is_empty() { "{}".to_owned() } else { text };
    // Anything but whole JSON stays text; so does what a client could not read.
    let readable = serde_json::from_str::<serde_json::Value>(&text).is_ok();
    let raw = || to_raw_value(&text).unwrap_or_else(|_| RawValue::NULL.to_owned());
    if !readable {
        return raw();
    }
    RawValue::from_string(text.trim().to_owned()).unwrap_or_else(|_| raw())
}

/// A class that the provider left out of usage that it gave is none; thinking that is there without
/// a number is unknown.
fn counted(usage: &Usage, thought: bool) -> ReplyUsage {
    let known = usage.input.is_some() || usage.output.is_some();
    let or_none = |class: Option<u64>| class.or(known.then_some(0));
    ReplyUsage {
        input_tokens: usage.input,
        output_tokens: usage.output,
        cache_read_tokens: or_none(usage.cache_read),
        cache_write_tokens: or_none(usage.cache_write()),
        reasoning_tokens: if thought { usage.reasoning } else { or_none(usage.reasoning) },
    }
}
