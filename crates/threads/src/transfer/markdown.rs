//! Markdown that reads well, and holds in comments what a reader does not need and an import does.
//!
//! `<!-- loom:thread {…} -->` begins a thread, `<!-- loom:message {…} -->` a message; its text stands
//! between its heading and `<!-- loom:end -->`, and what follows until the next message is for people
//! only. A line of a text that looks like such a comment gets a backslash in front.

use loom_core::{Error, Result};
use serde::Serialize;

use super::malformed;
use crate::{
    Message, MessageDraft, Thread,
    draft::ThreadDraft,
    share_page::pretty,
    text::{Part, parts},
};

const MARK: &str = "<!-- loom:";
const THREAD: &str = "<!-- loom:thread ";
const MESSAGE: &str = "<!-- loom:message ";
const END: &str = "<!-- loom:end -->";
const CLOSE: &str = " -->";

pub(super) fn write(thread: &Thread) -> serde_json::Result<String> {
    let mut out = format!("{THREAD}{}{CLOSE}\n\n", comment(&thread.head)?);
    let title = thread.head.title.as_deref().unwrap_or("A conversation");
    out.push_str(&format!("# {}\n", title.replace('\n', " ")));
    for message in &thread.messages {
        write_message(&mut out, message)?;
    }
    Ok(out)
}

fn write_message(out: &mut String, message: &Message) -> serde_json::Result<()> {
    let text = serde_json::from_str::<String>(message.content.get()).ok();
    // A string with another spelling than ours would not come back as it was.
    let text = text.filter(|text| {
        serde_json::to_string(text).is_ok_and(|spelt| spelt == message.content.get())
    });
    let mut kept = serde_json::to_string(message)?;
    if text.is_some() {
        // The text is below; all else is here, as it came.
        kept = without_content(message)?;
    }
    let heading = match &message.tool_name {
        Some(name) => format!("{} · {}", message.role.as_str(), name.replace('\n', " ")),
        None => message.role.as_str().to_owned(),
    };
    out.push_str(&format!("\n{MESSAGE}{}{CLOSE}\n\n## {heading}\n\n", escape(&kept)));
    for line in text.iter().flat_map(|text| text.split_inclusive('\n')) {
        if line.trim_start_matches('\\').starts_with(MARK) {
            out.push('\\');
        }
        out.push_str(line);
    }
    out.push_str(&format!("\n\n{END}\n"));
    if text.is_none() {
        for part in parts(message.content.get()) {
            match part {
                Part::Text(text) => out.push_str(&format!("\n{}\n", quoted(&text))),
                Part::Other(kind, json) => out.push_str(&format!("\n{kind}:\n\n{}\n", code(&json))),
            }
        }
    }
    if let Some(calls) = &message.tool_calls {
        out.push_str(&format!("\nTool calls:\n\n{}\n", code(&pretty(calls.get()))));
    }
    Ok(())
}

fn without_content(message: &Message) -> serde_json::Result<String> {
    #[derive(Serialize)]
    struct Kept<'m> {
        id: &'m str,
        role: crate::Role,
        #[serde(skip_serializing_if = "Option::is_none")]
        tool_calls: Option<&'m crate::Raw>,
        #[serde(skip_serializing_if = "Option::is_none")]
        tool_call_id: Option<&'m str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        tool_name: Option<&'m str>,
        #[serde(serialize_with = "loom_core::clock::millis")]
        created_at: chrono::DateTime<chrono::Utc>,
        #[serde(skip_serializing_if = "Option::is_none")]
        usage: Option<&'m crate::Raw>,
    }
    serde_json::to_string(&Kept {
        id: &message.id,
        role: message.role,
        tool_calls: message.tool_calls.as_ref().map(|calls| &calls.0),
        tool_call_id: message.tool_call_id.as_deref(),
        tool_name: message.tool_name.as_deref(),
        created_at: message.created_at,
        usage: message.usage.as_ref().map(|usage| &usage.0),
    })
}

fn comment(value: &impl Serialize) -> serde_json::Result<String> {
    serde_json::to_string(value).map(|json| escape(&json))
}

/// In JSON a `>` stands in strings only: so spelt, no comment ends within it.
fn escape(json: &str) -> String {
    json.replace('>', "\\u003e")
}

fn quoted(text: &str) -> String {
    text.lines().map(|line| format!("> {line}\n")).collect()
}

