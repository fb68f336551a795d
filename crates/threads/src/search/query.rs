//! What was asked for, read as web searches are: words, "phrases", `or`, `-not`; the last word may go on.

use loom_core::{Error, Result};

use super::{
    lexemes::quote,
    text::{self, Kind, Token},
};

const MAX_BYTES: usize = 1_000;
const MAX_TERMS: usize = 32;
/// A shorter word could begin too many others. Not so of characters that are words.
const MIN_PREFIX: usize = 3;

/// Alternatives, of each of which all terms must be there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Query {
    alternatives: Vec<Vec<Term>>,
}

/// A word, or words that follow each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Term {
    pub(crate) negated: bool,
    /// With the distance from the one before.
    pub(crate) parts: Vec<(String, u32)>,
    /// The identifier that the parts make.
    pub(crate) whole: Option<String>,
    /// The last part may go on.
    pub(crate) is_prefix: bool,
}

impl Query {
    /// Any text is a query, if there is a word in it to look for.
    ///
    /// # Errors
    /// 422 that says what `q` lacks.
    pub(crate) fn parse(q: &str) -> Result<Self> {
        if q.len() > MAX_BYTES {
            return Err(Error::invalid("q", format!("has at most {MAX_BYTES} bytes")));
        }
        let mut alternatives = vec![Vec::new()];
        let mut count = 0;
        let mut rest = q;
        while !rest.trim_start().is_empty() {
            rest = rest.trim_start();
            let negated = rest.starts_with('-');
            let body = if negated { rest.trim_start_matches('-') } else { rest };
            let (text, is_phrase, after) = match body.strip_prefix('"') {
                Some(inner) => match inner.split_once('"') {
                    Some((phrase, after)) => (phrase, true, after),
                    None => (inner, true, ""),
                },
                None => {
                    let end = body.find(|c: char| c.is_whitespace() || c == '"');
                    let (word, after) = body.split_at(end.unwrap_or(body.len()));
                    (word, false, after)
                }
            };
            rest = after;
            if !is_phrase && !negated && text.eq_ignore_ascii_case("or") {
                alternatives.push(Vec::new());
                continue;
            }
            let mut term = Term::of(&text::all(text), negated);
            let Some(term) = term.as_mut().filter(|_| count < MAX_TERMS) else { continue };
            term.is_prefix = !is_phrase && !negated && rest.is_empty() && term.may_go_on(text);
            if let Some(terms) = alternatives.last_mut() {
                terms.push(term.clone());
            }
            count += 1;
        }
        // An `or` without a side, and one of whose sides there is nothing to look for.
        alternatives.retain(|terms: &Vec<Term>| terms.iter().any(|term| !term.negated));
        if alternatives.is_empty() {
            let message =
                "has a word, phrase or commit to look for, beside what is not to be there";
            return Err(Error::invalid("q", message));
        }
        Ok(Self { alternatives })
    }

    /// In the form in which `tsquery` is read.
    pub(crate) fn to_tsquery(&self) -> String {
        self.written(Term::write)
    }

    /// The same with identifiers as they stand, and not also as the words that they are made of: what is
    /// found by an index alone, where words in a row must be looked up in each text that has them. None
    /// when there is no identifier.
    pub(crate) fn of_identifiers(&self) -> Option<String> {
        let has_one = self.wanted().any(|term| term.whole.is_some());
        has_one.then(|| self.written(Term::write_as_it_stands))
    }

    fn written(&self, write: impl Fn(&Term, &mut String)) -> String {
        let mut out = String::new();
        for (index, terms) in self.alternatives.iter().enumerate() {
            if index > 0 {
                out.push('|');
            }
            out.push('(');
            for (index, term) in terms.iter().enumerate() {
                if index > 0 {
                    out.push('&');
                }
                write(term, &mut out);
            }
            out.push(')');
        }
        out
    }

    /// What is to be there, and so to be marked.
    pub(crate) fn wanted(&self) -> impl Iterator<Item = &Term> {
        self.alternatives.iter().flatten().filter(|term| !term.negated)
    }

    /// The first digits of a commit, when nothing else is asked for.
    pub(crate) fn commit(&self) -> Option<&str> {
        let [terms] = self.alternatives.as_slice() else { return None };
        let [term] = terms.as_slice() else { return None };
        let [(word, _)] = term.parts.as_slice() else { return None };
        let is_sha = (7..=64).contains(&word.len())
            && word.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        is_sha.then_some(word)
    }

    /// The words that could be misspelt.
    pub(crate) fn words_mut(&mut self) -> impl Iterator<Item = &mut Term> {
        self.alternatives.iter_mut().flatten().filter(|term| !term.negated)
    }
}

impl Term {
    fn of(tokens: &[Token], negated: bool) -> Option<Self> {
        let wholes = tokens.iter().filter(|token| token.kind == Kind::Whole);
        let mut parts: Vec<&Token> =
            tokens.iter().filter(|token| token.kind != Kind::Whole).collect();
        // The last character of a run stands alone in a text only at the end of a run.
        if let [.., before, last] = parts.as_slice()
            && last.kind == Kind::Pair
            && before.kind == Kind::Pair
            && before.range.end == last.range.end
        {
            parts.pop();
        }
        let (first, last) = (parts.first()?, parts.last()?);
        let mut wholes = wholes.filter(|whole| {
            whole.range.start <= first.range.start && whole.range.end >= last.range.end
        });
        let whole = wholes.next().map(|token| token.term.clone());
        let mut position = first.position;
        let parts = parts.iter().map(|token| {
            let distance = token.position - position;
            position = token.position;
            (token.term.clone(), distance)
        });
        Some(Self { negated, parts: parts.collect(), whole, is_prefix: false })
    }

