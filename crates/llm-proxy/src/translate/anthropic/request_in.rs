//! A request of a client that speaks Anthropic's Messages wire.

use std::borrow::Cow;

use serde_json::value::RawValue;

use crate::translate::{
    object::{Faults, Object, Path, as_list, as_text},
    request::{
        Cache, Call, DefaultMax, Effort, Format, Media, Names, Part, PartKind, Request, Role, Seal,
        Source, Text, Thinking, Thought, Tool, ToolChoice, ToolResult, WebSearch,
    },
    thinking::from_signature,
};

pub(crate) const NAMES: Names = Names {
    messages: "messages",
    max_tokens: "max_tokens",
    budget: "thinking.budget_tokens",
    stop: "stop_sequences",
    format: "output_config.format",
    verbosity: "verbosity",
    default_max_tokens: DefaultMax::OfModel,
};

pub(crate) fn read<'a>(body: &'a RawValue, faults: &mut Faults) -> Request<'a> {
    let mut request = Request::new(&NAMES);
    let Some(mut all) = Object::read(body, Path::ROOT, faults) else { return request };
    request.model = all.some_text("model", faults);
    request.max_tokens = all.number("max_tokens", faults);
    request.temperature = all.number("temperature", faults);
    request.top_p = all.number("top_p", faults);
    request.top_k = all.number("top_k", faults);
    request.stop = all.texts("stop_sequences", faults);
    request.stream = all.flag("stream", faults).unwrap_or_default();
    if let Some(raw) = all.take("system") {
        let system = texts(raw, all.path.member("system"), faults);
        request.system(system);
    }
    for (at, message) in all.list("messages", faults).into_iter().enumerate() {
        let list = all.path.member("messages");
        read_message(message, list.index(at), &mut request, faults);
    }
    for (at, raw) in all.list("tools", faults).into_iter().enumerate() {
        let list = all.path.member("tools");
        match tool(raw, list.index(at), faults) {
            Some(AnyTool::Custom(tool)) => request.tools.push(tool),
            Some(AnyTool::Search(search)) => request.web_search = Some(search),
            None => {}
        }
    }
    if let Some(raw) = all.take("tool_choice") {
        let path = all.path.member("tool_choice");
        choice(raw, path, &mut request, faults);
    }
    if let Some(raw) = all.take("thinking") {
        let path = all.path.member("thinking");
        request.thinking = thinking(raw, path, faults);
    }
    if let Some(raw) = all.take("output_config") {
        let path = all.path.member("output_config");
        output_config(raw, path, &mut request, faults);
    }
    if let Some(raw) = all.take("metadata")
        && let Some(mut metadata) = Object::read(raw, all.path.member("metadata"), faults)
    {
        request.user = metadata.text("user_id", faults);
        metadata.finish(faults);
    }
    match all.text("service_tier", faults).as_deref() {
        None | Some("auto") => {}
        Some("standard_only") => request.standard_tier = true,
        Some(_) => faults.unsaid("service_tier"),
    }
    if let Some(raw) = all.take("context_management") {
        context_management(raw, all.path.member("context_management"), faults);
    }
    all.only("speed", &["\"standard\""], faults);
    // Other providers cache on their own; what is asked about a cache is no part of the reply.
    all.ignore(&["cache_control", "diagnostics"]);
    all.finish(faults);
    request
}

/// Clearing old thinking takes nothing away: it does not go to another provider anyway.
fn context_management(raw: &RawValue, path: Path<'_>, faults: &mut Faults) {
    let Some(mut management) = Object::read(raw, path, faults) else { return };
    let list = path.member("edits");
    for (at, edit) in management.list("edits", faults).into_iter().enumerate() {
        let at = list.index(at);
        let Some(mut edit) = Object::read(edit, at, faults) else { continue };
        if !edit.some_text("type", faults).starts_with("clear_thinking_") {
            faults.unsaid(at.member("type"));
        }
    }
    management.finish(faults);
}

