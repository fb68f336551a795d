//! A request of a client that speaks OpenAI's chat completions wire.

use serde_json::value::RawValue;

use crate::translate::{
    anthropic::request_in::cache_control,
    media,
    object::{Faults, Object, Path, as_list, as_text},
    request::{
        Call, DefaultMax, Effort, Format, Media, Names, Part, PartKind, Request, Role, Seal,
        Source, Text, Thinking, Thought, Tool, ToolChoice, ToolResult, Verbosity, WebSearch,
    },
    thinking::from_encrypted,
};

pub(crate) const NAMES: Names = Names {
    messages: "messages",
    max_tokens: "max_completion_tokens",
    budget: "reasoning_effort",
    stop: "stop",
    format: "response_format",
    verbosity: "verbosity",
    default_max_tokens: DefaultMax::OfModel,
};

pub(crate) fn read<'a>(body: &'a RawValue, faults: &mut Faults) -> Request<'a> {
    let mut request = Request::new(&NAMES);
    let Some(mut all) = Object::read(body, Path::ROOT, faults) else { return request };
    request.model = all.some_text("model", faults);
    let older = all.number("max_tokens", faults);
    request.max_tokens = all.number("max_completion_tokens", faults).or(older);
    request.temperature = all.number("temperature", faults);
    request.top_p = all.number("top_p", faults);
    request.stream = all.flag("stream", faults).unwrap_or_default();
    request.parallel_tools = all.flag("parallel_tool_calls", faults);
    if let Some(raw) = all.take("stop") {
        request.stop = match as_text(raw) {
            Some(stop) => vec![stop],
            None => as_list(raw)
                .and_then(|list| list.into_iter().map(as_text).collect())
                .unwrap_or_else(|| {
                    faults.add("stop", "must be a string or a list of strings");
                    Vec::new()
                }),
        };
    }
    for (at, raw) in all.list("messages", faults).into_iter().enumerate() {
        let list = all.path.member("messages");
        message(raw, list.index(at), &mut request, faults);
    }
    for (at, raw) in all.list("tools", faults).into_iter().enumerate() {
        let list = all.path.member("tools");
        request.tools.extend(tool(raw, list.index(at), faults));
    }
    if let Some(raw) = all.take("tool_choice") {
        request.tool_choice = choice(raw, all.path.member("tool_choice"), faults);
    }
    if let Some(word) = all.text("reasoning_effort", faults) {
        request.thinking = effort(&word, all.path.member("reasoning_effort"), faults);
    }
    if let Some(word) = all.text("verbosity", faults) {
        request.verbosity = verbosity(&word, all.path.member("verbosity"), faults);
    }
    if let Some(raw) = all.take("response_format") {
        request.format = format(raw, all.path.member("response_format"), faults);
    }
    if let Some(raw) = all.take("web_search_options") {
        request.web_search = search(raw, all.path.member("web_search_options"), faults);
    }
    tier(&mut all, &mut request, faults);
    user(&mut all, &mut request, faults);
    refuse(&mut all, faults);
    all.finish(faults);
    request
}

/// What means nothing to another provider, and what may only be as it is by default.
fn refuse(all: &mut Object<'_, '_>, faults: &mut Faults) {
    // About caches, labels and speed: the reply is the same. `stream_options` is ours to answer.
    all.ignore(&[
        "metadata",
        "prediction",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "stream_options",
    ]);
    all.only("n", &["1"], faults);
    all.only("logprobs", &["false"], faults);
    all.only("top_logprobs", &["0"], faults);
    all.only("logit_bias", &["{}"], faults);
    all.only("frequency_penalty", &["0", "0.0"], faults);
    all.only("presence_penalty", &["0", "0.0"], faults);
    all.only("modalities", &["[\"text\"]"], faults);
    all.only("store", &["false"], faults);
}

fn search<'a>(raw: &'a RawValue, path: Path<'_>, faults: &mut Faults) -> Option<WebSearch<'a>> {
    let mut options = Object::read(raw, path, faults)?;
    // How much of what is found the model reads is the provider's to decide.
    options.ignore(&["search_context_size"]);
    options.finish(faults);
    Some(WebSearch { at: path.to_string(), ..WebSearch::default() })
}

