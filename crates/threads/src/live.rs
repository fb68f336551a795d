//! Texts that are being written: they grow in memory, and are stored at most once a second and at their
//! end. What is stored decides: a server that finds another text there than it knows forgets its own.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use loom_core::{
    Error, Principal, Result,
    authorize::Ownership,
    id::{OrgId, ThreadId},
};
use tokio::{
    sync::{Mutex as AsyncMutex, Notify},
    time::Instant,
};

use crate::{
    MAX_THREAD_BYTES, Threads,
    http::{lock_for_change, touch},
    message::{CheckedMessage, MAX_MESSAGE_BYTES, MAX_MESSAGES, MessageDraft, Role, check_one},
    raw::Raw,
    store::{self, messages::StoredText},
};

/// Between two times that a growing text is stored.
const STORE_AFTER: Duration = Duration::from_secs(1);
/// A text that has not grown for so long is forgotten here; what is stored stays.
const FORGET_AFTER: Duration = Duration::from_secs(60);
/// Texts that grow at the same time on one server, and their bytes.
const MOST: usize = 2000;
const MOST_BYTES: usize = 128 << 20;

type Key = (ThreadId, String);
type Texts = HashMap<Key, Arc<AsyncMutex<Text>>>;

/// The texts that grow on this server.
#[derive(Default)]
pub(crate) struct Live {
    texts: Mutex<Texts>,
    bytes: AtomicUsize,
    /// Some text is not stored.
    dirty: Notify,
}

struct Text {
    org: OrgId,
    ownership: Ownership,
    /// None while the message is not stored at all.
    stored: Option<Stored>,
    text: String,
    /// How much of it is stored.
    stored_len: usize,
    grown_at: Instant,
    /// Not to be gone on with: another has written the message.
    is_stale: bool,
}

struct Stored {
    seq: i64,
    version: Option<i64>,
    bytes: i32,
}

/// A piece of a text that a client writes.
pub(crate) struct Piece {
    pub(crate) id: String,
    pub(crate) offset: usize,
    pub(crate) text: String,
    /// Nothing comes after it; with it comes what a message has at its end.
    pub(crate) end: Option<End>,
}

pub(crate) struct End {
    pub(crate) tool_calls: Option<Raw>,
    pub(crate) usage: Option<Raw>,
}

/// How far a text is.
pub(crate) struct Grown {
    pub(crate) seq: i64,
    pub(crate) length: usize,
    pub(crate) stored_length: usize,
}

impl Threads {
    /// Adds a piece to a text, and begins the message with its first.
    ///
    /// # Errors
    /// 409 `offset_conflict` with `length` when the piece does not begin where the text ends.
    pub(crate) async fn write_piece(
        &self,
        principal: &Principal,
        thread: ThreadId,
        piece: Piece,
    ) -> Result<Grown> {
        let key = (thread, piece.id.clone());
        let known = {
            let texts = self.live.texts.lock().unwrap_or_else(PoisonError::into_inner);
            texts.get(&key).cloned()
        };
        let known = match known {
            Some(known) => known,
            None => self.begin_text(principal, &key).await?,
        };
        let mut text = known.lock().await;
        if text.is_stale {
            return Err(Error::unavailable(
                "this message has just been written by another; try again",
            ));
        }
        text.ownership.require_change(principal, "thread")?;
        if text.org != principal.org {
            return Err(Error::not_found("thread"));
        }
        let new = match new_part(&text.text, &piece) {
            Some(new) => new.to_owned(),
            None => return Err(offset_conflict(text.text.len(), piece.offset)),
        };
        if text.text.len() + new.len() > MAX_MESSAGE_BYTES {
            return Err(Error::too_large("a message has at most 4 MiB"));
        }
        let offset = text.text.len();
        text.text.push_str(&new);
        text.grown_at = Instant::now();
        self.live.bytes.fetch_add(new.len(), Ordering::Relaxed);
        let is_end = piece.end.is_some();
        if is_end || text.stored.is_none() {
            let done = self.store_text(&key, &mut text, piece.end).await;
            if done.is_err() || is_end {
                text.is_stale = true;
                self.forget_text(&key, &text);
            }
            done?;
        }
        let seq = text.stored.as_ref().map_or(0, |stored| stored.seq);
        if !new.is_empty() {
            self.feed.grew(thread, &key.1, seq, offset, &new);
        }
        if text.stored_len < text.text.len() {
            self.live.dirty.notify_one();
        }
        Ok(Grown { seq, length: text.text.len(), stored_length: text.stored_len })
    }

