//! The framing of envelopes: a line of JSON, then items of a line of JSON and a payload. Payloads are
//! slices of the body. Only `\n` ends a line.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

use crate::body::MAX_LINE;

/// Of the first line. Members of another form than they should have count as absent.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Header {
    event_id: Value,
    dsn: Value,
    sdk: Value,
    sent_at: Value,
}

impl Header {
    /// The first line; blank ones before it do not count.
    pub(crate) fn parse(line: &[u8]) -> Result<Self, Malformed> {
        object(line).ok_or(Malformed("the envelope does not begin with a header, a JSON object"))
    }

    pub(crate) fn event_id(&self) -> Option<Uuid> {
        id(&self.event_id)
    }

    pub(crate) fn dsn(&self) -> Option<&str> {
        self.dsn.as_str()
    }

    pub(crate) fn sent_at(&self) -> Option<&str> {
        self.sent_at.as_str()
    }

    /// Name and version, as `sentry.python/2.1.0`.
    pub(crate) fn sdk(&self) -> Option<String> {
        let name = self.sdk.get("name")?.as_str()?;
        let version = self.sdk.get("version").and_then(Value::as_str);
        Some(version.map_or_else(|| name.to_owned(), |version| format!("{name}/{version}")))
    }
}

/// An id in 32 digits or with dashes; the nil id is none.
pub(crate) fn id(value: &Value) -> Option<Uuid> {
    value.as_str()?.trim().parse().ok().filter(|id: &Uuid| !id.is_nil())
}

/// Of an item. Members of another form than they should have count as absent.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ItemHeader {
    #[serde(rename = "type")]
    kind: Value,
    length: Value,
    filename: Value,
    content_type: Value,
    attachment_type: Value,
}

/// One item.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    header: ItemHeader,
    pub(crate) payload: Bytes,
}

impl Item {
    pub(crate) fn kind(&self) -> &str {
        self.header.kind.as_str().unwrap_or_default()
    }

    pub(crate) fn filename(&self) -> Option<&str> {
        self.header.filename.as_str()
    }

    pub(crate) fn content_type(&self) -> Option<&str> {
        self.header.content_type.as_str()
    }

    pub(crate) fn attachment_type(&self) -> &str {
        self.header.attachment_type.as_str().unwrap_or("event.attachment")
    }
}

/// Why a part of an envelope cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed(pub(crate) &'static str);

/// The items of a body, the first line of which is the envelope's. An item with a header that cannot be
/// read costs no other; a length that is wrong ends it, for nobody can tell what follows.
#[derive(Clone, Debug)]
pub(crate) struct Items(Bytes);

impl Items {
    pub(crate) fn new(body: &Bytes) -> Self {
        let mut rest = body.clone();
        let _ = line(&mut rest);
        Self(rest)
    }
}

impl Iterator for Items {
    type Item = Result<Item, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        let head = loop {
            if self.0.is_empty() {
                return None;
            }
            let head = line(&mut self.0);
            if !head.iter().all(u8::is_ascii_whitespace) {
                break head;
            }
        };
        let Some(header) = object::<ItemHeader>(&head) else {
            let _ = line(&mut self.0);
            return Some(Err(Malformed("an item does not begin with a header, a JSON object")));
        };
        let payload = match &header.length {
            Value::Null => line(&mut self.0),
            length => match length.as_u64().and_then(|length| usize::try_from(length).ok()) {
                Some(length) if length <= self.0.len() => {
                    let payload = self.0.split_to(length);
                    match self.0.first() {
                        None => {}
                        Some(b'\n') => drop(self.0.split_to(1)),
                        Some(_) => {
                            self.0.clear();
                            return Some(Err(Malformed("an item is longer than its `length`")));
                        }
                    }
                    payload
                }
                Some(_) => {
                    self.0.clear();
                    return Some(Err(Malformed("an item is shorter than its `length`")));
                }
                None => {
                    self.0.clear();
                    return Some(Err(Malformed("the `length` of an item is not a number")));
                }
            },
        };
        if !header.kind.is_string() {
            return Some(Err(Malformed("an item has no `type`")));
        }
        Some(Ok(Item { header, payload }))
    }
}

