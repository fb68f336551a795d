//! A request, put on OpenAI's chat completions wire.
//!
//! Thinking of earlier turns has no place on it and stays out, but in a turn that calls tools: there
//! the compatible providers that think want it back. That a tool failed is in its text.

use std::borrow::Cow;

use bytes::Bytes;
use loom_core::{Error, Result};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::translate::{
    media,
    object::Faults,
    request::{
        Call as CallPart, Effort, Format as ReplyFormat, Media, Part, PartKind, Request, Role,
        Source, ToolChoice, ToolResult, Turn, Verbosity, complete_schema, is_telling,
    },
    thinking::effort,
};

/// OpenAI takes no more.
const MAX_STOP: usize = 4;
/// OpenAI refuses a longer name of a user.
pub(crate) const MAX_USER: usize = 64;

#[derive(Serialize)]
struct Body<'a> {
    model: &'a str,
    messages: Vec<Message<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tools: Vec<Tool<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_choice: Option<Choice<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parallel_tool_calls: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_tokens: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_completion_tokens: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_p: Option<f64>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    stop: &'a [Cow<'a, str>],
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_effort: Option<Effort>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_format: Option<Format<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    verbosity: Option<Verbosity>,
    #[serde(skip_serializing_if = "Option::is_none")]
    service_tier: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    stream: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream_options: Option<StreamOptions>,
}

#[derive(Serialize)]
struct StreamOptions {
    include_usage: bool,
}

#[derive(Default, Serialize)]
struct Message<'a> {
    role: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<Content<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_content: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<Call<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_call_id: Option<&'a str>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Content<'a> {
    Text(&'a str),
    Parts(Vec<Piece<'a>>),
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Piece<'a> {
    Text { text: Cow<'a, str> },
    ImageUrl { image_url: Url<'a> },
    File { file: File<'a> },
}

#[derive(Serialize)]
struct Url<'a> {
    url: Cow<'a, str>,
}

#[derive(Serialize)]
struct File<'a> {
    filename: Cow<'a, str>,
    file_data: Cow<'a, str>,
}

#[derive(Serialize)]
struct Call<'a> {
    id: &'a str,
    #[serde(rename = "type")]
    kind: &'static str,
    function: Called<'a>,
}

#[derive(Serialize)]
struct Called<'a> {
    name: &'a str,
    arguments: &'a str,
}

#[derive(Serialize)]
struct Tool<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    function: Function<'a>,
}

#[derive(Serialize)]
struct Function<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters: Option<Cow<'a, RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    strict: Option<bool>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Choice<'a> {
    Word(&'static str),
    Named {
        #[serde(rename = "type")]
        kind: &'static str,
        function: Name<'a>,
    },
}

#[derive(Serialize)]
struct Name<'a> {
    name: &'a str,
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Format<'a> {
    JsonObject,
    JsonSchema { json_schema: Schema<'a> },
}

#[derive(Serialize)]
struct Schema<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
    schema: &'a RawValue,
    #[serde(skip_serializing_if = "Option::is_none")]
    strict: Option<bool>,
}

/// How the provider in question speaks the wire.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Manner {
    /// Ask for the tokens of a stream.
    pub(crate) counted: bool,
    /// OpenAI itself, whose newer models know no `max_tokens` any more.
    pub(crate) vendor: bool,
}

/// The body of `POST /chat/completions`.
///
/// # Errors
/// 422 for what this wire cannot express.
pub(crate) fn body(request: &Request<'_>, how: Manner) -> Result<Bytes> {
    let mut faults = Faults::default();
    let mut messages = Vec::with_capacity(request.turns.len() + 1);
    messages.extend(request.system.iter().map(|text| Message {
        role: "system",
        content: Some(Content::Text(&text.text)),
        ..Message::default()
    }));
    for turn in &request.turns {
        turn_messages(&mut faults, how, turn, &mut messages);
    }
    if let Some(search) = &request.web_search {
        faults.unsaid(&search.at);
    }
    if request.top_k.is_some() {
        faults.unsaid("top_k");
    }
    if request.stop.len() > MAX_STOP && how.vendor {
        faults.add(
            request.names.stop,
            format!("can have no more than {MAX_STOP} for the provider of this model"),
        );
    }
    faults.finish()?;
    let tools: Vec<_> = request
        .tools
        .iter()
        .map(|tool| Tool {
            kind: "function",
            function: Function {
                name: &tool.name,
                description: tool.description.as_deref(),
                parameters: tool.schema.map(complete_schema),
                strict: tool.strict,
            },
        })
        .collect();
    let choice = request.tool_choice.as_ref().filter(|_| !tools.is_empty());
    let body = Body {
        model: &request.model,
        messages,
        tool_choice: choice.map(|choice| match choice {
            ToolChoice::Auto => Choice::Word("auto"),
            ToolChoice::None => Choice::Word("none"),
            ToolChoice::Required => Choice::Word("required"),
            ToolChoice::Tool(name) => Choice::Named { kind: "function", function: Name { name } },
        }),
        parallel_tool_calls: request.parallel_tools.filter(|_| !tools.is_empty()),
        tools,
        max_tokens: request.max_tokens.filter(|_| !how.vendor),
        max_completion_tokens: request.max_tokens.filter(|_| how.vendor),
        temperature: request.temperature.filter(|value| !how.vendor || is_telling(*value)),
        top_p: request.top_p.filter(|value| !how.vendor || is_telling(*value)),
        stop: &request.stop,
        reasoning_effort: request.thinking.and_then(effort),
        response_format: request.format.as_ref().map(|format| match format {
            ReplyFormat::Json => Format::JsonObject,
            ReplyFormat::Schema { name, description, schema, strict } => Format::JsonSchema {
                json_schema: Schema {
                    name: name.as_deref().unwrap_or("output"),
                    description: description.as_deref(),
                    schema,
                    strict: *strict,
                },
            },
        }),
        verbosity: request.verbosity,
        service_tier: request.standard_tier.then_some("default"),
        user: request.user.as_deref().filter(|user| user.len() <= MAX_USER),
        stream: request.stream,
        stream_options: (request.stream && how.counted)
            .then_some(StreamOptions { include_usage: true }),
    };
    serde_json::to_vec(&body).map(Bytes::from).map_err(Error::internal)
}

