//! Bodies that come as JSON from programs and as forms from pages, which get pages back.

use axum::{
    extract::{FromRequest, Request},
    http::header,
};
use loom_core::{
    Error, Result,
    extract::{Body, parse_json, require_json},
};
use serde::de::DeserializeOwned;

/// No form of ours is longer.
const MAX: usize = 16 * 1024;

/// A body, and whether a page sent it.
pub(crate) struct FormOrJson<T> {
    pub(crate) value: T,
    pub(crate) is_form: bool,
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for FormOrJson<T> {
    type Rejection = Error;

    async fn from_request(request: Request, state: &S) -> Result<Self> {
        let kind = request.headers().get(header::CONTENT_TYPE);
        let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default().trim();
        let is_form = kind.eq_ignore_ascii_case("application/x-www-form-urlencoded");
        if !is_form {
            require_json(request.headers())?;
        }
        let Body(bytes) = Body::from_request(request, state).await?;
        if bytes.len() > MAX {
            return Err(Error::too_large("this is longer than anything that belongs here"));
        }
        let value = if is_form {
            serde_urlencoded::from_bytes(&bytes).map_err(|error| {
                Error::malformed("malformed_form", "the form is not as this page sends it")
                    .because(error)
            })?
        } else {
            // No body is one without members.
            parse_json(if bytes.is_empty() { b"{}" } else { &bytes })?
        };
        Ok(Self { value, is_form })
    }
}

/// An e-mail address from outside, as it is stored and compared: one line without spaces, quotes or
/// anything else that no mail system of today gives out.
pub(crate) fn email(text: &str) -> Result<String> {
    let email = crate::bootstrap::normalise_email(text)?;
    if email.chars().any(|c| c.is_whitespace() || "\"(),:;<>[\\]`".contains(c)) {
        return Err(Error::invalid("email", "is not an e-mail address"));
    }
    Ok(email)
}
