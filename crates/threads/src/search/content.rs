//! The text of a message, as far as people look for it.

use std::borrow::Cow;

use serde_json::Value;

use super::MAX_TEXT;
use crate::{model::ThreadHead, raw::Raw};

/// Members whose texts are names and data of a protocol.
const NOT_TEXT: [&str; 12] = [
    "type",
    "id",
    "data",
    "signature",
    "encrypted_content",
    "cache_control",
    "media_type",
    "mime_type",
    "tool_use_id",
    "tool_call_id",
    "call_id",
    "image_url",
];

/// What a message is searched by: its texts, the tool's name, the calls with what they are given. One a line.
pub(crate) fn of_message(
    content: &Raw,
    tool_calls: Option<&Raw>,
    tool_name: Option<&str>,
) -> String {
    let mut text = String::new();
    add_line(&mut text, tool_name.unwrap_or_default());
    // A text that is a line alone needs no tree.
    if let Ok(line) = serde_json::from_str::<Cow<'_, str>>(content.get()) {
        add_line(&mut text, &line);
    } else if let Ok(value) = serde_json::from_str(content.get()) {
        add(&mut text, &value, 0);
    }
    if let Some(Ok(value)) = tool_calls.map(|calls| serde_json::from_str(calls.get())) {
        add(&mut text, &value, 0);
    }
    text
}

fn add(text: &mut String, value: &Value, depth: u8) {
    match value {
        Value::String(line) => {
            // Arguments are often JSON in a string, with line ends and quotes escaped.
            let inner = line.trim_start();
            if depth < 8
                && inner.starts_with(['{', '['])
                && let Ok(value @ (Value::Object(_) | Value::Array(_))) =
                    serde_json::from_str(inner)
            {
                add(text, &value, depth + 1);
            } else {
                add_line(text, line);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| add(text, item, depth)),
        Value::Object(members) => {
            for (name, member) in members {
                if !NOT_TEXT.contains(&name.as_str()) {
                    add(text, member, depth);
                }
            }
        }
        Value::Number(number) => add_line(text, &number.to_string()),
        Value::Null | Value::Bool(_) => {}
    }
}

/// At most [`MAX_TEXT`] characters in all, counted as bytes when there are no more of these.
fn add_line(text: &mut String, line: &str) {
    let room = if text.len() + line.len() <= MAX_TEXT {
        line.len()
    } else {
        let left = MAX_TEXT.saturating_sub(text.chars().count());
        line.char_indices().nth(left).map_or(line.len(), |(at, _)| at)
    };
    if room > 0 {
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(line.get(..room).unwrap_or_default());
    }
}

/// What the thread itself is searched by: title and tags, then where it belongs.
pub(crate) fn of_head(head: &ThreadHead) -> [String; 2] {
    let named = head.title.iter().chain(&head.tags).map(String::as_str);
    let git = &head.git;
    let root = head.workspace.as_ref().and_then(|workspace| workspace.root.as_deref());
    let place = [git.remote_url.as_deref(), git.branch.as_deref(), root];
    [
        named.collect::<Vec<_>>().join("\n"),
        place.into_iter().flatten().collect::<Vec<_>>().join("\n"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(content: &str, calls: Option<&str>) -> String {
        let raw = |text: &str| Raw::try_from(text.to_owned()).unwrap();
        of_message(&raw(content), calls.map(raw).as_ref(), Some("run"))
    }

    #[test]
    fn texts_are_taken_and_what_a_protocol_needs_is_not() {
        assert_eq!(text(r#""a\nb""#, None), "run\na\nb");
        let parts = r#"[{"type":"text","text":"hello"},{"type":"image","source":{"data":"AAAA","media_type":"image/png"}},
            {"type":"tool_result","tool_use_id":"toolu_1","content":[{"type":"text","text":"12 passed"}]}]"#;
        assert_eq!(text(parts, None), "run\nhello\n12 passed");
        let calls = r#"[{"id":"call_1","function":{"name":"edit","arguments":"{\"path\":\"a.rs\",\"text\":\"x\\ny\",\"line\":7}"}}]"#;
        assert_eq!(text("null", Some(calls)), "run\n7\na.rs\nx\ny\nedit");
        assert_eq!(text(r#"["{not json"]"#, None), "run\n{not json");
    }

    #[test]
    fn a_text_is_cut_at_its_most_characters() {
        let long = serde_json::to_string(&"ä".repeat(MAX_TEXT + 10)).unwrap();
        assert_eq!(text(&long, None).chars().count(), MAX_TEXT + 1);
    }
}
