//! A request, put on Anthropic's Messages wire.

use std::borrow::Cow;

use bytes::Bytes;
use loom_core::{Error, Result};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use crate::translate::{
    media,
    object::{Faults, is_object},
    request::{
        Cache, Call, Format, Media, Part, PartKind, Request, Role, Seal, Source, Text, Thought,
        ToolChoice, Verbosity, complete_schema, is_telling,
    },
    thinking::{Think, budget},
};

#[derive(Serialize)]
struct Body<'a> {
    model: &'a str,
    max_tokens: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    system: Option<System<'a>>,
    messages: Vec<Message<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tools: Vec<AnyTool<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_choice: Option<Choice<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_p: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_k: Option<u32>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    stop_sequences: &'a [Cow<'a, str>],
    #[serde(skip_serializing_if = "Option::is_none")]
    thinking: Option<Think>,
    #[serde(skip_serializing_if = "Option::is_none")]
    output_config: Option<OutputConfig<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<UserId<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    service_tier: Option<&'static str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    stream: bool,
}

#[derive(Serialize)]
#[serde(untagged)]
enum System<'a> {
    Text(String),
    Blocks(Vec<Block<'a>>),
}

#[derive(Serialize)]
struct Message<'a> {
    role: &'static str,
    content: Vec<Block<'a>>,
}

#[derive(Serialize)]
struct Block<'a> {
    #[serde(flatten)]
    kind: Kind<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cache_control: Option<CacheControl>,
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Kind<'a> {
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
        #[serde(skip_serializing_if = "Option::is_none")]
        context: Option<&'a str>,
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
        content: Vec<Block<'a>>,
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
struct CacheControl {
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl: Option<&'static str>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum AnyTool<'a> {
    Custom(Tool<'a>),
    Search(Search<'a>),
}

#[derive(Serialize)]
struct Search<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    name: &'static str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    allowed_domains: &'a [Cow<'a, str>],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    blocked_domains: &'a [Cow<'a, str>],
    #[serde(skip_serializing_if = "Option::is_none")]
    max_uses: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_location: Option<&'a RawValue>,
}

#[derive(Serialize)]
struct Tool<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
    input_schema: Cow<'a, RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    strict: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cache_control: Option<CacheControl>,
}

#[derive(Serialize)]
struct Choice<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    disable_parallel_tool_use: bool,
}

#[derive(Serialize)]
struct OutputConfig<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    effort: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    format: Option<Schema<'a>>,
}

#[derive(Serialize)]
struct Schema<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    schema: &'a RawValue,
}

#[derive(Serialize)]
struct UserId<'a> {
    user_id: &'a str,
}

/// The body of `POST /v1/messages`.
///
/// # Errors
/// 422 for what this wire cannot express.
pub(crate) fn body(request: &Request<'_>) -> Result<Bytes> {
    let mut faults = Faults::default();
    let (thinking, effort, max_tokens) = budget(&mut faults, request);
    let messages = messages(&mut faults, request);
    if request.temperature.is_some_and(|temperature| temperature > 1.0) {
        faults.add("temperature", "is at most 1 towards this provider");
    }
    if request.verbosity.is_some_and(|verbosity| verbosity != Verbosity::Medium) {
        faults.unsaid(request.names.verbosity);
    }
    let format = match &request.format {
        None => None,
        Some(Format::Schema { schema, .. }) => Some(Schema { kind: "json_schema", schema }),
        Some(Format::Json) => {
            faults.add(
                request.names.format,
                "must be a JSON schema for the provider of this model, which knows no other JSON",
            );
            None
        }
    };
    faults.finish()?;
    let tools = tools(request);
    let choice = choice(request).filter(|_| !tools.is_empty());
    let body = Body {
        model: &request.model,
        max_tokens,
        system: system(&request.system),
        messages,
        tools,
        tool_choice: choice,
        temperature: request.temperature.filter(|value| is_telling(*value)),
        top_p: request.top_p.filter(|value| is_telling(*value)),
        top_k: request.top_k,
        stop_sequences: &request.stop,
        thinking,
        output_config: (effort.is_some() || format.is_some())
            .then_some(OutputConfig { effort, format }),
        metadata: request.user.as_deref().map(|user_id| UserId { user_id }),
        service_tier: request.standard_tier.then_some("standard_only"),
        stream: request.stream,
    };
    serde_json::to_vec(&body).map(Bytes::from).map_err(Error::internal)
}

