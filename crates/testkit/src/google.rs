//! A service account of Google's shape, and what its assertions say.

use base64::{Engine, engine::general_purpose::STANDARD, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::signature::{KeyPair, RSA_PKCS1_2048_8192_SHA256, RsaKeyPair, UnparsedPublicKey};
use serde_json::{Value, json};

/// Made for these tests; it opens nothing.
const KEY: &str = include_str!("google/test_only_key.pem");
pub const CLIENT_EMAIL: &str = "loom@test-project.iam.gserviceaccount.com";

/// A key file whose tokens come from `token_uri`.
pub fn service_account(token_uri: &str) -> Value {
    json!({
        "type": "service_account",
        "project_id": "test-project",
        "private_key_id": "k1",
        "private_key": KEY,
        "client_email": CLIENT_EMAIL,
        "token_uri": token_uri,
    })
}

/// Lines of the key by which it would be found.
pub fn key_line() -> &'static str {
    KEY.lines().nth(1).expect("a key has lines")
}

/// The claims of an assertion, whose signature must be that account's.
#[track_caller]
pub fn claims(assertion: &str) -> Value {
    let (signed, signature) = assertion.rsplit_once('.').expect("a JWT");
    let pem: String = KEY.lines().filter(|line| !line.starts_with('-')).collect();
    let pair = RsaKeyPair::from_pkcs8(&STANDARD.decode(pem).unwrap()).unwrap();
    let public = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, pair.public_key().as_ref());
    let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
    public.verify(signed.as_bytes(), &signature).expect("signed by this account");
    let (header, claims) = signed.split_once('.').unwrap();
    let part = |part: &str| -> Value {
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
    };
    assert_eq!(part(header), json!({"alg": "RS256", "typ": "JWT", "kid": "k1"}));
    part(claims)
}
