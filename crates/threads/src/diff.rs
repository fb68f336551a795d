//! What an upsert changes in the messages of a thread: rows that are the same are left alone.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Utc};

use crate::message::{CheckedMessage, PlacedMessage};

/// A stored message, as far as it is needed to compare.
#[derive(Clone, Debug)]
pub(crate) struct StoredMessage {
    pub(crate) seq: i64,
    pub(crate) id: String,
    pub(crate) digest: Vec<u8>,
    pub(crate) bytes: i32,
    pub(crate) created_at: DateTime<Utc>,
}

/// What to do, and what there is then: `same`, `changed` and `added` hold the thread's messages.
#[derive(Debug)]
pub(crate) struct Diff {
    /// Kept as they are.
    pub(crate) same: Vec<PlacedMessage>,
    /// At their old place with other content.
    pub(crate) changed: Vec<PlacedMessage>,
    /// Rows after this seq go.
    pub(crate) remove_after: Option<i64>,
    /// At the end.
    pub(crate) added: Vec<PlacedMessage>,
    pub(crate) last_seq: i64,
}

impl Diff {
    /// Up to the first message with another id, places are kept; from there on, messages are placed
    /// anew. A message that comes without an id is taken for the stored one of the same content.
    pub(crate) fn between(
        stored: Vec<StoredMessage>,
        incoming: Vec<CheckedMessage>,
        mut last_seq: i64,
        now: DateTime<Utc>,
    ) -> Self {
        let named: HashSet<String> = incoming.iter().filter_map(|m| m.id.clone()).collect();
        let mut stored = stored.into_iter().peekable();
        let mut incoming = incoming.into_iter().peekable();
        let (mut same, mut changed, mut added) = (Vec::new(), Vec::new(), Vec::new());
        let mut kept_to = 0;
        while let (Some(old), Some(new)) = (stored.peek(), incoming.peek()) {
            let is_same_message = match &new.id {
                Some(id) => *id == old.id,
                None => new.digest == old.digest && !named.contains(&old.id),
            };
            if !is_same_message {
                break;
            }
            let (Some(old), Some(new)) = (stored.next(), incoming.next()) else { break };
            let is_unchanged =
                new.digest == old.digest && new.created_at.is_none_or(|at| at == old.created_at);
            kept_to = old.seq;
            let mut placed = new.place(old.seq, Some(old.id), Some(old.created_at), now);
            if is_unchanged {
                // Of what came truncated these are not the bytes.
                placed.bytes = old.bytes;
            }
            if is_unchanged { same.push(placed) } else { changed.push(placed) }
        }
        let removed: HashMap<String, DateTime<Utc>> =
            stored.map(|message| (message.id, message.created_at)).collect();
        for new in incoming {
            last_seq += 1;
            let since = new.id.as_ref().and_then(|id| removed.get(id)).copied();
            added.push(new.place(last_seq, None, since, now));
        }
        if !removed.is_empty() && added.is_empty() {
            // Nothing but a removal: `last_seq` moves all the same, so that an appender who still
            // counts on what is gone is told (`expected_last_seq`).
            last_seq += 1;
        }
        let remove_after = (!removed.is_empty()).then_some(kept_to);
        Self { same, changed, remove_after, added, last_seq }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.changed.is_empty() && self.added.is_empty() && self.remove_after.is_none()
    }

    /// A message that came without its content and is not one that stays where and as it is.
    pub(crate) fn lacking_content(&self) -> Option<&str> {
        self.written()
            .map(|placed| &placed.message)
            .find(|message| message.content_truncated.is_some())
            .map(|message| message.id.as_str())
    }

    /// What is to be written.
    pub(crate) fn written(&self) -> impl Iterator<Item = &PlacedMessage> {
        self.changed.iter().chain(&self.added)
    }

    pub(crate) fn bytes(&self) -> i64 {
        self.placed().map(|message| i64::from(message.bytes)).sum()
    }

    pub(crate) fn count(&self) -> usize {
        self.placed().count()
    }

    fn placed(&self) -> impl Iterator<Item = &PlacedMessage> {
        self.same.iter().chain(&self.changed).chain(&self.added)
    }

    /// The thread's messages, in order.
    pub(crate) fn into_messages(self) -> Vec<crate::message::Message> {
        let all = self.same.into_iter().chain(self.changed).chain(self.added);
        let mut messages: Vec<_> = all.map(|placed| placed.message).collect();
        messages.sort_unstable_by_key(|message| message.seq);
        messages
    }
}
