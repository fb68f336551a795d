//! What a client or a rule says an event is grouped by: texts with variables.

use serde_json::{Value, json};

use super::main_exception;
use crate::event::Event;

pub(super) const KNOWN: &str = "`default`, `type`, `value`, `message`, `transaction`, `function`, `module`, \
    `package`, `level`, `logger`, `release`, `environment`, `platform` and `tags.<name>`";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Variable<'a> {
    /// What it would be grouped by otherwise.
    Default,
    Text(&'a str),
    Field(&'a str),
    Tag(&'a str),
    Unknown(&'a str),
}

/// The parts of a text: what stands as it is, and `{{ variables }}`.
pub(super) fn variables(text: &str) -> Vec<Variable<'_>> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some((before, inner, after)) = rest.split_once("{{").and_then(|(before, after)| {
        after.split_once("}}").map(|(inner, after)| (before, inner.trim(), after))
    }) {
        if !before.is_empty() {
            parts.push(Variable::Text(before));
        }
        parts.push(variable(inner));
        rest = after;
    }
    if !rest.is_empty() {
        parts.push(Variable::Text(rest));
    }
    parts
}

fn variable(name: &str) -> Variable<'_> {
    match name {
        "default" => Variable::Default,
        "type" | "error.type" | "value" | "error.value" | "message" | "transaction"
        | "function" | "stack.function" | "module" | "stack.module" | "package"
        | "stack.package" | "level" | "logger" | "release" | "environment" | "platform" => {
            Variable::Field(name.rsplit('.').next().unwrap_or(name))
        }
        _ => name.strip_prefix("tags.").map_or(Variable::Unknown(name), Variable::Tag),
    }
}

/// Is it what there is without a fingerprint?
pub(super) fn is_default(parts: &[String]) -> bool {
    matches!(parts, [one] if variables(one) == [Variable::Default])
}

/// What is hashed, and what is shown of it.
pub(super) fn canonical(parts: &[String], event: &Event, default: &str) -> (String, Vec<Value>) {
    let mut canonical = String::from("F");
    let mut shown = Vec::new();
    for part in parts {
        canonical.push('\u{2}');
        let text = filled(part, event, default);
        canonical.push_str(&text);
        if variables(part).contains(&Variable::Default) {
            shown.push(json!({ "text": part, "means": "with what counts without a fingerprint" }));
        } else if *part == text {
            shown.push(json!({ "text": part }));
        } else {
            shown.push(json!({ "text": part, "value": text }));
        }
    }
    (canonical, shown)
}

pub(super) fn filled(text: &str, event: &Event, default: &str) -> String {
    let mut out = String::new();
    for variable in variables(text) {
        match variable {
            Variable::Text(text) => out.push_str(text),
            Variable::Default => out.push_str(default),
            Variable::Field(name) => out.push_str(&field(name, event).unwrap_or_default()),
            Variable::Tag(name) => {
                let tag = event.tags.iter().find(|(key, _)| key == name);
                out.push_str(tag.map_or("", |(_, value)| value.as_str()));
            }
            Variable::Unknown(name) => {
                out.push_str("{{ ");
                out.push_str(name);
                out.push_str(" }}");
            }
        }
    }
    out
}

fn field(name: &str, event: &Event) -> Option<String> {
    let exception = main_exception(event);
    let frame = || {
        let frames = exception.map(|exception| &exception.frames)?;
        frames.iter().rev().find(|frame| frame.in_app == Some(true)).or_else(|| frames.last())
    };
    match name {
        "type" => exception?.kind.clone(),
        "value" => exception?.value.clone(),
        "message" => match &event.message {
            Some(message) => Some(message.formatted.clone()),
            None => exception?.value.clone(),
        },
        "transaction" => event.transaction.clone(),
        "function" => frame()?.function.clone(),
        "module" => frame()?.module.clone(),
        "package" => frame()?.package.clone(),
        "level" => Some(event.level.as_str().to_owned()),
        "logger" => event.logger.clone(),
        "release" => event.release.clone(),
        "environment" => event.environment.clone(),
        "platform" => event.platform.clone(),
        _ => None,
    }
}
