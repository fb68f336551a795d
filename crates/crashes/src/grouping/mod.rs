//! Which events are the same fault: the algorithm `loom-1`. What it makes of an event never changes; a
//! better one gets another name, and looks up the hashes of this one, too.

mod family;
mod file;
mod fingerprint;
mod function;
mod in_app;
mod message;
mod rules;
mod stack;
#[cfg(test)]
mod tests;
mod title;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::event::{Event, Exception, Thread};

pub(crate) use rules::Rules;

use family::Family;

/// The algorithm's name, stored with each hash.
pub(crate) const ALGORITHM: &str = "loom-1";

/// So many exceptions of a chain count, from the outermost inwards.
const MOST_EXCEPTIONS: usize = 10;

/// What an event is grouped by.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Grouping {
    pub hash: [u8; 16],
    /// Why: the parts that were hashed, as shown to people.
    pub components: Value,
    /// Of the issue that it would make.
    pub title: String,
    pub culprit: Option<String>,
    /// The exception's type and value.
    pub kind: Option<String>,
    pub value: Option<String>,
}

/// `rules` are those of the project (`crash_projects.grouping_rules`), read by `Rules::parse`.
pub(crate) fn group(event: &Event, rules: &Rules) -> Grouping {
    let default = default(event, rules);
    let by_rule = rules.fingerprint(event).map(|(rule, parts)| (Some(rule), parts));
    let said = by_rule.or_else(|| event.fingerprint.as_deref().map(|parts| (None, parts)));
    let (canonical, components) = match said.filter(|(_, parts)| !fingerprint::is_default(parts)) {
        Some((rule, parts)) => {
            let (canonical, shown) = fingerprint::canonical(parts, event, &default.canonical);
            let with_default = shown.iter().any(|part| part.get("means").is_some());
            let explanation = match rule {
                Some(rule) => {
                    format!("Grouped by the fingerprint that rule {rule} of the project gives.")
                }
                None => "Grouped by the fingerprint that the application gave.".to_owned(),
            };
            let mut components = json!({
                "algorithm": ALGORITHM,
                "by": if rule.is_some() { "rule" } else { "fingerprint" },
                "explanation": explanation,
                "fingerprint": { "rule": rule, "parts": shown },
            });
            if with_default && let Some(of) = components.as_object_mut() {
                of.insert("parts".to_owned(), Value::Array(default.parts));
            }
            (canonical, components)
        }
        None => {
            let components = json!({
                "algorithm": ALGORITHM,
                "by": default.by,
                "explanation": default.explanation,
                "parts": default.parts,
            });
            (default.canonical, components)
        }
    };
    let title = title::of(event, rules);
    Grouping {
        hash: hash(&canonical),
        components,
        title: title.title,
        culprit: title.culprit,
        kind: title.kind,
        value: title.value,
    }
}

/// Says of each frame whether it is of the application, where nobody said it or a rule says otherwise.
/// For showing: [`group`] finds the same.
pub(crate) fn mark(event: &mut Event, rules: &Rules) {
    let marks: Vec<bool> = {
        let said = rules.of_frames(event);
        all_frames(event)
            .map(|frame| {
                let family = Family::of(frame.platform.as_deref(), event.platform.as_deref());
                said(frame)
                    .in_app
                    .map_or_else(|| stack::effective(frame, family), |(in_app, _)| in_app)
            })
            .collect()
    };
    let exceptions = event.exceptions.iter_mut().flat_map(|exception| &mut exception.frames);
    let threads = event.threads.iter_mut().flat_map(|thread| &mut thread.frames);
    for (frame, in_app) in exceptions.chain(threads).zip(marks) {
        frame.in_app = Some(in_app);
    }
}

fn all_frames(event: &Event) -> impl Iterator<Item = &crate::event::Frame> {
    let exceptions = event.exceptions.iter().flat_map(|exception| &exception.frames);
    exceptions.chain(event.threads.iter().flat_map(|thread| &thread.frames))
}

/// What surplus new issues are folded into, when a project makes more of them in an hour than it may:
/// one issue, whatever their messages are.
pub(crate) fn surplus(per_hour: i32) -> Grouping {
    Grouping {
        hash: hash("S"),
        components: json!({
            "algorithm": ALGORITHM,
            "by": "surplus",
            "explanation": format!(
                "The project had more than {per_hour} new issues within an hour: what would have made \
                 more of them is gathered here. A rule or a fingerprint may put them together."
            ),
            "parts": [],
        }),
        title: "More new issues than the project may make in an hour".to_owned(),
        culprit: None,
        kind: None,
        value: None,
    }
}

fn hash(canonical: &str) -> [u8; 16] {
    let digest =
        Sha256::new().chain_update(ALGORITHM).chain_update([0]).chain_update(canonical).finalize();
    let mut hash = [0; 16];
    for (to, from) in hash.iter_mut().zip(digest) {
        *to = from;
    }
    hash
}

/// What an event is grouped by when nobody says a fingerprint.
struct Otherwise {
    canonical: String,
    by: &'static str,
    explanation: String,
    parts: Vec<Value>,
}

fn default(event: &Event, rules: &Rules) -> Otherwise {
    if event.exceptions.is_empty() { of_message(event, rules) } else { of_exceptions(event, rules) }
}

/// Those of the chain that count, the outermost last.
fn chain(event: &Event) -> Vec<&Exception> {
    let real: Vec<_> = event
        .exceptions
        .iter()
        .filter(|exception| !exception.mechanism.is_exception_group)
        .collect();
    let mut chain = if real.is_empty() { event.exceptions.iter().collect() } else { real };
    chain.drain(..chain.len().saturating_sub(MOST_EXCEPTIONS));
    chain
}

