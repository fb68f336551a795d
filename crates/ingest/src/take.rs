//! Items on their way to the sinks: each by itself, those of one envelope side by side.

use bytes::Bytes;
use futures::{StreamExt, stream};
use loom_core::{
    id::EventId,
    port::{Attachment, Taken},
};
use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

use crate::{
    Ingest,
    admission::Sender,
    answer::Outcome,
    envelope::{self, Item, Items},
    item::{Category, Kind},
    limits::Reached,
    measures,
    refusal::Refusal,
    reports, security,
};

/// What one envelope may hold, of all kinds.
const MAX_ITEMS: usize = 1000;
/// Names and types of attachments are cut.
const MAX_NAME: usize = 500;
/// Sinks that one envelope waits for at once.
const AT_ONCE: usize = 32;

/// Something that a sink takes.
pub(crate) enum Piece {
    Event(EventId, Bytes),
    Attachment(Attachment),
    Session(Bytes),
    Sessions(Bytes),
    CheckIn(Bytes),
    Report(Bytes),
    Feedback(Bytes),
}

impl Piece {
    fn category(&self) -> Category {
        match self {
            Self::Event(..) => Category::Error,
            Self::Attachment(_) => Category::Attachment,
            Self::Session(_) | Self::Sessions(_) => Category::Session,
            Self::CheckIn(_) => Category::Monitor,
            Self::Report(_) => Category::Internal,
            Self::Feedback(_) => Category::Feedback,
        }
    }

    /// Is an event made of it? Then it goes before the event.
    fn comes_first(&self) -> bool {
        matches!(self, Self::Attachment(a) if is_crash(&a.kind))
    }
}

/// Is it a file that stands for an event?
fn is_crash(kind: &str) -> bool {
    matches!(kind, "event.minidump" | "event.applecrashreport")
}

impl Ingest {
    /// Takes all items of an envelope.
    pub(crate) async fn take_envelope(
        &self,
        sender: &Sender,
        id: Option<Uuid>,
        body: &Bytes,
    ) -> Outcome {
        let mut outcome = Outcome::default();
        let mut pieces = Vec::new();
        let mut counts = [0_usize; 8];
        let mut event = id.map(EventId);
        let mut has_event = false;
        for (n, item) in Items::new(body).enumerate() {
            if n == MAX_ITEMS {
                outcome.refuse(
                    Category::Unknown,
                    Refusal::too_large("an envelope holds 1,000 items at most"),
                );
                break;
            }
            let item = match item {
                Ok(item) => item,
                Err(malformed) => {
                    outcome.refuse(Category::Unknown, Refusal::malformed(malformed.0));
                    continue;
                }
            };
            let kind = Kind::of(item.kind());
            let category = kind.category();
            if let Kind::Other(_) = kind {
                outcome.drop_one(category);
                continue;
            }
            if let Some(count) = counts.get_mut(slot(kind)) {
                *count += 1;
                if *count > kind.most() {
                    let detail = format!(
                        "an envelope holds {} items of type {} at most",
                        kind.most(),
                        item.kind()
                    );
                    outcome.refuse(category, Refusal::too_large(detail));
                    continue;
                }
            }
            if item.payload.len() > kind.max_bytes(&self.config) {
                let detail = format!(
                    "a payload of type {} has {} bytes; {} are the most",
                    item.kind(),
                    item.payload.len(),
                    kind.max_bytes(&self.config)
                );
                outcome.refuse(category, Refusal::too_large(detail));
                continue;
            }
            let piece = match kind {
                Kind::Event => {
                    // Of several, which no SDK sends, one has the envelope's id.
                    let given = id.filter(|_| !has_event);
                    self.event(given, item.payload).inspect(|piece| {
                        has_event = true;
                        if let Piece::Event(id, _) = piece {
                            event.get_or_insert(*id);
                        }
                    })
                }
                // A browser may have gathered several reports.
                Kind::Security => match security::events(&item.payload, &sender.delivery, &[]) {
                    Ok(events) => {
                        let id = || EventId::new(self.deps.clock.now());
                        pieces.extend(events.into_iter().map(|event| Piece::Event(id(), event)));
                        continue;
                    }
                    Err(refusal) => Err(refusal),
                },
                Kind::Attachment => Ok(Piece::Attachment(attachment(event, item))),
                Kind::Session => Ok(Piece::Session(item.payload)),
                Kind::Sessions => Ok(Piece::Sessions(item.payload)),
                Kind::CheckIn => Ok(Piece::CheckIn(item.payload)),
                Kind::ClientReport => Ok(Piece::Report(item.payload)),
                Kind::Feedback | Kind::Other(_) => Ok(Piece::Feedback(item.payload)),
            };
            match piece {
                Ok(piece) => pieces.push(piece),
                Err(refusal) => outcome.refuse(category, refusal),
            }
        }
        self.settle_attachments(event, has_event, &mut pieces, &mut outcome);
        outcome.event = event.map(|event| event.0);
        self.take(sender, pieces, &mut outcome).await;
        outcome
    }

