//! A native request in the form that all wires share.

use std::borrow::Cow;

use super::model::{
    Content, Effort, Message, Part, PartKind, Request, Role, Source, SourceKind, Thinking,
    ThinkingBlock, ThinkingKind, ToolCall, ToolChoice,
};
use crate::translate::{
    object::Path,
    request as neutral,
    request::{DefaultMax, Names, Seal, Thought},
    thinking::from_signature,
};

const NAMES: Names = Names {
    messages: "messages",
    max_tokens: "max_tokens",
    budget: "thinking.budget_tokens",
    stop: "stop",
    format: "format",
    verbosity: "verbosity",
    default_max_tokens: DefaultMax::Fixed(4096),
};

impl Request {
    /// Of a request that was checked.
    pub(super) fn neutral(&self, stream: bool) -> neutral::Request<'_> {
        let mut request = neutral::Request::new(&NAMES);
        request.model = self.model.as_str().into();
        request.stream = stream;
        request.max_tokens = self.max_tokens;
        request.temperature = self.temperature;
        request.top_p = self.top_p;
        request.stop = self.stop.iter().flatten().map(|stop| stop.as_str().into()).collect();
        request.thinking = self.thinking.as_ref().map(thinking);
        let metadata = self.metadata.as_ref();
        request.user = metadata.and_then(|m| m.user_id.as_deref()).map(Cow::Borrowed);
        let tools = self.tools.iter().flatten().map(|tool| neutral::Tool {
            name: tool.name.as_str().into(),
            description: tool.description.as_deref().map(Cow::Borrowed),
            schema: Some(&tool.input_schema),
            strict: None,
            cache: None,
        });
        request.tools = tools.collect();
        request.tool_choice = self.tool_choice.as_ref().map(|choice| match choice {
            ToolChoice::Auto => neutral::ToolChoice::Auto,
            ToolChoice::None => neutral::ToolChoice::None,
            ToolChoice::Required => neutral::ToolChoice::Required,
            ToolChoice::Tool(name) => neutral::ToolChoice::Tool(name.as_str().into()),
        });
        request.system(self.system.iter().map(|text| plain(text)).collect());
        let list = Path::ROOT.member("messages");
        for (at, message) in self.messages.iter().enumerate() {
            push(&mut request, list.index(at), message);
        }
        request
    }
}

fn plain(text: &str) -> neutral::Text<'_> {
    neutral::Text { text: text.into(), cache: None }
}

fn thinking(thinking: &Thinking) -> neutral::Thinking {
    let effort = thinking.effort.map(|effort| match effort {
        Effort::Minimal => neutral::Effort::Minimal,
        Effort::Low => neutral::Effort::Low,
        Effort::Medium => neutral::Effort::Medium,
        Effort::High => neutral::Effort::High,
    });
    match (thinking.kind, thinking.budget_tokens) {
        (ThinkingKind::Disabled, _) => neutral::Thinking::Disabled,
        (ThinkingKind::Adaptive, _) => neutral::Thinking::Adaptive(effort),
        (ThinkingKind::Enabled, Some(budget)) => neutral::Thinking::Budget(budget),
        (ThinkingKind::Enabled, None) => {
            neutral::Thinking::Effort(effort.unwrap_or(neutral::Effort::Medium))
        }
    }
}

fn push<'a>(request: &mut neutral::Request<'a>, path: Path<'_>, message: &'a Message) {
    let mut content = parts(path.member("content"), message.content.as_ref());
    match message.role {
        Role::System => {
            let texts = content.into_iter().filter_map(|part| match part.kind {
                neutral::PartKind::Text(text) => Some(neutral::Text { text, cache: None }),
                _ => None,
            });
            request.system(texts.collect());
        }
        Role::User => request.push(neutral::Role::User, content),
        Role::Tool => {
            let result = neutral::ToolResult {
                id: message.tool_call_id.as_deref().unwrap_or_default().into(),
                parts: content,
                is_error: message.is_error.unwrap_or_default(),
            };
            let result = neutral::PartKind::Result(result).into();
            request.push(neutral::Role::User, vec![result]);
        }
        Role::Assistant => {
            let thoughts = message.thinking_blocks.iter().flatten();
            let mut all: Vec<_> = thoughts.map(thought).collect();
            all.append(&mut content);
            all.extend(message.tool_calls.iter().flatten().map(call));
            request.push(neutral::Role::Assistant, all);
        }
    }
}

fn thought(block: &ThinkingBlock) -> neutral::Part<'_> {
    sealed(&block.thinking, block.signature.as_deref(), block.redacted.as_deref())
}

fn sealed<'a>(
    text: &'a str,
    signature: Option<&'a str>,
    redacted: Option<&'a str>,
) -> neutral::Part<'a> {
    let seal = match redacted {
        Some(data) => Some(Seal::Redacted(data.into())),
        None => signature.and_then(|signature| from_signature(signature.into())),
    };
    neutral::PartKind::Thinking(Thought { text: text.into(), seal }).into()
}

fn call(call: &ToolCall) -> neutral::Part<'_> {
    // What a model wrote wrongly goes back as it wrote it.
    let arguments = serde_json::from_str::<String>(call.arguments_json.get())
        .map_or_else(|_| Cow::Borrowed(call.arguments_json.get()), Cow::Owned);
    let (id, name) = (call.id.as_str().into(), call.tool_name.as_str().into());
    neutral::PartKind::Call(neutral::Call { id, name, arguments }).into()
}

fn parts<'a>(path: Path<'_>, content: Option<&'a Content>) -> Vec<neutral::Part<'a>> {
    match content {
        None => Vec::new(),
        Some(Content::Text(text)) => vec![plain(text).into()],
        Some(Content::Parts(parts)) => {
            let parts = parts.iter().enumerate();
            parts.filter_map(|(at, of)| part(path.index(at), of)).collect()
        }
    }
}

fn part<'a>(path: Path<'_>, part: &'a Part) -> Option<neutral::Part<'a>> {
    Some(match part.kind {
        PartKind::Text => plain(part.text.as_deref()?).into(),
        PartKind::Image => neutral::PartKind::Image(media(path, part)?).into(),
        PartKind::Document => neutral::PartKind::Document(media(path, part)?).into(),
        PartKind::Thinking => sealed(
            part.thinking.as_deref().unwrap_or_default(),
            part.signature.as_deref(),
            part.redacted.as_deref(),
        ),
        PartKind::ToolResult => neutral::PartKind::Result(neutral::ToolResult {
            id: part.tool_call_id.as_deref().unwrap_or_default().into(),
            parts: parts(path.member("content"), part.content.as_ref()),
            is_error: part.is_error.unwrap_or_default(),
        })
        .into(),
    })
}

fn media<'a>(path: Path<'_>, part: &'a Part) -> Option<neutral::Media<'a>> {
    Some(neutral::Media {
        at: path.to_string(),
        source: source(part.source.as_ref()?),
        title: part.title.as_deref().map(Cow::Borrowed),
        context: None,
    })
}

fn source(source: &Source) -> neutral::Source<'_> {
    let data = source.data.as_deref().unwrap_or_default().into();
    match source.kind {
        SourceKind::Url => neutral::Source::Url(source.url.as_deref().unwrap_or_default().into()),
        SourceKind::Text => neutral::Source::Text(data),
        SourceKind::Base64 => neutral::Source::Base64 {
            media_type: source.media_type.as_deref().unwrap_or_default().into(),
            data,
        },
    }
}
