//! A request, put on OpenAI's responses wire. Nothing is stored there: the client has the
//! conversation, and gets the reasoning in a form in which it can send it back.

use std::borrow::Cow;

use bytes::Bytes;
use loom_core::{Error, Result};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::translate::{
    chat::request_out::MAX_USER,
    media,
    object::Faults,
    request::{
        Effort, Format as ReplyFormat, Media, Part, PartKind, Request, Role, Seal, Source,
        ToolChoice, Turn, Verbosity, complete_schema, is_telling,
    },
    thinking::effort,
};

#[derive(Serialize)]
struct Body<'a> {
    model: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    instructions: Option<String>,
    input: Vec<Item<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tools: Vec<AnyTool<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_choice: Option<Choice<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parallel_tool_calls: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_output_tokens: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_p: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning: Option<Reasoning>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    include: &'static [&'static str],
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<Text<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    service_tier: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    safety_identifier: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    store: Option<bool>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    stream: bool,
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Item<'a> {
    Message { role: &'static str, content: Vec<Piece<'a>> },
    FunctionCall { call_id: &'a str, name: &'a str, arguments: &'a str },
    FunctionCallOutput { call_id: &'a str, output: Output<'a> },
    Reasoning { id: &'a str, summary: Vec<Piece<'a>>, encrypted_content: &'a str },
}

#[derive(Serialize)]
#[serde(untagged)]
enum Output<'a> {
    Text(&'a str),
    Parts(Vec<Piece<'a>>),
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Piece<'a> {
    InputText {
        text: Cow<'a, str>,
    },
    OutputText {
        text: &'a str,
    },
    SummaryText {
        text: &'a str,
    },
    InputImage {
        image_url: Cow<'a, str>,
        detail: &'static str,
    },
    InputFile {
        #[serde(skip_serializing_if = "Option::is_none")]
        filename: Option<Cow<'a, str>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        file_data: Option<Cow<'a, str>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        file_url: Option<&'a str>,
    },
}

#[derive(Serialize)]
#[serde(untagged)]
enum AnyTool<'a> {
    Function(Tool<'a>),
    Search(Search<'a>),
}

#[derive(Serialize)]
struct Search<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    filters: Option<Filters<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_location: Option<&'a RawValue>,
}

#[derive(Serialize)]
struct Filters<'a> {
    allowed_domains: &'a [Cow<'a, str>],
}

#[derive(Serialize)]
struct Tool<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
    parameters: Option<Cow<'a, RawValue>>,
    /// This wire takes none for true.
    strict: bool,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Choice<'a> {
    Word(&'static str),
    Named {
        #[serde(rename = "type")]
        kind: &'static str,
        name: &'a str,
    },
}

#[derive(Serialize)]
struct Reasoning {
    #[serde(skip_serializing_if = "Option::is_none")]
    effort: Option<Effort>,
    summary: &'static str,
}

#[derive(Serialize)]
struct Text<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    format: Option<Format<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    verbosity: Option<Verbosity>,
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Format<'a> {
    JsonObject,
    JsonSchema {
        name: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        description: Option<&'a str>,
        schema: &'a RawValue,
        #[serde(skip_serializing_if = "Option::is_none")]
        strict: Option<bool>,
    },
}

/// The least limit that this wire takes.
const LEAST_MAX_TOKENS: u32 = 16;

/// Can it be asked on this wire, as far as it is in chat's words?
pub(crate) fn takes(request: &Request<'_>) -> bool {
    request.stop.is_empty() && request.max_tokens.is_none_or(|limit| limit >= LEAST_MAX_TOKENS)
}

/// The body of `POST /responses`.
///
/// # Errors
/// 422 for what this wire cannot express.
pub(crate) fn body(request: &Request<'_>) -> Result<Bytes> {
    written(&read(request)?)
}

/// The body of `POST /responses/input_tokens`: what is of the prompt.
///
/// # Errors
/// 422 for what this wire cannot express.
pub(crate) fn count(request: &Request<'_>) -> Result<Bytes> {
    let body = read(request)?;
    written(&Body {
        max_output_tokens: None,
        temperature: None,
        top_p: None,
        include: &[],
        service_tier: None,
        safety_identifier: None,
        store: None,
        stream: false,
        ..body
    })
}

fn written(body: &Body<'_>) -> Result<Bytes> {
    serde_json::to_vec(body).map(Bytes::from).map_err(Error::internal)
}