/// Takes a line away, without its end.
fn line(rest: &mut Bytes) -> Bytes {
    match memchr::memchr(b'\n', rest) {
        Some(at) => {
            let line = rest.split_to(at);
            drop(rest.split_to(1));
            line
        }
        None => std::mem::take(rest),
    }
}

/// A JSON object and nothing else.
fn object<'de, T: Deserialize<'de>>(line: &'de [u8]) -> Option<T> {
    let line = line.trim_ascii();
    // Of a list serde would make a structure, too.
    (line.len() <= MAX_LINE && line.first() == Some(&b'{'))
        .then(|| serde_json::from_slice(line).ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn items(body: &str) -> Vec<Result<(String, String), &'static str>> {
        Items::new(&Bytes::copy_from_slice(body.as_bytes()))
            .map(|item| match item {
                Ok(item) => {
                    let payload = String::from_utf8_lossy(&item.payload).into_owned();
                    Ok((item.kind().to_owned(), payload))
                }
                Err(Malformed(why)) => Err(why),
            })
            .collect()
    }

    fn ok(kind: &str, payload: &str) -> Result<(String, String), &'static str> {
        Ok((kind.to_owned(), payload.to_owned()))
    }

    #[test]
    fn items_are_framed_by_length_or_by_line() {
        let cases = [
            ("{}", vec![]),
            ("{}\n", vec![]),
            ("{}\n\n", vec![]),
            ("{}\n{\"type\":\"event\"}\n{\"a\":1}", vec![ok("event", "{\"a\":1}")]),
            ("{}\n{\"type\":\"event\"}\n{\"a\":1}\n", vec![ok("event", "{\"a\":1}")]),
            (
                "{}\n{\"type\":\"a\",\"length\":3}\nx\ny\n{\"type\":\"b\"}\nz",
                vec![ok("a", "x\ny"), ok("b", "z")],
            ),
            ("{}\n{\"type\":\"a\",\"length\":2}\nxy", vec![ok("a", "xy")]),
            (
                "{}\n{\"type\":\"a\",\"length\":0}\n\n{\"type\":\"b\",\"length\":0}",
                vec![ok("a", ""), ok("b", "")],
            ),
            ("{}\n{\"type\":\"a\",\"length\":null}\nxy\n", vec![ok("a", "xy")]),
            // A carriage return is part of a payload, and white space in a header.
            ("{}\r\n{\"type\":\"a\"}\r\nxy\r\n", vec![ok("a", "xy\r")]),
            ("{}\n{\"type\":\"a\",\"length\":3}\nxy\r\n", vec![ok("a", "xy\r")]),
            // Blank lines between items.
            (
                "{}\n\n{\"type\":\"a\"}\nx\n\n\n{\"type\":\"b\"}\ny",
                vec![ok("a", "x"), ok("b", "y")],
            ),
            // In bytes, not in characters.
            ("{}\n{\"type\":\"a\",\"length\":3}\né!\n", vec![ok("a", "é!")]),
            ("{}\n{\"type\":\"a\"}", vec![ok("a", "")]),
            ("{}\n{\"type\":\"a\",\"unheard\":{\"of\":[1]}}\nx", vec![ok("a", "x")]),
        ];
        for (body, expected) in cases {
            assert_eq!(items(body), expected, "{body:?}");
        }
    }

    #[test]
    fn a_malformed_item_does_not_cost_its_neighbours() {
        let bad =
            |text: &str| format!("{{}}\n{{\"type\":\"a\"}}\n1\n{text}\n{{\"type\":\"b\"}}\n2");
        for text in [
            "not json\npayload",
            "[1,2]\npayload",
            "{\"length\":7}\npayload",
            "{\"type\":7}\npayload",
            "{\"type\":null,\"length\":2}\nxy",
        ] {
            let items = items(&bad(text));
            assert_eq!(items.len(), 3, "{text}: {items:?}");
            assert_eq!((&items[0], &items[2]), (&ok("a", "1"), &ok("b", "2")), "{text}");
            assert!(items[1].is_err(), "{text}");
        }
    }

    #[test]
    fn after_a_wrong_length_nothing_is_guessed() {
        for length in ["9999", "1", "-1", "1.5", "\"6\"", "18446744073709551615"] {
            let body = format!(
                "{{}}\n{{\"type\":\"a\"}}\n1\n{{\"type\":\"attachment\",\"length\":{length}}}\npayload\n{{\"type\":\"event\"}}\n{{}}"
            );
            let items = items(&body);
            assert_eq!(items.len(), 2, "{length}: {items:?}");
            assert_eq!(items[0], ok("a", "1"));
            assert!(items[1].is_err(), "{length}");
        }
    }

    #[test]
    fn headers_are_read_leniently() {
        let header = Header::parse(
            br#"{"event_id":"9ec79c33ec9942ab8353589fcb2e04dc","dsn":"https://k@h/1","sdk":{"name":"s","version":"1"},"sent_at":"2023-11-14T22:13:20Z","trace":{"a":1}}"#,
        )
        .unwrap();
        assert_eq!(
            header.event_id().unwrap().simple().to_string(),
            "9ec79c33ec9942ab8353589fcb2e04dc"
        );
        assert_eq!((header.dsn(), header.sdk().as_deref()), (Some("https://k@h/1"), Some("s/1")));
        let odd = Header::parse(br#" {"event_id":7,"dsn":[],"sdk":"x","sent_at":1} "#).unwrap();
        assert_eq!((odd.event_id(), odd.dsn(), odd.sdk(), odd.sent_at()), (None, None, None, None));
        let nil = Header::parse(br#"{"event_id":"00000000-0000-0000-0000-000000000000"}"#).unwrap();
        assert_eq!(nil.event_id(), None);
        for bad in ["", "[]", "7", "null", "{", "{} {}", "event"] {
            assert!(Header::parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic_and_to_their_end(body in proptest::collection::vec(any::<u8>(), 0..2000)) {
            let body = Bytes::from(body);
            let _ = Header::parse(&body);
            let mut payloads = 0;
            let mut count = 0;
            for item in Items::new(&body) {
                count += 1;
                payloads += item.map_or(0, |item| item.payload.len());
            }
            prop_assert!(payloads <= body.len() && count <= body.len());
        }

        #[test]
        fn lines_that_look_like_items_are_read_without_a_panic(
            parts in proptest::collection::vec(prop_oneof![
                Just("{\"type\":\"event\"}".to_owned()),
                (0_u64..40).prop_map(|n| format!("{{\"type\":\"attachment\",\"length\":{n}}}")),
                Just("{\"type\":\"a\",\"length\":99999999999999999999}".to_owned()),
                Just("{\"length\":-3}".to_owned()),
                Just(String::new()),
                "[ -~]{0,20}",
            ], 0..40)
        ) {
            let body = Bytes::from(parts.join("\n"));
            let all: usize = Items::new(&body).map(|item| item.map_or(0, |item| item.payload.len())).sum();
            prop_assert!(all <= body.len());
        }

        #[test]
        fn what_is_framed_comes_out_as_it_went_in(
            payloads in proptest::collection::vec((proptest::collection::vec(any::<u8>(), 0..60), any::<bool>()), 0..12)
        ) {
            let mut body = b"{}\n".to_vec();
            let mut expected = Vec::new();
            for (mut payload, with_length) in payloads {
                if !with_length {
                    payload.retain(|byte| *byte != b'\n');
                    body.extend_from_slice(b"{\"type\":\"a\"}\n");
                } else {
                    body.extend_from_slice(format!("{{\"type\":\"a\",\"length\":{}}}\n", payload.len()).as_bytes());
                }
                body.extend_from_slice(&payload);
                body.push(b'\n');
                expected.push(payload);
            }
            let read: Vec<Vec<u8>> =
                Items::new(&Bytes::from(body)).map(|item| item.unwrap().payload.to_vec()).collect();
            prop_assert_eq!(read, expected);
        }
    }
}
