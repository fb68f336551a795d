//! JSON lines: a thread in a line, each of its messages in a line of its own behind it.

use loom_core::{Error, Result};
use serde::{Deserialize, Serialize};

use super::{MAX_THREADS, malformed};
use crate::{Message, MessageDraft, Thread, ThreadHead, draft::ThreadDraft, message::MAX_MESSAGES};

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Written<'t> {
    Thread(&'t ThreadHead),
    Message(&'t Message),
}

pub(super) fn write(thread: &Thread) -> serde_json::Result<String> {
    let mut out = serde_json::to_string(&Written::Thread(&thread.head))?;
    out.push('\n');
    for message in &thread.messages {
        out.push_str(&serde_json::to_string(&Written::Message(message))?);
        out.push('\n');
    }
    Ok(out)
}

#[derive(Deserialize)]
struct Kind<'l> {
    #[serde(rename = "type", borrow)]
    kind: std::borrow::Cow<'l, str>,
}

pub(super) fn read(text: &str) -> Result<Vec<ThreadDraft>> {
    let mut drafts: Vec<ThreadDraft> = Vec::new();
    for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let what = format!("line {}", index + 1);
        let wrong = |error: serde_json::Error| malformed(&what, &error);
        let kind: Kind<'_> = serde_json::from_str(line).map_err(wrong)?;
        let count = drafts.len();
        match (kind.kind.as_ref(), drafts.last_mut()) {
            ("thread", _) if count == MAX_THREADS => {
                let message = format!("an import has at most {MAX_THREADS} threads");
                return Err(Error::invalid("threads", message));
            }
            ("thread", _) => drafts.push(head(line).map_err(wrong)?),
            ("message", Some(draft)) if draft.messages.len() < MAX_MESSAGES => {
                draft.messages.push(serde_json::from_str::<MessageDraft>(line).map_err(wrong)?);
            }
            ("message", Some(_)) => {
                let message = format!("a thread has at most {MAX_MESSAGES}");
                return Err(Error::invalid("messages", message));
            }
            ("message", None) => {
                let detail = format!("{what} is a message before any thread");
                return Err(Error::malformed("invalid_request", detail));
            }
            (other, _) => {
                let other = loom_core::text::cut(other, 50);
                let detail = format!("{what} is a `{other}`, not a `thread` or a `message`");
                return Err(Error::malformed("invalid_request", detail));
            }
        }
    }
    Ok(drafts)
}

/// A thread whose messages are still to come.
pub(super) fn head(line: &str) -> serde_json::Result<ThreadDraft> {
    match line.trim_end().strip_suffix('}') {
        // Behind its last member: what is the client's own JSON stays as it came.
        Some(open) => serde_json::from_str(&format!("{open},\"messages\":[]}}")),
        None => serde_json::from_str(line),
    }
}
