//! What is asked for: words, and phrases in quotes.

use crate::words::{self, Word};

/// More words than this say nothing more, and would let one request cost as much as many.
const MAX_WORDS: usize = 16;

/// Words of questions that say nothing of what is looked for.
const EMPTY: [&str; 22] = [
    "a", "an", "and", "are", "can", "do", "does", "for", "how", "i", "in", "is", "it", "my", "of",
    "on", "or", "the", "to", "what", "where", "with",
];

#[derive(Debug, Default)]
pub(crate) struct Query {
    pub(crate) words: Vec<Word>,
    /// The last word may be the beginning of one: it is still being typed.
    pub(crate) unfinished: bool,
    /// Each the parts that must follow each other.
    pub(crate) phrases: Vec<Vec<String>>,
}

impl Query {
    pub(crate) fn parse(text: &str) -> Self {
        let mut query = Self::default();
        // Every second piece stands in quotes; of a quote that is never closed, the rest.
        for (at, piece) in text.split('"').enumerate() {
            let words = words::words(piece);
            if at % 2 == 0 {
                query.unfinished = !words.is_empty();
                query.words.extend(words);
            } else if !words.is_empty() {
                let parts = words.into_iter().flat_map(|word| word.parts);
                query.phrases.push(parts.map(|part| part.term).collect());
                query.unfinished = false;
            }
        }
        let says_something = |word: &Word| !EMPTY.contains(&word.term.as_str());
        if !query.phrases.is_empty() || query.words.iter().any(says_something) {
            let last = query.words.last().is_some_and(says_something);
            query.unfinished &= last;
            query.words.retain(says_something);
        }
        query.unfinished &= query.words.len() <= MAX_WORDS;
        query.words.truncate(MAX_WORDS);
        query.phrases.truncate(MAX_WORDS);
        query
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_phrases_are_told_apart() {
        for (text, words, phrases, unfinished) in [
            ("master key", 2, vec![], true),
            ("\"master key\"", 0, vec![vec!["master", "key"]], false),
            ("rotate \"master key\" now", 2, vec![vec!["master", "key"]], true),
            ("x \"b c", 1, vec![vec!["b", "c"]], false),
            ("how do I add a job", 2, vec![], true),
            ("add the", 1, vec![], false),
            ("the", 1, vec![], true),
            ("\"x-loom-org\"", 0, vec![vec!["x", "loom", "org"]], false),
            ("\"\" \" ? \"", 0, vec![], false),
            ("", 0, vec![], false),
        ] {
            let query = Query::parse(text);
            assert_eq!(query.words.len(), words, "{text}");
            assert_eq!(query.phrases, phrases, "{text}");
            assert_eq!(query.unfinished, unfinished, "{text}");
        }
        assert_eq!(Query::parse(&"word ".repeat(40)).words.len(), MAX_WORDS);
    }
}
