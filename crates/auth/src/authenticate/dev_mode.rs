//! Which requests are the developer's own.

use std::net::IpAddr;

use axum::http::{Version, header, request::Parts, uri::Authority};

/// Does the request come straight from this machine, and from no page but our own? Otherwise any web
/// page in the developer's browser, or anybody behind a local proxy, were an admin.
pub(super) fn is_local_and_own(request: &Parts) -> bool {
    let headers = &request.headers;
    // A proxy that was set up in one line (nginx's `proxy_pass`) adds none of the headers below and
    // names us as the host; it speaks HTTP/1.0, which no browser and no tool of today does.
    if request.version < Version::HTTP_11 {
        return false;
    }
    let forwarded = [
        "cf-connecting-ip",
        "forwarded",
        "true-client-ip",
        "x-client-ip",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-port",
        "x-forwarded-proto",
        "x-forwarded-server",
        "x-real-ip",
        "via",
    ];
    if forwarded.iter().any(|name| headers.contains_key(*name)) {
        return false;
    }
    let host = headers
        .get(header::HOST)
        .and_then(|value| value.to_str().ok())
        .or_else(|| request.uri.authority().map(Authority::as_str));
    let Some(host) = host.filter(|host| is_loopback_host(host)) else { return false };
    let own_origin = headers.get(header::ORIGIN).is_none_or(|origin| {
        origin.to_str().is_ok_and(|origin| origin.strip_prefix("http://") == Some(host))
    });
    let own_site =
        headers.get("sec-fetch-site").is_none_or(|site| site == "same-origin" || site == "none");
    own_origin && own_site
}

fn is_loopback_host(host: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else { return false };
    let name = authority.host().trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}
