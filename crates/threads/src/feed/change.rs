//! Which events a change of a thread makes.

use loom_core::text::cut;
use serde_json::{Map, Value, json};

use super::event::{Kind, NewEvent};
use crate::{message::PlacedMessage, model::ThreadHead};

/// Messages that are named one by one.
const NAMED: usize = 50;
const MAX_ERROR_BYTES: usize = 1000;

/// The events of one transaction; `before` is None for a thread that is new. Contents are not in them:
/// whoever wants them reads the thread, and is asked again whether they may.
pub(crate) fn events_of<'a>(
    before: Option<&ThreadHead>,
    head: &ThreadHead,
    written: impl Iterator<Item = &'a PlacedMessage>,
    removed: bool,
) -> Vec<NewEvent> {
    let mut events = Vec::new();
    let mut add = |kind: Kind, shown_before, facts: Value| {
        let mut data = Map::new();
        data.insert("thread_id".to_owned(), json!(head.id));
        data.insert("version".to_owned(), json!(head.version));
        data.insert("at".to_owned(), json!(millis(head)));
        if let Value::Object(facts) = facts {
            data.extend(facts);
        }
        events.push(NewEvent { kind, shown_before, data: Value::Object(data).to_string() });
    };
    if head.deleted_at.is_some() {
        add(Kind::Deleted, None, json!({}));
        return events;
    }
    if let Some(before) = before.filter(|before| before.visibility != head.visibility) {
        add(Kind::Visibility, Some(before.visibility), json!({ "visibility": head.visibility }));
    }
    let written: Vec<_> = written.map(|placed| &placed.message).collect();
    let has_messages = !written.is_empty() || removed;
    let changed = changed(before, head, has_messages);
    if !changed.is_empty() {
        let facts = json!({
            "changed": changed, "title": head.title, "tags": head.tags, "is_pinned": head.is_pinned,
        });
        add(Kind::Updated, None, facts);
    }
    if has_messages {
        let named: Vec<_> = written
            .iter()
            .take(NAMED)
            .map(|message| json!({ "seq": message.seq, "id": message.id, "role": message.role }))
            .collect();
        let facts = json!({
            "from_seq": written.iter().map(|message| message.seq).min(),
            "to_seq": written.iter().map(|message| message.seq).max(),
            "last_seq": head.last_seq, "message_count": head.message_count,
            "removed": removed, "messages": named,
        });
        add(Kind::Message, None, facts);
    }
    if before.is_none_or(|before| before.agent_state != head.agent_state) {
        let state = &head.agent_state;
        let error = state.last_error.as_deref().map(|error| cut(error, MAX_ERROR_BYTES));
        let facts = json!({
            "agent_state": { "kind": state.kind, "retries": state.retries, "last_error": error },
        });
        add(Kind::State, None, facts);
    }
    events
}

fn millis(head: &ThreadHead) -> String {
    head.updated_at.to_rfc3339_opts(chrono::SecondsFormat::Millis, true)
}

/// The fields that an `updated` event is about.
fn changed(
    before: Option<&ThreadHead>,
    head: &ThreadHead,
    has_messages: bool,
) -> Vec<&'static str> {
    let Some(before) = before else { return vec!["created"] };
    let fields = [
        ("title", before.title != head.title),
        ("tags", before.tags != head.tags),
        ("is_pinned", before.is_pinned != head.is_pinned),
        ("workspace", before.workspace != head.workspace),
        ("client", before.client != head.client),
        ("provider", before.provider != head.provider),
        ("model", before.model != head.model),
        ("git", before.git != head.git),
        ("extra", before.extra != head.extra),
        ("restored", before.deleted_at.is_some()),
    ];
    let mut changed: Vec<_> =
        fields.into_iter().filter(|(_, changed)| *changed).map(|(name, _)| name).collect();
    let is_other = has_messages
        || before.visibility != head.visibility
        || before.agent_state != head.agent_state;
    if changed.is_empty() && !is_other {
        // A commit that came in, which is not in the head.
        changed.push("git");
    }
    changed
}
