//! One watcher's stream: many lines a piece, at most twenty pieces a second, and an end in any case.

use std::{fmt::Write, future::Future, time::Duration};

use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use loom_core::sse::{self, Bye, Places, Recheck, Seat};
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

/// Between two pieces.
const PAUSE: Duration = Duration::from_millis(50);
const LARGEST_PIECE: usize = 256 << 10;
const PING: Duration = Duration::from_secs(15);

/// Who watches.
pub(crate) const PLACES: Places = Places {
    streams: "streams of the log",
    gauge: "loom_log_watchers",
    most: 20,
    most_of_one: 3,
    instead: ", or read GET /api/admin/logs",
};

/// What ends a stream, and whether it has.
pub(crate) struct Leash {
    leash: sse::Leash,
    ended: bool,
}

impl Leash {
    pub(crate) fn new(stop: CancellationToken, recheck: Recheck) -> Self {
        Self { leash: sse::Leash::new(stop, recheck), ended: false }
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
