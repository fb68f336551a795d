//! Writing a text with marks in place of what was found.

use crate::{kind::Counts, scan::Span};

/// Writes pieces of one text, one after the other.
#[derive(Debug)]
pub(crate) struct Writer {
    /// Up to here all is masked; what touches it belongs to the same mark.
    covered: isize,
}

impl Writer {
    pub(crate) fn new() -> Self {
        Self { covered: isize::MIN }
    }

    /// The text from `from` to `to`; `spans` in order.
    pub(crate) fn write(
        &mut self,
        (text, from, to): (&str, usize, usize),
        spans: &[Span],
        counts: &mut Counts,
    ) -> String {
        let mut written = String::with_capacity(to.saturating_sub(from) + 32);
        let mut at = from;
        let mut copy = |written: &mut String, covered: isize, upto: usize| {
            let begin = at.max(usize::try_from(covered).unwrap_or(0));
            written.push_str(text.get(begin..upto).unwrap_or_default());
            at = at.max(upto);
        };
        for span in spans.iter().take_while(|span| span.start < to.cast_signed()) {
            if span.start > self.covered {
                copy(&mut written, self.covered, usize::try_from(span.start).unwrap_or(0));
                written.push_str(span.kind.mark());
                counts.add(span.kind);
            }
            self.covered = self.covered.max(span.end.cast_signed());
        }
        copy(&mut written, self.covered, to);
        written
    }

    /// The text from `by` on is the text now.
    pub(crate) fn rebase(&mut self, by: usize) {
        self.covered = self.covered.saturating_sub_unsigned(by);
    }
}
