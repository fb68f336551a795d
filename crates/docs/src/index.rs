//! The index over all pages, built once: which words stand where, and how much that says (BM25 with a
//! weight for each field).

use std::{collections::BTreeSet, ops::Range};

use crate::{
    library::{Library, Page},
    words::{self, Word, words},
};

pub(crate) type TermId = u32;

const TITLE: f32 = 12.0;
const TAGS: f32 = 8.0;
const SUMMARY: f32 = 6.0;
const HEADING: f32 = 4.0;
const BODY: f32 = 1.0;
/// What a part of an identifier counts, compared with a word of its own.
const PART: f32 = 0.5;
/// How fast further occurrences count for less.
const SATURATION: f32 = 4.0;
/// How much a long page's words count for less: from 0, not at all.
const LENGTH: f32 = 0.25;

/// A word or a part of one in a text.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Token {
    pub(crate) start: usize,
    pub(crate) end: usize,
    pub(crate) term: TermId,
}

/// One field of a page as it is searched for phrases.
#[derive(Debug)]
pub(crate) struct Field {
    weight: f32,
    pub(crate) parts: Vec<Token>,
}

#[derive(Debug)]
pub(crate) struct Indexed {
    /// Title, tags and summary, then the text.
    pub(crate) fields: Vec<Field>,
    /// The identifiers of the text as wholes.
    pub(crate) wholes: Vec<Token>,
}

impl Indexed {
    pub(crate) fn text_parts(&self) -> &[Token] {
        self.fields.last().map_or(&[], |field| &field.parts)
    }
}

#[derive(Debug)]
struct Term {
    text: Box<str>,
    letters: u32,
    idf: f32,
    /// Page, and what the term says of it.
    pages: Vec<(usize, f32)>,
}

#[derive(Debug)]
pub(crate) struct Index {
    /// By text.
    terms: Vec<Term>,
    pub(crate) pages: Vec<Indexed>,
}

impl Index {
    pub(crate) fn new(library: &Library) -> Self {
        let split: Vec<Vec<(f32, Vec<Word>)>> = library.pages.iter().map(fields).collect();
        let mut texts = BTreeSet::new();
        for word in split.iter().flatten().flat_map(|(_, words)| words) {
            texts.insert(word.term.as_str());
            texts.extend(word.parts.iter().map(|part| part.term.as_str()));
        }
        let terms = texts
            .into_iter()
            .map(|text| Term {
                text: text.into(),
                letters: letters(text),
                idf: 0.0,
                pages: Vec::new(),
            })
            .collect();
        let mut index = Self { terms, pages: Vec::new() };
        let lengths: Vec<f32> = library.pages.iter().map(|page| count(page.text.len())).collect();
        let average = (lengths.iter().sum::<f32>() / count(lengths.len()).max(1.0)).max(1.0);
        for (at, (page, fields)) in library.pages.iter().zip(split).enumerate() {
            let length = lengths.get(at).copied().unwrap_or(average) / average;
            index.add(at, page, fields, 1.0 - LENGTH + LENGTH * length);
        }
        let all = count(index.pages.len());
        for term in &mut index.terms {
            let with = count(term.pages.len());
            term.idf = (1.0 + (all - with + 0.5) / (with + 0.5)).ln();
        }
        index
    }

    fn add(&mut self, at: usize, page: &Page, fields: Vec<(f32, Vec<Word>)>, length: f32) {
        let mut indexed = Indexed { fields: Vec::new(), wholes: Vec::new() };
        for (weight, words) in fields {
            // The text alone has headings, and a length worth speaking of.
            let is_text = weight <= BODY;
            let mut field = Field { weight, parts: Vec::new() };
            for word in words {
                let in_heading = || page.headings.iter().any(|h| h.range.contains(&word.start));
                let says = if !is_text {
                    weight
                } else if in_heading() {
                    HEADING
                } else {
                    weight / length
                };
                let is_whole = word.parts.len() > 1;
                for part in &word.parts {
                    if let Some(term) =
                        self.count(at, &part.term, if is_whole { says * PART } else { says })
                    {
                        field.parts.push(Token { start: part.start, end: part.end, term });
                    }
                }
                if is_whole
                    && let Some(term) = self.count(at, &word.term, says)
                    && is_text
                {
                    indexed.wholes.push(Token { start: word.start, end: word.end, term });
                }
            }
            indexed.fields.push(field);
        }
        self.pages.push(indexed);
    }

