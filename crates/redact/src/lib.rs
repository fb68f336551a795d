//! Finding and masking secrets in text: known values in all their encodings, and the shapes that
//! secrets have. In place of each stands `[redacted:kind]`; what announces it (`Bearer `, `?token=`,
//! `https://user:`) stays.
//!
//! It errs towards masking. It does not find secrets without shape or name that it was not told of,
//! nor those taken apart or encoded otherwise than [`Redactor::new`] says.

mod context;
mod field;
mod kind;
mod known;
mod mask;
mod scan;
mod shape;
mod shared;
mod stream;
mod tail;

use std::{borrow::Cow, fmt, sync::Arc};

use loom_common_secret::SecretString;

pub use field::is_secret_field;
pub use kind::{Counts, Kind};
pub use shared::{forget, learn, shared};
pub use stream::Stream;

use mask::Writer;
use scan::Scanner;

/// Masks secrets, and counts them by kind (`loom_redactions_total`). Cheap to clone; dear to make, as it builds an automaton of all it looks for.
#[derive(Clone)]
pub struct Redactor(Arc<Inner>);

struct Inner {
    known: Vec<SecretString>,
    scanner: Scanner,
}

impl Redactor {
    /// Looks for the shapes, and for these values: as they are, JSON-escaped, URL-encoded, and as
    /// base64 (also within something longer); whatever the case. Values under 8 characters are
    /// ignored: they would mask ordinary words.
    pub fn new(known: impl IntoIterator<Item = SecretString>) -> Self {
        let known: Vec<_> = known.into_iter().collect();
        let patterns: Vec<_> =
            known.iter().flat_map(|value| known::patterns(value.expose())).collect();
        Self(Arc::new(Inner { scanner: Scanner::new(&patterns), known }))
    }

    /// The text without its secrets; borrowed when it has none.
    pub fn redact<'a>(&self, text: &'a str) -> Cow<'a, str> {
        self.redact_counted(text).0
    }

    /// Is there nothing to mask?
    pub fn is_clean(&self, text: &str) -> bool {
        let mut spans = Vec::new();
        self.0.scanner.scan(text, 0, true, &mut spans);
        spans.is_empty()
    }

    /// As [`Redactor::redact`], and what was masked.
    pub fn redact_counted<'a>(&self, text: &'a str) -> (Cow<'a, str>, Counts) {
        let mut counts = Counts::default();
        let mut spans = Vec::new();
        let end = self.0.scanner.scan(text, 0, true, &mut spans);
        if spans.is_empty() {
            return (Cow::Borrowed(text), counts);
        }
        let redacted = Writer::new().write((text, 0, end), &spans, &mut counts);
        counts.measure();
        (Cow::Owned(redacted), counts)
    }

    /// For text that comes in pieces.
    pub fn stream(&self) -> Stream {
        Stream::new(self.clone())
    }

    pub(crate) fn known(&self) -> &[SecretString] {
        &self.0.known
    }

    pub(crate) fn scanner(&self) -> &Scanner {
        &self.0.scanner
    }
}

impl Default for Redactor {
    /// Only the shapes.
    fn default() -> Self {
        Self::new([])
    }
}

impl fmt::Debug for Redactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redactor").field("known", &self.0.known.len()).finish_non_exhaustive()
    }
}