fn tools<'a>(request: &'a Request<'_>) -> Vec<AnyTool<'a>> {
    let none = || RawValue::from_string(r#"{"type":"object","properties":{}}"#.to_owned());
    let custom = request.tools.iter().map(|tool| {
        AnyTool::Custom(Tool {
            name: &tool.name,
            description: tool.description.as_deref(),
            input_schema: match tool.schema {
                Some(schema) => complete_schema(schema),
                None => Cow::Owned(none().unwrap_or_else(|_| RawValue::NULL.to_owned())),
            },
            strict: tool.strict.filter(|strict| *strict),
            cache_control: cache_control(tool.cache),
        })
    });
    let search = request.web_search.as_ref().map(|search| {
        AnyTool::Search(Search {
            kind: "web_search_20250305",
            name: "web_search",
            allowed_domains: &search.allowed_domains,
            blocked_domains: &search.blocked_domains,
            max_uses: search.max_uses,
            user_location: search.location,
        })
    });
    custom.chain(search).collect()
}

fn choice<'a>(request: &'a Request<'_>) -> Option<Choice<'a>> {
    let alone = request.parallel_tools == Some(false);
    let (kind, name) = match &request.tool_choice {
        None if alone => ("auto", None),
        None => return None,
        Some(ToolChoice::Auto) => ("auto", None),
        Some(ToolChoice::None) => ("none", None),
        Some(ToolChoice::Required) => ("any", None),
        Some(ToolChoice::Tool(name)) => ("tool", Some(name.as_ref())),
    };
    Some(Choice { kind, name, disable_parallel_tool_use: alone && kind != "none" })
}

fn cache_control(cache: Option<Cache>) -> Option<CacheControl> {
    let ttl = match cache? {
        Cache::FiveMinutes => None,
        Cache::OneHour => Some("1h"),
    };
    Some(CacheControl { kind: "ephemeral", ttl })
}

fn system<'a>(texts: &'a [Text<'_>]) -> Option<System<'a>> {
    let texts: Vec<_> = texts.iter().filter(|text| !text.text.trim().is_empty()).collect();
    if texts.is_empty() {
        return None;
    }
    if texts.iter().all(|text| text.cache.is_none()) {
        let texts: Vec<&str> = texts.iter().map(|text| text.text.as_ref()).collect();
        return Some(System::Text(texts.join("\n\n")));
    }
    let block = |text: &'a Text<'_>| Block {
        kind: Kind::Text { text: &text.text },
        cache_control: cache_control(text.cache),
    };
    Some(System::Blocks(texts.into_iter().map(block).collect()))
}

fn messages<'a>(faults: &mut Faults, request: &'a Request<'_>) -> Vec<Message<'a>> {
    let mut messages: Vec<Message<'_>> = Vec::new();
    for turn in &request.turns {
        let role = match turn.role {
            Role::System => "system",
            Role::User => "user",
            Role::Assistant => "assistant",
        };
        let mut content = Vec::with_capacity(turn.parts.len());
        for part in &turn.parts {
            content.extend(block(faults, part));
        }
        match messages.last_mut() {
            Some(last) if last.role == role => last.content.extend(content),
            _ => messages.push(Message { role, content }),
        }
    }
    for message in &mut messages {
        // Results come first in their turn.
        let is_user = message.role == "user";
        message
            .content
            .sort_by_key(|block| is_user && !matches!(block.kind, Kind::ToolResult { .. }));
    }
    messages.retain(|message| !message.content.is_empty());
    if messages.is_empty() {
        faults.add(request.names.messages, "must have one that is not of the system");
    }
    messages
}

fn block<'a>(faults: &mut Faults, part: &'a Part<'_>) -> Option<Block<'a>> {
    let kind = match &part.kind {
        // A text without a letter, as models write before a call, is refused on this wire, and says
        // nothing.
        PartKind::Text(text) if text.trim().is_empty() => return None,
        PartKind::Text(text) => Kind::Text { text },
        PartKind::Image(media) => Kind::Image { source: origin(faults, media) },
        PartKind::Document(media) => Kind::Document {
            source: origin(faults, media),
            title: media.title.as_deref(),
            context: media.context.as_deref(),
        },
        PartKind::Thinking(thought) => thinking(thought)?,
        PartKind::Call(call) => {
            Kind::ToolUse { id: &call.id, name: &call.name, input: input(call) }
        }
        PartKind::Result(result) => Kind::ToolResult {
            tool_use_id: &result.id,
            content: result.parts.iter().filter_map(|part| block(faults, part)).collect(),
            is_error: result.is_error,
        },
    };
    Some(Block { kind, cache_control: cache_control(part.cache) })
}

/// Thinking without a seal, or with another provider's, is refused here: it stays out.
fn thinking<'a>(thought: &'a Thought<'_>) -> Option<Kind<'a>> {
    match thought.seal.as_ref()? {
        Seal::Signature(signature) => Some(Kind::Thinking { thinking: &thought.text, signature }),
        Seal::Redacted(data) => Some(Kind::RedactedThinking { data }),
        Seal::Encrypted { .. } | Seal::Google { .. } => None,
    }
}

fn origin<'a>(faults: &mut Faults, media: &'a Media<'_>) -> Origin<'a> {
    if let Some(data) = media::text_of(media, faults) {
        return Origin::Text { media_type: "text/plain", data };
    }
    match &media.source {
        Source::Url(url) => Origin::Url { url },
        Source::Text(text) => Origin::Text { media_type: "text/plain", data: text.as_ref().into() },
        Source::Base64 { media_type, data } => Origin::Base64 { media_type, data },
    }
}

/// Arguments are an object here. What a model wrote wrongly goes back in the form that Anthropic
/// advises for it.
/// <https://platform.claude.com/docs/en/agents-and-tools/tool-use/fine-grained-tool-streaming>
fn input<'a>(call: &'a Call<'_>) -> Cow<'a, RawValue> {
    let text = call.arguments.trim();
    let text = if text.is_empty() { "{}" } else { text };
    if let Ok(object) = serde_json::from_str::<&RawValue>(text)
        && is_object(object)
    {
        return Cow::Borrowed(object);
    }
    let wrapped = to_raw_value(&serde_json::json!({"INVALID_JSON": call.arguments}));
    Cow::Owned(wrapped.unwrap_or_else(|_| RawValue::NULL.to_owned()))
}
