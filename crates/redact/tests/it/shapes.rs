//! Each kind is masked, alone and in company, and what stands around it stays.

use std::borrow::Cow;

use loom_redact::{Kind, Redactor};

use crate::sample::{jwt, pem, samples};

#[test]
fn each_is_masked_as_its_kind_wherever_it_stands() {
    let redactor = Redactor::default();
    for sample in samples() {
        let expected = sample.text.replace(&sample.secret, sample.kind.mark());
        for (before, after) in [
            ("", ""),
            ("\n", "\n"),
            ("error: ", " was refused"),
            ("\\n", " "),
            ("{\"message\":\"", "\"}"),
            ("%20", " "),
            ("x=[", " ]"),
        ] {
            let text = format!("{before}{}{after}", sample.text);
            let (redacted, counts) = redactor.redact_counted(&text);
            assert_eq!(redacted, format!("{before}{expected}{after}"), "{text}");
            assert_eq!(counts.get(sample.kind), 1, "{text}");
            assert_eq!(redactor.redact(&redacted), redacted, "again");
        }
    }
}

#[test]
fn prefixes_that_no_word_ends_with_need_nothing_before_them() {
    let redactor = Redactor::default();
    for sample in samples() {
        let alone = matches!(
            sample.kind,
            Kind::OpenaiKey
                | Kind::AwsKey
                | Kind::GoogleKey
                | Kind::NpmToken
                | Kind::HuggingfaceToken
                | Kind::Jwt
        );
        if !alone && sample.text == sample.secret {
            assert!(!redactor.redact(&format!("x{}", sample.text)).contains(&sample.secret));
        }
    }
}

#[test]
fn several_in_one_text_are_counted() {
    let redactor = Redactor::default();
    let text = format!("{} and {}\n{}\nrest", jwt(), jwt(), pem("EC PRIVATE KEY"));
    let (redacted, counts) = redactor.redact_counted(&text);
    assert_eq!(redacted, "[redacted:jwt] and [redacted:jwt]\n[redacted:private-key]\nrest");
    assert_eq!(counts.iter().collect::<Vec<_>>(), [(Kind::Jwt, 2), (Kind::PrivateKey, 1)]);
}

#[test]
fn a_key_that_is_cut_off_is_masked_to_the_end_but_not_for_ever() {
    let redactor = Redactor::default();
    let cut = pem("PRIVATE KEY").replace("-----END PRIVATE KEY-----", "");
    assert_eq!(redactor.redact(&cut), "[redacted:private-key]");
    let long = format!("{cut}{}the end", "é".repeat(40_000));
    assert!(redactor.redact(&long).ends_with("ééthe end"));
}

#[test]
fn what_was_masked_before_stays_as_it_is() {
    let redactor = Redactor::default();
    for text in [
        "Authorization: Bearer [redacted:authorization]",
        "https://me:[redacted:url-password]@host",
        "https://[redacted:github-token]:x@host",
        "?token=[redacted:parameter]",
        "{\"password\":\"[redacted:field]\"}",
    ] {
        assert!(matches!(redactor.redact(text), Cow::Borrowed(_)), "{text}");
    }
}

#[test]
fn hostile_texts_take_no_time() {
    let redactor = Redactor::default();
    for text in [
        "sk-",
        "eyJ.",
        "-eyJ",
        "a://b:c",
        "-----BEGIN PRIVATE KEY-----",
        "password=\"",
        "secret='\\",
    ] {
        let text = text.repeat(200_000 / text.len());
        let started = std::time::Instant::now();
        let _ = redactor.redact(&text);
        assert!(started.elapsed().as_secs() < 10, "{}: {:?}", &text[..20], started.elapsed());
    }
}