/// A turn is one message, and each tool result in it one before.
fn turn_messages<'a>(
    faults: &mut Faults,
    how: Manner,
    turn: &'a Turn<'_>,
    messages: &mut Vec<Message<'a>>,
) {
    let role = match turn.role {
        Role::System => "system",
        Role::User => "user",
        Role::Assistant => "assistant",
    };
    let mut message = Message { role, ..Message::default() };
    let mut pieces = Vec::new();
    let mut thought = String::new();
    for part in &turn.parts {
        match &part.kind {
            PartKind::Result(result) => messages.push(tool_message(faults, result)),
            PartKind::Call(call) => message.tool_calls.push(call_of(call)),
            PartKind::Thinking(thinking) if thinking.seal.is_none() => {
                thought.push_str(&thinking.text);
            }
            _ => pieces.extend(piece(faults, part)),
        }
    }
    message.content = match pieces.as_slice() {
        [] => None,
        [Piece::Text { text: Cow::Borrowed(text) }] => Some(Content::Text(text)),
        _ => Some(Content::Parts(pieces)),
    };
    if !how.vendor && !message.tool_calls.is_empty() && !thought.is_empty() {
        message.reasoning_content = Some(thought);
    }
    // A turn of nothing but results, or of nothing but thinking, is no turn here.
    if message.content.is_some() || !message.tool_calls.is_empty() {
        messages.push(message);
    }
}

fn call_of<'a>(call: &'a CallPart<'_>) -> Call<'a> {
    let arguments = if call.arguments.is_empty() { "{}" } else { &call.arguments };
    Call { id: &call.id, kind: "function", function: Called { name: &call.name, arguments } }
}

/// What a tool said: text only.
fn tool_message<'a>(faults: &mut Faults, result: &'a ToolResult<'_>) -> Message<'a> {
    let mut pieces = Vec::new();
    for part in &result.parts {
        match (piece(faults, part), &part.kind) {
            (Some(text @ Piece::Text { .. }), _) => pieces.push(text),
            (Some(_), PartKind::Image(media) | PartKind::Document(media)) => faults.add(
                format!("{}.type", media.at),
                "a tool's result can only be text towards this provider",
            ),
            _ => {}
        }
    }
    let content = match pieces.as_slice() {
        [] => Content::Text(""),
        [Piece::Text { text: Cow::Borrowed(text) }] => Content::Text(text),
        _ => Content::Parts(pieces),
    };
    Message {
        role: "tool",
        content: Some(content),
        tool_call_id: Some(&result.id),
        ..Message::default()
    }
}

fn piece<'a>(faults: &mut Faults, part: &'a Part<'_>) -> Option<Piece<'a>> {
    match &part.kind {
        PartKind::Text(text) if text.is_empty() => None,
        PartKind::Text(text) => Some(Piece::Text { text: Cow::Borrowed(text) }),
        PartKind::Image(media) => {
            Some(Piece::ImageUrl { image_url: Url { url: media::to_url(&media.source) } })
        }
        PartKind::Document(media) => document(faults, media),
        PartKind::Thinking(_) | PartKind::Call(_) | PartKind::Result(_) => None,
    }
}

/// A text goes as text, with its title before it; a PDF as a file.
fn document<'a>(faults: &mut Faults, media: &'a Media<'_>) -> Option<Piece<'a>> {
    if let Some(text) = media::text_of(media, faults) {
        return Some(Piece::Text { text: media::labelled(media, text) });
    }
    if let Source::Url(_) = media.source {
        faults.add(
            format!("{}.source.type", media.at),
            "a document by URL cannot be sent to this provider; send it as `base64`",
        );
        return None;
    }
    if media.context.is_some() {
        faults.unsaid(format!("{}.context", media.at));
    }
    let filename = media::filename(media);
    Some(Piece::File { file: File { filename, file_data: media::to_url(&media.source) } })
}