pub(crate) fn tier(all: &mut Object<'_, '_>, request: &mut Request<'_>, faults: &mut Faults) {
    match all.text("service_tier", faults).as_deref() {
        None | Some("auto") => {}
        Some("default") => request.standard_tier = true,
        Some(_) => faults.unsaid(all.path.member("service_tier")),
    }
}

pub(crate) fn user<'a>(all: &mut Object<'a, '_>, request: &mut Request<'a>, faults: &mut Faults) {
    let older = all.text("user", faults);
    request.user = all.text("safety_identifier", faults).or(older);
}

pub(crate) fn effort(word: &str, path: Path<'_>, faults: &mut Faults) -> Option<Thinking> {
    if word == "none" {
        return Some(Thinking::Disabled);
    }
    let effort = Effort::read(word);
    if effort.is_none() {
        faults.unsaid(path);
    }
    effort.map(Thinking::Effort)
}

pub(crate) fn verbosity(word: &str, path: Path<'_>, faults: &mut Faults) -> Option<Verbosity> {
    match word {
        "low" => Some(Verbosity::Low),
        "medium" => Some(Verbosity::Medium),
        "high" => Some(Verbosity::High),
        _ => {
            faults.unsaid(path);
            None
        }
    }
}

fn message<'a>(raw: &'a RawValue, path: Path<'_>, request: &mut Request<'a>, faults: &mut Faults) {
    let Some(mut message) = Object::read(raw, path, faults) else { return };
    let role = message.some_text("role", faults);
    let said = message.take("content");
    let at = path.member("content");
    match &*role {
        "system" | "developer" => {
            let parts = said.map(|raw| content(raw, at, faults, part)).unwrap_or_default();
            request.system(only_texts(parts, at, faults));
        }
        "user" => match said {
            Some(raw) => {
                let parts = content(raw, at, faults, part);
                request.push(Role::User, parts);
            }
            None => faults.add(at, "is missing"),
        },
        "tool" => {
            let result = ToolResult {
                id: message.some_text("tool_call_id", faults),
                parts: said.map(|raw| content(raw, at, faults, part)).unwrap_or_default(),
                is_error: false,
            };
            // The name is that of the call.
            message.ignore(&["name"]);
            request.push(Role::User, vec![PartKind::Result(result).into()]);
        }
        "assistant" => assistant(&mut message, said, request, faults),
        _ => faults.add(
            path.member("role"),
            "must be `system`, `developer`, `user`, `assistant` or `tool`",
        ),
    }
    message.finish(faults);
}

/// A turn of the assistant's, also as a reply of ours had it.
fn assistant<'a>(
    message: &mut Object<'a, '_>,
    said: Option<&'a RawValue>,
    request: &mut Request<'a>,
    faults: &mut Faults,
) {
    let path = message.path;
    let mut all = Vec::new();
    let details = path.member("reasoning_details");
    let sealed = message.list("reasoning_details", faults);
    let reasoning = message.text("reasoning_content", faults).or(message.text("reasoning", faults));
    if sealed.is_empty() {
        all.extend(
            reasoning
                .filter(|text| !text.is_empty())
                .map(|text| Part::from(PartKind::Thinking(Thought { text, seal: None }))),
        );
    }
    for (at, raw) in sealed.into_iter().enumerate() {
        all.extend(detail(raw, details.index(at), faults));
    }
    let at = path.member("content");
    all.extend(said.map(|raw| content(raw, at, faults, part)).unwrap_or_default());
    if let Some(refusal) = message.text("refusal", faults) {
        all.push(PartKind::Text(refusal).into());
    }
    let calls = path.member("tool_calls");
    for (at, raw) in message.list("tool_calls", faults).into_iter().enumerate() {
        all.extend(call(raw, calls.index(at), faults));
    }
    // For people.
    message.ignore(&["annotations"]);
    request.push(Role::Assistant, all);
}

