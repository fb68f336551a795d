//! What is wrong with a request, gathered field by field, so that the client is told all at once.

use chrono::{DateTime, SubsecRound, Utc};
use loom_core::{Error, Result, error::FieldError};

use crate::raw::{Kind, Raw};

/// More are counted, not told.
const MAX_ERRORS: usize = 20;

#[derive(Default)]
pub(crate) struct Check {
    errors: Vec<FieldError>,
    too_large: Option<String>,
}

impl Check {
    pub(crate) fn wrong(&mut self, path: impl Into<String>, message: impl Into<String>) {
        if self.errors.len() < MAX_ERRORS {
            self.errors.push(FieldError { path: path.into(), message: message.into() });
        }
    }

    /// Larger than any such thing may be: 413, which goes before all that is merely wrong.
    pub(crate) fn too_large(&mut self, detail: String) {
        self.too_large.get_or_insert(detail);
    }

    /// `value`, when nothing was found wrong.
    pub(crate) fn finish<T>(self, value: T) -> Result<T> {
        match (self.too_large, self.errors.is_empty()) {
            (Some(detail), _) => Err(Error::too_large(detail)),
            (None, false) => Err(Error::invalid_fields(self.errors)),
            (None, true) => Ok(value),
        }
    }

    pub(crate) fn text(&mut self, path: &str, text: Option<&str>, max: usize) {
        if text.is_some_and(|text| text.len() > max) {
            self.wrong(path, format!("has at most {max} bytes"));
        }
    }

    /// One line of printable text.
    pub(crate) fn line(&mut self, path: &str, text: &str, max: usize) {
        if !loom_core::text::is_plain_line(text, max) {
            self.wrong(path, format!("is 1 to {max} bytes without control characters"));
        }
    }

    pub(crate) fn raw(&mut self, path: &str, raw: &Raw, kinds: &[Kind], allowed: &str) {
        if !kinds.contains(&raw.kind()) {
            self.wrong(path, format!("is {allowed}"));
        } else if let Err(message) = raw.check() {
            self.wrong(path, message);
        }
    }

    /// A time within what we store, cut to the milliseconds that we show.
    pub(crate) fn time(&mut self, path: &str, at: Option<DateTime<Utc>>) -> Option<DateTime<Utc>> {
        let at = at?;
        if !loom_core::clock::is_storable(at) {
            self.wrong(path, "is a time from the year 1970 to 9999");
        }
        Some(at.trunc_subsecs(3))
    }
}
