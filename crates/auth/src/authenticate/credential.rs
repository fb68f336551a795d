//! What a request shows and names.

use axum::http::{HeaderMap, Uri, header, request::Parts};
use loom_core::{Error, Result};

use crate::sessions::site::is_websocket;

/// The token of the request: `Authorization: Bearer`, else `x-api-key`.
pub(super) fn credential(headers: &HeaderMap) -> Result<Option<&str>> {
    if let Some(value) = headers.get(header::AUTHORIZATION) {
        let text = value.to_str().unwrap_or_default();
        let token =
            text.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        return match token {
            Some((_, token)) => Ok(Some(token.trim())),
            None => Err(Error::unauthenticated("`Authorization` must be `Bearer <token>`")),
        };
    }
    let key = headers.get("x-api-key").map(|value| value.to_str().unwrap_or_default().trim());
    Ok(key)
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
