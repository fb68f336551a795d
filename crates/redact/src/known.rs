//! The forms in which a configured value may turn up in a text.

use base64::{Engine, engine::general_purpose};

use crate::kind::Kind;

/// Shorter values are words: masking them would make texts unreadable, and tell what they are.
const SHORTEST: usize = 8;
/// A longer form is looked for piecewise, so that a stream never has to hold it whole.
const PIECE: usize = 1024;

/// The patterns for one value; in lower case, for they are compared without regard to case.
pub(crate) fn patterns(value: &str) -> Vec<String> {
    let value = value.trim();
    if value.chars().count() < SHORTEST {
        return Vec::new();
    }
    let mut forms = vec![value.to_owned(), json_escaped(value)];
    forms.extend(url_encoded(value));
    forms.extend(base64_middles(value.as_bytes()));
    let mut patterns: Vec<String> = forms
        .iter()
        .flat_map(|form| pieces(form))
        .map(str::to_ascii_lowercase)
        .filter(|piece| !Kind::ALL.iter().any(|kind| kind.mark().contains(piece.as_str())))
        .collect();
    patterns.sort();
    patterns.dedup();
    patterns
}

fn json_escaped(value: &str) -> String {
    let quoted = serde_json::Value::from(value).to_string();
    quoted.get(1..quoted.len() - 1).unwrap_or(value).to_owned()
}

/// Encoders disagree about what they leave alone: RFC 3986, `encodeURIComponent`, forms, and paths.
fn url_encoded(value: &str) -> [String; 4] {
    let encode = |plain: &[u8], plus: bool| {
        let mut encoded = String::with_capacity(value.len() * 3);
        for byte in value.bytes() {
            if byte.is_ascii_alphanumeric() || plain.contains(&byte) {
                encoded.push(char::from(byte));
            } else if plus && byte == b' ' {
                encoded.push('+');
            } else {
                encoded.push_str(&format!("%{byte:02x}"));
            }
        }
        encoded
    };
    [
        encode(b"-_.~", false),
        encode(b"-_.!~*'()", false),
        encode(b"-_.*", true),
        encode(b"-_.~!$&'()*+,;=:@/", false),
    ]
}

/// A value inside of something encoded as base64 begins at one of three offsets. Of each, the part
/// that depends on nothing but the value; what is left of it at the ends holds at most four bits.
fn base64_middles(value: &[u8]) -> Vec<String> {
    let mut middles = Vec::with_capacity(6);
    for (offset, skip) in [(0, 0), (1, 2), (2, 3)] {
        let mut padded = vec![0; offset];
        padded.extend_from_slice(value);
        let complete = padded.len() * 8 / 6;
        for engine in [general_purpose::STANDARD_NO_PAD, general_purpose::URL_SAFE_NO_PAD] {
            let encoded = engine.encode(&padded);
            middles.extend(encoded.get(skip..complete).map(str::to_owned));
        }
    }
    middles
}

fn pieces(form: &str) -> Vec<&str> {
    let mut pieces = Vec::new();
    let mut rest = form;
    while rest.len() >= 2 * PIECE {
        let (piece, after) = rest.split_at(rest.ceil_char_boundary(PIECE));
        pieces.push(piece);
        rest = after;
    }
    pieces.push(rest);
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_is_found_at_every_offset() {
        let secret = "correct horse battery";
        let middles = base64_middles(secret.as_bytes());
        for before in ["", "a", "ab", "abc", "abcd"] {
            for after in ["", "z", "zy", "zyx"] {
                let encoded = general_purpose::STANDARD.encode(format!("{before}{secret}{after}"));
                assert!(
                    middles.iter().any(|middle| encoded.contains(middle.as_str())),
                    "{encoded}"
                );
            }
        }
    }

    #[test]
    fn words_and_the_marks_themselves_are_not_looked_for() {
        assert!(patterns("short").is_empty());
        assert!(!patterns("redacted").contains(&"redacted".to_owned()));
    }

    #[test]
    fn a_long_value_is_looked_for_piecewise() {
        let long = "ä1b".repeat(3000);
        assert!(patterns(&long).iter().all(|pattern| pattern.len() < 2 * PIECE + 4));
    }
}
