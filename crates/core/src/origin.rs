//! Which pages may send to a project: the one reading of what its settings name, for every way in.

/// Is a page of this origin among those? `*` is all; `https://app.example.com` is that; `example.com` is
/// it by any scheme and port; `*.example.com`, also with a scheme, is it and all below it.
pub fn is_allowed(allowed: &[String], origin: &str) -> bool {
    allowed.iter().any(|one| matches(one.trim(), origin))
}

fn matches(allowed: &str, origin: &str) -> bool {
    if allowed == "*" {
        return true;
    }
    let Some((scheme, authority)) = origin.split_once("://") else { return false };
    let (wanted_scheme, place) = match allowed.split_once("://") {
        Some((scheme, place)) => (Some(scheme).filter(|scheme| *scheme != "*"), place),
        None => (None, allowed),
    };
    if wanted_scheme.is_some_and(|wanted| !wanted.eq_ignore_ascii_case(scheme)) {
        return false;
    }
    let (host, port) = host_and_port(authority);
    let (wanted_host, wanted_port) = host_and_port(place.trim_end_matches('/'));
    // A port that is not named is any, but with a scheme it is the usual one, which browsers leave out.
    let usual = usual_port(scheme);
    let port_matches = match (wanted_port, wanted_scheme) {
        (Some(wanted), _) => port.or(usual) == Some(wanted),
        (None, Some(_)) => port.is_none() || port == usual,
        (None, None) => true,
    };
    port_matches && host_matches(wanted_host, host)
}

fn host_matches(wanted: &str, host: &str) -> bool {
    let Some(domain) = wanted.strip_prefix("*.") else {
        return !wanted.is_empty() && wanted.eq_ignore_ascii_case(host);
    };
    let split = host.len().checked_sub(domain.len()).and_then(|at| host.split_at_checked(at));
    split.is_some_and(|(before, end)| {
        end.eq_ignore_ascii_case(domain) && (before.is_empty() || before.ends_with('.'))
    })
}

fn host_and_port(authority: &str) -> (&str, Option<&str>) {
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) => {
            (host, Some(port))
        }
        _ => (authority, None),
    }
}

fn usual_port(scheme: &str) -> Option<&'static str> {
    if scheme.eq_ignore_ascii_case("https") {
        Some("443")
    } else if scheme.eq_ignore_ascii_case("http") {
        Some("80")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::is_allowed;

    #[test]
    fn pages_are_let_in_by_origin_host_or_domain() {
        let cases = [
            ("*", "https://a.example.com", true),
            ("*", "null", true),
            ("https://a.example.com", "https://a.example.com", true),
            ("https://a.example.com/", "https://A.example.com", true),
            ("https://a.example.com", "http://a.example.com", false),
            ("https://a.example.com", "https://a.example.com:8443", false),
            ("https://a.example.com", "https://a.example.com:443", true),
            ("https://a.example.com:443", "https://a.example.com", true),
            ("https://a.example.com:8443", "https://a.example.com:8443", true),
            ("*://a.example.com", "http://a.example.com:3000", true),
            ("a.example.com", "https://a.example.com", true),
            ("a.example.com", "http://a.example.com:3000", true),
            ("a.example.com", "https://a.example.com.evil.org", false),
            ("a.example.com:3000", "http://a.example.com:3000", true),
            ("a.example.com:3000", "http://a.example.com:3001", false),
            ("a.example.com", "https://b.example.com", false),
            ("*.shop.example", "https://www.shop.example", true),
            ("*.shop.example", "https://shop.example", true),
            ("*.shop.example", "https://a.b.SHOP.example:8080", true),
            ("*.shop.example", "https://badshop.example", false),
            ("*.shop.example", "https://shop.example.evil.org", false),
            ("https://*.shop.example", "https://a.shop.example", true),
            ("https://*.shop.example", "http://a.shop.example", false),
            ("https://*.shop.example", "https://a.shop.example:8443", false),
            ("https://*.shop.example:8443", "https://a.shop.example:8443", true),
            ("http://[::1]:3000", "http://[::1]:3000", true),
            ("[::1]", "http://[::1]:3000", true),
            ("capacitor://localhost", "capacitor://localhost", true),
            ("a.example.com", "null", false),
            ("", "https://a.example.com", false),
            ("", "https://", false),
        ];
        for (allowed, from, expected) in cases {
            assert_eq!(is_allowed(&[allowed.to_owned()], from), expected, "{allowed} {from}");
        }
        assert!(!is_allowed(&[], "https://a.example.com"));
    }
}
