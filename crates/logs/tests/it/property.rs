//! Wherever in an event a secret stands, no exit shows it.

use base64::{Engine, engine::general_purpose::STANDARD};
use loom_logs::Form;
use proptest::{prelude::*, sample::select};

use crate::world::World;

const CONFIGURED: &str = "k9!Zq-hunter2/x y\"z";

/// Letters and digits as random as they look, so that no file holds a secret.
fn body(length: usize) -> String {
    const ALPHABET: &[u8] = b"aZ3kQ9xB7mT1pW5cR8vL2nY6dF4hJ0sG";
    (0..length).map(|at| char::from(ALPHABET[(at * 29 + at / 7) % ALPHABET.len()])).collect()
}

/// A text, and what of it must not get out.
fn secrets() -> Vec<(String, String)> {
    let bearer = body(40);
    let key = format!("{}\n{}", body(64), body(63));
    let password = format!("pw{}", body(9));
    vec![
        (CONFIGURED.to_owned(), CONFIGURED.to_owned()),
        (STANDARD.encode(CONFIGURED), STANDARD.encode(CONFIGURED)),
        (format!("loom_pat_{}", body(36)), body(36)),
        (format!("Authorization: Bearer {bearer}"), bearer),
        (
            format!("-----BEGIN RSA PRIVATE KEY-----\n{key}\n-----END RSA PRIVATE KEY-----"),
            body(64),
        ),
        (format!("postgres://loom:{password}@db/loom"), password),
        (format!("https://x.example/cb?code={}", body(20)), body(20)),
    ]
}

fn around() -> impl Strategy<Value = String> {
    select(vec![
        "",
        " ",
        "\n",
        "\t",
        "\"",
        "'",
        "a: ",
        "{\"k\":\"",
        "\\",
        "ä ",
        "\u{1b}[2m",
        ",\r\n",
    ])
    .prop_map(str::to_owned)
}

/// As it may come out of JSON.
fn forms(secret: &str) -> [String; 2] {
    let json = serde_json::Value::from(secret).to_string();
    [secret.to_owned(), json[1..json.len() - 1].to_owned()]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn no_planted_secret_leaves_by_any_exit(
        planted in select(secrets()),
        place in 0..6_u8,
        before in around(),
        after in around(),
        pretty in any::<bool>(),
    ) {
        loom_redact::learn([CONFIGURED.into()]);
        let (text, secret) = planted;
        let text = format!("{before}{text}{after}");
        let form = if pretty { Form::Pretty { colours: true } } else { Form::Json };
        let world = World::new(form);
        world.log(|| match place {
            0 => tracing::info!("{text}"),
            1 => tracing::info!(text, "an event"),
            2 => tracing::info!(first = 1, error = %text, last = true, "an event"),
            3 => tracing::info!(debug = ?text, "an event"),
            4 => {
                let _span = tracing::info_span!("span", text).entered();
                tracing::info!("within");
            }
            _ => {
                let span = tracing::info_span!("span", request_id = tracing::field::Empty);
                span.record("request_id", &text);
                let _span = span.entered();
                tracing::info!("within");
            }
        });
        let (written, read) = (world.written(), world.read("").to_string());
        prop_assert!(written.contains("[redacted:"), "{written}");
        for shown in [&written, &read] {
            for form in forms(&secret) {
                prop_assert!(!shown.contains(&form), "{shown}");
            }
        }
        if !pretty {
            for line in written.lines() {
                prop_assert!(serde_json::from_str::<serde_json::Value>(line).is_ok(), "{line}");
            }
        }
    }
}
