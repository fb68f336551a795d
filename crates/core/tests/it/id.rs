//! Ids: UUIDv7 in text, and the thread's own form.

use chrono::{DateTime, Utc};
use loom_core::id::{OrgId, ThreadId, UserId, new_uuid};
use proptest::prelude::*;

const UUID: &str = "0199aaaa-0000-7000-8000-000000000001";

fn at(secs: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(secs, 0).unwrap()
}

#[test]
fn a_new_id_is_a_uuid_of_version_7_and_sorts_by_its_time() {
    let (older, newer) = (new_uuid(at(1_700_000_000)), new_uuid(at(1_700_000_001)));
    assert_eq!(older.get_version_num(), 7);
    assert!(older < newer);
    assert!(older.to_string() < newer.to_string());
    assert_eq!(older.get_timestamp().unwrap().to_unix().0, 1_700_000_000);
    assert_ne!(new_uuid(at(1_700_000_000)), older);
}

#[test]
fn a_time_before_1970_still_gives_an_id() {
    assert_eq!(new_uuid(at(-5)).get_version_num(), 7);
}

#[test]
fn an_id_is_its_uuid_in_text_and_json() {
    let id: OrgId = UUID.parse().unwrap();
    assert_eq!(id.to_string(), UUID);
    assert_eq!(serde_json::to_string(&id).unwrap(), format!("\"{UUID}\""));
    assert_eq!(serde_json::from_str::<OrgId>(&format!("\"{UUID}\"")).unwrap(), id);
    assert!("nobody".parse::<UserId>().is_err());
}

#[test]
fn a_thread_id_is_t_dash_and_a_uuid() {
    let id: ThreadId = format!("T-{UUID}").parse().unwrap();
    assert_eq!(id.0.to_string(), UUID);
    assert_eq!(id.to_string(), format!("T-{UUID}"));
    let json = serde_json::to_string(&id).unwrap();
    assert_eq!(json, format!("\"T-{UUID}\""));
    assert_eq!(serde_json::from_str::<ThreadId>(&json).unwrap(), id);
}

#[test]
fn other_texts_are_no_thread_ids() {
    let simple = UUID.replace('-', "");
    for text in [
        "",
        "T-",
        UUID,
        &format!("t-{UUID}"),
        &format!("T{UUID}"),
        &format!("T-{simple}"),
        &format!("T-{{{UUID}}}"),
        &format!("T-urn:uuid:{UUID}"),
        &format!("T-{UUID} "),
        &format!(" T-{UUID}"),
        &format!("T-T-{UUID}"),
        "T-0199aaaa-0000-7000-8000-00000000000g",
    ] {
        assert!(text.parse::<ThreadId>().is_err(), "{text:?}");
        let json = serde_json::to_string(text).unwrap();
        assert!(serde_json::from_str::<ThreadId>(&json).is_err(), "{text:?}");
    }
}

proptest! {
    #[test]
    fn any_thread_id_survives_its_text(bits in any::<u128>()) {
        let id = ThreadId(uuid::Uuid::from_u128(bits));
        prop_assert_eq!(id.to_string().parse::<ThreadId>().unwrap(), id);
    }

    #[test]
    fn no_text_makes_the_parser_of_thread_ids_panic(text in "(T-)?.{0,40}") {
        if let Ok(id) = text.parse::<ThreadId>() {
            prop_assert_eq!(id.to_string().to_lowercase(), text.to_lowercase());
        }
    }
}
