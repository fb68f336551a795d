//! Secrets within a text: by their shape, by the name before them, by patterns.

use std::borrow::Cow;

use loom_redact::{Kind, Redactor};
use regex_automata::meta::Regex;

use super::{
    MARK,
    names::{Names, Verdict},
};

/// So far back a name is looked for.
const LONGEST_NAME: usize = 64;
const LONGEST_VALUE: usize = 4_096;
/// After `token: ` stands a word as often as a token.
const SHORTEST_TOKEN: usize = 8;

/// Keys, tokens and passwords that have a shape.
pub(super) fn shapes(text: &mut String, redactor: &Redactor) {
    let Cow::Owned(mut masked) = redactor.redact(text) else { return };
    if masked.contains("[redacted:") {
        for kind in Kind::ALL {
            if masked.contains(kind.mark()) {
                masked = masked.replace(kind.mark(), MARK);
            }
        }
    }
    *text = masked;
}

pub(super) fn pattern(text: &mut String, pattern: &Regex) {
    let mut masked: Option<String> = None;
    let mut from = 0;
    for found in pattern.find_iter(text.as_str()) {
        let (start, end) = (found.start(), found.end());
        let out = masked.get_or_insert_default();
        out.push_str(text.get(from..start).unwrap_or_default());
        out.push_str(MARK);
        from = end;
    }
    if let Some(mut out) = masked {
        out.push_str(text.get(from..).unwrap_or_default());
        *text = out;
    }
}

/// `name=value`, `name: value`, `"name": "value"`, also escaped, where the name is one of a secret.
pub(super) fn pairs(text: &mut String, names: &Names, request: bool) {
    let bytes = text.as_bytes();
    let mut masked: Option<String> = None;
    let mut from = 0;
    for at in memchr::memchr2_iter(b'=', b':', bytes) {
        if at < from {
            continue;
        }
        let colon = bytes.get(at) == Some(&b':');
        let Some(name) = name_before(text, at) else { continue };
        let verdict = names.of(name, request && !colon);
        if !matches!(verdict, Verdict::Secret | Verdict::Cookies) {
            continue;
        }
        // Of a header with cookies all is masked: each has a value.
        let line = verdict == Verdict::Cookies;
        let Some((start, end)) = value_after(bytes, at + 1, colon, line) else { continue };
        let value = text.get(start..end).unwrap_or_default();
        if value.is_empty() || value.starts_with(MARK) || (colon && !secret_word(name, value)) {
            continue;
        }
        let out = masked.get_or_insert_default();
        out.push_str(text.get(from..start).unwrap_or_default());
        out.push_str(MARK);
        from = end;
    }
    if let Some(mut out) = masked {
        out.push_str(text.get(from..).unwrap_or_default());
        *text = out;
    }
}

/// Prose has `Invalid token: unexpected end`, too.
fn secret_word(name: &str, value: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    let told =
        ["password", "passwd", "pwd", "passphrase", "secret", "key", "authorization", "cookie"]
            .iter()
            .any(|end| lower.ends_with(end));
    told || (value.len() >= SHORTEST_TOKEN && value.bytes().any(|byte| byte.is_ascii_digit()))
}

fn name_before(text: &str, at: usize) -> Option<&str> {
    let bytes = text.as_bytes();
    let byte = |at: usize| bytes.get(at).copied();
    let mut end = at;
    while end > 0
        && matches!(byte(end - 1), Some(b' ' | b'"' | b'\'' | b'\\' | b']'))
        && at - end < 6
    {
        end -= 1;
    }
    let mut start = end;
    while start > 0
        && end - start < LONGEST_NAME
        && byte(start - 1)
            .is_some_and(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'))
    {
        start -= 1;
    }
    text.get(start..end).filter(|name| !name.is_empty())
}

/// From where to where; what is in quotes as far as they reach, and all of a `line` that is one value.
fn value_after(bytes: &[u8], from: usize, colon: bool, line: bool) -> Option<(usize, usize)> {
    let byte = |at: usize| bytes.get(at).copied();
    let mut start = from;
    while matches!(byte(start), Some(b' ' | b'\\')) && start - from < 6 {
        start += 1;
    }
    // `a::b`, `https://`, `a == b`, `=>`
    if matches!(byte(start), Some(b':' | b'/' | b'=' | b'>'))
        && colon == (byte(start) != Some(b'='))
    {
        return None;
    }
    let quote = byte(start).filter(|byte| matches!(byte, b'"' | b'\''));
    if quote.is_some() {
        start += 1;
    }
    let ends = |byte: u8| match quote {
        Some(quote) => byte == quote,
        None if line => matches!(byte, b'\n' | b'\r' | b'"' | b'\''),
        None => {
            byte.is_ascii_whitespace()
                || matches!(
                    byte,
                    b'&' | b';' | b',' | b'"' | b'\'' | b')' | b'}' | b']' | b'<' | b'>'
                )
        }
    };
    // A mark ends with a bracket.
    if bytes.get(start..).is_some_and(|rest| rest.starts_with(MARK.as_bytes())) {
        return Some((start, start + MARK.len()));
    }
    let length = bytes
        .get(start..)?
        .iter()
        .take(LONGEST_VALUE)
        .position(|byte| ends(*byte))
        .unwrap_or_else(|| bytes.len().saturating_sub(start).min(LONGEST_VALUE));
    let mut end = start + length;
    while end > start && matches!(byte(end - 1), Some(b'\\' | b'.')) && quote.is_none() {
        end -= 1;
    }
    // Never within a character.
    while byte(end).is_some_and(|byte| (0x80..0xc0).contains(&byte)) {
        end += 1;
    }
    Some((start, end))
}
