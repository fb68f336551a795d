//! What a request shows and names.

use std::borrow::Cow;

use axum::http::{HeaderMap, Uri, header, request::Parts};
use base64::{Engine, engine::general_purpose::STANDARD};
use loom_core::{Error, Result};

use crate::sessions::site::is_websocket;

/// The token of the request: `Authorization: Bearer`, the password of `Authorization: Basic` (as git
/// sends it, under any user name), else `x-api-key`.
pub(super) fn credential(headers: &HeaderMap) -> Result<Option<Cow<'_, str>>> {
    if let Some(value) = headers.get(header::AUTHORIZATION) {
        let text = value.to_str().unwrap_or_default();
        return match text.split_once(' ') {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => {
                Ok(Some(token.trim().into()))
            }
            Some((scheme, pair)) if scheme.eq_ignore_ascii_case("basic") => {
                Ok(Some(password(pair).unwrap_or_default().into()))
            }
            _ => Err(Error::unauthenticated("`Authorization` must be `Bearer <token>`")),
        };
    }
    let key = headers.get("x-api-key").map(|value| value.to_str().unwrap_or_default().trim());
    Ok(key.map(Cow::Borrowed))
}

/// What stands behind the colon of `user:password` in base64.
fn password(pair: &str) -> Option<String> {
    let pair = String::from_utf8(STANDARD.decode(pair.trim()).ok()?).ok()?;
    pair.split_once(':').map(|(_, password)| password.to_owned())
}

/// The organisation in the path of a git request, `/git/{org}/{repository}/…`.
pub(super) fn git_org(uri: &Uri) -> Option<&str> {
    uri.path().strip_prefix("/git/")?.split('/').next()
}

/// The organisation that the request names, by `x-loom-org` or `?org=`.
pub(super) fn wanted_org(headers: &HeaderMap, uri: &Uri) -> Result<Option<String>> {
    if let Some(value) = headers.get("x-loom-org") {
        return value
            .to_str()
            .map(|text| Some(text.to_owned()))
            .map_err(|_| Error::malformed("invalid_request", "`x-loom-org` is an id or a slug"));
    }
    let query = uri.query().unwrap_or_default();
    Ok(query.split('&').find_map(|pair| pair.strip_prefix("org=")).map(str::to_owned))
}

/// The token in `?token=`, which counts for a WebSocket only.
pub(super) fn ws_token(request: &Parts) -> Option<&str> {
    if !is_websocket(request) {
        return None;
    }
    request.uri.query()?.split('&').find_map(|pair| pair.strip_prefix("token="))
}
