//! `If-Match`, `If-None-Match` and `ETag`: a thread's version as an entity tag.

use http::{HeaderMap, HeaderValue, StatusCode, header};
use loom_core::{Error, Result};

/// What a writer expects to find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IfMatch {
    Absent,
    /// `*`: whatever there is.
    Any,
    Version(i64),
}

impl IfMatch {
    /// Takes `*`, `"7"`, and what proxies and hands make of it: `W/"7"` and `7`.
    pub(crate) fn from_headers(headers: &HeaderMap) -> Result<Self> {
        let Some(value) = headers.get(header::IF_MATCH) else { return Ok(Self::Absent) };
        let text = value.to_str().unwrap_or_default().trim();
        if text == "*" {
            return Ok(Self::Any);
        }
        version(text).map(Self::Version).ok_or_else(|| {
            Error::malformed(
                "invalid_if_match",
                "`If-Match` is the `ETag` of one version, as `\"7\"`, or `*`",
            )
        })
    }

    /// 409 `version_conflict` when the thread is at another version than the writer thinks.
    pub(crate) fn require(self, server_version: i64) -> Result<()> {
        match self {
            Self::Version(client) if client != server_version => {
                Err(version_conflict(server_version, client))
            }
            _ => Ok(()),
        }
    }
}

fn version_conflict(server_version: i64, client_version: i64) -> Error {
    Error::conflict(
        "version_conflict",
        format!(
            "the thread is at version {server_version}, not {client_version}; \
             read it again and repeat the change on what you find"
        ),
    )
    .with("server_version", server_version)
    .with("client_version", client_version)
}

/// Is the request to create only (`If-None-Match: *`)?
pub(crate) fn creates_only(headers: &HeaderMap) -> bool {
    headers.get(header::IF_NONE_MATCH).is_some_and(|value| value.as_bytes().trim_ascii() == b"*")
}

/// 412: `If-None-Match: *`, and the thread is there.
pub(crate) fn exists(server_version: i64) -> Error {
    Error::new(
        StatusCode::PRECONDITION_FAILED,
        "precondition_failed",
        "the thread exists already, and `If-None-Match: *` is to create only",
    )
    .with("server_version", server_version)
}

/// 428: an upsert of a thread that exists must say which version it replaces.
pub(crate) fn required(server_version: i64) -> Error {
    Error::new(
        StatusCode::PRECONDITION_REQUIRED,
        "precondition_required",
        "the thread exists already: send `If-Match` with the `ETag` of the version that you replace, \
         or `If-Match: *` to replace whatever is there",
    )
    .with("server_version", server_version)
}

/// Does the reader have this version already (`If-None-Match`)?
pub(crate) fn is_known(headers: &HeaderMap, server_version: i64) -> bool {
    headers.get_all(header::IF_NONE_MATCH).iter().any(|value| {
        let mut tags = value.to_str().unwrap_or_default().split(',').map(str::trim);
        tags.any(|tag| tag == "*" || version(tag) == Some(server_version))
    })
}

/// The `ETag` of a version.
pub(crate) fn etag(version: i64) -> HeaderValue {
    HeaderValue::try_from(format!("\"{version}\"")).unwrap_or(HeaderValue::from_static("\"\""))
}

fn version(tag: &str) -> Option<i64> {
    let tag = tag.strip_prefix("W/").unwrap_or(tag);
    let digits = tag.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(tag);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: header::HeaderName, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_static(value))])
    }

    #[test]
    fn if_match_is_read_in_all_its_forms() {
        for (text, expected) in [
            ("*", IfMatch::Any),
            ("\"7\"", IfMatch::Version(7)),
            ("W/\"7\"", IfMatch::Version(7)),
            (" 7 ", IfMatch::Version(7)),
        ] {
            assert_eq!(
                IfMatch::from_headers(&headers(header::IF_MATCH, text)).unwrap(),
                expected,
                "{text}"
            );
        }
        for text in ["", "x", "\"7", "\"7\", \"8\"", "-1", "99999999999999999999"] {
            let error = IfMatch::from_headers(&headers(header::IF_MATCH, text)).unwrap_err();
            assert_eq!(error.code(), "invalid_if_match", "{text}");
        }
        assert_eq!(IfMatch::from_headers(&HeaderMap::new()).unwrap(), IfMatch::Absent);
    }

    #[test]
    fn if_none_match_knows_one_of_several() {
        assert!(is_known(&headers(header::IF_NONE_MATCH, "\"1\", W/\"7\""), 7));
        assert!(is_known(&headers(header::IF_NONE_MATCH, "*"), 7));
        assert!(!is_known(&headers(header::IF_NONE_MATCH, "\"17\""), 7));
        assert!(creates_only(&headers(header::IF_NONE_MATCH, "*")));
        assert!(!creates_only(&headers(header::IF_NONE_MATCH, "\"1\"")));
    }
}
