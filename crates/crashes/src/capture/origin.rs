//! May pages of this origin send to a project?

use http::{HeaderMap, header};
use loom_core::port::Project;

/// What is not sent by a page has no origin.
pub(super) fn is_allowed(project: &Project, headers: &HeaderMap) -> bool {
    let Some(origin) = headers.get(header::ORIGIN) else { return true };
    let Ok(origin) = origin.to_str() else { return false };
    project.allowed_origins.iter().any(|allowed| matches(allowed, origin))
}

fn matches(allowed: &str, origin: &str) -> bool {
    if allowed == "*" {
        return true;
    }
    let Some((scheme, host)) = origin.split_once("://") else { return false };
    let (wanted_scheme, wanted_host) = match allowed.split_once("://") {
        Some((scheme, host)) => (Some(scheme), host),
        None => (None, allowed),
    };
    if wanted_scheme.is_some_and(|wanted| !wanted.eq_ignore_ascii_case(scheme)) {
        return false;
    }
    // A host without a port is that host with any, when no scheme is said.
    let bare = host.rsplit_once(':').map_or(host, |(name, port)| {
        if port.bytes().all(|byte| byte.is_ascii_digit()) { name } else { host }
    });
    let candidates = if wanted_scheme.is_none() { [host, bare] } else { [host, host] };
    candidates.iter().any(|host| match wanted_host.strip_prefix("*.") {
        Some(domain) => {
            let host = host.to_ascii_lowercase();
            host.strip_suffix(&domain.to_ascii_lowercase()).is_some_and(|rest| rest.ends_with('.'))
        }
        None => wanted_host.eq_ignore_ascii_case(host),
    })
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn an_origin_is_compared_by_scheme_host_and_port() {
        for (allowed, origin) in [
            ("*", "https://anything.example"),
            ("example.com", "https://example.com"),
            ("example.com", "http://example.com:8080"),
            ("*.example.com", "https://a.b.example.com"),
            ("https://example.com", "https://EXAMPLE.com"),
            ("https://*.example.com:8443", "https://a.example.com:8443"),
        ] {
            assert!(matches(allowed, origin), "{allowed} {origin}");
        }
        for (allowed, origin) in [
            ("example.com", "https://example.com.evil.test"),
            ("*.example.com", "https://example.com"),
            ("*.example.com", "https://badexample.com"),
            ("https://example.com", "http://example.com"),
            ("https://example.com", "https://example.com:8443"),
            ("example.com", "null"),
        ] {
            assert!(!matches(allowed, origin), "{allowed} {origin}");
        }
    }
}
