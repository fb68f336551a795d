//! The values of an event or a span: noted as they are where the event happens, masked later.

use std::{
    collections::HashMap,
    fmt::{self, Write},
};

use loom_redact::{Kind, Redactor, is_secret_field};
use tracing::field::{Field, Visit};

/// Of one event not more is kept.
const MOST_TEXT: usize = 64 << 10;
const CUT: &str = "…[cut]";

/// All values in one text, so that noting them takes few allocations and looking for secrets one pass.
#[derive(Clone, Debug, Default)]
pub(crate) struct Values {
    text: String,
    marks: Vec<Mark>,
    /// The last one was too long.
    cut: bool,
}

#[derive(Clone, Copy, Debug)]
struct Mark {
    name: &'static str,
    start: usize,
    end: usize,
    /// A number or truth value.
    bare: bool,
}

impl Values {
    pub(crate) fn iter(&self) -> impl Iterator<Item = Value<'_>> {
        self.marks.iter().map(|mark| Value {
            name: mark.name,
            text: self.text.get(mark.start..mark.end).unwrap_or_default(),
            bare: mark.bare,
        })
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|value| value.name == name).map(|value| value.text)
    }

    pub(crate) fn len(&self) -> usize {
        self.text.len() + self.marks.len() * size_of::<Mark>()
    }

    /// Masks what is secret, by the name of its field or by itself.
    pub(crate) fn redact(&mut self, redactor: &Redactor, names: &mut Names) {
        let named = self.marks.iter().any(|mark| names.is_secret(mark.name));
        // Values are told apart by the end of a line, which ends every secret but a private key.
        if !named && !self.cut && redactor.is_clean(&self.text) {
            return;
        }
        let mut redacted = Self::default();
        for (index, value) in self.iter().enumerate() {
            let is_cut = self.cut && index + 1 == self.marks.len();
            redacted.add(value.name, false, |text| {
                if names.is_secret(value.name) {
                    text.push_str(Kind::Field.mark());
                } else if is_cut {
                    // What may be the beginning of a secret goes with the rest.
                    text.push_str(&redactor.stream().push(value.text));
                    text.push_str(CUT);
                } else {
                    text.push_str(&redactor.redact(value.text));
                }
            });
            if let Some(mark) = redacted.marks.last_mut() {
                let same = redacted.text.get(mark.start..mark.end) == Some(value.text);
                mark.bare = value.bare && same;
            }
        }
        *self = redacted;
    }

    fn add(&mut self, name: &'static str, bare: bool, write: impl FnOnce(&mut String)) {
        if !self.marks.is_empty() {
            self.text.push('\n');
        }
        let start = self.text.len();
        write(&mut self.text);
        self.marks.push(Mark { name, start, end: self.text.len(), bare });
    }

    fn note(&mut self, field: &Field, bare: bool, value: fmt::Arguments<'_>) {
        if self.cut {
            return;
        }
        let mut cut = false;
        self.add(field.name(), bare, |text| {
            let mut bounded = Bounded { text, cut: false };
            // A `Debug` that fails leaves what it wrote until then.
            let _ = bounded.write_fmt(value);
            cut = bounded.cut;
        });
        self.cut = cut;
    }
}

/// One value, as text.
pub(crate) struct Value<'a> {
    pub(crate) name: &'static str,
    pub(crate) text: &'a str,
    pub(crate) bare: bool,
}

struct Bounded<'a> {
    text: &'a mut String,
    cut: bool,
}

impl Write for Bounded<'_> {
    fn write_str(&mut self, piece: &str) -> fmt::Result {
        let room = MOST_TEXT.saturating_sub(self.text.len());
        if piece.len() <= room {
            self.text.push_str(piece);
            return Ok(());
        }
        self.cut = true;
        self.text.push_str(piece.get(..piece.floor_char_boundary(room)).unwrap_or_default());
        Err(fmt::Error)
    }
}

impl Visit for Values {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.note(field, false, format_args!("{value}"));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.note(field, true, format_args!("{value}"));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.note(field, true, format_args!("{value}"));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        if value.is_finite() {
            self.note(field, true, format_args!("{value}"));
        } else {
            self.note(field, true, format_args!("null"));
        }
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.note(field, true, format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.note(field, false, format_args!("{value:?}"));
    }
}

/// Which names of fields are those of secrets; looked up once each.
#[derive(Default)]
pub(crate) struct Names(HashMap<&'static str, bool>);

impl Names {
    fn is_secret(&mut self, name: &'static str) -> bool {
        // These two are secrets in what comes from a browser, and plain words in our own lines.
        *self
            .0
            .entry(name)
            .or_insert_with(|| !matches!(name, "code" | "state") && is_secret_field(name))
    }
}
