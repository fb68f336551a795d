//! Masking text that comes in pieces, such as the output of a program.

use crate::{Counts, Redactor, kind::LONGEST_MARK, mask::Writer, scan::Span};

/// So much of what was given out stays, for looking at what stands before a secret.
const CONTEXT: usize = LONGEST_MARK + 8;

/// Made by [`Redactor::stream`]. All that `push` and `finish` return is, put together, what
/// [`Redactor::redact`] makes of the whole text. It holds back only what may be the beginning of a
/// secret: at most a few KiB, and nothing of a private key's body.
pub struct Stream {
    redactor: Redactor,
    /// What was given out last, as context, and what is undecided.
    text: String,
    undecided: usize,
    spans: Vec<Span>,
    writer: Writer,
    counts: Counts,
}

impl Stream {
    pub(crate) fn new(redactor: Redactor) -> Self {
        let writer = Writer::new();
        Self {
            redactor,
            text: String::new(),
            undecided: 0,
            spans: Vec::new(),
            writer,
            counts: Counts::default(),
        }
    }

    /// Takes a piece, and returns what is certain by now.
    #[must_use]
    pub fn push(&mut self, piece: &str) -> String {
        self.text.push_str(piece);
        self.advance(false)
    }

    /// The rest: the text ended. After it the stream may be used for another text.
    #[must_use]
    pub fn finish(&mut self) -> String {
        let rest = self.advance(true);
        self.text.clear();
        self.undecided = 0;
        self.spans.clear();
        self.writer = Writer::new();
        rest
    }

    /// What was masked so far.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// How many bytes are held back.
    pub fn held(&self) -> usize {
        self.text.len() - self.undecided
    }

    fn advance(&mut self, end_of_text: bool) -> String {
        let decided =
            self.redactor.scanner().scan(&self.text, self.undecided, end_of_text, &mut self.spans);
        let piece = (self.text.as_str(), self.undecided, decided);
        let mut counts = Counts::default();
        let written = self.writer.write(piece, &self.spans, &mut counts);
        counts.measure();
        self.counts.merge(&counts);
        self.spans.retain(|span| span.goes_on_after(decided));
        let gone = self.text.floor_char_boundary(decided.saturating_sub(CONTEXT));
        self.text.drain(..gone);
        self.undecided = decided - gone;
        for span in &mut self.spans {
            span.rebase(gone);
        }
        self.writer.rebase(gone);
        written
    }
}