/// In a fence longer than any within.
fn code(text: &str) -> String {
    let longest = text.split(|c| c != '`').map(str::len).max().unwrap_or_default();
    let fence = "`".repeat(longest.max(2) + 1);
    format!("{fence}json\n{text}\n{fence}")
}

pub(super) fn read(text: &str) -> Result<ThreadDraft> {
    let text = text.replace("\r\n", "\n");
    let at = text.find(THREAD).ok_or_else(|| {
        let detail = "this Markdown holds no `<!-- loom:thread … -->`: it was not exported here";
        Error::malformed("invalid_request", detail)
    })?;
    let mut rest = text.get(at..).unwrap_or_default();
    let head = take_comment(&mut rest, THREAD)?;
    let mut draft =
        super::lines::head(head).map_err(|error| malformed("the thread's comment", &error))?;
    draft.extra = draft.extra.take().map(unescape).transpose()?;
    while let Some(at) = find_line(rest, MESSAGE) {
        rest = rest.get(at..).unwrap_or_default();
        draft.messages.push(read_message(&mut rest)?);
    }
    Ok(draft)
}

fn read_message(rest: &mut &str) -> Result<MessageDraft> {
    let kept = take_comment(rest, MESSAGE)?;
    let wrong = |error: serde_json::Error| malformed("a message's comment", &error);
    let mut draft: MessageDraft = serde_json::from_str(kept).map_err(wrong)?;
    for raw in [&mut draft.content, &mut draft.tool_calls, &mut draft.usage] {
        *raw = raw.take().map(unescape).transpose()?;
    }
    let unfinished =
        || Error::malformed("invalid_request", format!("a message has no end, which is `{END}`"));
    let end = find_line(rest, END).ok_or_else(unfinished)?;
    if draft.content.is_none() {
        // Behind the heading and an empty line, up to an empty line before the end.
        let section = rest.get(..end).unwrap_or_default();
        let body = section.find("\n\n## ").and_then(|at| {
            let heading = section.get(at + 2..)?;
            heading.get(heading.find("\n\n")? + 2..)
        });
        let body = body.unwrap_or_default();
        let body = body.strip_suffix("\n\n").unwrap_or(body);
        let mut text = String::with_capacity(body.len());
        for line in body.split_inclusive('\n') {
            let stuffed = line.starts_with('\\') && line.trim_start_matches('\\').starts_with(MARK);
            text.push_str(if stuffed { line.get(1..).unwrap_or_default() } else { line });
        }
        // Null beside calls of tools is no text, and no text is written as none.
        if !text.is_empty() || draft.tool_calls.is_none() {
            let json = serde_json::to_string(&text).map_err(Error::internal)?;
            draft.content = Some(json.try_into().map_err(Error::internal)?);
        }
    }
    *rest = rest.get(end..).unwrap_or_default();
    Ok(draft)
}

/// Undoes [`escape`] in JSON of the client's own; the client's own `\u003e` becomes a `>`, which is the
/// same character.
fn unescape(raw: crate::Raw) -> Result<crate::Raw> {
    if !raw.get().contains("\\u003e") {
        return Ok(raw);
    }
    let mut out = String::with_capacity(raw.get().len());
    let mut rest = raw.get();
    while let Some(at) = rest.find('\\') {
        out.push_str(rest.get(..at).unwrap_or_default());
        let escape = rest.get(at..).unwrap_or_default();
        let (text, length) = if escape.starts_with("\\u003e") {
            (">", 6)
        } else {
            (escape.get(..2).unwrap_or("\\"), 2)
        };
        out.push_str(text);
        rest = escape.get(length..).unwrap_or_default();
    }
    out.push_str(rest);
    out.try_into().map_err(Error::internal)
}

/// The JSON of the comment that `rest` begins with; `rest` goes on behind it.
fn take_comment<'t>(rest: &mut &'t str, begin: &str) -> Result<&'t str> {
    let inner = rest.strip_prefix(begin).unwrap_or(rest);
    let end = inner.find(CLOSE).ok_or_else(|| {
        Error::malformed("invalid_request", format!("`{}` has no end", begin.trim()))
    })?;
    *rest = inner.get(end + CLOSE.len()..).unwrap_or_default();
    Ok(inner.get(..end).unwrap_or_default())
}

/// Where a line begins so.
fn find_line(text: &str, begin: &str) -> Option<usize> {
    text.match_indices(begin)
        .map(|(at, _)| at)
        .find(|at| *at == 0 || text.as_bytes().get(at - 1) == Some(&b'\n'))
}