fn read_message<'a>(
    raw: &'a RawValue,
    path: Path<'_>,
    request: &mut Request<'a>,
    faults: &mut Faults,
) {
    let Some(mut message) = Object::read(raw, path, faults) else { return };
    let role = match &*message.some_text("role", faults) {
        "user" => Role::User,
        "assistant" => Role::Assistant,
        "system" => Role::System,
        _ => {
            faults.add(path.member("role"), "must be `user`, `assistant` or `system`");
            return;
        }
    };
    let content = path.member("content");
    match message.take("content") {
        None => faults.add(content, "is missing"),
        Some(raw) if role == Role::System => {
            let texts = texts(raw, content, faults);
            request.system(texts);
        }
        Some(raw) => {
            let within = if role == Role::User { Within::User } else { Within::Assistant };
            let parts = parts(raw, within, content, faults);
            request.push(role, parts);
        }
    }
    message.finish(faults);
}

/// A text, or a list of blocks that are texts.
fn texts<'a>(raw: &'a RawValue, path: Path<'_>, faults: &mut Faults) -> Vec<Text<'a>> {
    if let Some(text) = as_text(raw) {
        return vec![Text { text, cache: None }];
    }
    let parts = parts(raw, Within::Texts, path, faults).into_iter();
    let text = |part: Part<'a>| match part.kind {
        PartKind::Text(text) => Some(Text { text, cache: part.cache }),
        _ => None,
    };
    parts.filter_map(text).collect()
}

/// Where a block stands decides what it may be.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Within {
    Texts,
    User,
    Assistant,
    Result,
}

impl Within {
    fn may_have(self, kind: &str) -> bool {
        match kind {
            "text" => true,
            "image" | "document" => self == Self::User || self == Self::Result,
            "tool_result" => self == Self::User,
            "thinking"
            | "redacted_thinking"
            | "tool_use"
            | "server_tool_use"
            | "web_search_tool_result" => self == Self::Assistant,
            // Of what is unknown something else is said.
            _ => true,
        }
    }
}

fn parts<'a>(
    raw: &'a RawValue,
    within: Within,
    path: Path<'_>,
    faults: &mut Faults,
) -> Vec<Part<'a>> {
    if let Some(text) = as_text(raw) {
        return vec![PartKind::Text(text).into()];
    }
    let Some(blocks) = as_list(raw) else {
        faults.add(path, "must be a string or a list of blocks");
        return Vec::new();
    };
    let blocks = blocks.into_iter().enumerate();
    blocks.filter_map(|(at, raw)| block(raw, within, path.index(at), faults)).collect()
}

fn block<'a>(
    raw: &'a RawValue,
    within: Within,
    path: Path<'_>,
    faults: &mut Faults,
) -> Option<Part<'a>> {
    let mut block = Object::read(raw, path, faults)?;
    let cache = cache(&mut block, faults);
    let kind = block.some_text("type", faults);
    if !within.may_have(&kind) {
        faults.add(path.member("type"), format!("`{kind}` has no place here"));
        return None;
    }
    let kind = match &*kind {
        "text" => {
            // Where the text comes from is for people.
            block.ignore(&["citations"]);
            PartKind::Text(block.some_text("text", faults))
        }
        "image" => PartKind::Image(media(&mut block, faults)?),
        "document" => {
            let mut media = media(&mut block, faults)?;
            media.title = block.text("title", faults);
            media.context = block.text("context", faults);
            if let Some(raw) = block.take("citations")
                && let Some(mut asked) = Object::read(raw, path.member("citations"), faults)
            {
                asked.only("enabled", &["false"], faults);
                asked.finish(faults);
            }
            PartKind::Document(media)
        }
        "thinking" => {
            let text = block.some_text("thinking", faults);
            let seal = block.text("signature", faults).and_then(from_signature);
            PartKind::Thinking(Thought { text, seal })
        }
        "redacted_thinking" => PartKind::Thinking(Thought {
            text: "".into(),
            seal: Some(Seal::Redacted(block.some_text("data", faults))),
        }),
        "tool_use" => {
            // Who called is told by the role.
            block.ignore(&["caller"]);
            PartKind::Call(Call {
                id: block.some_text("id", faults),
                name: block.some_text("name", faults),
                arguments: block.take("input").map_or("{}", RawValue::get).into(),
            })
        }
        "tool_result" => {
            let content = path.member("content");
            PartKind::Result(ToolResult {
                id: block.some_text("tool_use_id", faults),
                parts: block
                    .take("content")
                    .map(|raw| parts(raw, Within::Result, content, faults))
                    .unwrap_or_default(),
                is_error: block.flag("is_error", faults).unwrap_or_default(),
            })
        }
        // What a search found is in the text that came of it.
        "web_search_tool_result" => return None,
        "server_tool_use" if block.text("name", faults).as_deref() == Some("web_search") => {
            return None;
        }
        other => {
            if !other.is_empty() {
                let other = loom_core::text::cut(other, 100);
                faults.add(
                    path.member("type"),
                    format!("`{other}` cannot be told to the provider of this model"),
                );
            }
            return None;
        }
    };
    block.finish(faults);
    Some(Part { kind, cache })
}

