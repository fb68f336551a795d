//! The one thing that is changed on the way: an OpenAI chat stream whose client did not ask for usage
//! gets `stream_options.include_usage`, and the one extra chunk that this brings is withheld.

use bytes::Bytes;
use memchr::memmem;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value, value::RawValue};

/// For a member that may be absent, but is there when it is null.
pub(crate) fn present<'de: 'a, 'a, D: Deserializer<'de>>(
    value: D,
) -> Result<Option<&'a RawValue>, D::Error> {
    <&RawValue>::deserialize(value).map(Some)
}

/// The body with usage asked for; `None` when it is asked for already, or when the body is none that
/// can be changed (then the provider will say what is wrong with it).
pub(crate) fn ask_for_usage(body: &str, options: Option<&RawValue>) -> Option<Bytes> {
    let Some(options) = options else {
        let rest = body.trim_start().strip_prefix('{')?;
        return Some(format!("{{\"stream_options\":{{\"include_usage\":true}},{rest}").into());
    };
    let mut members = match serde_json::from_str::<Value>(options.get()).ok()? {
        Value::Object(members) => members,
        Value::Null => Map::new(),
        _ => return None,
    };
    if members.get("include_usage") == Some(&Value::Bool(true)) {
        return None;
    }
    members.insert("include_usage".to_owned(), Value::Bool(true));
    replace(body, options, &Value::Object(members).to_string())
}

/// The body with one value replaced; every other byte stays as it came.
pub(crate) fn replace(body: &str, value: &RawValue, by: &str) -> Option<Bytes> {
    let at = (value.get().as_ptr() as usize).checked_sub(body.as_ptr() as usize)?;
    let (before, after) = (body.get(..at)?, body.get(at + value.get().len()..)?);
    Some([before, by, after].concat().into())
}

/// Is this the chunk that only brings usage?
pub(crate) fn is_usage_chunk(frame: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Chunk<'a> {
        #[serde(borrow)]
        choices: Vec<&'a RawValue>,
        #[serde(borrow)]
        usage: Option<&'a RawValue>,
    }
    if memmem::find(frame, b"\"usage\"").is_none() {
        return false;
    }
    let text = String::from_utf8_lossy(frame);
    let Some(data) = text.lines().find_map(|line| line.strip_prefix("data:")) else { return false };
    serde_json::from_str::<Chunk<'_>>(data).is_ok_and(|chunk| {
        chunk.choices.is_empty() && chunk.usage.is_some_and(|usage| usage.get() != "null")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize)]
    struct Head<'a> {
        #[serde(borrow, default, deserialize_with = "present")]
        stream_options: Option<&'a RawValue>,
    }

    fn asked(body: &str) -> Option<String> {
        let head: Head<'_> = serde_json::from_str(body).unwrap();
        ask_for_usage(body, head.stream_options)
            .map(|bytes| String::from_utf8(bytes.to_vec()).unwrap())
    }

    #[test]
    fn usage_is_asked_for_and_no_other_byte_changes() {
        assert_eq!(
            asked(r#" { "model" : "x" }"#).unwrap(),
            r#"{"stream_options":{"include_usage":true}, "model" : "x" }"#
        );
        assert_eq!(
            asked(r#"{"a":1,"stream_options": {"include_usage":false} ,"b":2.50}"#).unwrap(),
            r#"{"a":1,"stream_options": {"include_usage":true} ,"b":2.50}"#
        );
        assert_eq!(
            asked(r#"{"stream_options":null}"#).unwrap(),
            r#"{"stream_options":{"include_usage":true}}"#
        );
        assert_eq!(asked(r#"{"stream_options":{"include_usage":true}}"#), None);
        assert_eq!(asked(r#"{"stream_options":"what"}"#), None);
    }

    #[test]
    fn only_the_chunk_with_usage_and_without_choices_is_the_usage_chunk() {
        assert!(is_usage_chunk(b"data: {\"choices\":[],\"usage\":{\"prompt_tokens\":1}}\n\n"));
        assert!(!is_usage_chunk(b"data: {\"choices\":[],\"usage\":null}\n\n"));
        assert!(!is_usage_chunk(
            b"data: {\"choices\":[{\"delta\":{}}],\"usage\":{\"prompt_tokens\":1}}\n\n"
        ));
        assert!(!is_usage_chunk(b"data: [DONE]\n\n"));
    }
}
