//! The readable text of a message's content.

use serde_json::Value;

/// A part of a content.
pub(crate) enum Part {
    Text(String),
    /// What is not text: its type, and itself, without what is long and means nothing to people.
    Other(String, String),
}

/// Longer strings in what is not text are data.
const LONGEST: usize = 2000;

pub(crate) fn parts(content: &str) -> Vec<Part> {
    match serde_json::from_str::<Value>(content) {
        Ok(Value::String(text)) => vec![Part::Text(text)],
        Ok(Value::Array(parts)) => parts.into_iter().map(part).collect(),
        _ => Vec::new(),
    }
}

fn part(value: Value) -> Part {
    let word = |name: &str| value.get(name).and_then(Value::as_str);
    let kind = word("type").unwrap_or("part").to_owned();
    match kind.as_str() {
        "text" | "input_text" | "output_text" => {
            if let Some(text) = word("text") {
                return Part::Text(text.to_owned());
            }
        }
        // A result's own text is what was said.
        "tool_result" => {
            if let Some(text) = word("content") {
                return Part::Text(text.to_owned());
            }
        }
        _ => {}
    }
    let mut value = value;
    shorten(&mut value);
    let json = serde_json::to_string_pretty(&value).unwrap_or_default();
    Part::Other(kind, json)
}

fn shorten(value: &mut Value) {
    match value {
        Value::String(text) if text.len() > LONGEST => {
            *text = format!("({} bytes)", text.len());
        }
        Value::Array(values) => values.iter_mut().for_each(shorten),
        Value::Object(members) => members.values_mut().for_each(shorten),
        _ => {}
    }
}
