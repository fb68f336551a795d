//! A request, put on Gemini's wire.
//!
//! `model` and `stream` stand first in the body: they are for the address, and go no further (see
//! [`crate::vertex`]). Of earlier thinking only Google's own signatures go back, each on the part that
//! it came with.

use std::borrow::Cow;

use bytes::Bytes;
use loom_core::{Error, Result};
use serde::Serialize;
use serde_json::{
    json,
    value::{RawValue, to_raw_value},
};

use crate::translate::{
    media,
    object::{Faults, is_object},
    request::{
        Call, Effort, Format, Media, Part as NeutralPart, PartKind, Request, Role, Seal, Source,
        Thinking, ToolChoice, ToolResult, Turn, Verbosity,
    },
};

/// Gemini takes no more.
const MAX_STOP: usize = 5;
/// What Gemini 3 takes for the signature of a call that another model made; without one it refuses
/// the call. <https://ai.google.dev/gemini-api/docs/thought-signatures>
const NOT_OURS: &str = "skip_thought_signature_validator";

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    model: &'a str,
    stream: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    system_instruction: Option<Content<'a>>,
    contents: Vec<Content<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tools: Vec<Tool<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_config: Option<ToolConfig<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    generation_config: Option<GenerationConfig<'a>>,
}

#[derive(Serialize)]
struct Content<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    parts: Vec<Part<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Part<'a> {
    #[serde(flatten)]
    kind: Kind<'a>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    thought: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    thought_signature: Option<&'a str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
