//! The newest events in memory. Who watches is a place in it; who has fallen behind it reads the outbox.

use std::{collections::VecDeque, sync::Arc};

use super::event::{Cursor, Event, Kind, Shown};

const MAX_EVENTS: usize = 4096;
const MAX_BYTES: usize = 8 << 20;

pub(crate) struct Ring {
    /// In the order of their places.
    events: VecDeque<(Arc<Event>, Shown)>,
    bytes: usize,
    /// All events behind it are here, up to the head.
    floor: Cursor,
    head: Cursor,
}

/// What a watcher finds.
pub(crate) enum Found {
    /// It must read the outbox.
    Behind,
    /// These, and where it is then.
    Events(Vec<(Arc<Event>, Shown)>, Cursor),
}

impl Ring {
    pub(crate) fn new(head: Cursor) -> Self {
        Self { events: VecDeque::new(), bytes: 0, floor: head, head }
    }

    pub(crate) fn head(&self) -> Cursor {
        self.head
    }

    /// Adds what was read; everything up to `head` is here then.
    pub(crate) fn extend(&mut self, events: Vec<Event>, head: Cursor) {
        for event in events {
            if matches!(event.kind, Kind::Visibility | Kind::Deleted) {
                // What came before and has not been told yet is shown to others now, or to nobody.
                for (older, shown) in &mut self.events {
                    if older.thread == event.thread {
                        *shown = event.shown;
                    }
                }
            }
            self.bytes += size(&event);
            let shown = event.shown;
            self.events.push_back((Arc::new(event), shown));
        }
        self.head = self.head.max(head);
        while self.events.len() > MAX_EVENTS || self.bytes > MAX_BYTES {
            let Some((oldest, _)) = self.events.pop_front() else { break };
            self.bytes -= size(&oldest);
            self.floor = oldest.at;
        }
    }

    /// At most `limit` events behind `after`.
    pub(crate) fn after(&self, after: Cursor, limit: usize) -> Found {
        if after < self.floor {
            return Found::Behind;
        }
        let from = self.events.partition_point(|(event, _)| event.at <= after);
        let found: Vec<_> = self.events.iter().skip(from).take(limit).cloned().collect();
        let place = match found.last() {
            Some((last, _)) if found.len() == limit => last.at,
            _ => self.head.max(after),
        };
        Found::Events(found, place)
    }
}

fn size(event: &Event) -> usize {
    event.data.get().len() + size_of::<Event>()
}

#[cfg(test)]
mod tests {
    use loom_core::{
        Clock,
        authorize::Visibility,
        id::{OrgId, ThreadId, new_uuid},
    };

    use super::*;
    use crate::raw::Raw;

    fn event(xid: i64, thread: ThreadId, kind: Kind, visibility: Visibility) -> Event {
        Event {
            at: Cursor { xid, id: xid },
            org: OrgId(thread.0),
            thread,
            kind,
            shown: Shown::To(None, visibility),
            shown_before: None,
            data: Raw::empty_object(),
        }
    }

    fn ids(found: &Found) -> Option<Vec<i64>> {
        match found {
            Found::Behind => None,
            Found::Events(events, _) => {
                Some(events.iter().map(|(event, _)| event.at.xid).collect())
            }
        }
    }

    #[test]
    fn each_watcher_gets_what_is_behind_its_place_and_the_slow_one_is_told_to_read() {
        let thread = ThreadId(new_uuid(Clock::system().now()));
        let mut ring = Ring::new(Cursor::settled(10));
        let added = |from: i64, to: i64| {
            (from..to).map(|n| event(n, thread, Kind::Updated, Visibility::Private)).collect()
        };
        ring.extend(added(10, 20), Cursor::settled(20));
        assert_eq!(ids(&ring.after(Cursor::settled(9), 5)), None);
        assert_eq!(ids(&ring.after(Cursor::settled(10), 5)), Some((10..15).collect()));
        assert_eq!(ids(&ring.after(Cursor { xid: 14, id: 14 }, 50)), Some((15..20).collect()));
        assert_eq!(ids(&ring.after(Cursor::settled(30), 5)), Some(vec![]));
        ring.extend(added(20, 5000), Cursor::settled(5000));
        assert_eq!(ids(&ring.after(Cursor::settled(20), 5)), None);
        let Found::Events(events, place) = ring.after(Cursor::settled(4999), 5) else { panic!() };
        assert_eq!((events.len(), place), (1, Cursor::settled(5000)));
    }

    #[test]
    fn what_waits_in_the_ring_is_hidden_when_its_thread_is() {
        let thread = ThreadId(new_uuid(Clock::system().now()));
        let mut ring = Ring::new(Cursor::START);
        let shown = |kind, visibility, xid| event(xid, thread, kind, visibility);
        ring.extend(vec![shown(Kind::Message, Visibility::Organization, 1)], Cursor::settled(2));
        ring.extend(vec![shown(Kind::Visibility, Visibility::Private, 2)], Cursor::settled(3));
        let Found::Events(events, _) = ring.after(Cursor::START, 5) else { panic!() };
        for (_, shown) in events {
            assert!(matches!(shown, Shown::To(_, Visibility::Private)));
        }
    }
}
