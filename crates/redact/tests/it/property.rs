//! For any text: no planted secret gets out, pieces make no difference, twice is as once.

use std::sync::LazyLock;

use base64::{Engine, engine::general_purpose::STANDARD};
use loom_redact::Redactor;
use proptest::{collection::vec, prelude::*, sample::select};

use crate::sample::samples;

const KNOWN: &str = "k9!Zq-hunter2/äß=x";

fn redactor() -> &'static Redactor {
    static REDACTOR: LazyLock<Redactor> =
        LazyLock::new(|| Redactor::new([KNOWN.into(), "other-secret-value".into()]));
    &REDACTOR
}

/// Texts made of what matters to the matchers, and of anything.
fn noise() -> impl Strategy<Value = String> {
    let fragments = select(vec![
        "ghp_",
        "sk-",
        "sk-ant-",
        "eyJ",
        ".eyJ",
        "AKIA",
        "abc123DEF456ghi789JKL0",
        "ABCDEFGH",
        "://",
        "a://b:",
        "@",
        "/",
        "?",
        "&",
        "token",
        "_token",
        "password",
        "secret",
        "=",
        "%3d",
        "\\u003d",
        "\"",
        "'",
        "\\",
        "\\\"",
        ":",
        " ",
        "\n",
        "authorization",
        "Bearer ",
        "bearer ",
        "Basic ",
        "-----BEGIN",
        " PRIVATE KEY",
        "-----",
        "-----END",
        "[redacted:",
        "[redacted:jwt]",
        "]",
        "k9!Zq-",
        "é",
        "🧵",
        "other-secret-value",
        "x",
        "8080",
        "AIza",
        "%20",
        ".",
        "-",
    ])
    .prop_map(str::to_owned);
    vec(prop_oneof![6 => fragments, 1 => any::<String>()], 0..24).prop_map(|parts| parts.concat())
}

fn pieces(redactor: &Redactor, text: &str, seams: &[usize]) -> String {
    let mut stream = redactor.stream();
    let (mut out, mut rest) = (String::new(), text);
    for seam in seams {
        let at = rest.ceil_char_boundary((*seam).min(rest.len()));
        out.push_str(&stream.push(&rest[..at]));
        rest = &rest[at..];
    }
    out.push_str(&stream.push(rest));
    out + &stream.finish()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn pieces_make_no_difference(text in noise(), seams in vec(0_usize..24, 0..24)) {
        let redactor = redactor();
        prop_assert_eq!(pieces(redactor, &text, &seams), redactor.redact(&text));
    }

    #[test]
    fn twice_is_as_once(text in noise()) {
        let redactor = redactor();
        let once = redactor.redact(&text);
        prop_assert_eq!(&redactor.redact(&once), &once, "{}", text);
    }

    #[test]
    fn no_planted_secret_gets_out(
        before in noise(),
        after in noise(),
        which in 0..samples().len(),
        seams in vec(0_usize..200, 0..12),
    ) {
        let redactor = redactor();
        let sample = &samples()[which];
        let text = format!("{before} {} {after}", sample.text);
        let json = serde_json::json!({ "message": text, "n": 1 }).to_string();
        let whole = redactor.redact(&text);
        prop_assert!(!whole.contains(&sample.secret), "{}", text);
        prop_assert_eq!(pieces(redactor, &text, &seams), whole);
        prop_assert!(!redactor.redact(&json).contains(&sample.secret), "{}", json);
    }

    #[test]
    fn no_known_value_gets_out(before in any::<String>(), after in any::<String>(), seams in vec(0_usize..99, 0..9)) {
        let redactor = redactor();
        let plain = format!("{before}{KNOWN}{after}");
        let url: String = plain.bytes().map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => char::from(byte).to_string(),
            byte => format!("%{byte:02X}"),
        }).collect();
        let base64 = STANDARD.encode(&plain);
        let json = serde_json::Value::from(plain.as_str()).to_string();
        for text in [&plain, &url, &base64, &json] {
            let out = redactor.redact(text);
            prop_assert!(out.contains("[redacted:known]"), "{}", text);
            prop_assert!(!out.contains("hunter2") && !out.contains(&STANDARD.encode(KNOWN)[..8]), "{}", text);
            prop_assert_eq!(pieces(redactor, text, &seams), out);
        }
    }

    #[test]
    fn any_bytes_are_taken(bytes in vec(any::<u8>(), 0..300)) {
        let _ = redactor().redact(&String::from_utf8_lossy(&bytes));
    }
}