enum Kind<'a> {
    Text(Cow<'a, str>),
    InlineData(Inline<'a>),
    FileData(File<'a>),
    FunctionCall(Called<'a>),
    FunctionResponse(Responded<'a>),
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Inline<'a> {
    mime_type: &'a str,
    data: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct File<'a> {
    mime_type: &'static str,
    file_uri: &'a str,
}

#[derive(Serialize)]
struct Called<'a> {
    name: &'a str,
    args: Cow<'a, RawValue>,
}

#[derive(Serialize)]
struct Responded<'a> {
    name: &'a str,
    response: Response<'a>,
}

/// What Gemini knows as what a function brought, and as its failure.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
enum Response<'a> {
    Output(Cow<'a, str>),
    Error(Cow<'a, str>),
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
enum Tool<'a> {
    FunctionDeclarations(Vec<Function<'a>>),
    GoogleSearch {},
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Function<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
    /// Beside this there is `parameters`, which takes only a part of JSON schema.
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters_json_schema: Option<&'a RawValue>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ToolConfig<'a> {
    function_calling_config: Calling<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Calling<'a> {
    mode: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    allowed_function_names: Option<[&'a str; 1]>,
}

#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct GenerationConfig<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    max_output_tokens: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_p: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_k: Option<u32>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    stop_sequences: &'a [Cow<'a, str>],
    #[serde(skip_serializing_if = "Option::is_none")]
    response_mime_type: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_json_schema: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    thinking_config: Option<ThinkingConfig>,
}

#[derive(Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct ThinkingConfig {
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    include_thoughts: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    thinking_budget: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    thinking_level: Option<&'static str>,
}

/// The body of `:generateContent` and `:streamGenerateContent`.
///
/// # Errors
/// 422 for what this wire cannot express.
pub(crate) fn body(request: &Request<'_>) -> Result<Bytes> {
    let mut faults = Faults::default();
    let (system_instruction, contents, tools) = said(&mut faults, request);
    let generation_config = generation(&mut faults, request);
    let tool_config = tool_config(request);
    faults.finish()?;
    written(&Body {
        model: &request.model,
        stream: request.stream,
        system_instruction,
        contents,
        tools,
        tool_config,
        generation_config: Some(generation_config),
    })
}

/// The body of `:countTokens`.
///
/// # Errors
/// 422 for what this wire cannot express.
pub(crate) fn count(request: &Request<'_>) -> Result<Bytes> {
    let mut faults = Faults::default();
    let (system_instruction, contents, tools) = said(&mut faults, request);
    faults.finish()?;
    written(&Body {
        model: &request.model,
        stream: false,
        system_instruction,
        contents,
        tools,
        tool_config: None,
        generation_config: None,
    })
}

fn written(body: &Body<'_>) -> Result<Bytes> {
    serde_json::to_vec(body).map(Bytes::from).map_err(Error::internal)
}

/// All that is of the prompt.
fn said<'a>(
    faults: &mut Faults,
    request: &'a Request<'_>,
) -> (Option<Content<'a>>, Vec<Content<'a>>, Vec<Tool<'a>>) {
    let texts = request.system.iter().filter(|text| !text.text.trim().is_empty());
    let texts: Vec<_> = texts.map(|text| text_part(&text.text)).collect();
    let system = (!texts.is_empty()).then_some(Content { role: None, parts: texts });
    let mut contents: Vec<Content<'_>> = Vec::with_capacity(request.turns.len());
    for turn in &request.turns {
        let role = match turn.role {
            Role::User => "user",
            Role::Assistant => "model",
            Role::System => {
                faults.add(
                    request.names.messages,
                    "can have instructions of the system only before all others towards this provider",
                );
                continue;
            }
        };
        let parts = parts(faults, request, turn);
        match contents.last_mut() {
            Some(last) if last.role == Some(role) => last.parts.extend(parts),
            _ if parts.is_empty() => {}
            _ => contents.push(Content { role: Some(role), parts }),
        }
    }
    if contents.is_empty() {
        faults.add(request.names.messages, "must have one that is not of the system");
    }
    (system, contents, tools(faults, request))
}

fn tools<'a>(faults: &mut Faults, request: &'a Request<'_>) -> Vec<Tool<'a>> {
    let mut tools = Vec::new();
    if !request.tools.is_empty() {
        let functions = request.tools.iter().map(|tool| Function {
            name: &tool.name,
            description: tool.description.as_deref(),
            parameters_json_schema: tool.schema.filter(|schema| schema.get() != "{}"),
        });
        tools.push(Tool::FunctionDeclarations(functions.collect()));
    }
    if let Some(search) = &request.web_search {
        if search.is_plain() {
            tools.push(Tool::GoogleSearch {});
        } else {
            faults.add(&search.at, "can only be a search without limits towards this provider");
        }
    }
    tools
}

fn tool_config<'a>(request: &'a Request<'_>) -> Option<ToolConfig<'a>> {
    if request.tools.is_empty() {
        return None;
    }
    let is_strict = request.tools.iter().any(|tool| tool.strict == Some(true));
    let (mode, name) = match &request.tool_choice {
        // Only in this mode are the arguments sure to be of the schema, as is asked for.
        None | Some(ToolChoice::Auto) if is_strict => ("VALIDATED", None),
        None => return None,
        Some(ToolChoice::Auto) => ("AUTO", None),
        Some(ToolChoice::None) => ("NONE", None),
        Some(ToolChoice::Required) => ("ANY", None),
        Some(ToolChoice::Tool(name)) => ("ANY", Some([name.as_ref()])),
    };
    let function_calling_config = Calling { mode, allowed_function_names: name };
    Some(ToolConfig { function_calling_config })
}

fn generation<'a>(faults: &mut Faults, request: &'a Request<'_>) -> GenerationConfig<'a> {
    if request.stop.len() > MAX_STOP {
        faults.add(
            request.names.stop,
            format!("can have no more than {MAX_STOP} for the provider of this model"),
        );
    }
    if request.verbosity.is_some_and(|verbosity| verbosity != Verbosity::Medium) {
        faults.unsaid(request.names.verbosity);
    }
    let schema = match &request.format {
        Some(Format::Schema { schema, .. }) => Some(*schema),
        Some(Format::Json) | None => None,
    };
    GenerationConfig {
        max_output_tokens: request.max_tokens,
        temperature: request.temperature,
        top_p: request.top_p,
        top_k: request.top_k,
        stop_sequences: &request.stop,
        response_mime_type: request.format.is_some().then_some("application/json"),
        response_json_schema: schema,
        thinking_config: request.thinking.map(|thinking| thinking_config(thinking, &request.model)),
    }
}

/// Gemini 2.5 takes a budget, those after it a level.
/// <https://ai.google.dev/gemini-api/docs/thinking>
fn thinking_config(thinking: Thinking, model: &str) -> ThinkingConfig {
    let takes_level = takes_level(model);
    let level = |level| ThinkingConfig {
        include_thoughts: true,
        thinking_level: Some(level),
        ..ThinkingConfig::default()
    };
    let budget = |tokens| ThinkingConfig {
        include_thoughts: tokens != 0,
        thinking_budget: Some(tokens),
        ..ThinkingConfig::default()
    };
    match thinking {
        // What cannot be switched off thinks as little as it can.
        Thinking::Disabled if takes_level => {
            ThinkingConfig { include_thoughts: false, ..level(least_level(model)) }
        }
        Thinking::Disabled => budget(0),
        Thinking::Budget(tokens) => budget(tokens.into()),
        Thinking::Adaptive(None) if takes_level => {
            ThinkingConfig { include_thoughts: true, ..ThinkingConfig::default() }
        }
        Thinking::Adaptive(None) => budget(-1),
        Thinking::Adaptive(Some(effort)) | Thinking::Effort(effort) => match effort {
            Effort::Minimal if takes_level => level(least_level(model)),
            Effort::Low if takes_level => level("low"),
            Effort::Medium if takes_level => level("medium"),
            _ if takes_level => level("high"),
            Effort::Minimal | Effort::Low => budget(1024),
            Effort::Medium => budget(8192),
            Effort::High | Effort::Xhigh | Effort::Max => budget(24_576),
        },
    }
}

/// Those of the first two generations and a half are known by their numbers; what comes after goes on
/// as the third.
fn takes_level(model: &str) -> bool {
    !["gemini-1", "gemini-2"].iter().any(|older| model.starts_with(older))
}

fn least_level(model: &str) -> &'static str {
    if model.contains("flash") { "minimal" } else { "low" }
}

fn part(kind: Kind<'_>) -> Part<'_> {
    Part { kind, thought: false, thought_signature: None }
}

fn text_part<'a>(text: &'a str) -> Part<'a> {
    part(Kind::Text(text.into()))
}

fn parts<'a>(faults: &mut Faults, request: &'a Request<'_>, turn: &'a Turn<'_>) -> Vec<Part<'a>> {
    let mut parts = Vec::with_capacity(turn.parts.len());
    let mut is_first_call = true;
    for of in &turn.parts {
        match &of.kind {
            PartKind::Call(call) => {
                let own = signature_of(turn, &call.id);
                // Of calls at once only the first has one.
                let needed = is_first_call && takes_level(&request.model);
                parts.push(Part {
                    thought_signature: own.or(needed.then_some(NOT_OURS)),
                    ..part(Kind::FunctionCall(Called { name: &call.name, args: args(call) }))
                });
                is_first_call = false;
            }
            PartKind::Thinking(thought) => {
                if let Some(Seal::Google { call: None, signature }) = &thought.seal {
                    parts.push(Part {
                        kind: Kind::Text(thought.text.as_ref().into()),
                        thought: !thought.text.is_empty(),
                        thought_signature: Some(signature),
                    });
                }
            }
            PartKind::Result(result) => results(faults, request, result, &mut parts),
            _ => prose(faults, of, &mut parts),
        }
    }
    // What the functions brought comes first in its turn.
    parts.sort_by_key(|part| {
        turn.role == Role::User && !matches!(part.kind, Kind::FunctionResponse(_))
    });
    parts
}

fn signature_of<'a>(turn: &'a Turn<'_>, id: &str) -> Option<&'a str> {
    turn.parts.iter().find_map(|part| match &part.kind {
        PartKind::Thinking(thought) => match &thought.seal {
            Some(Seal::Google { call: Some(call), signature }) if call == id => {
                Some(signature.as_ref())
            }
            _ => None,
        },
        _ => None,
    })
}

/// Text, image, document.
fn prose<'a>(faults: &mut Faults, of: &'a NeutralPart<'_>, parts: &mut Vec<Part<'a>>) {
    match &of.kind {
        PartKind::Text(text) if !text.is_empty() => parts.push(text_part(text)),
        PartKind::Image(media) => parts.extend(binary(faults, media)),
        PartKind::Document(media) => {
            if let Some(text) = media::text_of(media, faults) {
                parts.push(part(Kind::Text(media::labelled(media, text))));
                return;
            }
            // There is no other place for them.
            let labels = [media.title.as_deref(), media.context.as_deref()];
            let labels = labels.into_iter().flatten().filter(|label| !label.is_empty());
            parts.extend(labels.map(text_part));
            parts.extend(binary(faults, media));
        }
        PartKind::Text(_) | PartKind::Thinking(_) | PartKind::Call(_) | PartKind::Result(_) => {}
    }
}

