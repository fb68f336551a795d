//! Ordinary texts that resemble secrets come back untouched, and not copied.

use std::borrow::Cow;

use loom_redact::{Redactor, is_secret_field};

#[test]
fn ordinary_texts_stay() {
    let redactor = Redactor::default();
    for text in [
        "",
        "commit a107d0a5c3f1e2d4b6a7980123456789abcdef01 merged",
        "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "thread 0192f3c4-7d1e-7c3a-9b2f-8a1d5e6f7a8b not found",
        "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk",
        "pip install sk-learn scikit-learn==1.4.2",
        "sk-learn-contrib-0.24.1-cp39-manylinux2014_x86_64",
        "sk-550e8400-e29b-41d4-a716-446655440000",
        "task-force-0123456789abcdef0123456789abcdef",
        "the tokenizer counted 512 tokens; max_tokens=4096, total_tokens: 5",
        "/home/ada/.config/loom/keys/secret_santa/password.rs:12:5",
        "crates/auth/src/token.rs:42:9: key not found",
        "key=42 state=running code=404 sig=none",
        "\"key\":\"name\", \"code\": \"not_found\", \"state\": \"running\"",
        "https://example.org:8080/a@b?x=1#y",
        "http://[::1]:5432/x@y",
        "ssh://git@github.com/org/repo.git",
        "https://example.org/@user: hello @you",
        "Bearer of bad news, bearer authentication required",
        "authorization required: the Authorization header is missing",
        "AKIAB is short, AKIAabcdefghijklmnop is not upper, XAKIAIOSFODNN7EXAMPLE",
        "eyJhbGciOiJIUzI1NiJ9 is only a head",
        "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----",
        "-----BEGIN PUBLIC KEY-----\nMIIB\n-----END PUBLIC KEY-----",
        "npm_config_registry npm_package_version_0_1_2_3_4_5_6_7_8_9",
        "hf_transfer hf_hub_download",
        "ghp_ gho_short loom_pat_ loom_threads",
        "password: required; passwords must be long; password=",
        "[redacted:known] and [redacted]",
        "wir grüßen Ωmega 🧵 and 日本語",
    ] {
        assert!(
            matches!(redactor.redact(text), Cow::Borrowed(_)),
            "{text} -> {}",
            redactor.redact(text)
        );
    }
}

#[test]
fn fields_that_are_called_as_secrets_are() {
    for name in [
        "authorization",
        "Authorization",
        "Proxy-Authorization",
        "cookie",
        "Set-Cookie",
        "token",
        "access_token",
        "refreshToken",
        "X-Amz-Security-Token",
        "client_secret",
        "secrets",
        "password",
        "user.password",
        "passwd",
        "api_key",
        "apiKey",
        "x-api-key",
        "private_key",
        "credential",
        "credentials",
        "otp",
        "code",
        "state",
        "verifier",
        "code_verifier",
        "token_count_token",
    ] {
        assert!(is_secret_field(name), "{name}");
    }
    for name in [
        "",
        "tokens",
        "max_tokens",
        "promptTokens",
        "tokenizer",
        "token_count",
        "token_type",
        "status_code",
        "statement",
        "zip_code",
        "key",
        "keyboard",
        "author",
        "message",
        "stateful",
        "cookies_accepted",
    ] {
        assert!(!is_secret_field(name), "{name}");
    }
}
