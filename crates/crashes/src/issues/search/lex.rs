//! A query, cut into its terms.

use super::Fault;

/// A text of a query, and where it is: characters before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) text: String,
    pub(crate) at: usize,
    /// Where `*` stands for anything: bytes of `text`.
    pub(crate) stars: Vec<usize>,
    pub(crate) quoted: bool,
}

/// One term: `!key:value`, or free text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) negated: bool,
    pub(super) key: Option<Span>,
    pub(super) value: Span,
    /// `[a, b]`: these, and `value` is empty.
    pub(super) list: Option<Vec<Span>>,
    pub(super) at: usize,
}

struct Reader {
    chars: Vec<char>,
    at: usize,
}

pub(super) fn pieces(text: &str) -> Result<Vec<Piece>, Fault> {
    let mut reader = Reader { chars: text.chars().collect(), at: 0 };
    let mut pieces = Vec::new();
    loop {
        reader.skip_spaces();
        if reader.peek().is_none() {
            return Ok(pieces);
        }
        pieces.push(reader.piece()?);
    }
}

fn is_key(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-' | '/')
}

impl Reader {
    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    fn skip_spaces(&mut self) {
        while self.peek().is_some_and(char::is_whitespace) {
            self.at += 1;
        }
    }

    fn piece(&mut self) -> Result<Piece, Fault> {
        let at = self.at;
        let negated = self.peek() == Some('!') && self.follows(1);
        if negated {
            self.at += 1;
        }
        let key = self.key()?;
        if key.is_some() && self.peek() == Some('[') {
            let list = self.list()?;
            let value = Span { text: String::new(), at: self.at, stars: Vec::new(), quoted: false };
            return Ok(Piece { negated, key, value, list: Some(list), at });
        }
        let value = self.value(|_| false)?;
        Ok(Piece { negated, key, value, list: None, at })
    }

    /// Is there anything but a space so many characters ahead?
    fn follows(&self, ahead: usize) -> bool {
        self.chars.get(self.at + ahead).is_some_and(|c| !c.is_whitespace())
    }

    /// `key:`, or `tags[key]:`.
    fn key(&mut self) -> Result<Option<Span>, Fault> {
        let from = self.at;
        let mut to = from;
        while self.chars.get(to).copied().is_some_and(is_key) {
            to += 1;
        }
        let mut text: String = self.chars.get(from..to).unwrap_or_default().iter().collect();
        if text == "tags" && self.chars.get(to) == Some(&'[') {
            let close = self.chars.iter().skip(to).position(|c| *c == ']').map(|n| n + to);
            let Some(close) = close else {
                return Err(Fault::new(to, "`tags[` is not closed: write `tags[key]:value`"));
            };
            text = self.chars.get(from..=close).unwrap_or_default().iter().collect();
            to = close + 1;
        }
        let is_url = self.chars.get(to + 1) == Some(&'/') && self.chars.get(to + 2) == Some(&'/');
        // `Class::method` and `http://…` are free text.
        if text.is_empty()
            || self.chars.get(to) != Some(&':')
            || self.chars.get(to + 1) == Some(&':')
            || is_url
        {
            return Ok(None);
        }
        self.at = to + 1;
        Ok(Some(Span { text, at: from, stars: Vec::new(), quoted: false }))
    }

    /// Up to a space, or what `ends` says; quotes hold spaces, a backslash takes the next as it is.
    fn value(&mut self, ends: impl Fn(char) -> bool) -> Result<Span, Fault> {
        let at = self.at;
        let mut span = Span { text: String::new(), at, stars: Vec::new(), quoted: false };
        if self.peek() == Some('"') {
            span.quoted = true;
            self.at += 1;
            loop {
                match self.peek() {
                    None => return Err(Fault::new(at, "the quote that begins here is not closed")),
                    Some('"') => break,
                    Some('\\') => {
                        self.at += 1;
                        let next = self.peek().ok_or_else(|| {
                            Fault::new(at, "the quote that begins here is not closed")
                        })?;
                        span.text.push(next);
                    }
                    Some(c) => span.text.push(c),
                }
                self.at += 1;
            }
            self.at += 1;
            if self.peek().is_some_and(|c| !c.is_whitespace() && !ends(c)) {
                return Err(Fault::new(self.at, "a space must follow the closing quote"));
            }
            return Ok(span);
        }
        while let Some(c) = self.peek().filter(|c| !c.is_whitespace() && !ends(*c)) {
            match c {
                '*' => {
                    span.stars.push(span.text.len());
                    span.text.push('*');
                }
                '\\' if matches!(self.chars.get(self.at + 1), Some('*' | '\\' | '"')) => {
                    self.at += 1;
                    span.text.extend(self.peek());
                }
                c => span.text.push(c),
            }
            self.at += 1;
        }
        Ok(span)
    }

    fn list(&mut self) -> Result<Vec<Span>, Fault> {
        let at = self.at;
        self.at += 1;
        let mut list = Vec::new();
        loop {
            self.skip_spaces();
            match self.peek() {
                None => {
                    return Err(Fault::new(at, "the list that begins here is not closed with `]`"));
                }
                Some(']') if !list.is_empty() => break,
                Some(',') if !list.is_empty() => self.at += 1,
                Some(_) => {
                    let value = self.value(|c| matches!(c, ',' | ']'))?;
                    if value.text.is_empty() {
                        return Err(Fault::new(value.at, "a list is `[one, two]`, and not empty"));
                    }
                    list.push(value);
                }
            }
        }
        self.at += 1;
        Ok(list)
    }
}
