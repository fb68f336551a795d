//! The one place that we live at: its cookies, and which requests come from its own pages.

use std::{net::IpAddr, time::Duration};

use axum::http::{HeaderMap, HeaderValue, Method, header, request::Parts};
use reqwest::Url;

/// The longest path that somebody is sent back to.
const MAX_PATH: usize = 2000;

/// The URL under which users reach this server, and what follows from it.
#[derive(Clone, Debug)]
pub(crate) struct Site {
    /// Without a slash at its end.
    pub(crate) base_url: String,
    url: Option<Url>,
    /// Are cookies `Secure` and named `__Host-`? Always but on plain http at this machine itself,
    /// where browsers differ in whether they keep such cookies.
    secure: bool,
}

impl Site {
    pub(crate) fn new(base_url: &str) -> Self {
        let url = base_url.parse::<Url>().ok();
        let local = url.as_ref().is_some_and(|url| {
            let host = url.host_str().unwrap_or_default();
            let ip = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
            url.scheme() == "http"
                && (host == "localhost"
                    || host.ends_with(".localhost")
                    || ip.is_ok_and(|ip| ip.is_loopback()))
        });
        Self { base_url: base_url.trim_end_matches('/').to_owned(), url, secure: !local }
    }

    /// Can a browser keep our cookies? Not over plain http from another machine.
    pub(crate) fn keeps_cookies(&self) -> bool {
        !self.secure || self.url.as_ref().is_some_and(|url| url.scheme() == "https")
    }

    pub(crate) fn session_cookie(&self) -> &'static str {
        if self.secure { "__Host-loom_session" } else { "loom_session" }
    }

    /// Binds what was begun in a browser (a sign-in at a provider, a magic link) to that browser.
    pub(crate) fn browser_cookie(&self) -> &'static str {
        if self.secure { "__Host-loom_browser" } else { "loom_browser" }
    }

    /// `Set-Cookie`; an age of zero takes the cookie away.
    pub(crate) fn set_cookie(&self, name: &str, value: &str, age: Duration) -> HeaderValue {
        let secure = if self.secure { "; Secure" } else { "" };
        let text = format!(
            "{name}={value}; Path=/; Max-Age={}; HttpOnly; SameSite=Lax{secure}",
            age.as_secs()
        );
        // Names are ours and values base64url.
        HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static(""))
    }

    /// Does the request come from a page of ours, or from the person directly? As browsers say it
    /// (`Sec-Fetch-Site`), else by `Origin`; one that says neither is refused.
    pub(crate) fn is_own_request(&self, headers: &HeaderMap) -> bool {
        if let Some(site) = headers.get("sec-fetch-site") {
            return site == "same-origin" || site == "none";
        }
        self.has_own_origin(headers)
    }

    fn has_own_origin(&self, headers: &HeaderMap) -> bool {
        let Some(origin) = headers.get(header::ORIGIN).and_then(|origin| origin.to_str().ok())
        else {
            return false;
        };
        let Ok(origin) = origin.parse::<Url>() else { return false };
        if self.url.as_ref().is_some_and(|own| own.origin() == origin.origin()) {
            return true;
        }
        // A browser names the host that it speaks to; cookies of ours go nowhere else.
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
        let scheme = if self.secure { "https" } else { "http" };
        host.and_then(|host| format!("{scheme}://{host}").parse::<Url>().ok())
            .is_some_and(|own| own.origin() == origin.origin())
    }

    /// Does the request say that it comes from a page that is not ours?
    pub(crate) fn has_foreign_origin(&self, headers: &HeaderMap) -> bool {
        headers.contains_key(header::ORIGIN) && !self.has_own_origin(headers)
    }

    /// May a cookie authenticate this request? One that changes something, or opens a WebSocket,
    /// must come from a page of ours: the browser attaches the cookie whoever asks.
    pub(crate) fn cookie_counts(&self, request: &Parts) -> bool {
        let headers = &request.headers;
        if is_websocket(request) {
            // Browsers always name the origin here.
            return self.has_own_origin(headers);
        }
        let safe = matches!(request.method, Method::GET | Method::HEAD | Method::OPTIONS);
        safe || self.is_own_request(headers)
    }

    /// `path`, when it leads to this server and nowhere else.
    pub(crate) fn own_path(&self, path: &str) -> Option<String> {
        let sound = path.len() <= MAX_PATH
            && path.starts_with('/')
            && !path.starts_with("//")
            && path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\');
        let stays = self
            .url
            .as_ref()
            .is_none_or(|own| own.join(path).is_ok_and(|url| url.origin() == own.origin()));
        (sound && stays).then(|| path.to_owned())
    }
}

