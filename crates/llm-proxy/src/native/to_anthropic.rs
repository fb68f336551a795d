//! A request on Anthropic's Messages wire.
//! <https://platform.claude.com/docs/en/api/messages>

use std::borrow::Cow;

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use loom_core::{Error, Result};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use super::{
    check::{Faults, is_object},
    model::{
        Content, Message, Part, PartKind, Request, Role, Source, SourceKind, ThinkingBlock,
        ThinkingKind, ToolCall, ToolChoice,
    },
    thinking::{Think, budget, effort_name},
};

#[derive(Serialize)]
struct Body<'a> {
    model: &'a str,
    max_tokens: u32,
    #[serde(skip_serializing_if = "String::is_empty")]
    system: String,
    messages: Vec<Turn<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tools: Vec<Tool<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_choice: Option<Choice<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_p: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stop_sequences: Option<&'a [String]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    thinking: Option<Think>,
    #[serde(skip_serializing_if = "Option::is_none")]
    output_config: Option<OutputConfig>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<UserId<'a>>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    stream: bool,
}

#[derive(Serialize)]
struct Turn<'a> {
    role: &'static str,
    content: Vec<Block<'a>>,
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Block<'a> {
    Text {
        text: &'a str,
    },
    Image {
        source: Origin<'a>,
    },
    Document {
        source: Origin<'a>,
        #[serde(skip_serializing_if = "Option::is_none")]
        title: Option<&'a str>,
    },
    Thinking {
        thinking: &'a str,
        signature: &'a str,
    },
    RedactedThinking {
        data: &'a str,
    },
    ToolUse {
        id: &'a str,
        name: &'a str,
        input: Cow<'a, RawValue>,
    },
    ToolResult {
        tool_use_id: &'a str,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        content: Vec<Self>,
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        is_error: bool,
    },
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Origin<'a> {
    Base64 { media_type: &'a str, data: &'a str },
    Url { url: &'a str },
    Text { media_type: &'static str, data: Cow<'a, str> },
}

#[derive(Serialize)]
struct Tool<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
    input_schema: &'a RawValue,
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Choice<'a> {
    Auto,
    None,
    Any,
    Tool { name: &'a str },
}

#[derive(Serialize)]
struct OutputConfig {
    effort: &'static str,
}

#[derive(Serialize)]
struct UserId<'a> {
    user_id: &'a str,
}

/// The body of `POST /v1/messages`.
///
/// # Errors
/// 422 for what this wire cannot express.
pub(super) fn body(request: &Request, stream: bool) -> Result<Bytes> {
    let mut faults = Faults::default();
    let (thinking, max_tokens) = budget(&mut faults, request);
    let (system, messages) = turns(&mut faults, request);
    if request.temperature.is_some_and(|temperature| temperature > 1.0) {
        faults.add("temperature", "is at most 1 towards this provider");
    }
    faults.finish()?;
    let effort = request.thinking.as_ref().filter(|t| t.kind == ThinkingKind::Adaptive);
    let tools: Vec<_> = request
        .tools
        .iter()
        .flatten()
        .map(|tool| Tool {
            name: &tool.name,
            description: tool.description.as_deref(),
            input_schema: &tool.input_schema,
        })
        .collect();
    let choice = request.tool_choice.as_ref().filter(|_| !tools.is_empty());
    let body = Body {
        model: &request.model,
        max_tokens,
        system,
        messages,
        tools,
        tool_choice: choice.map(|choice| match choice {
            ToolChoice::Auto => Choice::Auto,
            ToolChoice::None => Choice::None,
            ToolChoice::Required => Choice::Any,
            ToolChoice::Tool(name) => Choice::Tool { name },
        }),
        temperature: request.temperature,
        top_p: request.top_p,
        stop_sequences: request.stop.as_deref().filter(|stop| !stop.is_empty()),
        thinking,
        output_config: effort
            .and_then(|thinking| thinking.effort)
            .map(|effort| OutputConfig { effort: effort_name(effort) }),
        metadata: request
            .metadata
            .as_ref()
            .and_then(|metadata| metadata.user_id.as_deref())
            .map(|user_id| UserId { user_id }),
        stream,
    };
    serde_json::to_vec(&body).map(Bytes::from).map_err(Error::internal)
}

/// The system text, and the turns of user and assistant, in which neighbours are one.
fn turns<'a>(faults: &mut Faults, request: &'a Request) -> (String, Vec<Turn<'a>>) {
    let mut system: Vec<&str> = request.system.as_deref().into_iter().collect();
    let mut turns: Vec<Turn<'_>> = Vec::new();
    for (at, message) in request.messages.iter().enumerate() {
        let role = match message.role {
            Role::System if turns.is_empty() => {
                system.extend(texts(message.content.as_ref()));
                continue;
            }
            Role::System => {
                faults.add(
                    format!("messages[{at}].role"),
                    "`system` can only come before all others towards this provider",
                );
                continue;
            }
            Role::User | Role::Tool => "user",
            Role::Assistant => "assistant",
        };
        let content = blocks(faults, &format!("messages[{at}]"), message);
        match turns.last_mut() {
            Some(last) if last.role == role => last.content.extend(content),
            _ => turns.push(Turn { role, content }),
        }
    }
    for turn in &mut turns {
        // Results come first in their turn.
        turn.content
            .sort_by_key(|block| turn.role == "user" && !matches!(block, Block::ToolResult { .. }));
    }
    if turns.is_empty() {
        faults.add("messages", "must have one that is not of the system");
    }
    system.retain(|text| !text.is_empty());
    (system.join("\n\n"), turns)
}

