//! A request of a client that speaks OpenAI's responses wire.

use serde_json::value::RawValue;

use crate::translate::{
    chat::request_in::{
        choice_word, content, effort, is_function, member, only_texts, plain, schema_of, tier,
        unknown_part, user, verbosity,
    },
    media,
    object::{Faults, Object, Path, as_list, as_text},
    request::{
        Call, DefaultMax, Format, Media, Names, Part, PartKind, Request, Role, Source, Text,
        Thought, Tool, ToolChoice, ToolResult, WebSearch,
    },
    thinking::from_encrypted,
};

pub(crate) const NAMES: Names = Names {
    messages: "input",
    max_tokens: "max_output_tokens",
    budget: "reasoning.effort",
    stop: "stop",
    format: "text.format",
    verbosity: "text.verbosity",
    default_max_tokens: DefaultMax::OfModel,
};

/// Members of a request that stand again in its reply.
const ECHOED: [&str; 13] = [
    "instructions",
    "max_output_tokens",
    "metadata",
    "parallel_tool_calls",
    "prompt_cache_key",
    "reasoning",
    "safety_identifier",
    "temperature",
    "text",
    "tool_choice",
    "tools",
    "top_p",
    "user",
];

/// What the reply repeats of the request.
pub(crate) type Echo = Vec<(&'static str, Box<RawValue>)>;

pub(crate) fn echo(body: &RawValue) -> Echo {
    let Some(mut all) = Object::read(body, Path::ROOT, &mut Faults::default()) else {
        return Vec::new();
    };
    let kept = |name: &&'static str| Some((*name, all.take(name)?.to_owned()));
    ECHOED.iter().filter_map(kept).collect()
}

pub(crate) fn read<'a>(body: &'a RawValue, faults: &mut Faults) -> Request<'a> {
    let mut request = Request::new(&NAMES);
    let Some(mut all) = Object::read(body, Path::ROOT, faults) else { return request };
    request.model = all.some_text("model", faults);
    request.max_tokens = all.number("max_output_tokens", faults);
    request.temperature = all.number("temperature", faults);
    request.top_p = all.number("top_p", faults);
    request.stream = all.flag("stream", faults).unwrap_or_default();
    request.parallel_tools = all.flag("parallel_tool_calls", faults);
    if let Some(text) = all.text("instructions", faults) {
        request.system(vec![Text { text, cache: None }]);
    }
    if let Some(raw) = member(&mut all, "input", faults) {
        input(raw, all.path.member("input"), &mut request, faults);
    }
    for (at, raw) in all.list("tools", faults).into_iter().enumerate() {
        let list = all.path.member("tools");
        match tool(raw, list.index(at), faults) {
            Some(AnyTool::Function(tool)) => request.tools.push(tool),
            Some(AnyTool::Search(search)) => request.web_search = Some(search),
            None => {}
        }
    }
    if let Some(raw) = all.take("tool_choice") {
        request.tool_choice = choice(raw, all.path.member("tool_choice"), faults);
    }
    if let Some(raw) = all.take("reasoning")
        && let Some(mut reasoning) = Object::read(raw, all.path.member("reasoning"), faults)
    {
        if let Some(word) = reasoning.text("effort", faults) {
            request.thinking = effort(&word, reasoning.path.member("effort"), faults);
        }
        reasoning.only("mode", &["\"standard\""], faults);
        // How much of it is shown, and kept, is the provider's to decide.
        reasoning.ignore(&["summary", "generate_summary", "context"]);
        reasoning.finish(faults);
    }
    if let Some(raw) = all.take("text")
        && let Some(mut text) = Object::read(raw, all.path.member("text"), faults)
    {
        if let Some(word) = text.text("verbosity", faults) {
            request.verbosity = verbosity(&word, text.path.member("verbosity"), faults);
        }
        if let Some(raw) = text.take("format") {
            request.format = format(raw, text.path.member("format"), faults);
        }
        text.finish(faults);
    }
    tier(&mut all, &mut request, faults);
    user(&mut all, &mut request, faults);
    refuse(&mut all, faults);
    all.finish(faults);
    request
}