/// A value of a cookie in a request.
pub(crate) fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(';'))
        .find_map(|pair| pair.trim().strip_prefix(name)?.strip_prefix('='))
}

/// Does the request open a WebSocket, over HTTP/1.1 or HTTP/2?
pub(crate) fn is_websocket(request: &Parts) -> bool {
    let upgrade = request.headers.get(header::UPGRADE).and_then(|value| value.to_str().ok());
    upgrade.is_some_and(|value| value.eq_ignore_ascii_case("websocket"))
        || request.method == Method::CONNECT
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| ((*name).parse().unwrap(), value.parse().unwrap()))
            .collect()
    }

    #[test]
    fn only_paths_of_our_own_are_followed() {
        let site = Site::new("https://loom.example.com");
        for path in ["/", "/account", "/device?user_code=AB-CD", "/a//b", "/%2F%2Fevil.example"] {
            assert_eq!(site.own_path(path).as_deref(), Some(path));
        }
        let long = format!("/{}", "a".repeat(MAX_PATH));
        for path in [
            "",
            "account",
            "//evil.example",
            "///evil.example",
            "/\\evil.example",
            "\\\\evil.example",
            "https://evil.example",
            "https:/evil.example",
            "javascript:alert(1)",
            "/\t/evil.example",
            "/\n/evil.example",
            "/\u{0}",
            "/a\r\nset-cookie: x=y",
            " /account",
            "/ä",
            "@evil.example",
            &long,
        ] {
            assert_eq!(site.own_path(path), None, "{path:?}");
        }
    }

    #[test]
    fn a_request_is_our_own_when_the_browser_says_so_and_by_origin_when_it_says_nothing() {
        let site = Site::new("https://loom.example.com");
        let own = |pairs: &[(&'static str, &str)]| site.is_own_request(&headers(pairs));
        assert!(own(&[("sec-fetch-site", "same-origin")]));
        assert!(own(&[("sec-fetch-site", "none")]));
        assert!(!own(&[("sec-fetch-site", "same-site"), ("origin", "https://loom.example.com")]));
        assert!(!own(&[("sec-fetch-site", "cross-site")]));
        assert!(own(&[("origin", "https://loom.example.com")]));
        assert!(own(&[("origin", "https://inner.example"), ("host", "inner.example")]));
        for origin in [
            "https://evil.example",
            "http://loom.example.com",
            "https://loom.example.com:8443",
            "https://loom.example.com.evil.example",
            "null",
            "",
        ] {
            assert!(!own(&[("origin", origin), ("host", "loom.example.com")]), "{origin}");
        }
        assert!(!own(&[]));
    }

    #[test]
    fn cookies_are_secure_everywhere_but_at_this_machine() {
        for (base_url, name, kept) in [
            ("https://loom.example.com", "__Host-loom_session", true),
            ("https://localhost:8443", "__Host-loom_session", true),
            ("http://localhost:8080", "loom_session", true),
            ("http://127.0.0.1:8080", "loom_session", true),
            ("http://[::1]:8080", "loom_session", true),
            ("http://loom.example.com", "__Host-loom_session", false),
            ("http://localhost.evil.example", "__Host-loom_session", false),
            ("http://192.168.1.5:8080", "__Host-loom_session", false),
        ] {
            let site = Site::new(base_url);
            assert_eq!((site.session_cookie(), site.keeps_cookies()), (name, kept), "{base_url}");
            let cookie = site.set_cookie(name, "v", Duration::from_secs(60));
            let cookie = cookie.to_str().unwrap();
            assert_eq!(cookie.contains("; Secure"), name.starts_with("__Host-"), "{cookie}");
            assert!(cookie.contains("Path=/;") && cookie.contains("; HttpOnly; SameSite=Lax"));
            assert!(!cookie.contains("Domain"));
        }
    }

    #[test]
    fn a_cookie_is_found_by_its_whole_name_in_any_line() {
        let mut map = headers(&[("cookie", "a=1; loom_session=xyz; loom_sessions=no")]);
        assert_eq!(cookie(&map, "loom_session"), Some("xyz"));
        assert_eq!(cookie(&map, "loom"), None);
        map.append(header::COOKIE, HeaderValue::from_static("b=2"));
        assert_eq!(cookie(&map, "b"), Some("2"));
    }
}
