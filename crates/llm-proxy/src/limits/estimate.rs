//! What a request may use, before a model has said anything.

use serde_json::value::RawValue;

/// Bytes of a usual text, its JSON included, that make a token.
const BYTES_PER_TOKEN: usize = 4;
/// A string of at least so many bytes without a blank in its beginning is an image or a document.
const BINARY: usize = 1024;
/// What an image costs at most with the vendors' usual sizes.
const BINARY_TOKENS: u64 = 1600;
/// Images of one request that are looked for.
const SMALL: usize = 16 << 10;

/// The tokens of a request's body, roughly: a quarter of its bytes, and a fixed number for each image.
pub(crate) fn input_estimate(body: &[u8]) -> u64 {
    let tokens = |bytes: usize| u64::try_from(bytes / BYTES_PER_TOKEN).unwrap_or(u64::MAX);
    if body.len() < SMALL {
        return tokens(body.len()) + 1;
    }
    let mut binary = 0;
    let mut images = 0_u64;
    let mut before = 0;
    for quote in memchr::memchr_iter(b'"', body) {
        let string = body.get(before..quote).unwrap_or_default();
        before = quote + 1;
        let head = string.get(..BINARY).unwrap_or_default();
        // Texts of some languages have no spaces either.
        let is_binary = head.is_ascii() && memchr::memchr3(b' ', b'\\', b'{', head).is_none();
        if !head.is_empty() && is_binary {
            binary += string.len();
            images += 1;
        }
    }
    tokens(body.len() - binary) + images * BINARY_TOKENS + 1
}

/// The most tokens that a request lets a model answer with, whatever its wire calls it; `n` answers have
/// so many each.
pub(crate) fn max_output(limits: [Option<&RawValue>; 3], n: Option<&RawValue>) -> Option<u64> {
    let number = |raw: &RawValue| raw.get().parse::<u64>().ok();
    let limit = limits.into_iter().flatten().find_map(number)?;
    Some(limit.saturating_mul(n.and_then(number).unwrap_or(1).max(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_counted_by_its_bytes_and_an_image_once() {
        assert_eq!(input_estimate(&[b'a'; 400]), 101);
        let text = format!("{{\"text\":\"{}\"}}", "some words ".repeat(4000));
        assert_eq!(input_estimate(text.as_bytes()), text.len() as u64 / 4 + 1);
        let image = format!("{{\"data\":\"{}\"}}", "iVBORw0KGgo".repeat(100_000));
        assert_eq!(input_estimate(image.as_bytes()), 11 / 4 + 1600 + 1);
        let unspaced = format!("{{\"text\":\"{}\"}}", "天気はどうですか".repeat(4000));
        assert_eq!(input_estimate(unspaced.as_bytes()), unspaced.len() as u64 / 4 + 1);
    }

    #[test]
    fn the_limit_of_any_wire_is_found_and_counts_for_each_answer() {
        let raw = |text: &str| RawValue::from_string(text.to_owned()).unwrap();
        let (limit, three, word) = (raw("100"), raw("3"), raw("\"100\""));
        assert_eq!(max_output([None, Some(&limit), None], Some(&three)), Some(300));
        assert_eq!(max_output([None, None, Some(&limit)], None), Some(100));
        assert_eq!(max_output([Some(&word), None, None], None), None);
        assert_eq!(max_output([None; 3], Some(&three)), None);
    }
}
