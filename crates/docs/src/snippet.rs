//! The place of a text that shows best why it was found.

use std::ops::Range;

use crate::html::escape_into;

/// How far apart two marks may be to be shown together, in bytes.
const WINDOW: usize = 150;
/// What is shown around them.
const BEFORE: usize = 60;
const TOTAL: usize = 240;

/// An occurrence in the text of what was looked for.
#[derive(Clone, Debug)]
pub(crate) struct Mark {
    pub(crate) range: Range<usize>,
    /// Which of the things looked for: two of them together say more than one twice.
    pub(crate) slot: usize,
    pub(crate) weight: f32,
}

#[derive(Debug)]
pub(crate) struct Snippet {
    pub(crate) html: String,
    /// Where its first mark stands in the text.
    pub(crate) place: usize,
}

pub(crate) fn best(text: &str, mut marks: Vec<Mark>) -> Option<Snippet> {
    marks.sort_by_key(|mark| (mark.range.start, std::cmp::Reverse(mark.range.end)));
    let mut best: Option<(f32, Range<usize>)> = None;
    for (at, first) in marks.iter().enumerate() {
        let near = marks.iter().skip(at);
        let near = near.take_while(|mark| mark.range.end <= first.range.start + WINDOW);
        let (mut weight, mut seen, mut end) = (0.0, 0_u64, first.range.end);
        for mark in near {
            let bit = 1_u64 << (mark.slot % 64);
            // The same again counts a little, so that of equal places the richer one is taken.
            weight += if seen & bit == 0 { mark.weight } else { 0.05 * mark.weight };
            seen |= bit;
            end = end.max(mark.range.end);
        }
        if best.as_ref().is_none_or(|(most, _)| weight > *most) {
            best = Some((weight, first.range.start..end));
        }
    }
    let (_, core) = best?;
    let shown = around(text, &core);
    Some(Snippet { html: marked(text, &shown, &marks), place: core.start })
}

/// The range with some text around it, from word to word, not before its own paragraph.
fn around(text: &str, core: &Range<usize>) -> Range<usize> {
    let before = text.get(..core.start).unwrap_or_default();
    let paragraph = before.rfind('\n').map_or(0, |at| at + 1);
    let start = if core.start - paragraph <= BEFORE {
        paragraph
    } else {
        let from = text.ceil_char_boundary(core.start - BEFORE);
        let cut = text.get(from..core.start).unwrap_or_default();
        cut.find(char::is_whitespace).map_or(core.start, |space| from + space + 1)
    };
    let limit = text.floor_char_boundary((start + TOTAL).max(core.end));
    let last = text.trim_end().len();
    if limit >= last {
        return start..last;
    }
    let rest = text.get(core.end..limit).unwrap_or_default();
    let end = rest.rfind(char::is_whitespace).map_or(core.end, |space| core.end + space);
    start..end
}

fn marked(text: &str, shown: &Range<usize>, marks: &[Mark]) -> String {
    let mut html = String::with_capacity(shown.len() + 64);
    let whole_start = shown.start == 0 || text.as_bytes().get(shown.start - 1) == Some(&b'\n');
    if !whole_start {
        html.push('…');
    }
    let mut at = shown.start;
    let put = |html: &mut String, range: Range<usize>| {
        // One line: what separates blocks becomes a dot, and columns and indentation nothing.
        for c in text.get(range).unwrap_or_default().chars() {
            match c {
                '\n' => html.push_str(if html.ends_with(' ') { "· " } else { " · " }),
                c if c.is_whitespace() => {
                    if !html.ends_with(' ') {
                        html.push(' ');
                    }
                }
                c => escape_into(html, c.encode_utf8(&mut [0; 4])),
            }
        }
    };
    let mut marks =
        marks.iter().filter(|m| m.range.start >= shown.start && m.range.end <= shown.end);
    let mut next = marks.next();
    while let Some(mark) = next {
        let (start, mut end) = (mark.range.start.max(at), mark.range.end);
        next = marks.next();
        // What overlaps or touches is one mark.
        while let Some(further) = next.filter(|further| further.range.start <= end) {
            end = end.max(further.range.end);
            next = marks.next();
        }
        put(&mut html, at..start);
        html.push_str("<mark>");
        put(&mut html, start..end);
        html.push_str("</mark>");
        at = end;
    }
    put(&mut html, at..shown.end);
    if shown.end < text.trim_end().len() {
        html.push('…');
    }
    html
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(text: &str, word: &str, slot: usize) -> Vec<Mark> {
        let places = text.match_indices(word);
        places.map(|(at, _)| Mark { range: at..at + word.len(), slot, weight: 1.0 }).collect()
    }

    #[test]
    fn two_words_together_beat_one_twice() {
        let far = "filler ".repeat(60);
        let text = format!("key key key\n{far}\nthe master key is <b>here</b> & there\n{far}");
        let marks = [mark(&text, "key", 0), mark(&text, "master", 1)].concat();
        let snippet = best(&text, marks).unwrap();
        let start = "the <mark>master</mark> <mark>key</mark> is &lt;b&gt;here&lt;/b&gt; &amp; there · filler";
        assert!(snippet.html.starts_with(start), "{}", snippet.html);
        assert!(snippet.html.ends_with('…'));
        assert!(best(&text, Vec::new()).is_none());
    }

    #[test]
    fn characters_of_several_bytes_are_never_cut() {
        let text = "ä€𐍈".repeat(100) + " key " + &"ä€𐍈".repeat(100);
        let snippet = best(&text, mark(&text, "key", 0)).unwrap();
        assert!(snippet.html.contains("<mark>key</mark>"), "{}", snippet.html);
    }
}
