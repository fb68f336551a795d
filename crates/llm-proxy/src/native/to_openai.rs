//! A request on OpenAI's chat completions wire, which the compatible providers speak too.
//! <https://platform.openai.com/docs/api-reference/chat/create>
//!
//! Thinking of earlier turns has no place on it and stays out; that a tool failed is in its text.

use std::borrow::Cow;

use bytes::Bytes;
use loom_core::{Error, Result};
use serde::Serialize;
use serde_json::value::RawValue;

use super::{
    check::Faults,
    model::{
        Content, Effort, Message, Part, PartKind, Request, Role, Source, SourceKind, Thinking,
        ThinkingKind, ToolCall, ToolChoice,
    },
    to_anthropic::decoded,
};

#[derive(Serialize)]
struct Body<'a> {
    model: &'a str,
    messages: Vec<Turn<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tools: Vec<Tool<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_choice: Option<Choice<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_tokens: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_completion_tokens: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_p: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stop: Option<&'a [String]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_effort: Option<Effort>,
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
struct Turn<'a> {
    role: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<Said<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<Call<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_call_id: Option<&'a str>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Said<'a> {
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
    filename: &'a str,
    file_data: String,
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
    arguments: Cow<'a, str>,
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
    parameters: &'a RawValue,
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

/// How the provider in question speaks the wire.
#[derive(Clone, Copy, Debug)]
pub(super) struct Manner {
    pub(super) stream: bool,
    /// Ask for the tokens of a stream.
    pub(super) counted: bool,
    /// OpenAI itself, whose newer models know no `max_tokens` any more.
    pub(super) vendor: bool,
}

/// The body of `POST /chat/completions`.
///
/// # Errors
/// 422 for what this wire cannot express.
pub(super) fn body(request: &Request, how: Manner) -> Result<Bytes> {
    let mut faults = Faults::default();
    let mut messages = Vec::new();
    if let Some(system) = request.system.as_deref().filter(|text| !text.is_empty()) {
        messages.push(Turn {
            role: "system",
            content: Some(Said::Text(system)),
            ..Turn::default()
        });
    }
    for (at, message) in request.messages.iter().enumerate() {
        turns(&mut faults, &format!("messages[{at}]"), message, &mut messages);
    }
    faults.finish()?;
    let tools: Vec<_> = request
        .tools
        .iter()
        .flatten()
        .map(|tool| Tool {
            kind: "function",
            function: Function {
                name: &tool.name,
                description: tool.description.as_deref(),
                parameters: &tool.input_schema,
            },
        })
        .collect();
    let choice = request.tool_choice.as_ref().filter(|_| !tools.is_empty());
    let body = Body {
        model: &request.model,
        messages,
        tools,
        tool_choice: choice.map(|choice| match choice {
            ToolChoice::Auto => Choice::Word("auto"),
            ToolChoice::None => Choice::Word("none"),
            ToolChoice::Required => Choice::Word("required"),
            ToolChoice::Tool(name) => Choice::Named { kind: "function", function: Name { name } },
        }),
        max_tokens: request.max_tokens.filter(|_| !how.vendor),
        max_completion_tokens: request.max_tokens.filter(|_| how.vendor),
        temperature: request.temperature,
        top_p: request.top_p,
        stop: request.stop.as_deref().filter(|stop| !stop.is_empty()),
        reasoning_effort: request.thinking.as_ref().and_then(effort),
        user: request.metadata.as_ref().and_then(|metadata| metadata.user_id.as_deref()),
        stream: how.stream,
        stream_options: (how.stream && how.counted)
            .then_some(StreamOptions { include_usage: true }),
    };
    serde_json::to_vec(&body).map(Bytes::from).map_err(Error::internal)
}

/// `disabled` is the model's own default: most models refuse to be told.
fn effort(thinking: &Thinking) -> Option<Effort> {
    match (thinking.kind, thinking.effort, thinking.budget_tokens) {
        (ThinkingKind::Disabled, ..) => None,
        (_, Some(effort), _) => Some(effort),
        (_, None, Some(0..=4096)) => Some(Effort::Low),
        (_, None, None | Some(4097..=12_288)) => Some(Effort::Medium),
        (_, None, Some(_)) => Some(Effort::High),
    }
}

/// A message is one turn, and each tool result in it one before.
fn turns<'a>(faults: &mut Faults, path: &str, message: &'a Message, turns: &mut Vec<Turn<'a>>) {
    let role = match message.role {
        Role::System => "system",
        Role::User => "user",
        Role::Assistant => "assistant",
        Role::Tool => {
            let id = message.tool_call_id.as_deref();
            turns.push(result(faults, path, id, message.content.as_ref()));
            return;
        }
    };
    let mut turn = Turn { role, ..Turn::default() };
    match &message.content {
        Some(Content::Text(text)) if !text.is_empty() => turn.content = Some(Said::Text(text)),
        Some(Content::Text(_)) | None => {}
        Some(Content::Parts(parts)) => {
            let mut pieces = Vec::new();
            for (at, part) in parts.iter().enumerate() {
                let path = format!("{path}.content[{at}]");
                if part.kind == PartKind::ToolResult {
                    let id = part.tool_call_id.as_deref();
                    turns.push(result(faults, &path, id, part.content.as_ref()));
                } else {
                    pieces.extend(piece(faults, &path, part));
                }
            }
            turn.content = (!pieces.is_empty()).then_some(Said::Parts(pieces));
        }
    }
    turn.tool_calls = message.tool_calls.iter().flatten().map(call).collect();
    // A turn of nothing but results, or of nothing but thinking, is no turn here.
    if turn.content.is_some() || !turn.tool_calls.is_empty() {
        turns.push(turn);
    }
}

