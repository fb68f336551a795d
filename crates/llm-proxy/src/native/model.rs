//! What a client of the native routes sends and gets.

use loom_core::id::LlmRequestId;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

/// A request to a model.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = LlmRequest)]
pub(crate) struct Request {
    /// As the provider names it.
    pub(super) model: String,
    pub(super) messages: Vec<Message>,
    #[serde(default)]
    pub(super) tools: Option<Vec<Tool>>,
    /// `auto` when there are tools.
    #[serde(default)]
    pub(super) tool_choice: Option<ToolChoice>,
    /// Comes before the messages; so do messages with the role `system`.
    #[serde(default)]
    pub(super) system: Option<String>,
    /// Of the reply. Where the provider wants one, the default is 4096 beside what is for thinking.
    #[serde(default)]
    #[schema(minimum = 1)]
    pub(crate) max_tokens: Option<u32>,
    /// 0 to 2; Anthropic takes up to 1.
    #[serde(default)]
    pub(super) temperature: Option<f64>,
    #[serde(default)]
    pub(super) top_p: Option<f64>,
    /// Texts at which the reply ends.
    #[serde(default)]
    pub(super) stop: Option<Vec<String>>,
    #[serde(default)]
    pub(super) thinking: Option<Thinking>,
    #[serde(default)]
    pub(super) metadata: Option<Metadata>,
}

/// One message. An assistant's turn can be sent back as it came in a reply: its `message`, with its
/// `tool_calls` added.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = LlmMessage)]
pub(crate) struct Message {
    pub(super) role: Role,
    /// May only be absent where an assistant called tools.
    #[serde(default)]
    pub(super) content: Option<Content>,
    /// Of an assistant's turn, as a reply has them.
    #[serde(default)]
    pub(super) thinking_blocks: Option<Vec<ThinkingBlock>>,
    /// Of an assistant's turn.
    #[serde(default)]
    pub(super) tool_calls: Option<Vec<ToolCall>>,
    /// For the role `tool`: the call that this answers.
    #[serde(default)]
    pub(super) tool_call_id: Option<String>,
    /// For the role `tool`; may be absent.
    #[serde(default)]
    pub(super) tool_name: Option<String>,
    /// For the role `tool`: the tool failed. OpenAI's wire has no place for it, the text has to say so.
    #[serde(default)]
    pub(super) is_error: Option<bool>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = LlmRole)]
pub(crate) enum Role {
    System,
    User,
    Assistant,
    Tool,
}

/// A text, or a list of parts.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
#[schema(as = LlmContent)]
pub(crate) enum Content {
    Text(String),
    Parts(Vec<Part>),
}

/// A part of a message; which members it has depends on its `type`.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = LlmPart)]
pub(crate) struct Part {
    #[serde(rename = "type")]
    pub(super) kind: PartKind,
    /// Of `text`.
    #[serde(default)]
    pub(super) text: Option<String>,
    /// Of `image` and `document`.
    #[serde(default)]
    pub(super) source: Option<Source>,
    /// Of `document`.
    #[serde(default)]
    pub(super) title: Option<String>,
    /// Of `thinking`, in an assistant's turn.
    #[serde(default)]
    pub(super) thinking: Option<String>,
    /// Of `thinking`: by which the provider knows it as its own.
    #[serde(default)]
    pub(super) signature: Option<String>,
    /// Of `thinking`, instead of the text: what only the provider can read.
    #[serde(default)]
    pub(super) redacted: Option<String>,
    /// Of `tool_result`.
    #[serde(default)]
    pub(super) tool_call_id: Option<String>,
    /// Of `tool_result`: a text, or parts `text`, `image`, `document`.
    #[serde(default)]
    #[schema(no_recursion)]
    pub(super) content: Option<Content>,
    /// Of `tool_result`.
    #[serde(default)]
    pub(super) is_error: Option<bool>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = LlmPartType)]
pub(crate) enum PartKind {
    Text,
    Image,
    Document,
    Thinking,
    ToolResult,
}

/// Where an image or document is.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = LlmSource)]
pub(crate) struct Source {
    #[serde(rename = "type")]
    pub(super) kind: SourceKind,
    /// Of `base64`: `image/…`, `application/pdf` or `text/…`.
    #[serde(default)]
    pub(super) media_type: Option<String>,
    /// Of `base64`, and of `text` the text itself.
    #[serde(default)]
    pub(super) data: Option<String>,
    /// Of `url`.
    #[serde(default)]
    pub(super) url: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = LlmSourceType)]
