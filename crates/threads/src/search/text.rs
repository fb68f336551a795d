//! Text taken apart into what can be looked for: words, the parts of identifiers and paths with the
//! whole identifier beside them, pairs of characters where a script has no blanks, emoji.

use std::ops::Range;

use super::fold::{fold, is_joiner, is_symbol, is_unspaced};

/// Longer words are cut to this.
const MAX_TERM_BYTES: usize = 100;
/// An identifier of more parts has no whole.
const MAX_PARTS: usize = 16;
/// A run of letters and digits from this length on is looked at for whether it is encoded data.
const NOISE_LENGTH: usize = 60;
/// Hex digits beyond a SHA-256 are data.
const MAX_HEX: usize = 64;

/// Something that can be looked for, and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) term: String,
    /// In the text, in bytes.
    pub(crate) range: Range<usize>,
    /// Counts words, from 1. A whole has that of its first part.
    pub(crate) position: u32,
    pub(crate) kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Part,
    /// An identifier of several parts, without what parts them: `parseInput`, `parse_input`, `input.rs`.
    Whole,
    /// A character and the next of a script without blanks; the last of a run stands alone.
    Pair,
}

/// Calls `each` for all tokens of the text, in order, a whole before its parts; gives the last position.
pub(crate) fn tokens(text: &str, first: u32, mut each: impl FnMut(Token)) -> u32 {
    let mut reader = Reader { text, position: first, each: &mut each };
    let (mut at, mut looked_to) = (0, 0);
    while let Some(c) = text.get(at..).and_then(|rest| rest.chars().next()) {
        at = if c.is_ascii() && !c.is_ascii_alphanumeric() {
            at + 1
        } else if let Some(end) = noise(text, at, &mut looked_to) {
            reader.position += 1;
            end
        } else if is_unspaced(c) {
            reader.pairs(at)
        } else if c.is_alphanumeric() {
            reader.compound(at)
        } else {
            let end = at + c.len_utf8();
            if is_symbol(c) {
                reader.put(at..end, Kind::Part);
            }
            end
        };
    }
    reader.position
}

/// All tokens of a text.
pub(crate) fn all(text: &str) -> Vec<Token> {
    let mut all = Vec::new();
    tokens(text, 0, |token| all.push(token));
    all
}

struct Reader<'a, F> {
    text: &'a str,
    position: u32,
    each: &'a mut F,
}

impl<F: FnMut(Token)> Reader<'_, F> {
    fn put(&mut self, range: Range<usize>, kind: Kind) {
        let mut term = term_of(self.text, std::slice::from_ref(&range));
        cut(&mut term);
        self.position += 1;
        if !term.is_empty() {
            (self.each)(Token { term, range, position: self.position, kind });
        }
    }

    /// A run of a script without blanks.
    fn pairs(&mut self, start: usize) -> usize {
        let rest = self.text.get(start..).unwrap_or_default();
        let run: Vec<(usize, char)> = rest
            .char_indices()
            .take_while(|(_, c)| is_unspaced(*c) || is_joiner(*c))
            .filter(|(_, c)| !is_joiner(*c))
            .collect();
        let mut end = start;
        for (index, (at, c)) in run.iter().enumerate() {
            let next = run.get(index + 1);
            end = start + at + c.len_utf8();
            let pair = start + at..next.map_or(end, |(at, c)| start + at + c.len_utf8());
            self.put(pair, Kind::Pair);
        }
        end
    }

    /// Letters and digits with what may stand between the parts of one name.
    fn compound(&mut self, start: usize) -> usize {
        let (parts, end) = parts(self.text, start);
        if (2..=MAX_PARTS).contains(&parts.len()) {
            let term = term_of(self.text, &parts);
            if term.len() <= MAX_TERM_BYTES {
                let position = self.position + 1;
                (self.each)(Token { term, range: start..end, position, kind: Kind::Whole });
            }
        }
        for part in parts {
            self.put(part, Kind::Part);
        }
        end
    }
}

fn term_of(text: &str, ranges: &[Range<usize>]) -> String {
    let mut term = String::new();
    let pieces = ranges.iter().filter_map(|range| text.get(range.clone()));
    for c in pieces.flat_map(str::chars).filter(|c| !matches!(c, '\'' | '’')) {
        fold(c, |c| term.push(c));
    }
    term
}

fn cut(term: &mut String) {
    if term.len() > MAX_TERM_BYTES {
        term.truncate(term.floor_char_boundary(MAX_TERM_BYTES));
    }
}

/// The parts of the name that begins at `start`, and where it ends.
fn parts(text: &str, start: usize) -> (Vec<Range<usize>>, usize) {
    let mut parts = Vec::new();
    let (mut part, mut end) = (start, start);
    let mut before: [Option<char>; 2] = [None, None];
    let mut chars = text.get(start..).unwrap_or_default().char_indices().peekable();
    while let Some((offset, c)) = chars.next() {
        let at = start + offset;
        let next = chars.peek().map(|(_, c)| *c);
        let goes_on = next.is_some_and(|next| next.is_alphanumeric() && !is_unspaced(next));
        if is_joiner(c) {
            end = at + c.len_utf8();
        } else if c.is_alphanumeric() && !is_unspaced(c) {
            let camel = match before {
                // fooBar, then HTTPServer.
                [_, Some(last)] if last.is_lowercase() && c.is_uppercase() => Some(at),
                [Some(first), Some(last)]
                    if first.is_uppercase() && last.is_uppercase() && c.is_lowercase() =>
                {
                    Some(at - last.len_utf8())
                }
                _ => None,
            };
            if let Some(at) = camel.filter(|at| *at > part) {
                parts.push(part..at);
                part = at;
            }
            before = [before[1], Some(c)];
            end = at + c.len_utf8();
        } else if matches!(c, '\'' | '’') && goes_on && before[1].is_some_and(char::is_alphabetic)
        {
            // don't
        } else if matches!(c, '_' | '-' | '.') && goes_on {
            parts.push(part..end);
            part = at + c.len_utf8();
            before = [None, None];
        } else {
            break;
        }
    }
    parts.push(part..end);
    (parts, end)
}

