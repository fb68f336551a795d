//! A message without what differs from one time to the next.

use std::{net::Ipv6Addr, sync::LazyLock};

use regex_automata::{Anchored, Input, PatternID, meta::Regex};

/// Longer lines are cut.
const LONGEST: usize = 2_000;
const LINES: usize = 2;

/// Whether what was found is what it looks like.
#[derive(Clone, Copy)]
enum Check {
    Any,
    /// Letters and digits do not go on before or behind it.
    Alone,
    Ipv6,
    /// Hexadecimal digits, of both kinds.
    Mixed,
    /// Letters and digits change often: not a word with a number.
    Id,
    /// As `Alone`, but an underscore is no letter.
    Number,
}

/// What it stands as, how it looks, how it is looked at. Where two begin at one place the first wins.
const KINDS: &[(&str, &str, Check)] = &[
    (
        "<email>",
        r"[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}){1,8}",
        Check::Any,
    ),
    ("<url>", r#"[A-Za-z][A-Za-z0-9+.-]{1,20}://[^\s"'<>`|\\^{}]{1,2000}"#, Check::Any),
    ("<traceparent>", r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}", Check::Alone),
    (
        "<uuid>",
        r"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}",
        Check::Alone,
    ),
    ("<sha256>", r"[0-9a-fA-F]{64}", Check::Alone),
    ("<sha1>", r"[0-9a-fA-F]{40}", Check::Alone),
    ("<md5>", r"[0-9a-fA-F]{32}", Check::Alone),
    (
        "<date>",
        r"[0-9]{4}-[0-9]{2}-[0-9]{2}(?:[T ][0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:[.,][0-9]{1,9})?)?(?: ?(?:Z|UTC|[+-][0-9]{2}:?[0-9]{2}))?)?",
        Check::Alone,
    ),
    (
        "<date>",
        r"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun),? (?:[0-9]{1,2} )?(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) [0-9]{1,4}(?: [0-9]{2}:[0-9]{2}:[0-9]{2})?(?: [0-9]{4})?(?: (?:GMT|UTC)?(?:[+-][0-9]{4})?)?",
        Check::Any,
    ),
    (
        "<date>",
        r"(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)[a-z]{0,6} [0-9]{1,2},? [0-9]{2,4}(?::[0-9]{2}:[0-9]{2})?",
        Check::Alone,
    ),
    (
        "<date>",
        r"[0-9]{1,2}[/.][0-9]{1,2}[/.][0-9]{4}(?: [0-9]{2}:[0-9]{2}(?::[0-9]{2})?)?",
        Check::Alone,
    ),
    (
        "<date>",
        r"[0-9]{1,2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]{1,9})?)?(?: ?[AaPp][Mm])?",
        Check::Alone,
    ),
    (
        "<duration>",
        r"[0-9]+(?:\.[0-9]+)? ?(?:ns|us|µs|ms|milliseconds?|msecs?|seconds?|secs?|minutes?|mins?|hours?|hrs?|days?|weeks?)",
        Check::Alone,
    ),
    ("<duration>", r"(?:[0-9]+[dhms]){1,4}(?:[0-9]+ms)?|[0-9]+\.[0-9]+[dhms]", Check::Alone),
    (
        "<ip>",
        r"(?:(?:25[0-5]|2[0-4][0-9]|1?[0-9]{1,2})\.){3}(?:25[0-5]|2[0-4][0-9]|1?[0-9]{1,2})",
        Check::Alone,
    ),
    ("<ip>", r"[0-9a-fA-F]{0,4}(?::[0-9a-fA-F]{0,4}){2,7}", Check::Ipv6),
    ("<hex>", r"0[xX][0-9a-fA-F]+", Check::Alone),
    ("<hex>", r"[0-9a-f]{7,128}|[0-9A-F]{7,128}", Check::Mixed),
    ("<id>", r"[A-Za-z0-9]{8,128}", Check::Id),
    ("=<quoted>", r#"=(?:"[^"\n]{0,500}"|'[^'\n]{0,500}')"#, Check::Any),
    ("=<bool>", r"=(?:[Tt]rue|[Ff]alse|TRUE|FALSE)", Check::Alone),
    ("<float>", r"[+-]?[0-9]+\.[0-9]+(?:[eE][+-]?[0-9]+)?", Check::Number),
    ("<int>", r"[+-]?[0-9]+", Check::Number),
];

/// One automaton for all. Of the patterns above it is always made, as a test sees.
static SCANNER: LazyLock<Option<Regex>> = LazyLock::new(|| {
    let patterns: Vec<_> = KINDS.iter().map(|(_, pattern, _)| *pattern).collect();
    Regex::new_many(&patterns).ok()
});

/// The first two lines that are not empty, with words for numbers, ids, addresses, times.
pub(super) fn parameterised(message: &str) -> String {
    let lines: Vec<_> =
        message.lines().map(str::trim).filter(|line| !line.is_empty()).take(LINES).collect();
    let lines = lines.join("\n");
    let text = lines.get(..lines.floor_char_boundary(LONGEST)).unwrap_or_default();
    let Some(scanner) = SCANNER.as_ref() else { return text.to_owned() };
    let mut out = String::with_capacity(text.len());
    let (mut copied, mut from) = (0, 0);
    while let Some(found) = scanner.find(Input::new(text).range(from..)) {
        let start = found.start();
        let first = found.pattern().as_usize();
        let is = |at: usize, end| {
            let (name, _, check) = KINDS.get(at)?;
            check.end(text, start, end).map(|end| (*name, end))
        };
        // What looks like one kind and is not may be another: `9d8e7f` is no duration.
        let other = |at| {
            let pattern = PatternID::new(at).ok()?;
            let input = Input::new(text).range(start..).anchored(Anchored::Pattern(pattern));
            is(at, scanner.find(input)?.end())
        };
        match is(first, found.end()).or_else(|| (first + 1..KINDS.len()).find_map(other)) {
            Some((name, end)) => {
                out.push_str(text.get(copied..start).unwrap_or_default());
                out.push_str(name);
                (copied, from) = (end, end);
            }
            None => from = after_run(text, start),
        }
    }
    out.push_str(text.get(copied..).unwrap_or_default());
    out
}

/// Where to look on after something that was not what it looked like: behind the run of letters or of
/// digits that it began with, as `500ERR` is no number, but may be followed by one.
fn after_run(text: &str, start: usize) -> usize {
    let rest = text.get(start..).unwrap_or_default();
    let first = rest.chars().next();
    let same = |c: char| match first {
        Some(first) if first.is_ascii_digit() => c.is_ascii_digit(),
        Some(first) if first.is_ascii_alphabetic() => c.is_ascii_alphabetic(),
        _ => false,
    };
    let length = rest.find(|c| !same(c)).unwrap_or(rest.len());
    start + length.max(first.map_or(1, char::len_utf8))
}

impl Check {
    /// Where it ends, when it is one.
    fn end(self, text: &str, start: usize, end: usize) -> Option<usize> {
        let before = text.get(..start).and_then(|text| text.chars().next_back());
        let after = text.get(end..).and_then(|text| text.chars().next());
        let found = text.get(start..end).unwrap_or_default();
        let word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
        let letter = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
        // The sign of `=true` and of `-5` is no part of the word before it.
        let sign = found.starts_with(['=', '+', '-']);
        let is = match self {
            Self::Any => true,
            Self::Alone => (sign || !word(before)) && !word(after),
            Self::Number => (sign || !letter(before)) && !letter(after),
            Self::Mixed => {
                let digits = found.bytes().filter(u8::is_ascii_digit).count();
                digits > 0 && digits < found.len() && !letter(before) && !letter(after)
            }
            Self::Id => changes(found) >= 4 && !letter(before) && !letter(after),
            Self::Ipv6 => {
                let trimmed = found.strip_suffix(':').filter(|text| !text.ends_with(':'));
                let ip = trimmed.unwrap_or(found);
                let digit = ip.bytes().any(|byte| byte.is_ascii_digit());
                return (digit && !word(before) && ip.parse::<Ipv6Addr>().is_ok())
                    .then_some(start + ip.len());
            }
        };
        is.then_some(end)
    }
}

/// How often letters become digits, or digits letters.
fn changes(text: &str) -> usize {
    let kinds = text.bytes().map(|byte| byte.is_ascii_digit());
    kinds.clone().zip(kinds.skip(1)).filter(|(one, other)| one != other).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_kinds_are_found() {
        assert!(SCANNER.is_some());
        for (message, expected) in [
            ("order 4711 failed", "order <int> failed"),
            ("order -4711.50 failed", "order <float> failed"),
            ("user_123 not found", "user_<int> not found"),
            ("job-42 died", "job<int> died"),
            ("utf8 and sha256 and s3 stay", "utf8 and sha256 and s3 stay"),
            ("mail to ann.b+c@example.org bounced", "mail to <email> bounced"),
            ("GET https://e.org/a/1?b=2 failed", "GET <url> failed"),
            ("id 0192f3c4-7d1e-7c3a-9b2f-8a1d5e6f7a8b", "id <uuid>"),
            ("at 0x7fff1234", "at <hex>"),
            ("commit 4f2a9c1b gone", "commit <hex> gone"),
            ("the facade decade", "the facade decade"),
            ("sum d41d8cd98f00b204e9800998ecf8427e", "sum <md5>"),
            ("sum da39a3ee5e6b4b0d3255bfef95601890afd80709", "sum <sha1>"),
            ("at 2026-05-01T12:00:00.123Z!", "at <date>!"),
            ("at 2026-05-01 12:00:00,123", "at <date>"),
            ("on Mon, 02 Jan 2006 15:04:05 +0000 x", "on <date> x"),
            ("on May 12, 2026", "on <date>"),
            ("after 30s", "after <duration>"),
            ("after 1h2m3s", "after <duration>"),
            ("after 1.5 seconds", "after <duration>"),
            ("took 300ms", "took <duration>"),
            ("from 10.0.0.1:5432", "from <ip>:<int>"),
            ("from 2001:db8::1", "from <ip>"),
            ("std::io::Error", "std::io::Error"),
            ("add::be", "add::be"),
            ("name='x y' flag=true", "name=<quoted> flag=<bool>"),
            ("KeyError: 'email'", "KeyError: 'email'"),
            ("customer cus_Nf8s0dk2P1 gone", "customer cus_<id> gone"),
            ("Component1Handler2 x", "Component1Handler2 x"),
            ("ärger 5 mal", "ärger <int> mal"),
            ("\n\n a 1 \n\n b 2\n c 3", "a <int>\nb <int>"),
            ("404x and 5xx", "404x and 5xx"),
        ] {
            assert_eq!(parameterised(message), expected, "{message}");
        }
    }

    #[test]
    fn what_stands_for_something_is_left() {
        for message in ["order 4711 of ann@e.org at 10.0.0.1", "a=1 b='x' c=true 1.5s"] {
            let once = parameterised(message);
            assert_eq!(parameterised(&once), once);
        }
    }
}
