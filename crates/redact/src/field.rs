//! Secrets in structured data: by the name of the field, and by what the value holds.

use std::{borrow::Cow, mem};

use serde_json::{Map, Value};

use crate::{
    Counts, Redactor,
    kind::{Kind, mark_at},
};

const EXACT: &[&str] = &[
    "authorization",
    "proxyauthorization",
    "cookie",
    "setcookie",
    "otp",
    "code",
    "state",
    "verifier",
    "codeverifier",
    "pwd",
    "passphrase",
    "signature",
    "sig",
];
const ANYWHERE: &[&str] =
    &["secret", "password", "passwd", "apikey", "accesskey", "privatekey", "credential", "token"];
/// Of `*token*`: what counts tokens, or speaks about them.
const HARMLESS: &[&str] = &[
    "tokens",
    "tokeniz",
    "tokenis",
    "tokencount",
    "tokentype",
    "tokenlimit",
    "tokenusage",
    "tokenprice",
    "tokenurl",
    "tokenendpoint",
];
/// A value nested deeper is masked unseen.
const DEEPEST: usize = 128;

/// Is a field of this name (of a log event, a header, a form, a document) to be masked whatever it
/// holds? Case, `-`, `_`, `.` and spaces do not matter.
pub fn is_secret_field(name: &str) -> bool {
    // A masked name is no name: `[redacted:github-token]` is not called a token.
    let mut unmasked = Cow::Borrowed(name);
    if name.contains('[') {
        for kind in Kind::ALL {
            unmasked = Cow::Owned(unmasked.replace(kind.mark(), ""));
        }
    }
    let plain: String = unmasked
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .map(|c| c.to_ascii_lowercase())
        .collect();
    if EXACT.contains(&plain.as_str()) {
        return true;
    }
    let mut rest = plain;
    for harmless in HARMLESS {
        if rest.contains(harmless) {
            rest = rest.replace(harmless, " ");
        }
    }
    ANYWHERE.iter().any(|part| rest.contains(part))
}

impl Redactor {
    /// Masks the values of fields that are called as secrets are, and secrets in all other texts,
    /// names of fields too.
    pub fn redact_json(&self, value: &mut Value) -> Counts {
        let mut counts = Counts::default();
        self.redact_value(value, 0, &mut counts);
        counts
    }

    fn redact_value(&self, value: &mut Value, depth: usize, counts: &mut Counts) {
        match value {
            Value::String(text) => self.redact_string(text, counts),
            Value::Array(_) | Value::Object(_) if depth >= DEEPEST => mask(value, counts),
            Value::Array(values) => {
                for value in values {
                    self.redact_value(value, depth + 1, counts);
                }
            }
            Value::Object(fields) => self.redact_fields(fields, depth, counts),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    fn redact_fields(&self, fields: &mut Map<String, Value>, depth: usize, counts: &mut Counts) {
        let mut names_masked = false;
        for (name, value) in fields.iter_mut() {
            if is_secret_field(name) {
                mask(value, counts);
            } else {
                self.redact_value(value, depth + 1, counts);
            }
            names_masked |= matches!(self.redact(name), Cow::Owned(_));
        }
        if names_masked {
            for (mut name, value) in mem::take(fields) {
                self.redact_string(&mut name, counts);
                fields.insert(name, value);
            }
        }
    }

    fn redact_string(&self, text: &mut String, counts: &mut Counts) {
        let (redacted, found) = self.redact_counted(text);
        if let Cow::Owned(redacted) = redacted {
            *text = redacted;
            counts.merge(&found);
        }
    }
}

fn mask(value: &mut Value, counts: &mut Counts) {
    match value {
        Value::Null | Value::Bool(_) => return,
        Value::String(text)
            if text.is_empty() || mark_at(text.as_bytes(), 0) == Some(text.len()) =>
        {
            return;
        }
        _ => {}
    }
    *value = Value::from(Kind::Field.mark());
    counts.add(Kind::Field);
}
