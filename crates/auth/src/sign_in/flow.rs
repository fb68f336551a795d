//! One sign-in at a provider: what is sent with the browser, and what must come back.
//!
//! The state is random and stored as its SHA-256. Nonce and PKCE verifier follow from it together with
//! the browser's cookie, so that neither the database nor whoever sees the callback's URL has them.

use std::time::Duration;

use loom_core::{Error, Result};
use serde::Deserialize;

use super::{
    browser::{Browser, is_secret, random_secret},
    oauth::Bound,
};

/// How long somebody may take at the provider.
pub(crate) const LIFE: Duration = Duration::from_secs(600);

/// What the provider sends the browser back with.
#[derive(Deserialize)]
pub(crate) struct Callback {
    #[serde(default)]
    pub(crate) code: Option<String>,
    #[serde(default)]
    pub(crate) state: Option<String>,
    #[serde(default)]
    pub(crate) error: Option<String>,
    /// RFC 9207.
    #[serde(default)]
    pub(crate) iss: Option<String>,
}

impl Bound {
    pub(crate) fn new(browser: &Browser) -> Self {
        Self::of(browser, random_secret())
    }

    /// The same again, for the browser that comes back.
    pub(crate) fn of(browser: &Browser, state: String) -> Self {
        Self {
            nonce: browser.derive_text("nonce", &state),
            verifier: browser.derive_text("pkce", &state),
            state,
        }
    }
}

/// 400, the same for all that a state can lack.
pub(crate) fn stale() -> Error {
    Error::malformed(
        "sign_in_expired",
        "this sign-in was finished already, took longer than ten minutes, or was begun in another browser; start again",
    )
}

impl Callback {
    /// The state, when it can be one of ours.
    pub(crate) fn state(&self) -> Result<&str> {
        self.state.as_deref().filter(|state| is_secret(state)).ok_or_else(stale)
    }

    /// The code, or what the provider says why there is none.
    pub(crate) fn code(&self) -> Result<&str> {
        match (&self.error, &self.code) {
            (None, Some(code)) if !code.is_empty() && code.len() <= 4096 => Ok(code),
            (Some(error), _) if error == "access_denied" => Err(Error::new(
                http::StatusCode::FORBIDDEN,
                "access_denied",
                "the sign-in was called off at the provider",
            )),
            (Some(error), _) => {
                // What it says comes by way of the browser: it goes to the log, cut, and to nobody else.
                Err(super::oauth::bad_answer(format!(
                    "the provider said {:?}",
                    loom_core::text::cut(error, 100)
                )))
            }
            _ => Err(stale()),
        }
    }
}
