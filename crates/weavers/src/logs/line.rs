//! Lines: as the cluster gives them, and as they are kept.

use chrono::{DateTime, Utc};
use loom_core::{Error, Result, text};
use serde::{Deserialize, Serialize};

use crate::pod::CONTAINER;

/// Of a line; what is longer is cut.
pub(super) const LONGEST: usize = 16 * 1024;
/// Beside its text, in what a log may take.
const OVERHEAD: usize = 32;
/// More than a chunk unpacks to, with its lines as JSON.
const UNPACKED: usize = 1024 * 1024;
const LEVEL: i32 = 1;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Line {
    pub(super) at: DateTime<Utc>,
    #[serde(default = "main", skip_serializing_if = "is_main")]
    pub(super) container: String,
    pub(super) text: String,
}

fn main() -> String {
    CONTAINER.to_owned()
}

fn is_main(name: &str) -> bool {
    name == CONTAINER
}

impl Line {
    /// `2027-01-01T00:00:00.000000000Z text`; what has no time in front has that of the line before.
    pub(super) fn parse(bytes: &[u8], container: &str, last: DateTime<Utc>) -> Self {
        let line = String::from_utf8_lossy(bytes);
        let line = line.trim_end_matches(['\n', '\r']);
        let parsed = line
            .split_once(' ')
            .or(Some((line, "")))
            .and_then(|(at, rest)| Some((DateTime::parse_from_rfc3339(at).ok()?.to_utc(), rest)));
        let (at, rest) = parsed.unwrap_or((last, line));
        let text = text::cut(rest, LONGEST).replace('\0', "");
        Self { at, container: container.to_owned(), text }
    }

    pub(super) fn bytes(&self) -> usize {
        self.text.len() + OVERHEAD
    }

    /// Of the text, for telling lines of the same time apart.
    pub(super) fn digest(&self) -> u64 {
        use std::hash::{DefaultHasher, Hash as _, Hasher as _};
        let mut hasher = DefaultHasher::new();
        self.text.hash(&mut hasher);
        hasher.finish()
    }
}

/// Masks line by line; of a private key all its lines.
#[derive(Default)]
pub(super) struct Mask {
    /// Lines of a key that were seen.
    in_key: usize,
}

/// No key has so many lines: what says that it begins and never that it ends hides no more than these.
const KEY_LINES: usize = 200;

impl Mask {
    pub(super) fn apply(&mut self, line: &mut Line) {
        if self.in_key > 0 {
            let ends = line.text.contains("-----END ");
            self.in_key = if ends || self.in_key >= KEY_LINES { 0 } else { self.in_key + 1 };
            "[redacted:private_key]".clone_into(&mut line.text);
            return;
        }
        if let Some(at) = line.text.find("-----BEGIN ")
            && line
                .text
                .get(at..)
                .is_some_and(|rest| rest.contains("PRIVATE KEY") && !rest.contains("-----END "))
        {
            self.in_key = 1;
            let before =
                loom_redact::shared().redact(line.text.get(..at).unwrap_or_default()).into_owned();
            line.text = before + "[redacted:private_key]";
            return;
        }
        if let std::borrow::Cow::Owned(masked) = loom_redact::shared().redact(&line.text) {
            line.text = masked;
        }
    }
}

/// # Errors
/// When it cannot be packed.
pub(super) fn pack(lines: &[Line]) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    for line in lines {
        serde_json::to_writer(&mut text, line).map_err(Error::internal)?;
        text.push(b'\n');
    }
    zstd::bulk::compress(&text, LEVEL).map_err(Error::internal)
}

/// # Errors
/// When it is not what [`pack`] made.
pub(super) fn unpack(body: &[u8]) -> Result<Vec<Line>> {
    let text = zstd::bulk::decompress(body, UNPACKED).map_err(Error::internal)?;
    let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines.map(|line| serde_json::from_slice(line).map_err(Error::internal)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> Line {
        let at = DateTime::from_timestamp(1_800_000_000, 5).unwrap();
        Line { at, container: CONTAINER.to_owned(), text: text.to_owned() }
    }

    #[test]
    fn a_line_is_taken_apart_whatever_is_in_it() {
        let last = line("").at;
        let of = |bytes: &[u8]| Line::parse(bytes, CONTAINER, last);
        let whole = of(b"2027-01-15T08:00:00.000000005Z hello  world\r\n");
        assert_eq!(whole, line("hello  world"));
        assert_eq!(of(b"2027-01-15T08:00:00.000000005Z ").text, "");
        assert_eq!(of(b"2027-01-15T08:00:00.000000005Z").text, "");
        assert_eq!(of(b"no time\0 here"), line("no time here"));
        assert_eq!(of(b"\xff\xfe"), line("\u{fffd}\u{fffd}"));
        let long = [b"2027-01-15T08:00:00Z ".as_slice(), "ü".repeat(LONGEST).as_bytes()].concat();
        assert_eq!(of(&long).text.len(), LONGEST);
    }

    #[test]
    fn chunks_come_back_as_they_were_packed() {
        let lines = vec![line("one"), Line { container: "clone".to_owned(), ..line("two\n\"") }];
        assert_eq!(unpack(&pack(&lines).unwrap()).unwrap(), lines);
        assert!(unpack(b"no chunk").is_err());
    }

    #[test]
    fn a_private_key_is_masked_over_all_its_lines_and_no_further() {
        let mut mask = Mask::default();
        let mut masked = |text: &str| {
            let mut line = line(text);
            mask.apply(&mut line);
            line.text
        };
        let key =
            ["key: -----BEGIN RSA PRIVATE KEY-----", "MIIEow", "-----END RSA PRIVATE KEY-----"];
        assert_eq!(masked(key[0]), "key: [redacted:private_key]");
        assert_eq!(masked(key[1]), "[redacted:private_key]");
        assert_eq!(masked(key[2]), "[redacted:private_key]");
        assert_eq!(masked("plain"), "plain");
    }
}
