//! One pass over a text for all literals at once, and a precise look wherever one was found.

use aho_corasick::{AhoCorasick, MatchKind};

use crate::{
    context::{NAMES, SEPARATED_NAMES},
    kind::Kind,
    shape::{Place, Shape, TOKENS, Verdict},
    tail::{Reach, Tail},
};

/// Text to mask. It may have begun before the piece at hand, and go on behind it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    pub(crate) start: isize,
    pub(crate) end: usize,
    pub(crate) kind: Kind,
    /// Where the literal is that led to it.
    anchor: usize,
    tail: Option<Tail>,
    open: bool,
}

impl Span {
    pub(crate) fn rebase(&mut self, by: usize) {
        self.start = self.start.saturating_sub_unsigned(by);
        self.end = self.end.saturating_sub(by);
    }

    pub(crate) fn goes_on_after(&self, at: usize) -> bool {
        self.open || self.end > at
    }

    fn exact(anchor: usize, start: usize, end: usize, kind: Kind) -> Self {
        Self { anchor, start: start.cast_signed(), end, kind, tail: None, open: false }
    }

    fn follow(&mut self, text: &str, end_of_text: bool) {
        let Some(tail) = self.tail.filter(|_| self.open) else { return };
        match tail.reach(text, self.start, self.end, end_of_text) {
            Reach::Ended(end) => (self.end, self.open) = (end, false),
            Reach::Open(end) => self.end = end,
        }
    }

    /// Would a secret from `start`, of which the same tail begins at `body`, add nothing to this one?
    fn reaches_over(&self, start: usize, body: usize, kind: Kind) -> bool {
        let first = self.start < start.cast_signed()
            || (self.start == start.cast_signed() && self.kind == kind);
        first && body < self.end
    }
}

/// Literals, and what each stands for: a shape, or (behind these) a form of a known value.
pub(crate) struct Scanner {
    automaton: Option<AhoCorasick>,
    shapes: Vec<Shape>,
    /// All literals, sorted: is the end of a text the beginning of one?
    literals: Vec<String>,
    longest: usize,
}

fn shapes() -> Vec<(&'static str, Shape)> {
    let mut shapes: Vec<_> =
        TOKENS.iter().map(|token| (token.prefix, Shape::Token(token))).collect();
    shapes.extend([
        ("AKIA", Shape::Aws),
        ("ASIA", Shape::Aws),
        ("eyJ", Shape::Jwt),
        ("-----BEGIN", Shape::Pem),
        ("authorization", Shape::Authorization),
        ("bearer", Shape::Bearer),
        ("://", Shape::Url),
    ]);
    shapes.extend(NAMES.iter().map(|name| (*name, Shape::Parameter { separated: false })));
    shapes.extend(SEPARATED_NAMES.iter().map(|name| (*name, Shape::Parameter { separated: true })));
    shapes
}

impl Scanner {
    /// `known`: patterns in lower case.
    pub(crate) fn new(known: &[String]) -> Self {
        let (mut literals, shapes): (Vec<String>, Vec<Shape>) = shapes()
            .into_iter()
            .map(|(literal, shape)| (literal.to_ascii_lowercase(), shape))
            .unzip();
        literals.extend_from_slice(known);
        // It fails only beyond two thousand million states; then everything is masked.
        let automaton = AhoCorasick::builder()
            .ascii_case_insensitive(true)
            .match_kind(MatchKind::Standard)
            .build(&literals)
            .ok();
        literals.sort();
        literals.dedup();
        let longest = literals.iter().map(String::len).max().unwrap_or(0);
        Self { automaton, shapes, literals, longest }
    }