    fn count(&mut self, page: usize, text: &str, says: f32) -> Option<TermId> {
        let id = self.exact(text)?;
        let term = self.terms.get_mut(usize::try_from(id).ok()?)?;
        match term.pages.last_mut() {
            Some((last, sum)) if *last == page => *sum += says,
            _ => term.pages.push((page, says)),
        }
        Some(id)
    }

    fn term(&self, id: TermId) -> Option<&Term> {
        self.terms.get(usize::try_from(id).ok()?)
    }

    pub(crate) fn idf(&self, id: TermId) -> f32 {
        self.term(id).map_or(0.0, |term| term.idf)
    }

    /// The pages with this term, and how well it fits each.
    pub(crate) fn scores(&self, id: TermId) -> impl Iterator<Item = (usize, f32)> {
        self.term(id).into_iter().flat_map(|term| {
            term.pages.iter().map(|(page, says)| (*page, term.idf * saturate(*says)))
        })
    }

    pub(crate) fn exact(&self, text: &str) -> Option<TermId> {
        let at = self.terms.binary_search_by(|term| (*term.text).cmp(text)).ok()?;
        TermId::try_from(at).ok()
    }

    /// Terms that go on after `text`, with how much of each that is.
    pub(crate) fn prefixed(&self, text: &str) -> impl Iterator<Item = (TermId, f32)> {
        let from = self.terms.partition_point(|term| *term.text < *text);
        let rest = self.terms.get(from..).unwrap_or_default();
        let with = rest.iter().take_while(move |term| term.text.starts_with(text));
        let share = count(text.len());
        with.zip(from..).filter_map(move |(term, at)| {
            Some((TermId::try_from(at).ok()?, share / count(term.text.len()).max(1.0)))
        })
    }

    /// Terms that `text` may be a mistyped form of, with the number of errors.
    pub(crate) fn similar(&self, text: &str) -> Vec<(TermId, usize)> {
        let most = words::tolerance(text);
        if most == 0 {
            return Vec::new();
        }
        let mask = letters(text);
        let limit = u32::try_from(2 * most).unwrap_or(0);
        // Each error changes at most two letters of the set: most terms need no closer look.
        let near = (0..).zip(&self.terms).filter(|(_, t)| (t.letters ^ mask).count_ones() <= limit);
        near.filter_map(|(id, term)| Some((id, words::distance(text, &term.text, most)?))).collect()
    }

    /// How often, weighted, the parts follow each other in a page, and where in its text.
    pub(crate) fn phrase(&self, page: &Indexed, parts: &[TermId]) -> (f32, Vec<Range<usize>>) {
        let (mut says, mut places) = (0.0, Vec::new());
        for field in &page.fields {
            places.clear();
            for window in field.parts.windows(parts.len().max(1)) {
                if window.iter().map(|token| token.term).eq(parts.iter().copied())
                    && let (Some(first), Some(last)) = (window.first(), window.last())
                {
                    says += field.weight;
                    places.push(first.start..last.end);
                }
            }
        }
        (saturate(says), places)
    }
}

/// The searched fields with their weights, the text last.
fn fields(page: &Page) -> Vec<(f32, Vec<Word>)> {
    let head = &page.head;
    vec![
        (TITLE, words(&format!("{} / {}", head.title, page.path))),
        (TAGS, words(&head.tags.join(" / "))),
        (SUMMARY, words(&head.summary)),
        (BODY, words(&page.text)),
    ]
}

fn saturate(says: f32) -> f32 {
    says * (SATURATION + 1.0) / (says + SATURATION)
}

/// The set of letters in a word, a bit for each of 32 classes.
fn letters(text: &str) -> u32 {
    text.chars().fold(0, |set, c| set | 1 << (u32::from(c) % 32))
}

#[expect(clippy::cast_precision_loss, reason = "lengths and counts far below 2^23")]
pub(crate) fn count(number: usize) -> f32 {
    number as f32
}
