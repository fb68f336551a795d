//! Signatures of the Standard Webhooks: HMAC-SHA256 over id, time and body.

use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use loom_common_secret::SecretString;
use loom_core::{Error, Result};
use sha2::Sha256;

const PREFIX: &str = "whsec_";

/// A new secret: `whsec_` and 32 random bytes in base64.
pub(crate) fn new_secret() -> SecretString {
    SecretString::from(format!("{PREFIX}{}", STANDARD.encode(rand::random::<[u8; 32]>())))
}

/// What the header `webhook-signature` says.
///
/// # Errors
/// When the secret is none that [`new_secret`] makes.
pub(crate) fn sign(secret: &SecretString, id: &str, timestamp: i64, body: &str) -> Result<String> {
    let key = secret.expose().strip_prefix(PREFIX).and_then(|key| STANDARD.decode(key).ok());
    let key = key.ok_or_else(|| Error::internal("a webhook's secret is not one"))?;
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).map_err(Error::internal)?;
    mac.update(format!("{id}.{timestamp}.{body}").as_bytes());
    Ok(format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes())))
}

/// What the header `x-loom-signature-256` says: HMAC-SHA256 over the body alone, with the secret as it is
/// written, in hexadecimal digits; as many other senders do it.
pub(crate) fn sign_body(secret: &SecretString, body: &str) -> Result<String> {
    let key = secret.expose().as_bytes();
    let mut mac = Hmac::<Sha256>::new_from_slice(key).map_err(Error::internal)?;
    mac.update(body.as_bytes());
    let digits: String =
        mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("sha256={digits}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_specification_is_signed_as_it_says() {
        let secret = SecretString::from("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
        let signature =
            sign(&secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, r#"{"test": 2432232314}"#);
        assert_eq!(signature.unwrap(), "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn every_secret_is_another_and_signs() {
        let secrets = [new_secret(), new_secret()];
        assert!(secrets[0] != secrets[1]);
        let [a, b] = secrets.map(|secret| sign(&secret, "msg_1", 1, "{}").unwrap());
        assert_ne!(a, b);
    }
}