pub(crate) enum SourceKind {
    Base64,
    Url,
    /// Of a document.
    Text,
}

/// A tool that the model may call.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = LlmTool)]
pub(crate) struct Tool {
    pub(super) name: String,
    #[serde(default)]
    pub(super) description: Option<String>,
    /// A JSON schema, passed on as it is.
    #[schema(value_type = Object)]
    pub(super) input_schema: Box<RawValue>,
}

/// A call that an assistant made.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = LlmToolCall)]
pub(crate) struct ToolCall {
    pub(super) id: String,
    pub(super) tool_name: String,
    /// An object; a string when the model wrote something that is not JSON.
    #[schema(value_type = Object)]
    pub(super) arguments_json: Box<RawValue>,
}

/// `auto`, `none`, `required`, or `{"tool_name": "…"}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ToolChoice {
    Auto,
    None,
    Required,
    Tool(String),
}

/// How much a model thinks before it answers. Anthropic gets a budget (`enabled`, the default) or
/// `adaptive` with an effort; OpenAI's wire an effort.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[schema(as = LlmThinking)]
pub(crate) struct Thinking {
    #[serde(rename = "type", default)]
    pub(super) kind: ThinkingKind,
    /// At least 1024 and less than `max_tokens`.
    #[serde(default)]
    pub(super) budget_tokens: Option<u32>,
    #[serde(default)]
    pub(super) effort: Option<Effort>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = LlmThinkingType)]
pub(crate) enum ThinkingKind {
    #[default]
    Enabled,
    Adaptive,
    Disabled,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = LlmEffort)]
pub(crate) enum Effort {
    Minimal,
    Low,
    Medium,
    High,
}

/// Further members are taken and stay here.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = LlmMetadata)]
pub(crate) struct Metadata {
    /// An opaque name of the user in question, told to the provider.
    #[serde(default)]
    pub(super) user_id: Option<String>,
}

/// A whole reply.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = LlmReply)]
pub(crate) struct Reply {
    /// As in the log of requests.
    pub(super) id: LlmRequestId,
    /// As the provider names the one that answered.
    pub(super) model: String,
    pub(super) message: ReplyMessage,
    pub(super) tool_calls: Vec<ToolCall>,
    pub(super) usage: ReplyUsage,
    /// Null when the model's price or the tokens are not known.
    pub(super) cost_usd: Option<f64>,
    pub(super) finish_reason: FinishReason,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = LlmReplyMessage)]
pub(crate) struct ReplyMessage {
    pub(super) role: Role,
    pub(super) content: String,
    /// What the model thought, as far as the provider shows it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) thinking: Option<String>,
    /// The same in the form in which it goes back with the next request.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) thinking_blocks: Vec<ThinkingBlock>,
}

/// A piece of thinking with the provider's signature.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = LlmThinkingBlock)]
pub(crate) struct ThinkingBlock {
    #[serde(default)]
    pub(super) thinking: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) signature: Option<String>,
    /// Instead of the text: what only the provider can read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) redacted: Option<String>,
}

/// Tokens; null when the provider did not say. The classes do not overlap, but `reasoning_tokens` is
/// part of `output_tokens`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = LlmUsage)]
pub(crate) struct ReplyUsage {
    pub(super) input_tokens: Option<u64>,
    pub(super) output_tokens: Option<u64>,
    pub(super) cache_read_tokens: Option<u64>,
    pub(super) cache_write_tokens: Option<u64>,
    pub(super) reasoning_tokens: Option<u64>,
}

/// Why a reply ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = LlmFinishReason)]
pub(crate) enum FinishReason {
    EndTurn,
    ToolUse,
    MaxTokens,
    /// One of the request's `stop`. OpenAI's wire does not tell this from `end_turn`.
    Stop,
    ContentFilter,
}

/// The data of an `event: llm`.
#[derive(Debug, Serialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
#[schema(as = LlmStreamEvent)]
pub(crate) enum StreamEvent {
    TextDelta {
        content: String,
    },
    ThinkingDelta {
        content: String,
    },
    /// The first one of a call may have an empty fragment.
    ToolCallDelta {
        call_id: String,
        tool_name: String,
        arguments_fragment: String,
    },
    /// The last event of a stream that went well.
    Completed {
        response: Box<Reply>,
    },
    /// The last event of one that did not.
    Error {
        /// As `code` in a problem document.
        error: String,
        message: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        retry_after_secs: Option<u64>,
    },
}
