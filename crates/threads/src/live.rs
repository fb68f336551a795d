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
use loom_redact::Stream;
use tokio::{
    sync::{Mutex as AsyncMutex, Notify},
    time::Instant,
};

use crate::{
    MAX_THREAD_BYTES, Threads,
    http::{lock_for_change, touch},
    message::{CheckedMessage, MAX_MESSAGE_BYTES, MAX_MESSAGES, MessageDraft, Role, check_one},
    raw::Raw,
    redaction::Masker,
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
    /// What its writer sent, from `base` on: what came before, in a masked text, is not known any more.
    text: String,
    base: usize,
    /// What others get in its place, where secrets are masked.
    masked: Option<Masked>,
    /// How much of what was sent is stored.
    stored_len: usize,
    grown_at: Instant,
    /// Not to be gone on with: another has written the message.
    is_stale: bool,
}

/// A text without its secrets. What may be the beginning of one is held back.
struct Masked {
    stream: Stream,
    text: String,
}

impl Text {
    /// What was sent, in bytes.
    fn length(&self) -> usize {
        self.base + self.text.len()
    }

    /// How much of what was sent can be stored and told.
    fn certain(&self) -> usize {
        self.length() - self.masked.as_ref().map_or(0, |masked| masked.stream.held())
    }

    /// What is stored.
    fn shown(&self) -> &str {
        self.masked.as_ref().map_or(&self.text, |masked| &masked.text)
    }

    fn weight(&self) -> usize {
        self.text.len() + self.masked.as_ref().map_or(0, |masked| masked.text.len())
    }

    /// Adds what was sent; gives what may be told of it, and where that begins.
    fn grow(&mut self, new: &str, is_end: bool) -> (usize, String) {
        let offset = self.shown().len();
        self.text.push_str(new);
        let Some(masked) = &mut self.masked else { return (offset, new.to_owned()) };
        let mut told = masked.stream.push(new);
        if is_end {
            told.push_str(&masked.stream.finish());
        }
        masked.text.push_str(&told);
        (offset, told)
    }
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
        let new = match new_part(&text.text, text.base, &piece) {
            Some(new) => new.to_owned(),
            None => return Err(offset_conflict(text.length(), piece.offset)),
        };
        if text.length() + new.len() > MAX_MESSAGE_BYTES {
            return Err(Error::too_large("a message has at most 4 MiB"));
        }
        let is_end = piece.end.is_some();
        let before = text.weight();
        let (offset, told) = text.grow(&new, is_end);
        text.grown_at = Instant::now();
        self.live.bytes.fetch_add(text.weight() - before, Ordering::Relaxed);
        if is_end || text.stored.is_none() {
            let done = self.store_text(&key, &mut text, piece.end).await;
            if done.is_err() || is_end {
                text.is_stale = true;
                self.forget_text(&key, &text);
            }
            done?;
        }
        let seq = text.stored.as_ref().map_or(0, |stored| stored.seq);
        if !told.is_empty() {
            self.feed.grew(thread, &key.1, seq, offset, &told);
        }
        if text.stored_len < text.certain() {
            self.live.dirty.notify_one();
        }
        Ok(Grown { seq, length: text.length(), stored_length: text.stored_len })
    }

    /// Takes up a text where the database has it.
    async fn begin_text(&self, principal: &Principal, key: &Key) -> Result<Arc<AsyncMutex<Text>>> {
        let (thread, id) = key;
        let mut tx = loom_db::begin(&self.pool).await?;
        let head = lock_for_change(&mut tx, principal, *thread).await?;
        let found = store::messages::by_id(&mut tx, head.org_id, *thread, id).await?;
        tx.rollback().await?;
        let mut text = match &found {
            None => String::new(),
            Some(found) => text_of(found)?,
        };
        let sent = found.as_ref().and_then(|found| found.sent_bytes);
        let sent = sent.map_or(Ok(text.len()), usize::try_from).map_err(Error::internal)?;
        // One that was masked stays so, whatever is wanted by now.
        let is_masked = sent != text.len() || self.redacts(head.org_id).await?;
        let masked = is_masked.then(|| Masked {
            stream: loom_redact::shared().stream(),
            text: std::mem::take(&mut text),
        });
        let text = Text {
            org: head.org_id,
            ownership: head.ownership(),
            stored_len: sent,
            base: sent - text.len(),
            masked,
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
                self.live.bytes.fetch_add(text.weight(), Ordering::Relaxed);
                Arc::clone(place.insert(Arc::new(AsyncMutex::new(text))))
            }
        })
    }

    fn forget_text(&self, key: &Key, text: &Text) {
        let mut texts = self.live.texts.lock().unwrap_or_else(PoisonError::into_inner);
        texts.remove(key);
        self.live.bytes.fetch_sub(text.weight(), Ordering::Relaxed);
    }

    /// Stores a text as far as it is known here.
    async fn store_text(&self, key: &Key, text: &mut Text, end: Option<End>) -> Result<()> {
        let (thread, id) = key;
        let now = self.now();
        let content = serde_json::to_string(text.shown()).map_err(Error::internal)?;
        let sent = text.certain();
        let (mut tool_calls, mut usage) =
            end.map_or((None, None), |end| (end.tool_calls, end.usage));
        if text.masked.is_some() {
            let mut masker = Masker::new();
            for raw in [&mut tool_calls, &mut usage].into_iter().flatten() {
                masker.raw(raw);
            }
        }
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
                let length = match &found {
                    None => 0,
                    Some(found) => {
                        let length = text_of(found)?.len();
                        let sent = found.sent_bytes.map(usize::try_from);
                        sent.and_then(Result::ok).unwrap_or(length)
                    }
                };
                return Err(offset_conflict(length, text.length()));
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
        if sent != text.shown().len() {
            let sent = i32::try_from(sent).map_err(Error::internal)?;
            let seq = placed.message.seq;
            store::messages::set_sent_bytes(&mut tx, text.org, *thread, seq, sent).await?;
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
        text.stored_len = sent;
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
            if text.stored_len < text.certain()
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
fn new_part<'a>(text: &str, base: usize, piece: &'a Piece) -> Option<&'a str> {
    let known = text.get(piece.offset.checked_sub(base)?..)?;
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
