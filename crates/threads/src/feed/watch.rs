//! One stream: from the ring, or from the outbox while it lags; many events a piece, and an end in any
//! case.

use std::{
    fmt::Write,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use futures::{Stream, stream};
use loom_core::{
    Principal, Result,
    id::{OrgId, ThreadId},
    sse::{Bye, KEEP_ALIVE, Leash, Places, Seat},
};
use metrics::counter;
use tokio::{
    sync::{broadcast, watch},
    time::{Instant, sleep_until},
};

use super::{
    Feed,
    delta::Delta,
    event::{Cursor, Event, Kind, Shown, Told},
    ring::Found,
};
use crate::store;

/// Between two pieces.
const PAUSE: Duration = Duration::from_millis(25);
const LARGEST_PIECE: usize = 256 << 10;
/// Events looked at in one go.
const BATCH: usize = 500;
/// After the outbox could not be read.
const RETRY: Duration = Duration::from_secs(1);
/// Events are given out on an authorisation that is no older than this.
const FRESH: Duration = Duration::from_secs(1);

/// Who watches.
pub(crate) const PLACES: Places = Places {
    streams: "streams of threads",
    gauge: "loom_thread_watchers",
    most: 2000,
    most_of_one: 50,
    instead: ", or follow all of your threads with GET /api/threads/events",
};

/// What a stream is about.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Scope {
    /// All threads of the watcher's organisation that it may see.
    All(OrgId),
    /// One, and whose it is.
    One(OrgId, ThreadId),
}

impl Scope {
    fn org(self) -> OrgId {
        match self {
            Self::All(org) | Self::One(org, _) => org,
        }
    }

    fn has(self, event: &Event) -> bool {
        event.org == self.org()
            && match self {
                Self::All(_) => true,
                Self::One(_, thread) => event.thread == thread,
            }
    }
}

/// Who watches; told anew whenever they are asked for again.
pub(crate) type Who = Arc<Mutex<Principal>>;

struct Watch {
    feed: Feed,
    scope: Scope,
    who: Who,
    at: Cursor,
    /// Who begins now is not told what had been committed by then, though others may still be open from
    /// before it.
    since: Option<store::events::Head>,
    /// What is written first: where the stream begins.
    begin: Option<String>,
    changed: watch::Receiver<u64>,
    deltas: Option<broadcast::Receiver<Arc<Delta>>>,
    /// What woke us: a piece of text, or how many were missed.
    next_delta: Option<std::result::Result<Arc<Delta>, u64>>,
    _seat: Seat,
    leash: Leash,
    next_piece: Instant,
    next_ping: Instant,
    ended: bool,
}

/// The events behind `after`, which is what a client says it has seen; or from now on.
///
/// # Errors
/// When the outbox cannot be asked where it stands.
pub(crate) async fn events(
    feed: &Feed,
    scope: Scope,
    who: Who,
    after: Option<&str>,
    seat: Seat,
    leash: Leash,
) -> Result<impl Stream<Item = Bytes> + Send + use<>> {
    // In this order: an event in between is found in the outbox, or wakes.
    let changed = feed.changed.subscribe();
    let deltas = matches!(scope, Scope::One(..)).then(|| feed.deltas.subscribe());
    let head = store::events::head(&feed.pool).await?;
    let now = Cursor::settled(head.settled);
    let known = after.map(|after| {
        after.parse::<Cursor>().ok().filter(|at| *at >= head.floor && at.xid <= head.next)
    });
    let (at, begin) = match known {
        None => (now, ready(now)),
        Some(Some(at)) => (at, ready(at)),
        // One that is too old, was never given out, or is of a database that is no more.
        Some(None) => {
            counter!("loom_thread_feed_resets_total").increment(1);
            (now, format!("id: {now}\nevent: reset\ndata: {{\"cursor\":\"{now}\"}}\n\n"))
        }
    };
    let since = (!matches!(known, Some(Some(_)))).then_some(head);
    let started = Instant::now();
    let watch = Watch {
        feed: feed.clone(),
        scope,
        who,
        at,
        since,
        begin: Some(begin),
        changed,
        deltas,
        next_delta: None,
        _seat: seat,
        leash,
        next_piece: started,
        next_ping: started + KEEP_ALIVE,
        ended: false,
    };
    Ok(stream::unfold(watch, |mut watch| async move {
        if watch.ended {
            return None;
        }
        let piece = match watch.piece().await {
            Ok(piece) => Bytes::from(piece),
            Err(bye) => {
                watch.ended = true;
                Bytes::from_static(bye.event().as_bytes())
            }
        };
        let now = Instant::now();
        (watch.next_piece, watch.next_ping) = (now + PAUSE, now + KEEP_ALIVE);
        Some((piece, watch))
    }))
}

fn ready(at: Cursor) -> String {
    format!("id: {at}\nevent: ready\ndata: {{\"cursor\":\"{at}\"}}\n\n")
}

