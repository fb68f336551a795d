//! Google service accounts: the key file, and the signed assertion that a token is given for.

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use chrono::{DateTime, Utc};
use loom_common_secret::SecretString;
use ring::{
    rand::SystemRandom,
    signature::{RSA_PKCS1_SHA256, RsaKeyPair},
};
use serde::Deserialize;
use serde_json::json;

const SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";
const LIFE_SECS: i64 = 3_600;
/// So much may this machine's clock go before Google's.
const AHEAD_SECS: i64 = 30;

/// As Google's console hands it out. No `Debug`: it holds the private key.
pub(crate) struct ServiceAccount {
    pub(crate) client_email: String,
    pub(crate) token_uri: String,
    key_id: Option<String>,
    key: RsaKeyPair,
}

#[derive(Deserialize)]
struct KeyFile {
    #[serde(rename = "type")]
    kind: String,
    client_email: String,
    private_key: SecretString,
    private_key_id: Option<String>,
    token_uri: Option<String>,
}

impl ServiceAccount {
    /// # Errors
    /// A text that says what is wrong and nothing of the key.
    pub(crate) fn parse(file: &SecretString) -> Result<Self, &'static str> {
        let file: KeyFile = serde_json::from_str(file.expose())
            .map_err(|_| "is the JSON key file of a service account, with `type`, `client_email` and `private_key`")?;
        if file.kind != "service_account" {
            return Err("is of the type `service_account`");
        }
        let key = pkcs8(file.private_key.expose())
            .ok_or("has a `private_key` that is a PKCS #8 RSA key in PEM")?;
        let key = RsaKeyPair::from_pkcs8(&key)
            .map_err(|_| "has a `private_key` that is an RSA key of 2048 to 4096 bits")?;
        Ok(Self {
            client_email: file.client_email,
            token_uri: file
                .token_uri
                .unwrap_or_else(|| "https://oauth2.googleapis.com/token".to_owned()),
            key_id: file.private_key_id,
            key,
        })
    }

    pub(crate) fn assertion(&self, now: DateTime<Utc>) -> Result<String, String> {
        let issued = now.timestamp() - AHEAD_SECS;
        let mut header = json!({"alg": "RS256", "typ": "JWT"});
        if let (Some(id), Some(header)) = (&self.key_id, header.as_object_mut()) {
            header.insert("kid".to_owned(), id.as_str().into());
        }
        let claims = json!({
            "iss": self.client_email,
            "scope": SCOPE,
            "aud": self.token_uri,
            "iat": issued,
            "exp": issued + LIFE_SECS,
        });
        let encode = |part: &[u8]| URL_SAFE_NO_PAD.encode(part);
        let signed = format!(
            "{}.{}",
            encode(header.to_string().as_bytes()),
            encode(claims.to_string().as_bytes())
        );
        let mut signature = vec![0; self.key.public().modulus_len()];
        self.key
            .sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), signed.as_bytes(), &mut signature)
            .map_err(|_| "the assertion of the service account cannot be signed".to_owned())?;
        Ok(format!("{signed}.{}", encode(&signature)))
    }
}

fn pkcs8(pem: &str) -> Option<Vec<u8>> {
    let (_, rest) = pem.split_once("-----BEGIN PRIVATE KEY-----")?;
    let (body, _) = rest.split_once("-----END PRIVATE KEY-----")?;
    let body: String = body.split_whitespace().collect();
    STANDARD.decode(body).ok()
}