fn binary<'a>(faults: &mut Faults, media: &'a Media<'_>) -> Option<Part<'a>> {
    match &media.source {
        Source::Base64 { media_type, data } => {
            Some(part(Kind::InlineData(Inline { mime_type: media_type, data })))
        }
        Source::Url(url) => {
            let kind = kind_of(url);
            if kind.is_none() {
                faults.add(
                    &media.at,
                    "a URL that does not end as a file of its kind (.png, .jpg, .webp, .gif, .heic, .pdf) \
                     cannot be told to the provider of this model; send it as base64",
                );
            }
            Some(part(Kind::FileData(File { mime_type: kind?, file_uri: url })))
        }
        Source::Text(_) => None,
    }
}

/// What is at a URL has to be told, and the URL is all that is known of it.
fn kind_of(url: &str) -> Option<&'static str> {
    let path = url.split(['?', '#']).next().unwrap_or_default();
    let ending = path.rsplit('/').next()?.rsplit_once('.')?.1.to_ascii_lowercase();
    Some(match ending.as_str() {
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "webp" => "image/webp",
        "gif" => "image/gif",
        "heic" => "image/heic",
        "heif" => "image/heif",
        "pdf" => "application/pdf",
        _ => return None,
    })
}

/// What a function brought; what is no text follows it. Gemini knows it by the function's name.
fn results<'a>(
    faults: &mut Faults,
    request: &'a Request<'_>,
    result: &'a ToolResult<'_>,
    parts: &mut Vec<Part<'a>>,
) {
    let Some(name) = name_of(request, &result.id) else {
        let id = loom_core::text::cut(&result.id, 100);
        faults.add(
            request.names.messages,
            format!("there is a tool's result for `{id}`, but no call of that id before it"),
        );
        return;
    };
    let mut texts = Vec::new();
    let mut others = Vec::new();
    for of in &result.parts {
        match &of.kind {
            PartKind::Text(text) => texts.push(text.as_ref()),
            _ => prose(faults, of, &mut others),
        }
    }
    let text = match texts.as_slice() {
        [one] => Cow::Borrowed(*one),
        many => Cow::Owned(many.join("\n")),
    };
    let response = if result.is_error { Response::Error(text) } else { Response::Output(text) };
    parts.push(part(Kind::FunctionResponse(Responded { name, response })));
    parts.extend(others);
}

fn name_of<'a>(request: &'a Request<'_>, id: &str) -> Option<&'a str> {
    let parts = request.turns.iter().rev().flat_map(|turn| &turn.parts);
    parts
        .filter_map(|part| match &part.kind {
            PartKind::Call(call) => Some(call),
            _ => None,
        })
        .find_map(|call| (call.id == id).then_some(call.name.as_ref()))
}

/// An object; what a model wrote wrongly is in one, as it wrote it.
fn args<'a>(call: &'a Call<'_>) -> Cow<'a, RawValue> {
    let text = call.arguments.trim();
    let text = if text.is_empty() { "{}" } else { text };
    if let Ok(object) = serde_json::from_str::<&RawValue>(text)
        && is_object(object)
    {
        return Cow::Borrowed(object);
    }
    let wrapped = to_raw_value(&json!({"INVALID_JSON": call.arguments}));
    Cow::Owned(wrapped.unwrap_or_else(|_| RawValue::NULL.to_owned()))
}
