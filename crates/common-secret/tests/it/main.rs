//! Whatever way a secret is printed, it does not show.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "these are tests"
)]

use std::{
    io::{self, Write},
    sync::{Arc, Mutex},
};

use loom_common_secret::{REDACTED, SecretString};
use serde::{Deserialize, Serialize};

const PLAIN: &str = "hunter2-correct-horse";

/// As a configuration holds secrets: deep inside other things.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
struct Credential {
    user: String,
    password: SecretString,
    older: Vec<SecretString>,
    next: Option<SecretString>,
}

fn credential() -> Credential {
    Credential {
        user: "ada".to_owned(),
        password: PLAIN.into(),
        older: vec![PLAIN.into(), PLAIN.into()],
        next: Some(PLAIN.into()),
    }
}

#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Sink {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

#[test]
fn debug_and_display_show_the_same_mark_and_not_the_secret() {
    let secret = SecretString::from(PLAIN);
    assert_eq!(format!("{secret}"), REDACTED);
    assert_eq!(format!("{secret:?}"), REDACTED);
    assert_eq!(format!("{secret:#?}"), REDACTED);
    assert_eq!(format!("{secret:>40}"), REDACTED);
    assert_eq!(secret.to_string(), REDACTED);
}

#[test]
fn a_struct_around_a_secret_does_not_show_it_either() {
    for text in [format!("{:?}", credential()), format!("{:#?}", credential())] {
        assert!(text.contains("ada"), "{text}");
        assert_eq!(text.matches(REDACTED).count(), 4, "{text}");
        assert!(!text.contains("hunter2"), "{text}");
    }
}

#[test]
fn json_reads_a_secret_and_never_writes_it() {
    let json = serde_json::json!({
        "user": "ada", "password": PLAIN, "older": [PLAIN, PLAIN], "next": PLAIN,
    });
    let read: Credential = serde_json::from_value(json).unwrap();
    assert_eq!(read, credential());
    assert_eq!(read.password.expose(), PLAIN);
    for text in [
        serde_json::to_string(&read).unwrap(),
        serde_json::to_string_pretty(&read).unwrap(),
        serde_json::to_value(&read).unwrap().to_string(),
    ] {
        assert_eq!(text.matches(REDACTED).count(), 4, "{text}");
        assert!(!text.contains("hunter2"), "{text}");
    }
}

#[test]
fn a_log_line_does_not_show_it_as_field_of_an_event_or_a_span() {
    for json in [true, false] {
        let sink = Sink::default();
        let writer = sink.clone();
        let layer = tracing_subscriber::fmt().with_writer(move || writer.clone());
        let log = || {
            let secret = SecretString::from(PLAIN);
            let nested = credential();
            let span = tracing::info_span!("sign_in", %secret, nested = ?nested);
            let _in = span.enter();
            tracing::info!(secret = %secret, again = ?secret, ?nested, "with {secret} {secret:?}");
        };
        if json {
            tracing::subscriber::with_default(layer.json().finish(), log);
        } else {
            tracing::subscriber::with_default(layer.with_ansi(false).finish(), log);
        }
        let text = sink.text();
        assert!(text.contains(REDACTED) && text.contains("sign_in"), "{text}");
        assert!(!text.contains("hunter2"), "{text}");
    }
}

#[test]
fn two_secrets_are_equal_when_their_texts_are() {
    let secret = SecretString::from(PLAIN);
    assert_eq!(secret, SecretString::new(PLAIN.to_owned()));
    assert_eq!(secret, secret.clone());
    // Same length, a difference at either end; other lengths; a prefix; nothing.
    for other in [
        "Xunter2-correct-horse",
        "hunter2-correct-horsX",
        "hunter2-correct-hors",
        "hunter2-correct-horse ",
        "",
    ] {
        assert_ne!(secret, SecretString::from(other), "{other:?}");
        assert_ne!(SecretString::from(other), secret, "{other:?}");
    }
    assert_eq!(SecretString::default(), SecretString::from(""));
}

#[test]
fn only_an_empty_one_is_empty() {
    assert!(SecretString::default().is_empty());
    assert!(!SecretString::from(" ").is_empty());
}
