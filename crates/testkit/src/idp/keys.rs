//! Signing ID tokens, well and badly.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::{
    hmac,
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair},
};
use rsa::{
    Pkcs1v15Sign, RsaPrivateKey,
    sha2::{Digest, Sha256},
    traits::PublicKeyParts,
};
use serde_json::{Value, json};

/// A key with its id.
pub(super) struct Signer {
    pub(super) id: String,
    pair: Pair,
}

enum Pair {
    Es256(Box<EcdsaKeyPair>),
    /// As Google signs. Short, because long ones take their time to be found.
    Rs256(Box<RsaPrivateKey>),
}

const RSA_BITS: usize = 640;

fn encode(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

impl Signer {
    pub(super) fn new(id: &str) -> Self {
        let random = SystemRandom::new();
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let made = EcdsaKeyPair::generate_pkcs8(algorithm, &random).expect("a key can be made");
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, made.as_ref(), &random).expect("it is one");
        Self { id: id.to_owned(), pair: Pair::Es256(Box::new(pair)) }
    }

    pub(super) fn rsa(id: &str) -> Self {
        let key =
            RsaPrivateKey::new(&mut rsa::rand_core::OsRng, RSA_BITS).expect("a key can be made");
        Self { id: id.to_owned(), pair: Pair::Rs256(Box::new(key)) }
    }

    /// As it stands in the keys document.
    pub(super) fn jwk(&self) -> Value {
        let pair = match &self.pair {
            Pair::Es256(pair) => pair,
            Pair::Rs256(key) => {
                let text = |number: &rsa::BigUint| URL_SAFE_NO_PAD.encode(number.to_bytes_be());
                return json!({
                    "kty": "RSA", "use": "sig", "alg": "RS256", "kid": self.id,
                    "n": text(key.n()), "e": text(key.e()),
                });
            }
        };
        // 4, x, y.
        let point = pair.public_key().as_ref();
        json!({
            "kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": self.id,
            "x": URL_SAFE_NO_PAD.encode(&point[1..33]),
            "y": URL_SAFE_NO_PAD.encode(&point[33..65]),
        })
    }

    pub(super) fn sign(&self, key_id: &str, claims: &Value) -> String {
        let algorithm = match self.pair {
            Pair::Es256(_) => "ES256",
            Pair::Rs256(_) => "RS256",
        };
        let header = json!({"alg": algorithm, "typ": "JWT", "kid": key_id});
        let text = format!("{}.{}", encode(&header), encode(claims));
        let signature = match &self.pair {
            Pair::Es256(pair) => pair
                .sign(&SystemRandom::new(), text.as_bytes())
                .expect("it signs")
                .as_ref()
                .to_vec(),
            Pair::Rs256(key) => {
                let padding = Pkcs1v15Sign::new::<Sha256>();
                key.sign(padding, &Sha256::digest(text.as_bytes())).expect("it signs")
            }
        };
        format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    /// With a secret where a key pair should be.
    pub(super) fn hmac(&self, secret: &[u8], claims: &Value) -> String {
        let header = json!({"alg": "HS256", "typ": "JWT", "kid": self.id});
        let text = format!("{}.{}", encode(&header), encode(claims));
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
        let tag = hmac::sign(&key, text.as_bytes());
        format!("{text}.{}", URL_SAFE_NO_PAD.encode(tag.as_ref()))
    }

    pub(super) fn public_key(&self) -> Vec<u8> {
        match &self.pair {
            Pair::Es256(pair) => pair.public_key().as_ref().to_vec(),
            Pair::Rs256(key) => key.n().to_bytes_be(),
        }
    }
}

/// Signed by nobody.
pub(super) fn unsigned(claims: &Value) -> String {
    format!("{}.{}.", encode(&json!({"alg": "none", "typ": "JWT"})), encode(claims))
}

/// Another subject under the same signature.
pub(super) fn tamper(token: &str) -> String {
    let mut parts = token.split('.');
    let (header, claims, signature) =
        (parts.next().unwrap(), parts.next().unwrap(), parts.next().unwrap());
    let mut claims: Value =
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap();
    claims["sub"] = "somebody else".into();
    format!("{header}.{}.{signature}", encode(&claims))
}
