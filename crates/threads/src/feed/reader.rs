//! The one reader of the outbox on a server. It reads while somebody watches, when it is told to, and
//! now and then in case a word was lost.

use std::{sync::PoisonError, time::Duration};

use loom_core::Result;
use metrics::counter;

use super::{
    Feed,
    event::Cursor,
    ring::{Found, Ring},
};
use crate::store;

/// Events of one reading.
const BATCH: i64 = 500;
/// Without a word.
const UNTOLD: Duration = Duration::from_secs(5);
/// While events wait for an older transaction, or the database is out of reach.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

pub(crate) async fn run(feed: &Feed) {
    let mut watchers = feed.watchers.count();
    loop {
        let _ = watchers.wait_for(|&count| count > 0).await;
        let mut pause = FIRST_PAUSE;
        let mut told = false;
        while *watchers.borrow() > 0 {
            let wait = match read(feed).await {
                Ok(false) => {
                    (pause, told) = (FIRST_PAUSE, false);
                    feed.set_behind(false);
                    UNTOLD
                }
                Ok(true) => {
                    told = false;
                    feed.set_behind(true);
                    next(&mut pause)
                }
                Err(error) => {
                    if !told {
                        told = true;
                        tracing::warn!(%error, "cannot read what happens to threads; trying again");
                    }
                    feed.set_behind(true);
                    next(&mut pause)
                }
            };
            tokio::select! {
                () = feed.look.notified() => {}
                () = tokio::time::sleep(wait) => {}
                _ = watchers.wait_for(|&count| count == 0) => {}
            }
        }
        feed.set_behind(false);
        *feed.ring.write().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

fn next(pause: &mut Duration) -> Duration {
    let now = *pause;
    *pause = (*pause * 2).min(LONGEST_PAUSE);
    now
}

/// Reads all there is; true when more is known to be there that waits for an older transaction.
async fn read(feed: &Feed) -> Result<bool> {
    loop {
        let settled = store::events::head(&feed.pool).await?.settled;
        let head =
            feed.ring.read().unwrap_or_else(PoisonError::into_inner).as_ref().map(Ring::head);
        let Some(head) = head else {
            // The first of those who watch: what was before is read by whoever wants it.
            let ring = Ring::new(Cursor::settled(settled));
            *feed.ring.write().unwrap_or_else(PoisonError::into_inner) = Some(ring);
            feed.changed.send_modify(|count| *count += 1);
            return store::events::waiting(&feed.pool, settled).await;
        };
        let events = if head.xid < settled {
            store::events::after(&feed.pool, None, head, settled, BATCH).await?
        } else {
            Vec::new()
        };
        let is_all = (events.len() as i64) < BATCH;
        let settled_at = Cursor::settled(settled);
        let head = match events.last() {
            Some(last) if !is_all => last.at,
            _ => settled_at,
        };
        let count = events.len();
        if let Some(ring) = feed.ring.write().unwrap_or_else(PoisonError::into_inner).as_mut() {
            ring.extend(events, head);
        }
        if count > 0 {
            counter!("loom_thread_events_total").increment(count as u64);
            feed.changed.send_modify(|count| *count += 1);
        }
        if is_all {
            return store::events::waiting(&feed.pool, settled).await;
        }
    }
}

impl Feed {
    /// What the ring has behind a place; None while nothing is read.
    pub(crate) fn recent(&self, after: Cursor, limit: usize) -> Option<Found> {
        let ring = self.ring.read().unwrap_or_else(PoisonError::into_inner);
        ring.as_ref().map(|ring| ring.after(after, limit))
    }
}
