//! How a text that is being written grows: told while it does, and never kept.

use loom_core::{id::ThreadId, text::cut};
use serde::{Deserialize, Serialize};

/// Text of one delta: as JSON, at its worst, it still fits into one word of PostgreSQL's.
const MAX_TEXT: usize = 1200;
/// What waits to be told. Whoever misses some has it with the message's next revision.
const MAX_QUEUE_BYTES: usize = 1 << 20;

/// A piece of a text.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(crate) struct Delta {
    pub(crate) thread_id: ThreadId,
    /// The message's.
    pub(crate) id: String,
    pub(crate) seq: i64,
    /// Where the piece begins, in bytes of UTF-8.
    pub(crate) offset: usize,
    pub(crate) text: String,
}

impl Delta {
    pub(crate) fn to_json(&self) -> Option<String> {
        serde_json::to_string(self).ok()
    }
}

/// What is to be told next.
#[derive(Default)]
pub(crate) struct Queue {
    deltas: Vec<Delta>,
    bytes: usize,
}

impl Queue {
    pub(crate) fn push(
        &mut self,
        thread_id: ThreadId,
        id: &str,
        seq: i64,
        mut offset: usize,
        mut text: &str,
    ) {
        if self.bytes + text.len() > MAX_QUEUE_BYTES {
            metrics::counter!("loom_thread_deltas_dropped_total").increment(1);
            return;
        }
        self.bytes += text.len();
        if let Some(last) = self.deltas.last_mut()
            && last.thread_id == thread_id
            && last.id == id
            && last.offset + last.text.len() == offset
            && last.text.len() + text.len() <= MAX_TEXT
        {
            last.text.push_str(text);
            return;
        }
        while !text.is_empty() {
            let piece = cut(text, MAX_TEXT);
            let delta = Delta { thread_id, id: id.to_owned(), seq, offset, text: piece.to_owned() };
            self.deltas.push(delta);
            offset += piece.len();
            text = text.get(piece.len()..).unwrap_or_default();
        }
    }

    pub(crate) fn take(&mut self) -> Vec<Delta> {
        self.bytes = 0;
        std::mem::take(&mut self.deltas)
    }
}

#[cfg(test)]
mod tests {
    use loom_core::{Clock, id::new_uuid};

    use super::*;

    #[test]
    fn pieces_are_put_together_cut_to_what_fits_and_bounded() {
        let thread = ThreadId(new_uuid(Clock::system().now()));
        let mut queue = Queue::default();
        queue.push(thread, "m", 1, 0, "one ");
        queue.push(thread, "m", 1, 4, "two");
        queue.push(thread, "n", 2, 0, &"\u{1}".repeat(3000));
        let deltas = queue.take();
        assert_eq!(deltas[0].text, "one two");
        assert_eq!(
            deltas[1..].iter().map(|delta| delta.offset).collect::<Vec<_>>(),
            [0, 1200, 2400]
        );
        for delta in &deltas {
            assert!(delta.to_json().unwrap().len() < 7900);
        }
        for n in 0..1000 {
            queue.push(thread, "m", 1, n * 4096, &"x".repeat(4096));
        }
        assert!(
            queue.take().iter().map(|delta| delta.text.len()).sum::<usize>() <= MAX_QUEUE_BYTES
        );
    }
}
