//! A row of the index: a `tsvector`, written out by us so that no parser reads it otherwise, and the
//! names that a misspelt one is compared with.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    content,
    text::{self, Kind},
};
use crate::{
    message::{Message, Role},
    model::ThreadHead,
};

/// What `tsvector` holds: the last position, and the positions of one lexeme.
const LAST_POSITION: u32 = 16_383;
const MAX_POSITIONS: usize = 255;
/// Its limit is 1 MiB, and one that is larger would fail the write.
const MAX_BYTES: usize = 700_000;
/// Names of a row.
const MAX_NAMES: usize = 64;
const MAX_NAMES_BYTES: usize = 2_000;

/// How much a place counts, from the title down.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Weight {
    A,
    B,
    C,
    D,
}

/// What is stored of a message or of a thread's head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Prepared {
    /// In the form in which `tsvector` is read.
    pub(crate) tsv: String,
    pub(crate) names: Option<String>,
}

#[derive(Default)]
struct Lexemes {
    places: BTreeMap<String, Vec<(u16, Weight)>>,
    bytes: usize,
    position: u32,
    names: BTreeSet<String>,
    names_bytes: usize,
}

impl Lexemes {
    fn add(&mut self, text: &str, weight: Weight, is_name: impl Fn(&str, Kind) -> bool) {
        let first = self.position;
        self.position = text::tokens(text, first, |token| {
            if is_name(&token.term, token.kind) {
                self.name(&token.term);
            }
            let position = u16::try_from(token.position.min(LAST_POSITION)).unwrap_or(u16::MAX);
            // Each position is two bytes; a lexeme has an entry, a length and padding beside its text.
            if self.bytes > MAX_BYTES {
                return;
            }
            if let Some(places) = self.places.get_mut(&token.term) {
                if places.len() < MAX_POSITIONS
                    && places.last().is_none_or(|(last, _)| *last < position)
                {
                    places.push((position, weight));
                    self.bytes += 2;
                }
            } else {
                self.bytes += token.term.len() + 10;
                self.places.insert(token.term, vec![(position, weight)]);
            }
        });
    }

    fn name(&mut self, term: &str) {
        if self.names.len() < MAX_NAMES
            && self.names_bytes + term.len() < MAX_NAMES_BYTES
            && !self.names.contains(term)
        {
            self.names_bytes += term.len() + 1;
            self.names.insert(term.to_owned());
        }
    }

    fn finish(self) -> Prepared {
        let mut tsv = String::with_capacity(self.bytes * 2);
        for (term, places) in &self.places {
            if !tsv.is_empty() {
                tsv.push(' ');
            }
            quote(&mut tsv, term);
            for (index, (position, weight)) in places.iter().enumerate() {
                tsv.push(if index == 0 { ':' } else { ',' });
                tsv.push_str(&position.to_string());
                match weight {
                    Weight::A => tsv.push('A'),
                    Weight::B => tsv.push('B'),
                    Weight::C => tsv.push('C'),
                    Weight::D => {}
                }
            }
        }
        let names = self.names.into_iter().collect::<Vec<_>>().join(" ");
        Prepared { tsv, names: (!names.is_empty()).then_some(names) }
    }
}

/// A lexeme as `tsvector` and `tsquery` read it.
pub(crate) fn quote(into: &mut String, term: &str) {
    into.push('\'');
    for c in term.chars() {
        if matches!(c, '\'' | '\\') {
            into.push(c);
        }
        into.push(c);
    }
    into.push('\'');
}

pub(crate) fn of_message(message: &Message) -> Prepared {
    let text = content::of_message(
        &message.content,
        message.tool_calls.as_deref(),
        message.tool_name.as_deref(),
    );
    of_text(message.role, &text)
}

/// What is stored of a message of this role and text.
pub(crate) fn of_text(role: Role, text: &str) -> Prepared {
    let weight = match role {
        Role::User => Weight::B,
        Role::Assistant => Weight::C,
        Role::Tool | Role::System => Weight::D,
    };
    let mut lexemes = Lexemes::default();
    // Only identifiers: all words of all messages would make a larger index than the words themselves.
    lexemes.add(text, weight, |term, kind| {
        kind == Kind::Whole && term.len() >= 6 && term.chars().any(char::is_alphabetic)
    });
    lexemes.finish()
}

pub(crate) fn of_head(head: &ThreadHead) -> Prepared {
    let [named, place] = content::of_head(head);
    let mut lexemes = Lexemes::default();
    let is_name = |term: &str, _| term.chars().count() >= 4;
    lexemes.add(&named, Weight::A, is_name);
    lexemes.add(&place, Weight::B, is_name);
    lexemes.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lexemes_are_quoted_and_weighted() {
        let mut lexemes = Lexemes::default();
        lexemes.add("Fix parse_input, fix", Weight::A, |_, kind| kind == Kind::Whole);
        lexemes.add("it's main", Weight::D, |_, _| false);
        let prepared = lexemes.finish();
        assert_eq!(
            prepared.tsv,
            "'fix':1A,4A 'input':3A 'its':5 'main':6 'parse':2A 'parseinput':2A"
        );
        assert_eq!(prepared.names.as_deref(), Some("parseinput"));
        let mut text = String::new();
        quote(&mut text, r"a'b\c");
        assert_eq!(text, r"'a''b\\c'");
    }

    #[test]
    fn however_much_there_is_it_fits() {
        let mut lexemes = Lexemes::default();
        let text: String =
            (0..60_000_u32).filter_map(|n| char::from_u32(0x4e00 + n * 7 % 20_000)).collect();
        for _ in 0..4 {
            lexemes.add(&text, Weight::D, |_, _| true);
        }
        assert!(lexemes.bytes < MAX_BYTES + 200);
        assert!(lexemes.names_bytes <= MAX_NAMES_BYTES);
        lexemes.add(&"same ".repeat(1_000), Weight::D, |_, _| false);
        assert!(lexemes.places.values().all(|places| places.len() <= MAX_POSITIONS));
    }
}
