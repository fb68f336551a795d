//! Secrets of every kind, put together here so that no file holds one.

use loom_redact::Kind;

/// Letters and digits as random as they look, always the same.
pub(crate) fn body(length: usize) -> String {
    const ALPHABET: &[u8] = b"aZ3kQ9xB7mT1pW5cR8vL2nY6dF4hJ0sGuEiOoKqXyPwCzVtN";
    (0..length).map(|at| char::from(ALPHABET[(at * 29 + at / 7) % ALPHABET.len()])).collect()
}

/// The text, the part of it that must not get out, and its kind.
pub(crate) struct Sample {
    pub(crate) text: String,
    pub(crate) secret: String,
    pub(crate) kind: Kind,
}

fn whole(kind: Kind, secret: String) -> Sample {
    Sample { text: secret.clone(), secret, kind }
}

fn part(kind: Kind, before: &str, secret: &str, after: &str) -> Sample {
    Sample { text: format!("{before}{secret}{after}"), secret: secret.to_owned(), kind }
}

pub(crate) fn jwt() -> String {
    format!("eyJ{}.eyJ{}.{}", body(33), body(120), body(43))
}

pub(crate) fn pem(label: &str) -> String {
    let lines: Vec<String> = (0..20).map(|line| body(64 + line)[line..].to_owned()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----", lines.join("\n"))
}

pub(crate) fn samples() -> Vec<Sample> {
    let mut samples = Vec::new();
    for (prefix, kind, length) in [
        ("loom_pat_", Kind::LoomToken, 36),
        ("loom_svc_", Kind::LoomToken, 36),
        ("loom_wvr_", Kind::LoomToken, 36),
        ("loom_cli_", Kind::LoomToken, 36),
        ("ghp_", Kind::GithubToken, 36),
        ("gho_", Kind::GithubToken, 36),
        ("ghu_", Kind::GithubToken, 36),
        ("ghs_", Kind::GithubToken, 36),
        ("ghr_", Kind::GithubToken, 36),
        ("github_pat_", Kind::GithubToken, 82),
        ("sk-ant-", Kind::AnthropicKey, 95),
        ("sk-ant-api03-", Kind::AnthropicKey, 93),
        ("sk-", Kind::OpenaiKey, 48),
        ("sk-proj-", Kind::OpenaiKey, 120),
        ("sk-or-v1-", Kind::OpenaiKey, 64),
        ("xoxb-", Kind::SlackToken, 50),
        ("xoxp-", Kind::SlackToken, 50),
        ("AIza", Kind::GoogleKey, 35),
        ("glpat-", Kind::GitlabToken, 20),
        ("npm_", Kind::NpmToken, 36),
        ("sk_live_", Kind::StripeKey, 24),
        ("rk_live_", Kind::StripeKey, 24),
        ("sk_test_", Kind::StripeKey, 24),
        ("hf_", Kind::HuggingfaceToken, 34),
    ] {
        samples.push(whole(kind, format!("{prefix}{}", body(length))));
    }
    let upper = body(16).to_uppercase();
    samples.extend([
        whole(Kind::AwsKey, format!("AKIA{upper}")),
        whole(Kind::AwsKey, format!("ASIA{upper}")),
        whole(Kind::Jwt, jwt()),
        whole(Kind::PrivateKey, pem("PRIVATE KEY")),
        whole(Kind::PrivateKey, pem("RSA PRIVATE KEY")),
        whole(Kind::PrivateKey, pem("OPENSSH PRIVATE KEY").replace('\n', "\\n")),
        part(Kind::Authorization, "Authorization: Bearer ", &body(40), ""),
        part(Kind::Authorization, "authorization: Basic ", "dXNlcjpwYXNz", ""),
        part(Kind::Authorization, "\"authorization\": \"Bearer ", "opaque", "\""),
        part(Kind::Authorization, "(\"authorization\", \"Bearer ", &body(20), "\")"),
        part(Kind::Authorization, "Authorization: ", &body(40), ""),
        part(Kind::Authorization, "with bearer ", &body(30), ""),
        part(Kind::UrlPassword, "postgres://loom:", "hunter2", "@db:5432/loom"),
        part(Kind::UrlPassword, "redis://:", "p4ss/w0rd", "@cache"),
        part(Kind::UrlPassword, "https://me:", "a@b:c", "@host/x@y"),
        part(Kind::Parameter, "GET /cb?token=", "tiny-7", "&x=1"),
        part(Kind::Parameter, "/a?x=1&sig=", "abc%2Fdef", " HTTP/1.1"),
        part(Kind::Parameter, "?X-Amz-Signature=", &"0a1b".repeat(16), ""),
        part(Kind::Parameter, "https%3A%2F%2Fh%2F%3Faccess_token%3D", "zz-9-zz", ""),
        part(Kind::Parameter, "DB_PASSWORD=", "hunter2", "\n"),
        part(Kind::Parameter, "client_secret='", "two words", "'"),
        part(Kind::Parameter, "{\"password\":\"", "quo\\\"ted", "\",\"a\":1}"),
        part(Kind::Parameter, r#""{\"api_key\": \""#, "quo7ed", r#"\"}""#),
    ]);
    samples
}
