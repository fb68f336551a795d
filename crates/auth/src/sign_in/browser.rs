//! What binds a sign-in that is under way to the browser that began it: a random cookie of which
//! only the SHA-256 is stored, shared by all that is begun in that browser, so that several tabs work.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderValue};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};

use crate::sessions::site::{Site, cookie};

/// Longer than anything that is bound to it lives.
const AGE: Duration = Duration::from_secs(3600);
const SECRET_CHARS: usize = 43;

/// The cookie of one browser.
pub(crate) struct Browser(String);

/// 32 random bytes in base64url.
pub(crate) fn random_secret() -> String {
    URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>())
}

/// Has a text the form of [`random_secret`]?
pub(crate) fn is_secret(text: &str) -> bool {
    text.len() == SECRET_CHARS
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

impl Browser {
    /// The browser that a request comes from, if something was begun in it.
    pub(crate) fn of(site: &Site, headers: &HeaderMap) -> Option<Self> {
        cookie(headers, site.browser_cookie())
            .filter(|value| is_secret(value))
            .map(|value| Self(value.to_owned()))
    }

    pub(crate) fn of_or_new(site: &Site, headers: &HeaderMap) -> Self {
        Self::of(site, headers).unwrap_or_else(|| Self(random_secret()))
    }

    pub(crate) fn cookie(&self, site: &Site) -> HeaderValue {
        site.set_cookie(site.browser_cookie(), &self.0, AGE)
    }

    /// What the database keeps.
    pub(crate) fn digest(&self) -> [u8; 32] {
        Sha256::digest(self.0.as_bytes()).into()
    }

    /// A secret that only this browser together with `of` leads to; it needs to be stored nowhere.
    pub(crate) fn derive(&self, purpose: &str, of: &str) -> [u8; 32] {
        let mut hash = Sha256::new();
        for part in [purpose, &self.0, of] {
            // Lengths in front, so that no two inputs run into one another.
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part.as_bytes());
        }
        hash.finalize().into()
    }

    /// As [`Browser::derive`], in base64url.
    pub(crate) fn derive_text(&self, purpose: &str, of: &str) -> String {
        URL_SAFE_NO_PAD.encode(self.derive(purpose, of))
    }
}
