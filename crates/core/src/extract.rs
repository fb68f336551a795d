//! axum's extractors with problem documents instead of axum's own rejections.

use axum::{
    extract::{FromRequest, FromRequestParts, Request},
    response::{IntoResponse, Response},
};
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, header, request::Parts};
use http_body::Body as _;
use http_body_util::BodyExt;
use serde::{Serialize, de::DeserializeOwned};

use crate::{Error, Result, error::FieldError};

/// A JSON body, in or out.
#[derive(Clone, Copy, Debug)]
pub struct Json<T>(pub T);

/// Parameters from the path. One that does not parse is a 404: no such thing can exist.
#[derive(Clone, Copy, Debug)]
pub struct Path<T>(pub T);

/// Parameters from the query string.
#[derive(Clone, Copy, Debug)]
pub struct Query<T>(pub T);

/// The whole body, within the route's limit.
#[derive(Clone, Debug)]
pub struct Body(pub Bytes);

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        axum::Json(self.0).into_response()
    }
}

/// How large a body may be, in bytes; a layer (`axum::Extension`) on the routes that differ.
#[derive(Clone, Copy, Debug)]
pub struct BodyLimit(pub usize);

impl Default for BodyLimit {
    fn default() -> Self {
        Self(2 << 20)
    }
}

impl<S: Send + Sync> FromRequest<S> for Body {
    type Rejection = Error;

    async fn from_request(request: Request, _state: &S) -> Result<Self> {
        let BodyLimit(limit) = request.extensions().get().copied().unwrap_or_default();
        let mut body = request.into_body();
        let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
        let too_large = || {
            Error::too_large(format!(
                "the body is larger than the {limit} bytes that this route takes"
            ))
        };
        if announced > limit {
            return Err(too_large());
        }
        let mut whole = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| {
                Error::malformed("incomplete_body", "the body did not arrive whole").because(error)
            })?;
            let Ok(data) = frame.into_data() else { continue };
            if whole.len() + data.len() > limit {
                return Err(too_large());
            }
            if whole.is_empty() && body.is_end_stream() {
                return Ok(Self(data));
            }
            whole.reserve(announced.saturating_sub(whole.len()).max(data.len()));
            whole.extend_from_slice(&data);
        }
        Ok(Self(whole.freeze()))
    }
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = Error;

    async fn from_request(request: Request, state: &S) -> Result<Self> {
        require_json(request.headers())?;
        let Body(bytes) = Body::from_request(request, state).await?;
        parse_json(&bytes).map(Self)
    }
}

/// 415 unless the content type is JSON (or absent, as from a plain client).
///
/// # Errors
/// 415 `unsupported_media_type`.
pub fn require_json(headers: &HeaderMap) -> Result<()> {
    let Some(kind) = headers.get(header::CONTENT_TYPE) else { return Ok(()) };
    let kind = kind.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim();
    if kind.eq_ignore_ascii_case("application/json") || kind.to_ascii_lowercase().ends_with("+json")
    {
        return Ok(());
    }
    Err(Error::new(
        http::StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "unsupported_media_type",
        "send `content-type: application/json`",
    ))
}

/// Parses JSON: not JSON at all is 400 `malformed_json`, JSON of the wrong shape is 422 with the
/// path of the field. A NUL character or half a surrogate pair, which PostgreSQL cannot store, is
/// 422 too.
///
/// # Errors
/// 400 or 422.
pub fn parse_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    if has_nul_escape(bytes) {
        return Err(Error::invalid(
            "",
            "the text holds a NUL character (\\u0000), which cannot be stored",
        ));
    }
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        json_error(&path, error.inner())
    })?;
    json.end().map_err(|error| json_error("", &error))?;
    Ok(value)
}

fn json_error(path: &str, error: &serde_json::Error) -> Error {
    let text = error.to_string();
    if error.is_data() {
        let message = text.split(" at line ").next().unwrap_or(&text).to_owned();
        let path = if path == "." { String::new() } else { path.to_owned() };
        return Error::invalid_fields(vec![FieldError { path, message }]);
    }
    if text.contains("surrogate") || text.contains("unexpected end of hex escape") {
        return Error::invalid(
            "",
            format!("the text holds half of a UTF-16 surrogate pair: {text}"),
        );
    }
    Error::malformed("malformed_json", format!("the body is not valid JSON: {text}"))
}

/// Is there an escape `\u0000` in a JSON text? A backslash that is itself escaped does not count.
pub fn has_nul_escape(json: &[u8]) -> bool {
    memchr::memmem::find_iter(json, b"\\u0000").any(|at| {
        let before = json.get(..at).unwrap_or_default();
        before.iter().rev().take_while(|byte| **byte == b'\\').count() % 2 == 0
    })
}

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        // Nothing has a NUL character in its name, and PostgreSQL would not even look for it.
        if parts.uri.path().contains("%00") {
            return Err(Error::not_found("thing under this path"));
        }
        axum::extract::Path::<T>::from_request_parts(parts, state)
            .await
            .map(|path| Self(path.0))
            .map_err(|rejection| Error::not_found("thing under this path").because(rejection))
    }
}

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        if parts.uri.query().is_some_and(|query| query.contains("%00")) {
            return Err(Error::malformed(
                "invalid_query",
                "the query string holds a NUL character (%00), which nothing here can hold",
            ));
        }
        axum::extract::Query::<T>::from_request_parts(parts, state)
            .await
            .map(|query| Self(query.0))
            .map_err(|rejection| {
                let text = rejection.body_text();
                let text =
                    text.rsplit_once("query string: ").map_or(text.as_str(), |(_, what)| what);
                Error::malformed(
                    "invalid_query",
                    format!("the query string is not as it should be: {text}"),
                )
            })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::has_nul_escape;

    fn holds_nul(value: &Value) -> bool {
        match value {
            Value::String(text) => text.contains('\0'),
            Value::Array(items) => items.iter().any(holds_nul),
            Value::Object(members) => {
                members.iter().any(|(key, value)| key.contains('\0') || holds_nul(value))
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => false,
        }
    }

    proptest! {
        #[test]
        fn a_nul_is_found_in_whatever_json_says_one_and_in_nothing_else(
            // Pieces that lie close to the escape, on both sides of it.
            texts in proptest::collection::vec(r"(\\|u0000|\x00|a){0,6}", 0..4),
        ) {
            let json = serde_json::to_vec(&texts).unwrap();
            let value = serde_json::from_slice::<Value>(&json).unwrap();
            prop_assert_eq!(has_nul_escape(&json), holds_nul(&value), "{:?}", texts);
        }

        #[test]
        fn a_hand_written_escape_is_read_as_a_json_parser_reads_it(body in r"(\\|u0000|a){0,8}") {
            let json = format!("{{\"{body}\": [\"{body}\"]}}");
            // What does not parse is refused anyway.
            if let Ok(value) = serde_json::from_str::<Value>(&json) {
                prop_assert_eq!(has_nul_escape(json.as_bytes()), holds_nul(&value), "{}", json);
            }
        }
    }
}