fn cache(of: &mut Object<'_, '_>, faults: &mut Faults) -> Option<Cache> {
    let path = of.path;
    let mut control = of
        .take("cache_control")
        .and_then(|raw| Object::read(raw, path.member("cache_control"), faults))?;
    control.ignore(&["type"]);
    let long = control.text("ttl", faults).is_some_and(|ttl| ttl == "1h");
    Some(if long { Cache::OneHour } else { Cache::FiveMinutes })
}

/// Also for a chat client that knows of this wire's cache.
pub(crate) fn cache_control(of: &mut Object<'_, '_>, faults: &mut Faults) -> Option<Cache> {
    cache(of, faults)
}

fn media<'a>(block: &mut Object<'a, '_>, faults: &mut Faults) -> Option<Media<'a>> {
    let path = block.path;
    let at = path.member("source");
    let Some(raw) = block.take("source") else {
        faults.add(at, "is missing");
        return None;
    };
    let mut source = Object::read(raw, at, faults)?;
    let kind = source.some_text("type", faults);
    let read = match &*kind {
        "base64" => Source::Base64 {
            media_type: source.some_text("media_type", faults),
            data: source.some_text("data", faults),
        },
        "url" => Source::Url(source.some_text("url", faults)),
        "text" => {
            source.ignore(&["media_type"]);
            Source::Text(source.some_text("data", faults))
        }
        "content" => {
            let content = at.member("content");
            let texts: Vec<Cow<'_, str>> = source
                .take("content")
                .map(|raw| texts(raw, content, faults))
                .unwrap_or_default()
                .into_iter()
                .map(|text| text.text)
                .collect();
            Source::Text(texts.join("\n\n").into())
        }
        _ => {
            faults.unsaid(at.member("type"));
            return None;
        }
    };
    source.finish(faults);
    Some(Media { at: path.to_string(), source: read, title: None, context: None })
}