/// What a tool said: text only.
fn result<'a>(
    faults: &mut Faults,
    path: &str,
    id: Option<&'a str>,
    content: Option<&'a Content>,
) -> Turn<'a> {
    let content = match content {
        None => Said::Text(""),
        Some(Content::Text(text)) => Said::Text(text),
        Some(Content::Parts(parts)) => {
            let mut pieces = Vec::new();
            for (at, part) in parts.iter().enumerate() {
                let path = format!("{path}.content[{at}]");
                match piece(faults, &path, part) {
                    Some(text @ Piece::Text { .. }) => pieces.push(text),
                    Some(Piece::ImageUrl { .. } | Piece::File { .. }) => faults.add(
                        format!("{path}.type"),
                        "a tool's result can only be text towards this provider",
                    ),
                    None => {}
                }
            }
            if pieces.is_empty() { Said::Text("") } else { Said::Parts(pieces) }
        }
    };
    Turn { role: "tool", content: Some(content), tool_call_id: id, ..Turn::default() }
}

fn piece<'a>(faults: &mut Faults, path: &str, part: &'a Part) -> Option<Piece<'a>> {
    match part.kind {
        PartKind::Text => part.text.as_deref().map(|text| Piece::Text { text: text.into() }),
        PartKind::Image => {
            let url = image_url(part.source.as_ref()?);
            Some(Piece::ImageUrl { image_url: Url { url } })
        }
        PartKind::Document => document(faults, path, part),
        PartKind::Thinking | PartKind::ToolResult => None,
    }
}

fn image_url(source: &Source) -> Cow<'_, str> {
    match source.kind {
        SourceKind::Url => source.url.as_deref().unwrap_or_default().into(),
        SourceKind::Base64 | SourceKind::Text => data_url(source).into(),
    }
}

fn data_url(source: &Source) -> String {
    let media_type = source.media_type.as_deref().unwrap_or_default();
    format!("data:{media_type};base64,{}", source.data.as_deref().unwrap_or_default())
}

/// A text goes as text, with its title before it; a PDF as a file.
fn document<'a>(faults: &mut Faults, path: &str, part: &'a Part) -> Option<Piece<'a>> {
    let source = part.source.as_ref()?;
    let data = source.data.as_deref().unwrap_or_default();
    let text: Cow<'_, str> = match source.kind {
        SourceKind::Url => {
            faults.add(
                format!("{path}.source.type"),
                "a document by URL cannot be sent to this provider; send it as `base64`",
            );
            return None;
        }
        SourceKind::Text => data.into(),
        SourceKind::Base64
            if source.media_type.as_deref().is_some_and(|kind| kind.starts_with("text/")) =>
        {
            decoded(faults, path, data).into()
        }
        SourceKind::Base64 => {
            let filename = part.title.as_deref().unwrap_or("document.pdf");
            return Some(Piece::File { file: File { filename, file_data: data_url(source) } });
        }
    };
    let text = match part.title.as_deref() {
        Some(title) => format!("{title}\n\n{text}").into(),
        None => text,
    };
    Some(Piece::Text { text })
}

fn call(call: &ToolCall) -> Call<'_> {
    // What a model wrote wrongly goes back as it wrote it.
    let arguments = serde_json::from_str::<String>(call.arguments_json.get())
        .map_or_else(|_| Cow::Borrowed(call.arguments_json.get()), Cow::Owned);
    Call { id: &call.id, kind: "function", function: Called { name: &call.tool_name, arguments } }
}