    fn may_go_on(&self, text: &str) -> bool {
        let is_cut = text.chars().next_back().is_some_and(char::is_alphanumeric);
        let last = self.parts.last().map_or("", |(word, _)| word);
        is_cut && (self.whole.is_some() || begins_few(last))
    }

    /// This alone, in the form in which `tsquery` is read.
    pub(crate) fn to_tsquery(&self) -> String {
        let mut out = String::new();
        self.write(&mut out);
        out
    }

    /// One word and nothing else.
    pub(crate) fn word(&self) -> Option<&str> {
        match (self.parts.as_slice(), &self.whole) {
            (_, Some(whole)) => Some(whole),
            ([(word, _)], None) => Some(word),
            _ => None,
        }
    }

    /// Looks for this word instead.
    pub(crate) fn replace(&mut self, word: &str) {
        *self = Self {
            negated: self.negated,
            parts: vec![(word.to_owned(), 0)],
            whole: None,
            is_prefix: false,
        };
    }

    fn write(&self, out: &mut String) {
        if self.negated {
            out.push('!');
        }
        out.push('(');
        if let Some(whole) = &self.whole {
            self.write_word(out, whole, true);
            out.push('|');
        }
        for (index, (word, distance)) in self.parts.iter().enumerate() {
            if index > 0 {
                out.push_str(&format!("<{distance}>"));
            }
            self.write_word(out, word, index + 1 == self.parts.len() && begins_few(word));
        }
        out.push(')');
    }

    fn write_as_it_stands(&self, out: &mut String) {
        match &self.whole {
            Some(whole) if !self.negated => self.write_word(out, whole, true),
            _ => self.write(out),
        }
    }

    fn write_word(&self, out: &mut String, word: &str, is_last: bool) {
        quote(out, word);
        if is_last && self.is_prefix {
            out.push_str(":*");
        }
    }
}

fn begins_few(word: &str) -> bool {
    !word.is_ascii() || word.len() >= MIN_PREFIX
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tsquery(q: &str) -> String {
        Query::parse(q).map_or_else(|error| error.code().to_owned(), |query| query.to_tsquery())
    }

    #[test]
    fn a_query_is_read_as_web_searches_are() {
        for (q, expected) in [
            ("Fix the tests", "(('fix')&('the')&('tests':*))"),
            ("fix tests ", "(('fix')&('tests'))"),
            (r#""fix the" x"#, "(('fix'<1>'the')&('x'))"),
            (r#"fix -"the test" -now"#, "(('fix')&!('the'<1>'test')&!('now'))"),
            ("fix or mend it", "(('fix'))|(('mend')&('it'))"),
            (r#"say "or" OR"#, "(('say')&('or'))"),
            ("lib.r", "(('libr':*|'lib'<1>'r'))"),
            ("parseInp", "(('parseinp':*|'parse'<1>'inp':*))"),
            ("src/lib.rs ", "(('src'<1>'lib'<1>'rs'))"),
            ("lib.rs ", "(('librs'|'lib'<1>'rs'))"),
            ("検索機能 ok ", "(('検索'<1>'索機'<1>'機能')&('ok'))"),
            ("字", "(('字':*))"),
            ("it's", "(('its':*))"),
            (r#""open"#, "(('open'))"),
            ("🎉", "(('🎉'))"),
        ] {
            assert_eq!(tsquery(q), expected, "{q}");
        }
    }

    #[test]
    fn whatever_is_asked_is_a_query_or_has_no_word() {
        for q in ["", "-", "-x", "or", "\"\"", "& | ! ( ) : * <-> '", "-a or -b", "\u{0}\u{7f}"] {
            assert_eq!(tsquery(q), "invalid_request", "{q}");
        }
        assert_eq!(tsquery(&"x".repeat(1_001)), "invalid_request");
        for (q, expected) in [
            ("a & !b | (c:*)", "(('a')&('b')&('c'))"),
            ("a' \\ b <-> 'c':A", "(('a')&('b')&('c'<1>'a'))"),
            ("or or a or or", "(('a'))"),
            ("--a b", "(!('a')&('b'))"),
        ] {
            assert_eq!(tsquery(q), expected, "{q}");
        }
        let many = Query::parse(&"ab ".repeat(300)).unwrap();
        assert_eq!(many.wanted().count(), MAX_TERMS);
    }

    #[test]
    fn identifiers_are_asked_for_as_they_stand() {
        let asked = |q: &str| Query::parse(q).unwrap().of_identifiers();
        for (q, expected) in [
            ("parseInp", Some("('parseinp':*)")),
            ("fix lib.rs ", Some("(('fix')&'librs')")),
            ("lib.rs -mod.rs ", Some("('librs'&!('modrs'|'mod'<1>'rs'))")),
            ("fix tests", None),
            (r#""fix the" tests"#, None),
            ("tests -lib.rs ", None),
        ] {
            assert_eq!(asked(q).as_deref(), expected, "{q}");
        }
    }

    #[test]
    fn a_commit_is_asked_for_alone() {
        let commit = |q: &str| Query::parse(q).unwrap().commit().map(str::to_owned);
        assert_eq!(commit("ABC1234"), Some("abc1234".to_owned()));
        for q in ["abc123", "abc1234 x", "abcdefg", "abc1234 or abc1235"] {
            assert_eq!(commit(q), None, "{q}");
        }
    }
}
