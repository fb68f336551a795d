//! What can be said against a request whatever its provider.

use loom_core::Result;

use super::model::{
    Content, Message, Part, PartKind, Request, Role, Source, SourceKind, Tool, ToolChoice,
};
use crate::translate::object::{Faults, is_object};

/// # Errors
/// 422 with the path of each field that is not as it should be.
pub(super) fn check(request: &Request) -> Result<()> {
    let mut faults = Faults::default();
    faults.unless(!request.model.is_empty(), "model", "must not be empty");
    faults.unless(!request.messages.is_empty(), "messages", "must have at least one message");
    for (at, message) in request.messages.iter().enumerate() {
        check_message(&mut faults, &format!("messages[{at}]"), message);
    }
    faults.unless(request.max_tokens != Some(0), "max_tokens", "must be at least 1");
    let within = |value: Option<f64>, most: f64| value.is_none_or(|v| (0.0..=most).contains(&v));
    faults.unless(within(request.temperature, 2.0), "temperature", "must be from 0 to 2");
    faults.unless(within(request.top_p, 1.0), "top_p", "must be from 0 to 1");
    for (at, stop) in request.stop.iter().flatten().enumerate() {
        faults.unless(!stop.is_empty(), format!("stop[{at}]"), "must not be empty");
    }
    let tools = request.tools.as_deref().unwrap_or_default();
    for (at, tool) in tools.iter().enumerate() {
        let is_name = (1..=128).contains(&tool.name.len())
            && tool.name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
        faults.unless(
            is_name,
            format!("tools[{at}].name"),
            "must be 1 to 128 letters, digits, _ or -",
        );
        faults.unless(
            is_object(&tool.input_schema),
            format!("tools[{at}].input_schema"),
            "must be a JSON schema of an object",
        );
    }
    check_choice(&mut faults, request.tool_choice.as_ref(), tools);
    faults.finish()
}

fn check_choice(faults: &mut Faults, choice: Option<&ToolChoice>, tools: &[Tool]) {
    match choice {
        Some(ToolChoice::Required) => {
            faults.unless(
                !tools.is_empty(),
                "tool_choice",
                "is `required`, but there are no tools",
            );
        }
        Some(ToolChoice::Tool(name)) => faults.unless(
            tools.iter().any(|tool| tool.name == *name),
            "tool_choice.tool_name",
            "is not one of the tools",
        ),
        None | Some(ToolChoice::Auto | ToolChoice::None) => {}
    }
}

fn check_message(faults: &mut Faults, path: &str, message: &Message) {
    let calls = message.tool_calls.as_deref().unwrap_or_default();
    if message.role != Role::Assistant {
        faults.unless(
            calls.is_empty(),
            format!("{path}.tool_calls"),
            "only an assistant calls tools",
        );
    }
    if message.role == Role::Tool && message.tool_call_id.as_deref().is_none_or(str::is_empty) {
        faults.add(format!("{path}.tool_call_id"), "a message of a tool names the call it answers");
    }
    for (at, call) in calls.iter().enumerate() {
        faults.unless(
            !call.id.is_empty(),
            format!("{path}.tool_calls[{at}].id"),
            "must not be empty",
        );
        faults.unless(
            !call.tool_name.is_empty(),
            format!("{path}.tool_calls[{at}].tool_name"),
            "must not be empty",
        );
    }
    let allowed: &[PartKind] = match message.role {
        Role::System => &[PartKind::Text],
        Role::User => &[PartKind::Text, PartKind::Image, PartKind::Document, PartKind::ToolResult],
        Role::Assistant => &[PartKind::Text, PartKind::Thinking],
        Role::Tool => &[PartKind::Text, PartKind::Image, PartKind::Document],
    };
    let is_empty = match &message.content {
        None => true,
        Some(Content::Text(text)) => text.is_empty(),
        Some(Content::Parts(parts)) => {
            for (at, part) in parts.iter().enumerate() {
                check_part(faults, &format!("{path}.content[{at}]"), part, allowed);
            }
            parts.iter().all(|part| {
                part.kind == PartKind::Text && part.text.as_deref().is_some_and(str::is_empty)
            })
        }
    };
    let may_be_empty = message.role == Role::Tool || !calls.is_empty();
    faults.unless(!is_empty || may_be_empty, format!("{path}.content"), "must not be empty");
}

fn check_part(faults: &mut Faults, path: &str, part: &Part, allowed: &[PartKind]) {
    if !allowed.contains(&part.kind) {
        let names: Vec<_> = allowed.iter().map(|kind| format!("`{}`", name(*kind))).collect();
        faults.add(format!("{path}.type"), format!("can only be {} here", names.join(", ")));
        return;
    }
    match part.kind {
        PartKind::Text => faults.unless(part.text.is_some(), format!("{path}.text"), "is missing"),
        PartKind::Image | PartKind::Document => match &part.source {
            Some(source) => check_source(faults, &format!("{path}.source"), source, part.kind),
            None => faults.add(format!("{path}.source"), "is missing"),
        },
        PartKind::Thinking => faults.unless(
            part.thinking.is_some() || part.redacted.is_some(),
            format!("{path}.thinking"),
            "is missing",
        ),
        PartKind::ToolResult => {
            let has_id = part.tool_call_id.as_deref().is_some_and(|id| !id.is_empty());
            faults.unless(has_id, format!("{path}.tool_call_id"), "is missing");
            if let Some(Content::Parts(parts)) = &part.content {
                let allowed = [PartKind::Text, PartKind::Image, PartKind::Document];
                for (at, part) in parts.iter().enumerate() {
                    check_part(faults, &format!("{path}.content[{at}]"), part, &allowed);
                }
            }
        }
    }
}

fn check_source(faults: &mut Faults, path: &str, source: &Source, of: PartKind) {
    let data = source.data.is_some();
    match source.kind {
        SourceKind::Url => {
            let is_url = source.url.as_deref().is_some_and(|url| {
                ["http://", "https://"].iter().any(|scheme| url.starts_with(scheme))
            });
            faults.unless(is_url, format!("{path}.url"), "must be an http(s) URL");
        }
        SourceKind::Text => {
            faults.unless(
                of == PartKind::Document,
                format!("{path}.type"),
                "is for documents only",
            );
            faults.unless(data, format!("{path}.data"), "is missing");
        }
        SourceKind::Base64 => {
            faults.unless(data, format!("{path}.data"), "is missing");
            let media_type = source.media_type.as_deref().unwrap_or_default();
            let (fits, expected) = if of == PartKind::Image {
                (media_type.starts_with("image/"), "must be an image's, as image/png")
            } else {
                let fits = media_type == "application/pdf" || media_type.starts_with("text/");
                (fits, "must be application/pdf or text/…")
            };
            faults.unless(fits, format!("{path}.media_type"), expected);
        }
    }
}

fn name(kind: PartKind) -> &'static str {
    match kind {
        PartKind::Text => "text",
        PartKind::Image => "image",
        PartKind::Document => "document",
        PartKind::Thinking => "thinking",
        PartKind::ToolResult => "tool_result",
    }
}
