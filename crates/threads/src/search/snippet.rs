//! The place of a text that shows best why it was found, as HTML: escaped, what was found in `<mark>`.

use std::ops::Range;

use super::{
    query::Term,
    text::{self, Kind, Token},
};

/// How far apart two marks may be to be shown together, in bytes.
const WINDOW: usize = 160;
/// What is shown before the first.
const BEFORE: usize = 60;
const TOTAL: usize = 240;
/// Marks of a text; the places of more would be no better.
const MAX_MARKS: usize = 2_000;

struct Mark {
    range: Range<usize>,
    /// Which term: two of them together say more than one twice.
    term: usize,
}

/// The best place, or the beginning where none of the terms is in the text.
pub(crate) fn best<'a>(text: &str, terms: impl Iterator<Item = &'a Term>) -> String {
    let marks = marks(text, terms);
    let mut best: Option<(usize, Range<usize>)> = None;
    for (at, first) in marks.iter().enumerate() {
        let near = marks.iter().skip(at);
        let near = near.take_while(|mark| mark.range.end <= first.range.start + WINDOW).take(50);
        let (mut score, mut seen, mut end) = (0, 0_u64, first.range.end);
        for mark in near {
            let bit = 1_u64 << (mark.term % 64);
            // The same again counts a little.
            score += if seen & bit == 0 { 20 } else { 1 };
            seen |= bit;
            end = end.max(mark.range.end);
        }
        if best.as_ref().is_none_or(|(most, _)| score > *most) {
            best = Some((score, first.range.start..end));
        }
    }
    let core = best.map_or(0..0, |(_, core)| core);
    marked(text, &around(text, &core), &marks)
}

fn marks<'a>(text: &str, terms: impl Iterator<Item = &'a Term>) -> Vec<Mark> {
    let (wholes, parts): (Vec<Token>, Vec<Token>) =
        text::all(text).into_iter().partition(|token| token.kind == Kind::Whole);
    let mut marks = Vec::new();
    for (index, term) in terms.enumerate() {
        let is_one = |word: &str, token: &Token, is_last: bool| {
            if is_last && term.is_prefix {
                token.term.starts_with(word)
            } else {
                token.term == word
            }
        };
        if let Some(word) = term.word() {
            let found = wholes.iter().filter(|token| is_one(word, token, true));
            marks.extend(found.map(|token| Mark { range: token.range.clone(), term: index }));
        }
        for (at, first) in parts.iter().enumerate() {
            let (mut position, mut end, mut ahead) = (first.position, first.range.end, at);
            let mut found = true;
            for (number, (word, distance)) in term.parts.iter().enumerate() {
                position += distance;
                while parts.get(ahead).is_some_and(|token| token.position < position) {
                    ahead += 1;
                }
                let is_last = number + 1 == term.parts.len();
                let token = parts
                    .get(ahead)
                    .filter(|token| token.position == position && is_one(word, token, is_last));
                let Some(token) = token else {
                    found = false;
                    break;
                };
                end = token.range.end;
            }
            if found {
                marks.push(Mark { range: first.range.start..end, term: index });
            }
        }
    }
    marks.sort_by_key(|mark| (mark.range.start, std::cmp::Reverse(mark.range.end)));
    marks.truncate(MAX_MARKS);
    marks
}

/// The range with some text around it, from word to word, not before its own line.
fn around(text: &str, core: &Range<usize>) -> Range<usize> {
    let before = text.get(..core.start).unwrap_or_default();
    let line = before.rfind('\n').map_or(0, |at| at + 1);
    let start = if core.start - line <= BEFORE {
        line
    } else {
        let from = text.ceil_char_boundary(core.start - BEFORE);
        let cut = text.get(from..core.start).unwrap_or_default();
        cut.find(char::is_whitespace).map_or(core.start, |space| from + space + 1)
    };
    let limit = text.floor_char_boundary((start + TOTAL).max(core.end));
    let last = text.trim_end().len();
    if limit >= last {
        return start..last.max(start);
    }
    let rest = text.get(core.end..limit).unwrap_or_default();
    let end = rest.rfind(char::is_whitespace).map_or(limit, |space| core.end + space);
    start..end
}

fn marked(text: &str, shown: &Range<usize>, marks: &[Mark]) -> String {
    let mut html = String::with_capacity(shown.len() + 64);
    if shown.start > 0 {
        html.push('…');
    }
    let mut at = shown.start;
    let shown_marks =
        marks.iter().filter(|mark| mark.range.start >= shown.start && mark.range.end <= shown.end);
    let mut next = shown_marks.peekable();
    while let Some(mark) = next.next() {
        let (start, mut end) = (mark.range.start.max(at), mark.range.end);
        // What overlaps or touches is one mark.
        while let Some(further) = next.next_if(|further| further.range.start <= end) {
            end = end.max(further.range.end);
        }
        put(&mut html, text, at..start);
        html.push_str("<mark>");
        put(&mut html, text, start..end);
        html.push_str("</mark>");
        at = end;
    }
    put(&mut html, text, at..shown.end);
    if shown.end < text.trim_end().len() {
        html.push('…');
    }
    html
}

/// Escaped, and on one line.
fn put(html: &mut String, text: &str, range: Range<usize>) {
    for c in text.get(range).unwrap_or_default().chars() {
        match c {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '"' => html.push_str("&quot;"),
            '\'' => html.push_str("&#39;"),
            c if c.is_whitespace() || c.is_control() => {
                if !html.ends_with(' ') {
                    html.push(' ');
                }
            }
            c => html.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::query::Query, *};

    fn show(text: &str, q: &str) -> String {
        best(text, Query::parse(q).unwrap().wanted())
    }

    #[test]
    fn what_was_found_is_marked_as_the_user_wrote_it() {
        for (text, q, expected) in [
            ("The Café is open", "cafe ", "The <mark>Café</mark> is open"),
            ("call parseUserInput(x)", "parse_user ", "call <mark>parseUser</mark>Input(x)"),
            ("call parseUserInput(x)", "parseuserinput", "call <mark>parseUserInput</mark>(x)"),
            ("in src/lib.rs:3", "lib.rs", "in src/<mark>lib.rs</mark>:3"),
            ("全文検索の機能", "検索", "全文<mark>検索</mark>の機能"),
            ("a fix, the fix", "\"the fix\"", "a fix, <mark>the fix</mark>"),
            ("databases", "datab", "<mark>databases</mark>"),
            ("nothing here", "else", "nothing here"),
            ("ready 🎉", "🎉", "ready <mark>🎉</mark>"),
        ] {
            assert_eq!(show(text, q), expected, "{q}");
        }
    }

    #[test]
    fn markup_in_the_text_is_text() {
        assert_eq!(
            show("<mark>x</mark><script>alert('key')</script> & \"key\"", "key "),
            "&lt;mark&gt;x&lt;/mark&gt;&lt;script&gt;alert(&#39;<mark>key</mark>&#39;)&lt;/script&gt; &amp; \
             &quot;<mark>key</mark>&quot;"
        );
    }

    #[test]
    fn two_words_together_beat_one_twice_and_no_character_is_cut() {
        let far = "füllung ".repeat(60);
        let html = show(&format!("key key\n{far}\nthe master key\n{far}"), "key master");
        assert!(html.starts_with("…the <mark>master</mark> <mark>key</mark> füllung"), "{html}");
        assert!(html.ends_with('…'));
        let html = show(&format!("{}key{}", "ä€𐍈 ".repeat(100), " ä€𐍈".repeat(100)), "key");
        assert!(html.contains("<mark>key</mark>"), "{html}");
    }
}