/// What means nothing to another provider, and what may only be as it is by default.
fn refuse(all: &mut Object<'_, '_>, faults: &mut Faults) {
    // About caches, labels and padding: the reply is the same.
    all.ignore(&[
        "client_metadata",
        "metadata",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "stream_options",
    ]);
    all.only("background", &["false"], faults);
    all.only("store", &["false"], faults);
    all.only("truncation", &["\"disabled\""], faults);
    all.only("top_logprobs", &["0"], faults);
    let root = all.path;
    let include = root.member("include");
    for (at, what) in all.texts("include", faults).into_iter().enumerate() {
        // The reasoning comes with it in any case; of tools of OpenAI's own there are none.
        if what.contains("logprobs") {
            faults.unsaid(include.index(at));
        }
    }
}

fn input<'a>(raw: &'a RawValue, path: Path<'_>, request: &mut Request<'a>, faults: &mut Faults) {
    if let Some(text) = as_text(raw) {
        request.push(Role::User, vec![PartKind::Text(text).into()]);
        return;
    }
    let Some(items) = as_list(raw) else {
        faults.add(path, "must be a string or a list of items");
        return;
    };
    for (at, raw) in items.into_iter().enumerate() {
        item(raw, path.index(at), request, faults);
    }
}

fn item<'a>(raw: &'a RawValue, path: Path<'_>, request: &mut Request<'a>, faults: &mut Faults) {
    let Some(mut item) = Object::read(raw, path, faults) else { return };
    let kind = item.text("type", faults);
    // Whether it had come to its end when it was told.
    item.ignore(&["status"]);
    match kind.as_deref() {
        None | Some("message") => message(&mut item, request, faults),
        Some("function_call") => {
            // Who called is told by the role.
            item.ignore(&["id", "caller"]);
            let call = Call {
                id: item.some_text("call_id", faults),
                name: item.some_text("name", faults),
                arguments: item.text("arguments", faults).unwrap_or_default(),
            };
            request.push(Role::Assistant, vec![PartKind::Call(call).into()]);
        }
        Some("function_call_output") => {
            // The name is that of the call.
            item.ignore(&["id", "caller", "name"]);
            let id = item.some_text("call_id", faults);
            let at = path.member("output");
            let parts = member(&mut item, "output", faults)
                .map(|raw| content(raw, at, faults, part))
                .unwrap_or_default();
            let result = ToolResult { id, parts, is_error: false };
            request.push(Role::User, vec![PartKind::Result(result).into()]);
        }
        Some("reasoning") => {
            let id = item.text("id", faults).unwrap_or_default();
            let summary = item.take("summary").map(texts);
            let content = item.take("content").map(texts).filter(|text| !text.is_empty());
            let seal = item.text("encrypted_content", faults);
            let thought = Thought {
                text: content.or(summary).unwrap_or_default().into(),
                seal: seal.map(|content| from_encrypted(id, content)),
            };
            request.push(Role::Assistant, vec![PartKind::Thinking(thought).into()]);
        }
        Some("item_reference") => {
            faults.add(
                path.member("type"),
                "`item_reference` points at what OpenAI stored; send the item itself to the provider of this model",
            );
            return;
        }
        // What a search found is in the text that came of it.
        Some("web_search_call") => return,
        Some(other) => {
            let other = loom_core::text::cut(other, 100);
            faults.add(
                path.member("type"),
                format!("`{other}` cannot be told to the provider of this model"),
            );
            return;
        }
    }
    item.finish(faults);
}

/// The texts of the parts of a summary, as [`super::reply_in`] puts them together.
fn texts(raw: &RawValue) -> String {
    let mut texts = Vec::new();
    for raw in as_list(raw).unwrap_or_default() {
        let Some(mut part) = Object::read(raw, Path::ROOT, &mut Faults::default()) else {
            continue;
        };
        texts.extend(part.text("text", &mut Faults::default()));
    }
    texts.join("\n\n")
}

fn message<'a>(item: &mut Object<'a, '_>, request: &mut Request<'a>, faults: &mut Faults) {
    let path = item.path;
    let role = item.some_text("role", faults);
    item.ignore(&["id", "phase"]);
    let parts = member(item, "content", faults)
        .map(|raw| content(raw, path.member("content"), faults, part))
        .unwrap_or_default();
    match &*role {
        "user" => request.push(Role::User, parts),
        "assistant" => request.push(Role::Assistant, parts),
        "system" | "developer" => {
            request.system(only_texts(parts, path.member("content"), faults));
        }
        _ => {
            faults.add(path.member("role"), "must be `user`, `assistant`, `system` or `developer`");
        }
    }
}