impl Watch {
    async fn piece(&mut self) -> std::result::Result<String, Bye> {
        loop {
            self.leash.unless_ended(sleep_until(self.next_piece)).await?;
            self.changed.mark_unchanged();
            let mut piece = self.begin.take().unwrap_or_default();
            let more = self.collect(&mut piece).await;
            self.collect_deltas(&mut piece);
            if !piece.is_empty() {
                self.leash.check_again(FRESH).await?;
                return Ok(piece);
            }
            match more {
                Ok(true) => tokio::task::yield_now().await,
                Ok(false) => {
                    self.next_piece = Instant::now() + PAUSE;
                    if !self.wait().await? {
                        // The place without an event: a client that was told nothing for long resumes
                        // from here all the same.
                        return Ok(format!(": ping\nid: {}\n\n", self.at));
                    }
                }
                Err(error) => {
                    tracing::debug!(%error, "a stream of threads cannot read the outbox; trying again");
                    self.next_piece = Instant::now() + RETRY;
                }
            }
        }
    }

    /// Until there is something to look at; false when nothing came for so long that it must be said.
    async fn wait(&mut self) -> std::result::Result<bool, Bye> {
        let (changed, next_ping) = (&mut self.changed, self.next_ping);
        let (deltas, scope) = (&mut self.deltas, self.scope);
        let next_delta = &mut self.next_delta;
        let waiting = async {
            let delta = async {
                match deltas {
                    Some(deltas) => loop {
                        match deltas.recv().await {
                            Ok(delta) if is_of(&delta, scope) => return Ok(delta),
                            Ok(_) => {}
                            Err(broadcast::error::RecvError::Lagged(skipped)) => {
                                return Err(skipped);
                            }
                            Err(broadcast::error::RecvError::Closed) => {
                                std::future::pending::<()>().await;
                            }
                        }
                    },
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = changed.changed() => changed.is_ok(),
                delta = delta => { *next_delta = Some(delta); true }
                () = sleep_until(next_ping) => false,
            }
        };
        self.leash.unless_ended(waiting).await
    }

    /// Writes what is behind our place; true when there is more.
    async fn collect(&mut self, piece: &mut String) -> Result<bool> {
        match self.feed.recent(self.at, BATCH) {
            // Nothing is read yet; the reader says when.
            None => Ok(false),
            Some(Found::Events(events, place)) => {
                let more = events.len() == BATCH;
                for (event, shown) in events {
                    self.at = event.at;
                    if self.write(&event, shown, piece) || piece.len() >= LARGEST_PIECE {
                        return Ok(true);
                    }
                }
                self.at = place;
                Ok(more)
            }
            Some(Found::Behind) => {
                let settled = store::events::head(&self.feed.pool).await?.settled;
                let limit = BATCH as i64;
                let org = Some(self.scope.org());
                let events =
                    store::events::after(&self.feed.pool, org, self.at, settled, limit).await?;
                let is_all = events.len() < BATCH;
                for event in events {
                    self.at = event.at;
                    let shown = event.shown;
                    if self.write(&event, shown, piece) || piece.len() >= LARGEST_PIECE {
                        return Ok(true);
                    }
                }
                if is_all {
                    self.at = self.at.max(Cursor::settled(settled));
                }
                Ok(true)
            }
        }
    }

    /// Writes an event as far as it is for us; true when it was the last of the stream.
    fn write(&mut self, event: &Event, shown: Shown, piece: &mut String) -> bool {
        let is_old = self.since.as_ref().is_some_and(|since| since.had_seen(event.at.xid));
        if is_old || !self.scope.has(event) {
            return false;
        }
        let told = event.told_to(&self.who.lock().unwrap_or_else(PoisonError::into_inner), shown);
        event.write(told, piece);
        let is_end = matches!(self.scope, Scope::One(..))
            && (told == Told::Hidden || (told == Told::All && event.kind == Kind::Deleted));
        if is_end {
            piece.push_str("event: bye\ndata: {\"reason\":\"not_found\"}\n\n");
            self.ended = true;
        }
        is_end
    }

    fn collect_deltas(&mut self, piece: &mut String) {
        let Some(deltas) = &mut self.deltas else { return };
        match self.next_delta.take() {
            Some(Ok(delta)) => write_delta(&delta, piece),
            Some(Err(skipped)) => write_lagged(skipped, piece),
            None => {}
        }
        while !self.ended && piece.len() < LARGEST_PIECE {
            match deltas.try_recv() {
                Ok(delta) if is_of(&delta, self.scope) => write_delta(&delta, piece),
                Ok(_) => {}
                Err(broadcast::error::TryRecvError::Lagged(skipped)) => {
                    write_lagged(skipped, piece);
                }
                Err(_) => break,
            }
        }
    }
}

fn is_of(delta: &Delta, scope: Scope) -> bool {
    matches!(scope, Scope::One(_, thread) if thread == delta.thread_id)
}

/// Without an id: nobody can resume from it.
fn write_delta(delta: &Delta, piece: &mut String) {
    if let Some(json) = delta.to_json() {
        // Writing into a string does not fail.
        let _ = write!(piece, "event: delta\ndata: {json}\n\n");
    }
}

fn write_lagged(skipped: u64, piece: &mut String) {
    // Writing into a string does not fail.
    let _ = write!(piece, "event: lagged\ndata: {{\"skipped\":{skipped}}}\n\n");
}