fn read<'a>(request: &'a Request<'_>) -> Result<Body<'a>> {
    let mut faults = Faults::default();
    let mut input = Vec::with_capacity(request.turns.len());
    for turn in &request.turns {
        items(&mut faults, turn, &mut input);
    }
    if request.top_k.is_some() {
        faults.unsaid("top_k");
    }
    if !request.stop.is_empty() {
        faults.unsaid(request.names.stop);
    }
    let search = search(&mut faults, request);
    faults.finish()?;
    let functions = request.tools.iter().map(|tool| {
        AnyTool::Function(Tool {
            kind: "function",
            name: &tool.name,
            description: tool.description.as_deref(),
            parameters: tool.schema.map(complete_schema),
            strict: tool.strict.unwrap_or_default(),
        })
    });
    let tools: Vec<_> = functions.chain(search.map(AnyTool::Search)).collect();
    let choice = request.tool_choice.as_ref().filter(|_| !tools.is_empty());
    let system: Vec<&str> = request.system.iter().map(|text| text.text.as_ref()).collect();
    let effort = request.thinking.and_then(effort);
    let text = Text {
        format: request.format.as_ref().map(|format| match format {
            ReplyFormat::Json => Format::JsonObject,
            ReplyFormat::Schema { name, description, schema, strict } => Format::JsonSchema {
                name: name.as_deref().unwrap_or("output"),
                description: description.as_deref(),
                schema,
                strict: *strict,
            },
        }),
        verbosity: request.verbosity,
    };
    Ok(Body {
        model: &request.model,
        instructions: (!system.is_empty()).then(|| system.join("\n\n")),
        input,
        tool_choice: choice.map(|choice| match choice {
            ToolChoice::Auto => Choice::Word("auto"),
            ToolChoice::None => Choice::Word("none"),
            ToolChoice::Required => Choice::Word("required"),
            ToolChoice::Tool(name) => Choice::Named { kind: "function", name },
        }),
        parallel_tool_calls: request.parallel_tools.filter(|_| !tools.is_empty()),
        tools,
        max_output_tokens: request.max_tokens,
        temperature: request.temperature.filter(|value| is_telling(*value)),
        top_p: request.top_p.filter(|value| is_telling(*value)),
        reasoning: effort.map(|effort| Reasoning { effort: Some(effort), summary: "auto" }),
        include: if effort.is_some() { &["reasoning.encrypted_content"] } else { &[] },
        text: (text.format.is_some() || text.verbosity.is_some()).then_some(text),
        service_tier: request.standard_tier.then_some("default"),
        safety_identifier: request.user.as_deref().filter(|user| user.len() <= MAX_USER),
        store: Some(false),
        stream: request.stream,
    })
}

fn search<'a>(faults: &mut Faults, request: &'a Request<'_>) -> Option<Search<'a>> {
    let search = request.web_search.as_ref()?;
    if search.max_uses.is_some() {
        faults.unsaid(format!("{}.max_uses", search.at));
    }
    if !search.blocked_domains.is_empty() {
        faults.unsaid(format!("{}.blocked_domains", search.at));
    }
    let allowed_domains = search.allowed_domains.as_slice();
    Some(Search {
        kind: "web_search",
        filters: (!allowed_domains.is_empty()).then_some(Filters { allowed_domains }),
        user_location: search.location,
    })
}

fn items<'a>(faults: &mut Faults, turn: &'a Turn<'_>, items: &mut Vec<Item<'a>>) {
    let role = match turn.role {
        Role::System => "developer",
        Role::User => "user",
        Role::Assistant => "assistant",
    };
    let mut content = Vec::new();
    let flush = |content: &mut Vec<Piece<'a>>, items: &mut Vec<Item<'a>>| {
        if !content.is_empty() {
            items.push(Item::Message { role, content: std::mem::take(content) });
        }
    };
    for part in &turn.parts {
        let item = match &part.kind {
            PartKind::Text(text) if text.is_empty() => continue,
            PartKind::Text(text) if turn.role == Role::Assistant => {
                content.push(Piece::OutputText { text });
                continue;
            }
            PartKind::Text(_) | PartKind::Image(_) | PartKind::Document(_) => {
                content.extend(piece(faults, part));
                continue;
            }
            PartKind::Call(call) => Item::FunctionCall {
                call_id: &call.id,
                name: &call.name,
                arguments: if call.arguments.is_empty() { "{}" } else { &call.arguments },
            },
            PartKind::Result(result) => Item::FunctionCallOutput {
                call_id: &result.id,
                output: output(faults, &result.parts),
            },
            // Another provider's thinking, or one that nobody sealed, is refused here: it stays out.
            PartKind::Thinking(thought) => match &thought.seal {
                Some(Seal::Encrypted { id, content }) => Item::Reasoning {
                    id,
                    summary: (!thought.text.is_empty())
                        .then_some(Piece::SummaryText { text: &thought.text })
                        .into_iter()
                        .collect(),
                    encrypted_content: content,
                },
                _ => continue,
            },
        };
        flush(&mut content, items);
        items.push(item);
    }
    flush(&mut content, items);
}

fn output<'a>(faults: &mut Faults, parts: &'a [Part<'_>]) -> Output<'a> {
    let pieces: Vec<_> = parts.iter().filter_map(|part| piece(faults, part)).collect();
    match pieces.as_slice() {
        [] => Output::Text(""),
        [Piece::InputText { text: Cow::Borrowed(text) }] => Output::Text(text),
        _ => Output::Parts(pieces),
    }
}

fn piece<'a>(faults: &mut Faults, part: &'a Part<'_>) -> Option<Piece<'a>> {
    match &part.kind {
        PartKind::Text(text) if text.is_empty() => None,
        PartKind::Text(text) => Some(Piece::InputText { text: Cow::Borrowed(text) }),
        PartKind::Image(media) => {
            Some(Piece::InputImage { image_url: media::to_url(&media.source), detail: "auto" })
        }
        PartKind::Document(media) => Some(document(faults, media)),
        PartKind::Thinking(_) | PartKind::Call(_) | PartKind::Result(_) => None,
    }
}

/// A text goes as text, with its title before it; a PDF as a file.
fn document<'a>(faults: &mut Faults, media: &'a Media<'_>) -> Piece<'a> {
    if let Some(text) = media::text_of(media, faults) {
        return Piece::InputText { text: media::labelled(media, text) };
    }
    if media.context.is_some() {
        faults.unsaid(format!("{}.context", media.at));
    }
    match &media.source {
        Source::Url(url) => {
            Piece::InputFile { filename: None, file_data: None, file_url: Some(url) }
        }
        source => Piece::InputFile {
            filename: Some(media::filename(media)),
            file_data: Some(media::to_url(source)),
            file_url: None,
        },
    }
}