    /// Attachments may stand before the event that they belong to. A minidump without an event makes one.
    fn settle_attachments(
        &self,
        event: Option<EventId>,
        has_event: bool,
        pieces: &mut Vec<Piece>,
        outcome: &mut Outcome,
    ) {
        let Some(event) = event else {
            let before = pieces.len();
            pieces.retain(|piece| !matches!(piece, Piece::Attachment(_)));
            for _ in pieces.len()..before {
                let refusal = Refusal::malformed("an attachment needs the event_id of its event");
                outcome.refuse(Category::Attachment, refusal);
            }
            return;
        };
        let mut crash = None;
        for piece in pieces.iter_mut() {
            if let Piece::Attachment(attachment) = piece {
                attachment.event = event;
                if attachment.kind == "event.minidump" {
                    crash = Some(attachment.content.clone());
                }
            }
        }
        if let (false, Some(dump)) = (has_event, crash) {
            pieces.push(Piece::Event(event, crate::minidump::event(&dump, serde_json::Map::new())));
        }
    }

    /// An event with its id: the envelope's, else its own, else a new one.
    pub(crate) fn event(&self, given: Option<Uuid>, payload: Bytes) -> Result<Piece, Refusal> {
        let own = peek(&payload).ok_or_else(|| Refusal::malformed("an event is a JSON object"))?;
        let id = given.or_else(|| envelope::id(&own.event_id));
        let id = id.map_or_else(|| EventId::new(self.deps.clock.now()), EventId);
        Ok(Piece::Event(id, payload))
    }

    /// Hands over what the limits let through.
    pub(crate) async fn take(&self, sender: &Sender, pieces: Vec<Piece>, outcome: &mut Outcome) {
        let now = sender.delivery.received_at;
        let mut errors_limited: Option<Reached> = None;
        // Events before their attachments: without the event, the attachment has nothing to belong to.
        let is_limited_event = |piece: &Piece| matches!(piece, Piece::Event(..));
        let (events, others): (Vec<_>, Vec<_>) = pieces.into_iter().partition(is_limited_event);
        let org = sender.delivery.project.org;
        let mut first = Vec::new();
        let mut rest = Vec::new();
        for piece in events.into_iter().chain(others) {
            let category = piece.category();
            let allowed = match (&piece, errors_limited) {
                (Piece::Attachment(_), Some(reached)) => Err(reached.for_category(category)),
                _ => self.deps.gate.take(org, Some(&sender.key), category, now),
            };
            match allowed {
                Ok(()) if piece.comes_first() => first.push(piece),
                Ok(()) => rest.push(piece),
                Err(reached) => {
                    if category == Category::Error {
                        errors_limited = Some(reached);
                    }
                    outcome.limit(reached);
                }
            }
        }
        for pieces in [first, rest] {
            let mut taken = stream::iter(pieces)
                .map(|piece| async move { (piece.category(), self.give(sender, piece).await) })
                .buffer_unordered(AT_ONCE);
            while let Some((category, taken)) = taken.next().await {
                match taken {
                    Ok(Taken::Stored) => outcome.accept(category),
                    Ok(Taken::Rejected(why)) => outcome.refuse(category, Refusal::malformed(why)),
                    Err(refusal) => outcome.refuse(category, refusal),
                }
            }
        }
    }

    async fn give(&self, sender: &Sender, piece: Piece) -> Result<Taken, Refusal> {
        let (deps, delivery) = (&self.deps, &sender.delivery);
        let taken = match piece {
            Piece::Event(id, payload) => deps.events.event(delivery, id, payload).await,
            Piece::Attachment(attachment) => {
                deps.attachments.attachment(delivery, attachment).await
            }
            Piece::Session(payload) => deps.sessions.session(delivery, payload).await,
            Piece::Sessions(payload) => deps.sessions.aggregates(delivery, payload).await,
            Piece::CheckIn(payload) => deps.check_ins.check_in(delivery, payload).await,
            Piece::Feedback(payload) => deps.events.feedback(delivery, payload).await,
            Piece::Report(payload) => {
                let report = reports::parse(&payload)
                    .ok_or_else(|| Refusal::malformed("the client report cannot be read"))?;
                measures::client_discarded(&report);
                self.reports.add(delivery, report).await.map(|()| Taken::Stored)
            }
        };
        taken.map_err(Refusal::from)
    }
}

fn slot(kind: Kind) -> usize {
    match kind {
        Kind::Event => 0,
        Kind::Security => 1,
        Kind::Attachment => 2,
        Kind::Session => 3,
        Kind::Sessions => 4,
        Kind::CheckIn => 5,
        Kind::ClientReport => 6,
        Kind::Feedback | Kind::Other(_) => 7,
    }
}

fn attachment(event: Option<EventId>, item: Item) -> Attachment {
    let cut = |text: &str| text.chars().take(MAX_NAME).collect::<String>();
    Attachment {
        // Of the event that may still come; settled when all items are known.
        event: event.unwrap_or(EventId(Uuid::nil())),
        name: item.filename().map_or_else(|| "attachment".to_owned(), cut),
        content_type: item.content_type().map(cut),
        kind: cut(item.attachment_type()),
        content: item.payload,
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Peeked {
    event_id: Value,
}

/// The id in an event; None when it is no JSON object at all.
fn peek(payload: &[u8]) -> Option<Peeked> {
    (payload.trim_ascii_start().first() == Some(&b'{'))
        .then(|| serde_json::from_slice(payload).ok())
        .flatten()
}