fn part<'a>(raw: &'a RawValue, path: Path<'_>, faults: &mut Faults) -> Option<Part<'a>> {
    let mut part = Object::read(raw, path, faults)?;
    let kind = part.some_text("type", faults);
    let kind = match &*kind {
        "input_text" => PartKind::Text(part.some_text("text", faults)),
        "output_text" => {
            // What a reply has beside its text.
            part.ignore(&["annotations", "logprobs"]);
            PartKind::Text(part.some_text("text", faults))
        }
        "refusal" => PartKind::Text(part.some_text("refusal", faults)),
        "input_image" => {
            part.ignore(&["detail"]);
            let url = part.some_text("image_url", faults);
            let at = path.member("image_url").to_string();
            PartKind::Image(plain(path, media::from_url(url, &at, faults)))
        }
        "input_file" => {
            part.ignore(&["detail"]);
            let title = part.text("filename", faults);
            let source = match part.text("file_url", faults) {
                Some(url) => Source::Url(url),
                None => {
                    let data = part.some_text("file_data", faults);
                    media::from_url(data, &path.member("file_data").to_string(), faults)
                }
            };
            PartKind::Document(Media { title, ..plain(path, source) })
        }
        other => {
            unknown_part(other, path, faults);
            return None;
        }
    };
    part.ignore(&["prompt_cache_breakpoint"]);
    part.finish(faults);
    Some(kind.into())
}

enum AnyTool<'a> {
    Function(Tool<'a>),
    Search(WebSearch<'a>),
}

/// The one tool of OpenAI's own that others have, too.
fn web_search<'a>(mut tool: Object<'a, '_>, faults: &mut Faults) -> WebSearch<'a> {
    let path = tool.path;
    let mut search = WebSearch { at: path.to_string(), ..WebSearch::default() };
    if let Some(raw) = tool.take("filters")
        && let Some(mut filters) = Object::read(raw, path.member("filters"), faults)
    {
        search.allowed_domains = filters.texts("allowed_domains", faults);
        search.blocked_domains = filters.texts("blocked_domains", faults);
        filters.finish(faults);
    }
    search.location = tool.take("user_location");
    // How much of what is found the model reads is the provider's to decide.
    tool.ignore(&["search_context_size"]);
    tool.only("search_content_types", &["[\"text\"]"], faults);
    // Others search the web as it is now, or not at all.
    tool.only("external_web_access", &["true"], faults);
    tool.finish(faults);
    search
}

fn tool<'a>(raw: &'a RawValue, path: Path<'_>, faults: &mut Faults) -> Option<AnyTool<'a>> {
    let mut tool = Object::read(raw, path, faults)?;
    if tool.kind().is_some_and(|kind| kind.starts_with("web_search")) {
        tool.ignore(&["type"]);
        return Some(AnyTool::Search(web_search(tool, faults)));
    }
    if !is_function(&mut tool, faults) {
        return None;
    }
    let read = Tool {
        name: tool.some_text("name", faults),
        description: tool.text("description", faults),
        schema: tool.take("parameters"),
        strict: tool.flag("strict", faults),
        cache: None,
    };
    tool.only("defer_loading", &["false"], faults);
    tool.only("allowed_callers", &["[\"direct\"]"], faults);
    tool.finish(faults);
    Some(AnyTool::Function(read))
}

fn choice<'a>(raw: &'a RawValue, path: Path<'_>, faults: &mut Faults) -> Option<ToolChoice<'a>> {
    if let Some(word) = as_text(raw) {
        return choice_word(&word, path, faults);
    }
    let mut choice = Object::read(raw, path, faults)?;
    if !is_function(&mut choice, faults) {
        return None;
    }
    let name = choice.some_text("name", faults);
    choice.finish(faults);
    Some(ToolChoice::Tool(name))
}

fn format<'a>(raw: &'a RawValue, path: Path<'_>, faults: &mut Faults) -> Option<Format<'a>> {
    let mut format = Object::read(raw, path, faults)?;
    match &*format.some_text("type", faults) {
        "text" => None,
        "json_object" => Some(Format::Json),
        "json_schema" => schema_of(format, faults),
        _ => {
            faults.unsaid(path.member("type"));
            None
        }
    }
}
