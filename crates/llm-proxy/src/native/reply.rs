//! A reply in the native form, with what the account knows.

use loom_core::id::LlmRequestId;
use serde_json::value::{RawValue, to_raw_value};

use super::model::{FinishReason, Reply, ReplyMessage, ReplyUsage, Role, ThinkingBlock, ToolCall};
use crate::{
    translate::{
        reply::{self as neutral, Block, Finish},
        request::{Seal, Thought},
        thinking::to_signature,
    },
    usage::Usage,
};

/// `cost` is in billionths of a dollar.
#[expect(clippy::cast_precision_loss, reason = "a reply's cost is far below 2^53")]
pub(super) fn native(
    reply: neutral::Reply,
    id: LlmRequestId,
    asked: &str,
    usage: &Usage,
    cost: Option<i64>,
) -> Reply {
    let finish_reason = finish_reason(reply.finish());
    let (mut text, mut thinking_blocks, mut tool_calls) = (String::new(), Vec::new(), Vec::new());
    for block in reply.blocks {
        match block {
            Block::Text(more, _) | Block::Refusal(more) => text.push_str(&more),
            Block::Thinking(thought) => thinking_blocks.push(thinking_block(thought)),
            Block::Call { id, name, arguments: text } => {
                tool_calls.push(ToolCall { id, tool_name: name, arguments_json: arguments(text) });
            }
        }
    }
    let thought = !thinking_blocks.is_empty();
    let thinking: String = thinking_blocks.iter().map(|block| block.thinking.as_str()).collect();
    Reply {
        id,
        model: reply.model.unwrap_or_else(|| asked.to_owned()),
        message: ReplyMessage {
            role: Role::Assistant,
            content: text,
            thinking: (!thinking.is_empty()).then_some(thinking),
            thinking_blocks,
        },
        tool_calls,
        usage: counted(usage, thought),
        cost_usd: cost.map(|nano| nano as f64 / 1e9),
        finish_reason,
    }
}

fn thinking_block(thought: Thought<'static>) -> ThinkingBlock {
    let signature = thought.seal.as_ref().and_then(to_signature).map(std::borrow::Cow::into_owned);
    let redacted = match thought.seal {
        Some(Seal::Redacted(data)) => Some(data.into_owned()),
        _ => None,
    };
    ThinkingBlock { thinking: thought.text.into_owned(), signature, redacted }
}

/// What only Anthropic tells apart has no word of its own here.
fn finish_reason(finish: Finish) -> FinishReason {
    match finish {
        Finish::EndTurn | Finish::Paused => FinishReason::EndTurn,
        Finish::ToolUse => FinishReason::ToolUse,
        Finish::MaxTokens | Finish::ContextFull => FinishReason::MaxTokens,
        Finish::Stop => FinishReason::Stop,
        Finish::Refused => FinishReason::ContentFilter,
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