fn texts(content: Option<&Content>) -> impl Iterator<Item = &str> {
    let (text, parts) = match content {
        Some(Content::Text(text)) => (Some(text.as_str()), [].as_slice()),
        Some(Content::Parts(parts)) => (None, parts.as_slice()),
        None => (None, [].as_slice()),
    };
    text.into_iter().chain(parts.iter().filter_map(|part| part.text.as_deref()))
}

fn blocks<'a>(faults: &mut Faults, path: &str, message: &'a Message) -> Vec<Block<'a>> {
    let mut content = Vec::new();
    content.extend(message.thinking_blocks.iter().flatten().filter_map(thinking));
    content_blocks(faults, path, message.content.as_ref(), &mut content);
    if message.role == Role::Tool {
        return vec![Block::ToolResult {
            tool_use_id: message.tool_call_id.as_deref().unwrap_or_default(),
            content,
            is_error: message.is_error.unwrap_or_default(),
        }];
    }
    content.extend(message.tool_calls.iter().flatten().map(|call| Block::ToolUse {
        id: &call.id,
        name: &call.tool_name,
        input: input(call),
    }));
    content
}

/// Thinking without a signature is another provider's, and refused here: it stays out.
fn thinking(block: &ThinkingBlock) -> Option<Block<'_>> {
    signed(&block.thinking, block.signature.as_deref(), block.redacted.as_deref())
}

fn signed<'a>(
    thinking: &'a str,
    signature: Option<&'a str>,
    redacted: Option<&'a str>,
) -> Option<Block<'a>> {
    match (redacted, signature) {
        (Some(data), _) => Some(Block::RedactedThinking { data }),
        (None, Some(signature)) => Some(Block::Thinking { thinking, signature }),
        (None, None) => None,
    }
}

fn content_blocks<'a>(
    faults: &mut Faults,
    path: &str,
    content: Option<&'a Content>,
    blocks: &mut Vec<Block<'a>>,
) {
    match content {
        None => {}
        // An empty text is refused on this wire, and says nothing.
        Some(Content::Text(text)) => {
            blocks.extend((!text.is_empty()).then_some(Block::Text { text }));
        }
        Some(Content::Parts(parts)) => {
            for (at, part) in parts.iter().enumerate() {
                blocks.extend(block(faults, &format!("{path}.content[{at}]"), part));
            }
        }
    }
}

fn block<'a>(faults: &mut Faults, path: &str, part: &'a Part) -> Option<Block<'a>> {
    match part.kind {
        PartKind::Text => {
            part.text.as_deref().filter(|t| !t.is_empty()).map(|text| Block::Text { text })
        }
        PartKind::Image => {
            part.source.as_ref().map(|source| Block::Image { source: origin(faults, path, source) })
        }
        PartKind::Document => part.source.as_ref().map(|source| Block::Document {
            source: origin(faults, path, source),
            title: part.title.as_deref(),
        }),
        PartKind::Thinking => signed(
            part.thinking.as_deref().unwrap_or_default(),
            part.signature.as_deref(),
            part.redacted.as_deref(),
        ),
        PartKind::ToolResult => {
            let mut content = Vec::new();
            content_blocks(faults, path, part.content.as_ref(), &mut content);
            Some(Block::ToolResult {
                tool_use_id: part.tool_call_id.as_deref().unwrap_or_default(),
                content,
                is_error: part.is_error.unwrap_or_default(),
            })
        }
    }
}

fn origin<'a>(faults: &mut Faults, path: &str, source: &'a Source) -> Origin<'a> {
    let data = source.data.as_deref().unwrap_or_default();
    let media_type = source.media_type.as_deref().unwrap_or_default();
    match source.kind {
        SourceKind::Url => Origin::Url { url: source.url.as_deref().unwrap_or_default() },
        SourceKind::Text => Origin::Text { media_type: "text/plain", data: data.into() },
        SourceKind::Base64 if media_type.starts_with("text/") => {
            Origin::Text { media_type: "text/plain", data: decoded(faults, path, data).into() }
        }
        SourceKind::Base64 => Origin::Base64 { media_type, data },
    }
}

/// The text in a base64 source.
pub(super) fn decoded(faults: &mut Faults, path: &str, data: &str) -> String {
    let text = BASE64_STANDARD.decode(data).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    text.unwrap_or_else(|| {
        faults.add(format!("{path}.source.data"), "is not UTF-8 text in base64");
        String::new()
    })
}

/// Arguments are an object here. What a model wrote wrongly goes back in the form that Anthropic
/// advises for it.
/// <https://platform.claude.com/docs/en/agents-and-tools/tool-use/fine-grained-tool-streaming>
fn input(call: &ToolCall) -> Cow<'_, RawValue> {
    if is_object(&call.arguments_json) {
        return Cow::Borrowed(&call.arguments_json);
    }
    let text = serde_json::from_str::<String>(call.arguments_json.get())
        .unwrap_or_else(|_| call.arguments_json.get().to_owned());
    if let Ok(object) = serde_json::from_str::<Box<RawValue>>(&text)
        && is_object(&object)
    {
        return Cow::Owned(object);
    }
    let wrapped = to_raw_value(&serde_json::json!({"INVALID_JSON": text}));
    Cow::Owned(wrapped.unwrap_or_else(|_| RawValue::NULL.to_owned()))
}