enum AnyTool<'a> {
    Custom(Tool<'a>),
    Search(WebSearch<'a>),
}

/// The one tool of Anthropic's own that others have, too.
fn web_search<'a>(mut tool: Object<'a, '_>, faults: &mut Faults) -> WebSearch<'a> {
    tool.only("name", &["\"web_search\""], faults);
    tool.only("allowed_callers", &["[\"direct\"]"], faults);
    tool.ignore(&["cache_control"]);
    let search = WebSearch {
        at: tool.path.to_string(),
        allowed_domains: tool.texts("allowed_domains", faults),
        blocked_domains: tool.texts("blocked_domains", faults),
        max_uses: tool.number("max_uses", faults),
        location: tool.take("user_location"),
    };
    tool.finish(faults);
    search
}

fn tool<'a>(raw: &'a RawValue, path: Path<'_>, faults: &mut Faults) -> Option<AnyTool<'a>> {
    let mut tool = Object::read(raw, path, faults)?;
    let kind = tool.text("type", faults);
    if kind.as_deref().is_some_and(|kind| kind.starts_with("web_search_")) {
        return Some(AnyTool::Search(web_search(tool, faults)));
    }
    if let Some(kind) = kind
        && kind != "custom"
    {
        let kind = loom_core::text::cut(&kind, 100);
        faults.add(
            path.member("type"),
            format!("`{kind}` is a tool of Anthropic's own, which the provider of this model does not have"),
        );
        return None;
    }
    let cache = cache(&mut tool, faults);
    let read = Tool {
        name: tool.some_text("name", faults),
        description: tool.text("description", faults),
        schema: tool.take("input_schema"),
        strict: tool.flag("strict", faults),
        cache,
    };
    tool.only("defer_loading", &["false"], faults);
    tool.only("allowed_callers", &["[\"direct\"]"], faults);
    tool.only("input_examples", &["[]"], faults);
    // How the arguments are cut into pieces changes nothing in them.
    tool.ignore(&["eager_input_streaming"]);
    tool.finish(faults);
    Some(AnyTool::Custom(read))
}

fn choice<'a>(raw: &'a RawValue, path: Path<'_>, request: &mut Request<'a>, faults: &mut Faults) {
    let Some(mut choice) = Object::read(raw, path, faults) else { return };
    let kind = choice.some_text("type", faults);
    request.tool_choice = match &*kind {
        "auto" => Some(ToolChoice::Auto),
        "none" => Some(ToolChoice::None),
        "any" => Some(ToolChoice::Required),
        "tool" => Some(ToolChoice::Tool(choice.some_text("name", faults))),
        _ => {
            faults.add(path.member("type"), "must be `auto`, `any`, `tool` or `none`");
            None
        }
    };
    if choice.flag("disable_parallel_tool_use", faults) == Some(true) {
        request.parallel_tools = Some(false);
    }
    choice.finish(faults);
}

fn thinking(raw: &RawValue, path: Path<'_>, faults: &mut Faults) -> Option<Thinking> {
    let mut thinking = Object::read(raw, path, faults)?;
    let kind = thinking.some_text("type", faults);
    let budget = thinking.number("budget_tokens", faults);
    let read = match (&*kind, budget) {
        ("disabled", _) => Some(Thinking::Disabled),
        ("enabled", Some(budget)) => Some(Thinking::Budget(budget)),
        ("enabled", None) => {
            faults.add(path.member("budget_tokens"), "is missing");
            None
        }
        ("adaptive", _) => Some(Thinking::Adaptive(None)),
        _ => {
            faults.unsaid(path.member("type"));
            None
        }
    };
    // How much of it is shown is the provider's to decide.
    thinking.ignore(&["display"]);
    thinking.finish(faults);
    read
}

fn output_config<'a>(
    raw: &'a RawValue,
    path: Path<'_>,
    request: &mut Request<'a>,
    faults: &mut Faults,
) {
    let Some(mut config) = Object::read(raw, path, faults) else { return };
    if let Some(word) = config.text("effort", faults) {
        match Effort::read(&word) {
            // Effort is of all that a model does; others know it as that of thinking.
            Some(effort) if !matches!(request.thinking, Some(Thinking::Disabled)) => {
                request.thinking = Some(Thinking::Adaptive(Some(effort)));
            }
            Some(_) => {}
            None => faults.unsaid(path.member("effort")),
        }
    }
    if let Some(raw) = config.take("format") {
        let at = path.member("format");
        if let Some(mut format) = Object::read(raw, at, faults) {
            format.only("type", &["\"json_schema\""], faults);
            match format.take("schema") {
                Some(schema) => {
                    request.format = Some(Format::Schema {
                        name: None,
                        description: None,
                        schema,
                        strict: Some(true),
                    });
                }
                None => faults.add(at.member("schema"), "is missing"),
            }
            format.finish(faults);
        }
    }
    config.finish(faults);
}
