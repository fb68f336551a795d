//! A text in pieces comes out as it would whole.

use loom_redact::Redactor;

use crate::sample::{pem, samples};

fn in_pieces(redactor: &Redactor, text: &str, length: usize) -> String {
    let mut stream = redactor.stream();
    let mut out = String::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (piece, after) = rest.split_at(rest.ceil_char_boundary(length.min(rest.len())));
        out.push_str(&stream.push(piece));
        assert!(stream.held() <= 16 * 1024);
        rest = after;
    }
    out.push_str(&stream.finish());
    out
}

#[test]
fn at_every_seam() {
    let redactor = Redactor::new(["hunter2-correct".into()]);
    for sample in samples() {
        let text = format!("so: {} (hunter2-correct) 🧵 sk-learn", sample.text);
        let whole = redactor.redact(&text);
        for seam in (0..text.len()).filter(|at| text.is_char_boundary(*at)) {
            let mut stream = redactor.stream();
            let out =
                [stream.push(&text[..seam]), stream.push(&text[seam..]), stream.finish()].concat();
            assert_eq!(out, whole, "{seam}: {text}");
        }
        for length in [1, 2, 3, 7, 64] {
            assert_eq!(in_pieces(&redactor, &text, length), whole, "{length}: {text}");
        }
    }
}

#[test]
fn ordinary_text_is_not_held_back() {
    let mut stream = Redactor::default().stream();
    assert_eq!(stream.push("an ordinary line\n"), "an ordinary line\n");
    assert_eq!(stream.push("so it is sk"), "so it is ");
    assert_eq!(stream.push("ating\n"), "skating\n");
}

#[test]
fn a_private_key_is_not_held() {
    let mut stream = Redactor::default().stream();
    let (mut out, mut most) = (String::new(), 0);
    for line in format!("a\n{}\nb\n", pem("PRIVATE KEY")).split_inclusive('\n') {
        out.push_str(&stream.push(line));
        most = most.max(stream.held());
    }
    out.push_str(&stream.finish());
    assert_eq!(out, "a\n[redacted:private-key]\nb\n");
    assert!(most < 100, "{most}");
    assert_eq!(stream.counts().iter().count(), 1);
}

#[test]
fn whatever_comes_little_is_held() {
    let redactor = Redactor::new(["hunter2-correct".into(), "long".repeat(9000).as_str().into()]);
    for (start, more) in [
        ("a://b:", "x"),
        ("a://", "x"),
        ("eyJ", "a"),
        ("password=\"", "\\"),
        ("password=\"", "x"),
        ("token=", "[redacted:"),
        ("-----BEGIN PRIVATE KEY-----", "-----END"),
        ("-----BEGIN ", "A"),
        ("", "long"),
        ("authorization: ", "bearer "),
        ("", "sk-"),
    ] {
        let text = format!("{start}{}", more.repeat(60_000 / more.len()));
        for length in [5000, 70_000] {
            assert_eq!(
                in_pieces(&redactor, &text, length),
                redactor.redact(&text),
                "{start}{more}"
            );
        }
    }
}