    /// Takes up a text where the database has it.
    async fn begin_text(&self, principal: &Principal, key: &Key) -> Result<Arc<AsyncMutex<Text>>> {
        let (thread, id) = key;
        let mut tx = loom_db::begin(&self.pool).await?;
        let head = lock_for_change(&mut tx, principal, *thread).await?;
        let found = store::messages::by_id(&mut tx, head.org_id, *thread, id).await?;
        tx.rollback().await?;
        let text = match &found {
            None => String::new(),
            Some(found) => text_of(found)?,
        };
        let text = Text {
            org: head.org_id,
            ownership: head.ownership(),
            stored_len: text.len(),
            stored: found.map(|found| Stored {
                seq: found.seq,
                version: found.version,
                bytes: found.bytes,
            }),
            text,
            grown_at: Instant::now(),
            is_stale: false,
        };
        let mut texts = self.live.texts.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = self.live.bytes.load(Ordering::Relaxed);
        if texts.len() >= MOST || bytes > MOST_BYTES {
            return Err(Error::new(
                http::StatusCode::TOO_MANY_REQUESTS,
                "too_many_texts",
                "too many messages are being written at once on this server; try again soon, or append \
                 the message when it is whole",
            )
            .retry_after(Duration::from_secs(5)));
        }
        Ok(match texts.entry(key.clone()) {
            // Another request was faster: its text is the one.
            Entry::Occupied(known) => Arc::clone(known.get()),
            Entry::Vacant(place) => {
                self.live.bytes.fetch_add(text.text.len(), Ordering::Relaxed);
                Arc::clone(place.insert(Arc::new(AsyncMutex::new(text))))
            }
        })
    }

    fn forget_text(&self, key: &Key, text: &Text) {
        let mut texts = self.live.texts.lock().unwrap_or_else(PoisonError::into_inner);
        texts.remove(key);
        self.live.bytes.fetch_sub(text.text.len(), Ordering::Relaxed);
    }

