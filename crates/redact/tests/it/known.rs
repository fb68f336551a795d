//! Configured values do not get out, in any encoding that is looked for.

use base64::{Engine, engine::general_purpose};
use loom_redact::{Kind, Redactor};

const VALUE: &str = "p/ä+ss \"w\"?~>~~>x=42";

fn redactor() -> Redactor {
    Redactor::new([VALUE.into(), "hunter2-correct".into()])
}

#[test]
fn all_forms_are_masked() {
    let percent = |upper: bool| -> String {
        VALUE
            .bytes()
            .map(|byte| match (byte.is_ascii_alphanumeric(), upper) {
                (true, _) => char::from(byte).to_string(),
                (false, true) => format!("%{byte:02X}"),
                (false, false) => format!("%{byte:02x}"),
            })
            .collect::<String>()
            .replace("%7E", "~")
            .replace("%7e", "~")
    };
    let json = serde_json::to_string(VALUE).unwrap();
    for form in [VALUE.to_owned(), percent(true), percent(false), json.trim_matches('"').to_owned()]
    {
        let text = format!("before{form}after");
        assert_eq!(redactor().redact(&text), "before[redacted:known]after", "{form}");
    }
}

#[test]
fn base64_is_masked_at_each_offset_in_each_alphabet() {
    let redactor = redactor();
    for before in ["", "u", "us", "user:"] {
        for after in ["", "1", "12", "123"] {
            let text = format!("{before}{VALUE}{after}");
            for engine in [
                general_purpose::STANDARD,
                general_purpose::STANDARD_NO_PAD,
                general_purpose::URL_SAFE,
                general_purpose::URL_SAFE_NO_PAD,
            ] {
                let encoded = engine.encode(&text);
                let redacted = redactor.redact(&encoded).into_owned();
                assert!(redacted.contains(Kind::Known.mark()), "{encoded}");
                assert!(redacted.len() < encoded.len() - VALUE.len() + 16, "{encoded}: {redacted}");
            }
        }
    }
}

#[test]
fn overlapping_values_are_masked_together() {
    let redactor = Redactor::new(["abcdefghij".into(), "ghijklmnop".into()]);
    assert_eq!(redactor.redact("<abcdefghijklmnop>"), "<[redacted:known]>");
    assert_eq!(redactor.redact("<ABCDEFGHIJ>"), "<[redacted:known]>");
}

#[test]
fn values_do_not_print() {
    assert_eq!(format!("{:?}", redactor()), "Redactor { known: 2, .. }");
}

#[test]
fn a_long_value_is_masked_to_its_end() {
    let long: String = (0..9000_u32).map(|at| char::from(b'a' + (at * at % 23) as u8)).collect();
    let redactor = Redactor::new([long.as_str().into()]);
    assert_eq!(redactor.redact(&format!("<{long}>")), "<[redacted:known]>");
}