/// Where the encoded data ends that begins here, if such begins here. Each run is looked at once.
fn noise(text: &str, start: usize, looked_to: &mut usize) -> Option<usize> {
    let is_data = |byte: &u8| {
        byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=' | b'_' | b'-')
    };
    let bytes = text.as_bytes();
    if start > 0 && bytes.get(start - 1).is_some_and(u8::is_ascii_alphanumeric) {
        return None;
    }
    let rest = bytes.get(start..)?;
    let hex = rest.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    if hex > MAX_HEX {
        return Some(start + hex);
    }
    if start < *looked_to {
        return None;
    }
    let run = rest.get(..rest.iter().take_while(|byte| is_data(byte)).count())?;
    *looked_to = start + run.len();
    if run.len() < NOISE_LENGTH {
        return None;
    }
    let class = |byte: u8| match byte {
        b'a'..=b'z' => 1,
        b'A'..=b'Z' => 2,
        b'0'..=b'9' => 3,
        _ => 0,
    };
    let (mut counts, mut changes) = ([0_usize; 4], 0_usize);
    let mut last = 0;
    for byte in run {
        let this = class(*byte);
        if let Some(count) = counts.get_mut(this) {
            *count += 1;
        }
        changes += usize::from(this != 0 && last != 0 && this != last);
        last = this;
    }
    let [_, lower, upper, digits] = counts;
    let looks_random = digits * 25 >= run.len()
        && lower * 8 >= run.len()
        && upper * 8 >= run.len()
        && changes * 3 >= run.len();
    looks_random.then_some(start + run.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each position with what stands there.
    fn read(text: &str) -> String {
        let show = |token: Token| {
            assert!(!all(text.get(token.range.clone()).unwrap()).is_empty(), "{token:?}");
            match token.kind {
                Kind::Whole => format!("{}:{}w", token.term, token.position),
                _ => format!("{}:{}", token.term, token.position),
            }
        };
        all(text).into_iter().map(show).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn identifiers_and_paths_are_split_and_kept_whole() {
        for (text, expected) in [
            ("The quick fox.", "the:1 quick:2 fox:3"),
            ("parseUserInput()", "parseuserinput:1w parse:1 user:2 input:3"),
            ("foo_bar fix-123", "foobar:1w foo:1 bar:2 fix123:3w fix:3 123:4"),
            ("HTTPServer2 v1.2", "httpserver2:1w http:1 server2:2 v12:3w v1:3 2:4"),
            ("src/search/lib.rs:12", "src:1 search:2 librs:3w lib:3 rs:4 12:5"),
            ("C:\\Temp\\x.txt", "c:1 temp:2 xtxt:3w x:3 txt:4"),
            ("don't a.b. -x-", "dont:1 ab:2w a:2 b:3 x:4"),
            ("__init__ a..b a--b", "init:1 a:2 b:3 a:4 b:5"),
            ("std::io::Error", "std:1 io:2 error:3"),
        ] {
            assert_eq!(read(text), expected, "{text}");
        }
    }

    #[test]
    fn scripts_without_blanks_become_pairs() {
        assert_eq!(read("検索機能"), "検索:1 索機:2 機能:3 能:4");
        assert_eq!(read("Rustの所有権 ok"), "rust:1 の所:2 所有:3 有権:4 権:5 ok:6");
        assert_eq!(read("字"), "字:1");
        assert_eq!(read("done 🎉👍🏽❤️!"), "done:1 🎉:2 👍:3 ❤:4");
        assert_eq!(read("مُحَمَّد كتب"), "محمد:1 كتب:2");
    }

    #[test]
    fn encoded_data_is_left_out_and_names_are_not() {
        let base64 = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";
        assert_eq!(
            read(&format!("a data:image/png;base64,{base64} b")),
            "a:1 data:2 image:3 png:4 base64:5 b:7"
        );
        assert_eq!(read(&format!("x {} y", "0123456789abcdef".repeat(5))), "x:1 y:3");
        let sha = "0123456789abcdef".repeat(4);
        assert_eq!(read(&sha), format!("{sha}:1"));
        for name in [
            "a_long_name_of_many_words_that_somebody_thought_would_be_a_good_idea_for_a_test",
            "parseUserInputFromTheRequestBodyAndReturnItAsJsonValueOrErrorResult",
            "home/somebody/projects/server/src/main/java/com/example/ServiceFactory2Impl",
        ] {
            assert!(all(name).len() > 5, "{name}");
        }
    }

    #[test]
    fn any_text_is_read_to_its_end() {
        let strange = "\u{301}a\u{301}\u{0}‎'’'_-. ﷺ ﬃ\u{10ffff}İ ǅ ÅÅa 👨‍👩‍👧 -- ..  \u{e01}\u{e31}";
        for (at, _) in strange.char_indices() {
            let text = &strange[at..];
            for token in all(text) {
                assert!(text.get(token.range.clone()).is_some(), "{token:?}");
                assert!(!token.term.is_empty());
            }
        }
        let long = "x".repeat(100_000);
        assert_eq!(all(&long).first().map(|token| token.term.len()), Some(MAX_TERM_BYTES));
    }
}