    /// Stores a text as far as it is known here.
    async fn store_text(&self, key: &Key, text: &mut Text, end: Option<End>) -> Result<()> {
        let (thread, id) = key;
        let now = self.now();
        let content = serde_json::to_string(&text.text).map_err(Error::internal)?;
        let (tool_calls, usage) = end.map_or((None, None), |end| (end.tool_calls, end.usage));
        let message: CheckedMessage = check_one(MessageDraft {
            id: Some(id.clone()),
            role: Role::Assistant,
            content: Some(Raw::try_from(content).map_err(Error::internal)?),
            content_truncated: None,
            tool_calls,
            tool_call_id: None,
            tool_name: None,
            created_at: None,
            usage,
        })?;
        let mut tx = loom_db::begin(&self.pool).await?;
        let before = store::lock(&mut tx, text.org, *thread).await?;
        let before = before
            .filter(|before| before.deleted_at.is_none())
            .ok_or_else(|| Error::not_found("thread"))?;
        let found = store::messages::by_id(&mut tx, text.org, *thread, id).await?;
        let mut head = before.clone();
        touch(&mut head, &before, now);
        head.last_activity_at = head.updated_at;
        let placed = match (&text.stored, found) {
            (None, None) => {
                if usize::try_from(head.message_count).unwrap_or_default() >= MAX_MESSAGES {
                    return Err(Error::invalid(
                        "id",
                        format!("a thread has at most {MAX_MESSAGES} messages"),
                    ));
                }
                head.last_seq += 1;
                head.message_count += 1;
                message.place(head.last_seq, None, None, now)
            }
            (Some(known), Some(found))
                if known.seq == found.seq && known.version == found.version =>
            {
                head.message_bytes -= i64::from(known.bytes);
                message.place(found.seq, None, Some(found.created_at), now)
            }
            // Gone, or written by another server or in another way.
            (_, found) => {
                let length =
                    found.as_ref().map_or(Ok(0), |found| text_of(found).map(|t| t.len()))?;
                return Err(offset_conflict(length, text.text.len()));
            }
        };
        head.message_bytes += i64::from(placed.bytes);
        if head.message_bytes > MAX_THREAD_BYTES as i64 {
            return Err(Error::too_large("the messages of a thread have at most 32 MiB together"));
        }
        let written = std::slice::from_ref(&placed);
        if text.stored.is_some() {
            store::messages::update(&mut tx, text.org, *thread, head.version, written).await?;
        } else {
            store::messages::insert(&mut tx, text.org, *thread, head.version, written).await?;
        }
        store::update(&mut tx, &head).await?;
        self.tell_messages(&mut tx, Some(&before), &head, written.iter(), false).await?;
        tx.commit().await?;
        self.feed.wrote();
        text.ownership = head.ownership();
        text.stored = Some(Stored {
            seq: placed.message.seq,
            version: Some(head.version),
            bytes: placed.bytes,
        });
        text.stored_len = text.text.len();
        Ok(())
    }

    /// Stores what has grown, a second after it did; until the server stops.
    pub(crate) async fn keep_storing(&self) {
        let stop = self.feed.leaving.clone();
        loop {
            tokio::select! {
                () = self.live.dirty.notified() => {}
                () = tokio::time::sleep(FORGET_AFTER) => {}
                () = stop.cancelled() => return,
            }
            tokio::select! {
                () = tokio::time::sleep(STORE_AFTER) => {}
                () = stop.cancelled() => return,
            }
            self.store_texts().await;
        }
    }

    /// Stores all texts as far as they are known here, and forgets those that do not grow any more.
    pub(crate) async fn store_texts(&self) {
        let texts: Vec<_> = {
            let texts = self.live.texts.lock().unwrap_or_else(PoisonError::into_inner);
            texts.iter().map(|(key, text)| (key.clone(), Arc::clone(text))).collect()
        };
        for (key, text) in texts {
            let mut text = text.lock().await;
            if text.is_stale {
                continue;
            }
            if text.stored_len < text.text.len()
                && let Err(error) = self.store_text(&key, &mut text, None).await
            {
                if error.status().is_server_error() {
                    // Not now; it stays, and its writer knows how much is stored.
                    tracing::debug!(%error, "a text that is being written cannot be stored now");
                    self.live.dirty.notify_one();
                    continue;
                }
                text.is_stale = true;
            }
            if text.is_stale || text.grown_at.elapsed() > FORGET_AFTER {
                text.is_stale = true;
                self.forget_text(&key, &text);
            }
        }
    }
}

/// What of a piece is new: it begins where the text ends, or repeats the end of the text and goes on.
fn new_part<'a>(text: &str, piece: &'a Piece) -> Option<&'a str> {
    let known = text.get(piece.offset..)?;
    piece.text.strip_prefix(known)
}

/// The text of a message that can grow.
fn text_of(found: &StoredText) -> Result<String> {
    let text = serde_json::from_str::<String>(found.content.get()).ok();
    text.filter(|_| found.role == Role::Assistant).ok_or_else(|| {
        Error::conflict(
            "not_a_text",
            "the message with this id is not an assistant's text, and cannot be gone on with",
        )
    })
}

fn offset_conflict(length: usize, offset: usize) -> Error {
    Error::conflict(
        "offset_conflict",
        format!("the text has {length} bytes here, and the piece begins at {offset}; send what comes after {length}"),
    )
    .with("length", length)
}