/// Thinking as [`super::reply_out`] tells it.
fn detail<'a>(raw: &'a RawValue, path: Path<'_>, faults: &mut Faults) -> Option<Part<'a>> {
    let mut detail = Object::read(raw, path, faults)?;
    let kind = detail.some_text("type", faults);
    let text = detail.text("text", faults).or(detail.text("summary", faults)).unwrap_or_default();
    let data = detail.text("data", faults);
    let format = detail.text("format", faults).unwrap_or_default();
    let seal = match (detail.text("signature", faults), data, detail.text("id", faults)) {
        (Some(signature), ..) => Some(Seal::Signature(signature)),
        (None, Some(data), _) if format.starts_with("anthropic") => Some(Seal::Redacted(data)),
        (None, Some(data), id) if format.starts_with("google") => {
            Some(from_encrypted(id.unwrap_or_default(), data))
        }
        (None, Some(content), Some(id)) => Some(Seal::Encrypted { id, content }),
        _ => None,
    };
    detail.ignore(&["index"]);
    detail.finish(faults);
    if !kind.starts_with("reasoning.") {
        faults.unsaid(path.member("type"));
    }
    Some(PartKind::Thinking(Thought { text, seal }).into())
}

fn call<'a>(raw: &'a RawValue, path: Path<'_>, faults: &mut Faults) -> Option<Part<'a>> {
    let mut call = Object::read(raw, path, faults)?;
    call.only("type", &["\"function\""], faults);
    call.ignore(&["index"]);
    let id = call.some_text("id", faults);
    let at = path.member("function");
    let function = match call.take("function") {
        Some(raw) => Object::read(raw, at, faults),
        None => {
            faults.add(at, "is missing");
            None
        }
    };
    call.finish(faults);
    let mut function = function?;
    let name = function.some_text("name", faults);
    let arguments = function.text("arguments", faults).unwrap_or_default();
    function.finish(faults);
    Some(PartKind::Call(Call { id, name, arguments }).into())
}

/// The content of a message on either of OpenAI's wires: a text, or a list of parts, which each wire
/// reads in its own way.
pub(crate) fn content<'a>(
    raw: &'a RawValue,
    path: Path<'_>,
    faults: &mut Faults,
    part: fn(&'a RawValue, Path<'_>, &mut Faults) -> Option<Part<'a>>,
) -> Vec<Part<'a>> {
    if let Some(text) = as_text(raw) {
        return vec![PartKind::Text(text).into()];
    }
    let Some(list) = as_list(raw) else {
        faults.add(path, "must be a string or a list of parts");
        return Vec::new();
    };
    let list = list.into_iter().enumerate();
    list.filter_map(|(at, raw)| part(raw, path.index(at), faults)).collect()
}

/// What the system says: parts that are texts.
pub(crate) fn only_texts<'a>(
    parts: Vec<Part<'a>>,
    path: Path<'_>,
    faults: &mut Faults,
) -> Vec<Text<'a>> {
    let mut texts = Vec::new();
    for part in parts {
        match part.kind {
            PartKind::Text(text) => texts.push(Text { text, cache: part.cache }),
            _ => faults.add(path, "can only have texts"),
        }
    }
    texts
}

pub(crate) fn unknown_part(kind: &str, path: Path<'_>, faults: &mut Faults) {
    if !kind.is_empty() {
        let kind = loom_core::text::cut(kind, 100);
        faults.add(
            path.member("type"),
            format!("`{kind}` cannot be told to the provider of this model"),
        );
    }
}

fn part<'a>(raw: &'a RawValue, path: Path<'_>, faults: &mut Faults) -> Option<Part<'a>> {
    let mut part = Object::read(raw, path, faults)?;
    let cache = cache_control(&mut part, faults);
    let kind = part.some_text("type", faults);
    let kind = match &*kind {
        "text" => PartKind::Text(part.some_text("text", faults)),
        "refusal" => PartKind::Text(part.some_text("refusal", faults)),
        "image_url" => {
            let at = path.member("image_url");
            let mut image = Object::read(member(&mut part, "image_url", faults)?, at, faults)?;
            let url = image.some_text("url", faults);
            let source = media::from_url(url, &at.member("url").to_string(), faults);
            // Other providers have one way of looking.
            image.ignore(&["detail"]);
            image.finish(faults);
            PartKind::Image(plain(path, source))
        }
        "file" => {
            let at = path.member("file");
            let mut file = Object::read(member(&mut part, "file", faults)?, at, faults)?;
            let title = file.text("filename", faults);
            let data = file.some_text("file_data", faults);
            let source = media::from_url(data, &at.member("file_data").to_string(), faults);
            file.finish(faults);
            PartKind::Document(Media { title, ..plain(path, source) })
        }
        other => {
            unknown_part(other, path, faults);
            return None;
        }
    };
    part.ignore(&["prompt_cache_breakpoint"]);
    part.finish(faults);
    Some(Part { kind, cache })
}

