//! Structured data: by name, by value, as deep as it goes.

use loom_redact::{Kind, Redactor};
use serde_json::{Value, json};

use crate::sample::body;

#[test]
fn fields_and_values_are_masked() {
    let key = format!("ghp_{}", body(36));
    let mut value = json!({
        "authorization": "anything",
        "set-cookie": ["a=b", "c=d"],
        "otp": 123_456,
        "password": null,
        "max_tokens": 100,
        "error": format!("refused: {key}"),
        "deep": [{ "api_key": { "id": 1 } }],
        key.clone(): 1,
        "state": "",
    });
    let redactor = Redactor::default();
    let counts = redactor.redact_json(&mut value);
    let expected = json!({
        "authorization": "[redacted:field]",
        "set-cookie": "[redacted:field]",
        "otp": "[redacted:field]",
        "password": null,
        "max_tokens": 100,
        "error": "refused: [redacted:github-token]",
        "deep": [{ "api_key": "[redacted:field]" }],
        "[redacted:github-token]": 1,
        "state": "",
    });
    assert_eq!(value, expected);
    assert_eq!((counts.get(Kind::Field), counts.get(Kind::GithubToken)), (4, 2));
    assert!(redactor.redact_json(&mut value).is_empty());
    assert_eq!(value, expected);
}

#[test]
fn what_is_too_deep_is_masked_unseen() {
    let mut value = json!(format!("ghp_{}", body(36)));
    for _ in 0..1000 {
        value = Value::Array(vec![value]);
    }
    Redactor::default().redact_json(&mut value);
    let text = value.to_string();
    assert!(text.contains("[redacted:field]") && !text.contains("ghp_"));
}
