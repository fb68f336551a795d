//! Minidumps: the form that crash reporters send, and the event that stands for one.

use bytes::Bytes;
use serde_json::{Map, Value, json};

use crate::credentials::from_secs;

const SIGNATURE: &[u8] = b"MDMP";
/// Where the header of a minidump has the time of the crash, in seconds since 1970.
const TIME_AT: usize = 20;
/// How deep `sentry[a][b][c]` goes.
const DEPTH: usize = 8;
/// Fields of a form that are kept.
const FIELDS: usize = 500;

/// Is it one, uncompressed?
pub(crate) fn is_minidump(content: &[u8]) -> bool {
    content.starts_with(SIGNATURE)
}

/// The event of a crash whose stack is in the file. What the client says of it stays.
pub(crate) fn event(dump: &[u8], mut said: Map<String, Value>) -> Bytes {
    let at = dump
        .get(TIME_AT..TIME_AT + 4)
        .and_then(|bytes| <[u8; 4]>::try_from(bytes).ok())
        .map(u32::from_le_bytes)
        .filter(|secs| *secs > 0)
        .and_then(|secs| from_secs(f64::from(secs)));
    let mut set = |name: &str, value: Value| {
        if said.get(name).is_none_or(Value::is_null) {
            said.insert(name.to_owned(), value);
        }
    };
    set("platform", "native".into());
    set("level", "fatal".into());
    if let Some(at) = at {
        set("timestamp", at.to_rfc3339().into());
    }
    // Until the stack has been walked, and if it cannot be.
    set(
        "exception",
        json!({"values": [{
            "type": "Minidump",
            "value": "A crash of which the minidump has not been read",
            "mechanism": {"type": "minidump", "handled": false, "synthetic": true},
        }]}),
    );
    Bytes::from(Value::Object(said).to_string())
}

/// What the fields of a form say of the crash: `sentry` has an event as JSON (`sentry__1`, `sentry__2`… when
/// it was too long for one field), `sentry[release]` parts of one; the others are facts of the program's own.
#[derive(Default)]
pub(crate) struct Fields {
    whole: String,
    parts: Vec<(u32, String)>,
    event: Map<String, Value>,
    extra: Map<String, Value>,
    count: usize,
}

impl Fields {
    pub(crate) fn add(&mut self, name: &str, value: String) {
        self.count += 1;
        if self.count > FIELDS {
            return;
        }
        if name == "sentry" {
            self.whole = value;
        } else if let Some(number) = name.strip_prefix("sentry__").and_then(|n| n.parse().ok()) {
            self.parts.push((number, value));
        } else if let Some(path) =
            name.strip_prefix("sentry[").and_then(|rest| rest.strip_suffix(']'))
        {
            let path: Vec<&str> = path.split("][").take(DEPTH + 1).collect();
            if path.len() <= DEPTH {
                insert(&mut self.event, &path, value);
            }
        } else {
            self.extra.insert(name.to_owned(), value.into());
        }
    }

    /// All of it as one event.
    pub(crate) fn event(mut self) -> Map<String, Value> {
        self.parts.sort_unstable_by_key(|(number, _)| *number);
        for (_, part) in self.parts {
            self.whole.push_str(&part);
        }
        let mut event = serde_json::from_str::<Map<String, Value>>(&self.whole).unwrap_or_default();
        for (name, value) in self.event {
            event.entry(name).or_insert(value);
        }
        if !self.extra.is_empty() {
            let extra = event.entry("extra").or_insert_with(|| json!({}));
            if let Some(extra) = extra.as_object_mut() {
                for (name, value) in self.extra {
                    extra.entry(name).or_insert(value);
                }
            }
        }
        event
    }
}

fn insert(into: &mut Map<String, Value>, path: &[&str], value: String) {
    match path {
        [] => {}
        [last] => {
            into.insert((*last).to_owned(), value.into());
        }
        [first, rest @ ..] => {
            let below = into.entry(*first).or_insert_with(|| json!({}));
            if let Some(below) = below.as_object_mut() {
                insert(below, rest, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(bytes: &[u8]) -> Value {
        serde_json::from_slice(bytes).unwrap()
    }

    #[test]
    fn an_event_of_a_minidump_says_when_it_was_and_what_it_is() {
        let mut dump = b"MDMP\x93\xa7\0\0".to_vec();
        dump.resize(32, 0);
        dump[20..24].copy_from_slice(&1_700_000_000_u32.to_le_bytes());
        assert!(is_minidump(&dump));
        let said = json!({"release": "a@1", "level": "error"});
        let event = json(&event(&dump, said.as_object().unwrap().clone()));
        assert_eq!(event["timestamp"], "2023-11-14T22:13:20+00:00");
        assert_eq!((&event["release"], &event["level"]), (&"a@1".into(), &"error".into()));
        assert_eq!(event["platform"], "native");
        assert_eq!(event["exception"]["values"][0]["mechanism"]["type"], "minidump");
        for short in [&b""[..], b"MDMP", &dump[..21]] {
            assert!(json(&super::event(short, Map::new())).get("timestamp").is_none());
        }
    }

    #[test]
    fn fields_of_a_form_become_an_event() {
        let mut fields = Fields::default();
        for (name, value) in [
            ("sentry__2", r#""a@1"}"#),
            ("sentry__1", r#"{"release":"#),
            ("sentry[tags][os]", "linux"),
            ("sentry[release]", "loses"),
            ("ptype", "browser"),
            ("sentry[a][b][c][d][e][f][g][h][i]", "too deep"),
        ] {
            fields.add(name, value.to_owned());
        }
        let expected = json!({
            "release": "a@1", "tags": {"os": "linux"}, "extra": {"ptype": "browser"},
        });
        assert_eq!(Value::Object(fields.event()), expected);
    }
}
