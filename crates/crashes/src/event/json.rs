//! JSON as applications write it, which is not always JSON.

use serde_json::Value;

/// The object in a payload. Texts that were cut within a character (half of a UTF-16 pair, broken UTF-8)
/// get a replacement character there.
pub(crate) fn object(payload: &[u8]) -> Result<Value, String> {
    let value = serde_json::from_slice(payload).or_else(|error: serde_json::Error| {
        repaired(payload).and_then(|text| serde_json::from_str(&text).ok()).ok_or(error)
    });
    match value {
        Ok(value @ Value::Object(_)) => Ok(value),
        Ok(other) => Err(format!("the payload is {}, not an object", super::read::kind(&other))),
        Err(error) => Err(format!("the payload is not JSON: {error}")),
    }
}

/// None when there is nothing to repair.
fn repaired(payload: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(payload);
    let mut out = String::with_capacity(text.len());
    let mut rest = text.as_ref();
    while let Some(at) = rest.find('\\') {
        let (before, escape) = rest.split_at(at);
        out.push_str(before);
        let unit = unit(escape);
        let (kept, length) = match unit {
            Some(0xd800..=0xdbff) => match escape.get(6..).and_then(unit_of) {
                Some(0xdc00..=0xdfff) => (escape.get(..12), 12),
                _ => (Some("\\ufffd"), 6),
            },
            Some(0xdc00..=0xdfff) => (Some("\\ufffd"), 6),
            _ => {
                let length = 1 + escape.chars().nth(1).map_or(0, char::len_utf8);
                (escape.get(..length), length)
            }
        };
        out.push_str(kept.unwrap_or_default());
        rest = escape.get(length..).unwrap_or_default();
    }
    out.push_str(rest);
    (out.as_bytes() != payload).then_some(out)
}

fn unit_of(text: &str) -> Option<u16> {
    unit(text)
}

/// Of `\uXXXX` at the beginning of a text.
fn unit(text: &str) -> Option<u16> {
    u16::from_str_radix(text.strip_prefix("\\u")?.get(..4)?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_cut_within_a_character_is_read() {
        let found = object(br#"{"a":"x\ud83d","b":"\ud83d\ude00","c":"\\ud83d","d":"\ude00y"}"#);
        let found = found.unwrap();
        assert_eq!(found["a"], "x\u{fffd}");
        assert_eq!(found["b"], "😀");
        assert_eq!(found["c"], "\\ud83d");
        assert_eq!(found["d"], "\u{fffd}y");
        assert_eq!(object(b"{\"a\":\"\xff\"}").unwrap()["a"], "\u{fffd}");
    }

    #[test]
    fn what_is_no_object_says_so() {
        assert_eq!(object(b"[1]").unwrap_err(), "the payload is a list, not an object");
        assert!(object(b"{").unwrap_err().starts_with("the payload is not JSON"));
    }
}
