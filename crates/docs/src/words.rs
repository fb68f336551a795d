//! Words: how a text falls into them, identifiers whole and in parts, and which are nearly the same.

/// One word of a text, at its byte range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Word {
    pub(crate) start: usize,
    pub(crate) end: usize,
    /// As it is compared: lower-case, a plural as its singular.
    pub(crate) term: String,
    /// What an identifier is made of; of any other word it is the only part itself.
    pub(crate) parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) start: usize,
    pub(crate) end: usize,
    pub(crate) term: String,
}

/// The longest word that is kept whole; what is longer is no word of a language.
const MAX_WORD_BYTES: usize = 64;

pub(crate) fn words(text: &str) -> Vec<Word> {
    let mut words = Vec::new();
    let joins = |c: char| matches!(c, '_' | '-' | '.');
    let outside = |c: char| !(c.is_alphanumeric() || joins(c));
    let mut offset = 0;
    for piece in text.split_inclusive(outside) {
        let run = piece.strip_suffix(outside).unwrap_or(piece);
        let trimmed = run.trim_start_matches(joins);
        let start = offset + (run.len() - trimmed.len());
        offset += piece.len();
        let run = trimmed.trim_end_matches(joins);
        if run.is_empty() {
            continue;
        }
        let parts = parts(start, run);
        if parts.is_empty() {
            continue;
        }
        let whole = loom_core::text::cut(run, MAX_WORD_BYTES);
        // An identifier is a name: it has no plural.
        let term = if parts.len() == 1 { normal(whole) } else { whole.to_lowercase() };
        words.push(Word { start, end: start + run.len(), term, parts });
    }
    words
}

/// `LOOM_SERVER_PORT`, `x-loom-org`, `JobScheduler`, `HTTPServer`, `core.error` in their parts.
fn parts(offset: usize, run: &str) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut start = 0;
    let mut push = |from: usize, to: usize| {
        if let Some(text) = run.get(from..to).filter(|text| !text.is_empty()) {
            let term = normal(loom_core::text::cut(text, MAX_WORD_BYTES));
            parts.push(Part { start: offset + from, end: offset + to, term });
        }
    };
    let mut before: Option<char> = None;
    let mut characters = run.char_indices().peekable();
    while let Some((at, c)) = characters.next() {
        let next = characters.peek().map(|(_, c)| *c);
        if !c.is_alphanumeric() {
            push(start, at);
            start = at + c.len_utf8();
        } else if c.is_uppercase() && begins_hump(before, next) {
            push(start, at);
            start = at;
        }
        before = Some(c);
    }
    push(start, run.len());
    parts
}

/// Is an upper-case letter between these the first of a part?
fn begins_hump(before: Option<char>, next: Option<char>) -> bool {
    let Some(before) = before else { return false };
    let followed = next.is_some_and(char::is_lowercase);
    // `IDs` is a plural and no `I` before a `Ds`: one lower-case letter does not make a hump.
    before.is_lowercase()
        || before.is_numeric() && followed
        || before.is_uppercase() && followed && next != Some('s')
}

/// Lower-case, and without the ending of a plural.
fn normal(word: &str) -> String {
    let mut word = word.to_lowercase();
    if word.len() < 4 || ["ss", "us", "is"].iter().any(|end| word.ends_with(end)) {
        return word;
    }
    if word.ends_with("ies") && word.len() > 4 {
        word.truncate(word.len() - 3);
        word.push('y');
    } else if word.ends_with('s') {
        word.truncate(word.len() - 1);
    }
    word
}

/// How many typing errors a word may have.
pub(crate) fn tolerance(word: &str) -> usize {
    match word.chars().count() {
        0..4 => 0,
        4..8 => 1,
        _ => 2,
    }
}

/// The number of letters to insert, leave away, change or swap with their neighbour, when it is at
/// most `most`.
pub(crate) fn distance(left: &str, right: &str, most: usize) -> Option<usize> {
    let left: Vec<char> = left.chars().collect();
    let right: Vec<char> = right.chars().collect();
    if left.len().abs_diff(right.len()) > most {
        return None;
    }
    let first: Vec<usize> = (0..=right.len()).collect();
    let (mut older, mut old) = (Vec::new(), first);
    for (i, l) in left.iter().enumerate() {
        let mut row = Vec::with_capacity(right.len() + 1);
        row.push(i + 1);
        for (j, r) in right.iter().enumerate() {
            let at = |row: &[usize], j: usize| row.get(j).copied().unwrap_or(usize::MAX - 1);
            let changed = at(&old, j) + usize::from(l != r);
            let mut cost = changed.min(at(&old, j + 1) + 1).min(at(&row, j) + 1);
            let swapped =
                i > 0 && j > 0 && left.get(i - 1) == Some(r) && right.get(j - 1) == Some(l);
            if swapped {
                cost = cost.min(at(&older, j - 1) + 1);
            }
            row.push(cost);
        }
        if row.iter().all(|cost| *cost > most) {
            return None;
        }
        older = std::mem::replace(&mut old, row);
    }
    old.last().copied().filter(|cost| *cost <= most)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(text: &str) -> Vec<(String, Vec<String>)> {
        let of = |word: Word| (word.term, word.parts.into_iter().map(|part| part.term).collect());
        words(text).into_iter().map(of).collect()
    }

    #[test]
    fn identifiers_are_whole_and_in_parts() {
        for (text, whole, parts) in [
            ("LOOM_SERVER_PORT", "loom_server_port", vec!["loom", "server", "port"]),
            ("`x-loom-org`:", "x-loom-org", vec!["x", "loom", "org"]),
            ("JobScheduler", "jobscheduler", vec!["job", "scheduler"]),
            ("HTTPServer", "httpserver", vec!["http", "server"]),
            ("..accept.rs.", "accept.rs", vec!["accept", "rs"]),
            ("IDs", "ids", vec!["ids"]),
            ("SHA256", "sha256", vec!["sha256"]),
            ("Keys", "key", vec!["key"]),
            ("queries", "query", vec!["query"]),
            ("status", "status", vec!["status"]),
            ("Größe", "größe", vec!["größe"]),
        ] {
            let parts = parts.into_iter().map(str::to_owned).collect();
            assert_eq!(split(text), [(whole.to_owned(), parts)], "{text}");
        }
        assert_eq!(split("/v1/chat — {id} ...").len(), 3);
    }

    #[test]
    fn offsets_lead_back_to_the_text() {
        let text = "— see «fooBar», baz_";
        for word in words(text) {
            assert!(!text[word.start..word.end].contains([' ', '«', ',']));
            for part in word.parts {
                assert_eq!(normal(&text[part.start..part.end]), part.term);
            }
        }
    }

    #[test]
    fn typing_errors_are_counted_up_to_the_limit() {
        for (left, right, most, told) in [
            ("thread", "thread", 1, Some(0)),
            ("thraed", "thread", 1, Some(1)),
            ("thred", "thread", 1, Some(1)),
            ("threads", "thread", 1, Some(1)),
            ("tread", "bread", 1, Some(1)),
            ("organizations", "organisation", 2, Some(2)),
            ("abcd", "wxyz", 2, None),
            ("key", "keystone", 2, None),
            ("", "a", 1, Some(1)),
        ] {
            assert_eq!(distance(left, right, most), told, "{left} {right}");
        }
    }
}
