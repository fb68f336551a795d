//! One watcher's stream: many lines a piece, at most twenty pieces a second, and an end in any case.

use std::{
    collections::HashMap,
    fmt::Write,
    future::Future,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use loom_core::{
    Error, Result,
    sse::{self, Bye, Recheck},
};
use metrics::gauge;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use crate::{
    Buffer,
    filter::Filter,
    read::{Found, Place},
};

const MOST: usize = 20;
const MOST_OF_ONE: usize = 3;
/// Between two pieces.
const PAUSE: Duration = Duration::from_millis(50);
const LARGEST_PIECE: usize = 256 << 10;
const PING: Duration = Duration::from_secs(15);
const RECHECK: Duration = Duration::from_secs(60);
const LONGEST: Duration = Duration::from_secs(60 * 60);

/// Who watches; by the name of their credential's holder.
#[derive(Clone, Default)]
pub(crate) struct Watchers(Arc<Mutex<HashMap<String, usize>>>);

/// A watcher's place among them; given back when dropped.
pub(crate) struct Seat {
    watchers: Watchers,
    who: String,
}

impl Watchers {
    pub(crate) fn count(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).values().sum()
    }

    /// # Errors
    /// 429 when there are too many, with what to do.
    pub(crate) fn sit(&self, who: String) -> Result<Seat> {
        let refused = |detail: String| {
            Err(Error::new(http::StatusCode::TOO_MANY_REQUESTS, "too_many_watchers", detail)
                .retry_after(Duration::from_secs(30)))
        };
        let mut seats = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if seats.get(&who).is_some_and(|count| *count >= MOST_OF_ONE) {
            return refused(format!(
                "you watch {MOST_OF_ONE} log streams of this server already; close one"
            ));
        }
        if seats.values().sum::<usize>() >= MOST {
            return refused(format!(
                "{MOST} log streams of this server are being watched, which is the most; try again \
                 later, or read GET /api/admin/logs"
            ));
        }
        *seats.entry(who.clone()).or_default() += 1;
        drop(seats);
        gauge!("loom_log_watchers").increment(1);
        Ok(Seat { watchers: self.clone(), who })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut seats = self.watchers.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = seats.get_mut(&self.who) {
            *count -= 1;
            if *count == 0 {
                seats.remove(&self.who);
            }
        }
        gauge!("loom_log_watchers").decrement(1);
    }
}

/// What ends a stream, and whether it has.
pub(crate) struct Leash {
    leash: sse::Leash,
    ended: bool,
}

impl Leash {
    pub(crate) fn new(stop: CancellationToken, recheck: Recheck) -> Self {
        Self { leash: sse::Leash::new(stop, recheck, RECHECK, LONGEST), ended: false }
    }

    async fn unless_ended<T>(&mut self, waiting: impl Future<Output = T>) -> Result<T, Bye> {
        self.leash.unless_ended(waiting).await
    }

    /// The piece, or the last word.
    fn piece(&mut self, piece: Result<Bytes, Bye>) -> Bytes {
        let bye = match piece {
            Ok(piece) => return piece,
            Err(bye) => bye,
        };
        self.ended = true;
        Bytes::from_static(bye.event().as_bytes())
    }

    /// Another server's pieces, as long as we let them pass.
    pub(crate) fn hold(
        self,
        pieces: impl Stream<Item = Bytes> + Send + Unpin,
    ) -> impl Stream<Item = Bytes> + Send {
        stream::unfold((self, pieces), |(mut leash, mut pieces)| async move {
            if leash.ended {
                return None;
            }
            let piece = match leash.unless_ended(pieces.next()).await {
                Ok(piece) => Ok(piece?),
                Err(bye) => Err(bye),
            };
            Some((leash.piece(piece), (leash, pieces)))
        })
    }
}

struct Watch {
    place: Place,
    filter: Filter,
    newest: watch::Receiver<u64>,
    _seat: Seat,
    leash: Leash,
    next_piece: Instant,
    next_ping: Instant,
}

/// The events behind the line that the filter names, or behind the newest.
pub(crate) fn events(
    buffer: &Buffer,
    mut filter: Filter,
    seat: Seat,
    leash: Leash,
) -> impl Stream<Item = Bytes> + Send + use<> {
    // In this order: a line in between is in the buffer already, or wakes.
    let newest = buffer.watch();
    let now = Instant::now();
    let watch = Watch {
        place: Place::new(buffer.clone(), filter.after.take()),
        filter,
        newest,
        _seat: seat,
        leash,
        next_piece: now,
        next_ping: now + PING,
    };
    stream::unfold(watch, |mut watch| async move {
        if watch.leash.ended {
            return None;
        }
        let piece = watch.piece().await.map(Bytes::from);
        let piece = watch.leash.piece(piece);
        let now = Instant::now();
        (watch.next_piece, watch.next_ping) = (now + PAUSE, now + PING);
        Some((piece, watch))
    })
}

impl Watch {
    async fn piece(&mut self) -> Result<String, Bye> {
        loop {
            self.leash.unless_ended(sleep_until(self.next_piece)).await?;
            self.newest.mark_unchanged();
            let mut piece = String::new();
            let end = self.place.go_on(&self.filter, |found| {
                write(&mut piece, &found);
                piece.len() < LARGEST_PIECE
            });
            if !piece.is_empty() {
                return Ok(piece);
            }
            if !end {
                tokio::task::yield_now().await;
                continue;
            }
            self.next_piece = Instant::now() + PAUSE;
            let (newest, next_ping) = (&mut self.newest, self.next_ping);
            let waiting = async {
                tokio::select! {
                    // An error: the process's log has ended, which it does not.
                    changed = newest.changed() => changed.is_ok(),
                    () = sleep_until(next_ping) => false,
                }
            };
            if !self.leash.unless_ended(waiting).await? {
                return Ok(": ping\n\n".to_owned());
            }
        }
    }
}

fn write(piece: &mut String, found: &Found<'_>) {
    // Writing into a string does not fail; no line of JSON has a line break.
    let _ = match found {
        Found::Line { json, boot, number } => {
            write!(piece, "id: {boot}-{number}\ndata: {json}\n\n")
        }
        Found::Gap(gap) => {
            let json = serde_json::to_string(gap).unwrap_or_default();
            write!(piece, "id: {}\nevent: gap\ndata: {json}\n\n", gap.to)
        }
    };
}
