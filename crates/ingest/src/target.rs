//! Which project a path names. Numbers are Sentry's; words, and `0`, are not ours.

use axum::{
    extract::{FromRequestParts, Path, RawPathParams},
    response::{IntoResponse, Response},
};
use http::{StatusCode, request::Parts};
use loom_core::Error;

use crate::refusal::Refusal;

/// The number in `/api/{project}/…`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Target(pub(crate) i64);

impl<S: Send + Sync> FromRequestParts<S> for Target {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Response> {
        let params = RawPathParams::from_request_parts(parts, state).await;
        let params = params.map_err(IntoResponse::into_response)?;
        let text = params.iter().find(|(name, _)| *name == "project").map(|(_, value)| value);
        match text {
            Some(text) if is_number(text) => {
                match text.parse() {
                    Ok(number) => Ok(Self(number)),
                    Err(_) => Err(Refusal::malformed("there is no project with such a number")
                        .into_response()),
                }
            }
            // As for any other path that is not there.
            _ => Err(Error::new(
                StatusCode::NOT_FOUND,
                "not_found",
                "there is no such route; GET /api/openapi.json lists them all",
            )
            .into_response()),
        }
    }
}

fn is_number(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit()) && text.bytes().any(|byte| byte != b'0')
}

/// A further parameter of the path.
pub(crate) async fn parameter(parts: &mut Parts, name: &str) -> Option<String> {
    let params = Path::<std::collections::HashMap<String, String>>::from_request_parts(parts, &());
    params.await.ok()?.0.remove(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_a_number_and_zero_and_words_are_not() {
        for number in ["1", "42", "007"] {
            assert!(is_number(number), "{number}");
        }
        for word in ["", "0", "000", "a", "1a", "-1", "+1", "threads", "१"] {
            assert!(!is_number(word), "{word}");
        }
    }
}