pub(crate) fn plain<'a>(path: Path<'_>, source: Source<'a>) -> Media<'a> {
    Media { at: path.to_string(), source, title: None, context: None }
}

pub(crate) fn member<'a>(
    of: &mut Object<'a, '_>,
    name: &str,
    faults: &mut Faults,
) -> Option<&'a RawValue> {
    let raw = of.take(name);
    if raw.is_none() {
        faults.add(of.path.member(name), "is missing");
    }
    raw
}

fn tool<'a>(raw: &'a RawValue, path: Path<'_>, faults: &mut Faults) -> Option<Tool<'a>> {
    let mut tool = Object::read(raw, path, faults)?;
    if !is_function(&mut tool, faults) {
        return None;
    }
    let cache = cache_control(&mut tool, faults);
    let at = path.member("function");
    let mut function = Object::read(member(&mut tool, "function", faults)?, at, faults)?;
    tool.finish(faults);
    let read = Tool {
        name: function.some_text("name", faults),
        description: function.text("description", faults),
        schema: function.take("parameters"),
        strict: function.flag("strict", faults),
        cache,
    };
    function.finish(faults);
    Some(read)
}

pub(crate) fn is_function(tool: &mut Object<'_, '_>, faults: &mut Faults) -> bool {
    let kind = tool.some_text("type", faults);
    if !kind.is_empty() && kind != "function" {
        let kind = loom_core::text::cut(&kind, 100);
        faults.add(
            tool.path.member("type"),
            format!("`{kind}` is no tool that the provider of this model knows; it can only be `function`"),
        );
    }
    kind == "function"
}

fn choice<'a>(raw: &'a RawValue, path: Path<'_>, faults: &mut Faults) -> Option<ToolChoice<'a>> {
    if let Some(word) = as_text(raw) {
        return choice_word(&word, path, faults);
    }
    let mut choice = Object::read(raw, path, faults)?;
    if !is_function(&mut choice, faults) {
        return None;
    }
    let function = member(&mut choice, "function", faults)?;
    let mut function = Object::read(function, path.member("function"), faults)?;
    let name = function.some_text("name", faults);
    function.finish(faults);
    choice.finish(faults);
    Some(ToolChoice::Tool(name))
}

pub(crate) fn choice_word(
    word: &str,
    path: Path<'_>,
    faults: &mut Faults,
) -> Option<ToolChoice<'static>> {
    match word {
        "auto" => Some(ToolChoice::Auto),
        "none" => Some(ToolChoice::None),
        "required" => Some(ToolChoice::Required),
        _ => {
            faults.add(path, "must be `auto`, `none`, `required` or a function");
            None
        }
    }
}

fn format<'a>(raw: &'a RawValue, path: Path<'_>, faults: &mut Faults) -> Option<Format<'a>> {
    let mut format = Object::read(raw, path, faults)?;
    let kind = format.some_text("type", faults);
    let at = path.member("json_schema");
    let schema = format.take("json_schema");
    format.finish(faults);
    match (&*kind, schema) {
        ("text", _) => None,
        ("json_object", _) => Some(Format::Json),
        ("json_schema", Some(raw)) => schema_of(Object::read(raw, at, faults)?, faults),
        ("json_schema", None) => {
            faults.add(at, "is missing");
            None
        }
        _ => {
            faults.unsaid(path.member("type"));
            None
        }
    }
}

pub(crate) fn schema_of<'a>(mut of: Object<'a, '_>, faults: &mut Faults) -> Option<Format<'a>> {
    let name = of.text("name", faults);
    let description = of.text("description", faults);
    let strict = of.flag("strict", faults);
    let schema = member(&mut of, "schema", faults);
    of.finish(faults);
    Some(Format::Schema { name, description, schema: schema?, strict })
}
