//! An event's payload on its way in and out of the store: masked JSON, compressed.

use std::{cell::RefCell, io, net::IpAddr};

use loom_core::{extract::has_nul_escape, id::EventId};
use serde_json::Value;
use zstd::bulk::{Compressor, Decompressor};

use crate::scrub;

/// The quickest: what is written is read once or twice.
const LEVEL: i32 = 1;
/// What processing writes may be larger than what came in: sources stand in it.
const MAX_DECOMPRESSED: usize = 32 << 20;

thread_local! {
    static COMPRESSOR: RefCell<Option<Compressor<'static>>> = const { RefCell::new(None) };
    static DECOMPRESSOR: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
}

pub(crate) fn compress(json: &[u8]) -> io::Result<Vec<u8>> {
    COMPRESSOR.with_borrow_mut(|slot| match slot {
        Some(compressor) => compressor.compress(json),
        None => slot.insert(Compressor::new(LEVEL)?).compress(json),
    })
}

pub(crate) fn decompress(stored: &[u8]) -> io::Result<Vec<u8>> {
    // The frame says how large it is: nothing larger than that is set aside.
    let size = zstd::zstd_safe::get_frame_content_size(stored)
        .ok()
        .flatten()
        .and_then(|size| usize::try_from(size).ok())
        .filter(|size| *size <= MAX_DECOMPRESSED)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "not a frame of ours"))?;
    DECOMPRESSOR.with_borrow_mut(|slot| match slot {
        Some(decompressor) => decompressor.decompress(stored, size),
        None => slot.insert(Decompressor::new()?).decompress(stored, size),
    })
}

/// The event as it is stored.
///
/// # Errors
/// Why it can never be, for the sender.
pub(super) fn read(
    payload: &[u8],
    id: EventId,
    client: Option<IpAddr>,
    scrubbing: &scrub::Settings,
) -> Result<Vec<u8>, String> {
    let mut event = crate::event::object(payload)?;
    if has_nul_escape(payload) {
        without_nul(&mut event);
    }
    if let Some(members) = event.as_object_mut() {
        members.insert("event_id".to_owned(), Value::String(id.0.simple().to_string()));
    }
    scrub::fill_address(&mut event, client);
    scrub::scrub(&mut event, scrubbing);
    let json = serde_json::to_vec(&event).map_err(|error| error.to_string())?;
    compress(&json).map_err(|error| error.to_string())
}

/// No text of PostgreSQL can hold one.
fn without_nul(value: &mut Value) {
    match value {
        Value::String(text) => text.retain(|letter| letter != '\0'),
        Value::Array(items) => items.iter_mut().for_each(without_nul),
        Value::Object(members) => {
            let all = std::mem::take(members);
            members.extend(all.into_iter().map(|(key, mut value)| {
                without_nul(&mut value);
                (key.replace('\0', ""), value)
            }));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use loom_core::id::{EventId, new_uuid};
    use serde_json::{Value, json};

    use super::{compress, decompress, read};
    use crate::scrub::Settings;

    fn stored(payload: &Value, client: Option<&str>) -> Result<Value, String> {
        let id = EventId(new_uuid(chrono::DateTime::UNIX_EPOCH));
        let client = client.map(|client| client.parse().unwrap());
        let stored = read(payload.to_string().as_bytes(), id, client, &Settings::default())?;
        Ok(serde_json::from_slice(&decompress(&stored).unwrap()).unwrap())
    }

    #[test]
    fn what_is_compressed_comes_back() {
        for json in [Vec::new(), b"{}".to_vec(), vec![b'a'; 3 << 20]] {
            assert_eq!(decompress(&compress(&json).unwrap()).unwrap(), json);
        }
        assert!(decompress(b"nothing of ours").is_err());
    }

    #[test]
    fn an_event_is_stored_without_what_the_database_cannot_hold() {
        let event = stored(&json!({"message": "a\0b", "extra": {"k\0": ["\0"]}}), None).unwrap();
        assert_eq!(event["message"], "ab");
        assert_eq!(event["extra"], json!({"k": [""]}));
    }

    #[test]
    fn an_address_that_the_sender_leaves_to_us_is_that_of_the_peer() {
        let event = json!({"user": {"ip_address": "{{auto}}"}});
        assert_eq!(stored(&event, Some("192.0.2.7")).unwrap()["user"]["ip_address"], "192.0.2.7");
    }

    #[test]
    fn what_is_no_object_is_refused() {
        assert!(stored(&json!([1]), None).is_err());
    }
}