/// The one that an issue is called by.
fn main_exception(event: &Event) -> Option<&Exception> {
    let real = event.exceptions.iter().rev().find(|one| !one.mechanism.is_exception_group);
    real.or_else(|| event.exceptions.last())
}

fn of_exceptions(event: &Event, rules: &Rules) -> Otherwise {
    let said = rules.of_frames(event);
    let mut keys: Vec<String> = Vec::new();
    let mut parts = Vec::new();
    let (mut stacks, mut values, mut all_count) = (0_usize, 0_usize, false);
    for (at, exception) in chain(event).into_iter().rev().enumerate() {
        let own = !exception.frames.is_empty();
        let frames = match thread_of(exception, event).filter(|_| !own && at == 0) {
            Some(thread) => &thread.frames,
            None => &exception.frames,
        };
        let stack = stack::of(frames, event, &said);
        let kind = exception.kind.as_deref().filter(|_| !exception.mechanism.synthetic);
        let mut key = format!("E{}", kind.unwrap_or_default());
        for frame in &stack.keys {
            key.push('\u{1}');
            key.push_str(frame);
        }
        let by_value = stack.keys.is_empty();
        let value = exception.value.as_deref().unwrap_or_default();
        let mut part = json!({
            "part": "exception",
            "type": exception.kind,
            "type_counts": kind.is_some(),
            "value_counts": by_value && !value.is_empty(),
            "frames": stack.shown,
        });
        let fields = part.as_object_mut();
        if by_value {
            let message = message::parameterised(value);
            key.push('\u{3}');
            key.push_str(&message);
            if let Some(fields) = fields {
                fields.insert("value".to_owned(), message.into());
                fields.insert("why".to_owned(), "No frame of it counts: its message does.".into());
            }
        } else if exception.kind.is_some()
            && kind.is_none()
            && let Some(fields) = fields
        {
            fields.insert("why".to_owned(), "Its type is made up by the SDK.".into());
        }
        // Faults that a group holds several times are one.
        let repeated = keys.contains(&key);
        if let Some(fields) = part.as_object_mut() {
            fields.insert("counts".to_owned(), (!repeated).into());
            if repeated {
                fields.insert("why".to_owned(), "The same as one after it.".into());
            }
        }
        parts.push(part);
        if repeated {
            continue;
        }
        stacks += usize::from(!by_value);
        values += usize::from(by_value);
        all_count |= !by_value && stack.all_count;
        keys.push(key);
    }
    let by = if stacks > 0 { "stack" } else { "exception" };
    Otherwise {
        canonical: keys.join("\u{2}"),
        by,
        explanation: explained(stacks, values, all_count),
        parts,
    }
}

fn explained(stacks: usize, values: usize, all_count: bool) -> String {
    let many = |count: usize, one: &str| {
        if count == 1 { format!("one {one}") } else { format!("{count} {one}s") }
    };
    let mut text = match (stacks, values) {
        (0, values) => format!(
            "Grouped by type and message of {}: no frame counts. Numbers, ids, times and addresses in \
             messages do not count.",
            many(values, "exception")
        ),
        (stacks, 0) => format!("Grouped by type and stack of {}.", many(stacks, "exception")),
        (stacks, values) => format!(
            "Grouped by type and stack of {}, and type and message of {}.",
            many(stacks, "exception"),
            many(values, "other")
        ),
    };
    if all_count {
        text.push_str(" No frame is of the application, so that all count.");
    }
    text
}

/// Whose stack it is, of an exception that has none itself.
fn thread_of<'a>(exception: &Exception, event: &'a Event) -> Option<&'a Thread> {
    let same = |thread: &&Thread| exception.thread_id.is_some() && thread.id == exception.thread_id;
    event
        .threads
        .iter()
        .find(same)
        .or_else(|| event.threads.iter().find(|thread| thread.crashed))
        .filter(|thread| !thread.frames.is_empty())
}

/// The thread that crashed, else the one that sent the event.
fn thread(event: &Event) -> Option<&Thread> {
    let with_frames = || event.threads.iter().filter(|thread| !thread.frames.is_empty());
    with_frames()
        .find(|thread| thread.crashed)
        .or_else(|| with_frames().find(|thread| thread.current))
        .or_else(|| with_frames().next().filter(|_| event.threads.len() == 1))
}

fn of_message(event: &Event, rules: &Rules) -> Otherwise {
    if let Some(thread) = thread(event) {
        let stack = stack::of(&thread.frames, event, &rules.of_frames(event));
        if !stack.keys.is_empty() {
            return Otherwise {
                canonical: format!("T{}", stack.keys.join("\u{1}")),
                by: "thread",
                explanation:
                    "There is no exception. Grouped by the stack of the thread that sent it."
                        .to_owned(),
                parts: vec![json!({
                    "part": "thread", "name": thread.name, "counts": true, "frames": stack.shown,
                })],
            };
        }
    }
    if let Some(message) = &event.message {
        let text = message.template.as_deref().unwrap_or(&message.formatted);
        let text = message::parameterised(text);
        if !text.is_empty() {
            return Otherwise {
                canonical: format!("M{text}"),
                by: "message",
                explanation:
                    "There is neither exception nor stack. Grouped by the message; numbers, ids, \
                              times and addresses in it do not count."
                        .to_owned(),
                parts: vec![json!({ "part": "message", "counts": true, "value": text })],
            };
        }
    }
    let transaction = event.transaction.as_deref().unwrap_or_default();
    Otherwise {
        canonical: format!("L{transaction}\u{1}{}", event.level.as_str()),
        by: "fallback",
        explanation: "There is no exception, stack or message. Grouped by transaction and level."
            .to_owned(),
        parts: vec![json!({
            "part": "fallback", "counts": true, "transaction": event.transaction, "level": event.level,
        })],
    }
}