    /// Finds what is to be masked, beginning at `from` (what is before it was looked at, and is
    /// there as context), and adds it to `spans`. Returns up to where all is decided.
    pub(crate) fn scan(
        &self,
        text: &str,
        from: usize,
        end_of_text: bool,
        spans: &mut Vec<Span>,
    ) -> usize {
        let mut decided = if end_of_text { text.len() } else { self.unfinished(text, from) };
        let mut latest = Latest::default();
        for (index, span) in spans.iter_mut().enumerate() {
            span.follow(text, end_of_text);
            span.anchor = 0;
            latest.set(span.tail, index);
        }
        let Some(automaton) = &self.automaton else {
            spans.push(Span::exact(from, from, text.len(), Kind::Known));
            return text.len();
        };
        let carried = spans.len();
        for found in automaton.find_overlapping_iter(text) {
            let (start, end) = (found.start(), found.end());
            if start < from || start >= decided {
                continue;
            }
            let Some(shape) = self.shapes.get(found.pattern().as_usize()) else {
                push_known(spans, carried, start, end);
                continue;
            };
            match shape.look(&Place { text: text.as_bytes(), start, end, end_of_text }) {
                Verdict::No => {}
                Verdict::More => decided = decided.min(start),
                Verdict::Exact { start: first, end, kind } => {
                    spans.push(Span::exact(start, first, end, kind));
                }
                Verdict::From { start: first, body, kind, tail } => {
                    let before = latest.get(tail).and_then(|index| spans.get_mut(index));
                    if let Some(before) =
                        before.filter(|before| before.reaches_over(first, body, kind))
                    {
                        before.anchor = before.anchor.min(start);
                        continue;
                    }
                    let mut span = Span::exact(start, first, body, kind);
                    span.tail = Some(tail);
                    span.open = true;
                    span.follow(text, end_of_text);
                    latest.set(span.tail, spans.len());
                    spans.push(span);
                }
            }
        }
        let resume = spans.iter().filter(|span| span.open).map(|span| span.end).min();
        decided = decided.min(resume.unwrap_or(decided));
        spans.retain(|span| {
            span.anchor < decided && (span.open || span.start < span.end.cast_signed())
        });
        spans.sort_by_key(|span| (span.start, span.kind));
        decided
    }

    /// Where the longest end of the text begins that is the beginning of a literal.
    fn unfinished(&self, text: &str, from: usize) -> usize {
        let first =
            text.ceil_char_boundary(from.max((text.len() + 1).saturating_sub(self.longest)));
        let end = text.get(first..).unwrap_or_default().to_ascii_lowercase();
        end.char_indices()
            .find(|(at, _)| self.begins_literal(end.get(*at..).unwrap_or_default()))
            .map_or(text.len(), |(at, _)| first + at)
    }

    fn begins_literal(&self, text: &str) -> bool {
        let at = self.literals.partition_point(|literal| literal.as_str() <= text);
        self.literals.get(at).is_some_and(|literal| literal.starts_with(text))
    }
}

/// The forms of one value, and values like `aaaaaaaa`, overlap a lot.
fn push_known(spans: &mut Vec<Span>, carried: usize, start: usize, end: usize) {
    let new = spans.get_mut(carried..).unwrap_or_default();
    if let Some(last) = new.last_mut()
        && last.kind == Kind::Known
        && (last.start..=last.end.cast_signed()).contains(&start.cast_signed())
        && last.start == last.anchor.cast_signed()
    {
        last.end = last.end.max(end);
        return;
    }
    spans.push(Span::exact(start, start, end, Kind::Known));
}

/// Where the latest span with each tail is. There are few different tails.
#[derive(Default)]
struct Latest(Vec<(Tail, usize)>);

impl Latest {
    fn get(&self, tail: Tail) -> Option<usize> {
        self.0.iter().find(|(other, _)| *other == tail).map(|(_, index)| *index)
    }

    fn set(&mut self, tail: Option<Tail>, index: usize) {
        let Some(tail) = tail else { return };
        match self.0.iter_mut().find(|(other, _)| *other == tail) {
            Some((_, latest)) => *latest = index,
            None => self.0.push((tail, index)),
        }
    }
}
