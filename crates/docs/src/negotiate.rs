//! What a caller would rather have, by the `Accept` header.

use http::{HeaderMap, header};

/// Does the caller like `wanted` better than `usual`? Not when it says nothing of either.
pub(crate) fn prefers(headers: &HeaderMap, wanted: &str, usual: &str) -> bool {
    let accept: Vec<&str> =
        headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
    let accept = accept.join(",");
    quality(&accept, wanted) > quality(&accept, usual)
}

/// In thousandths, by the most specific range that fits (RFC 9110, 12.5.1).
fn quality(accept: &str, kind: &str) -> u32 {
    let family = kind.split('/').next().unwrap_or_default();
    let mut best = (0, 0);
    for range in accept.split(',') {
        let mut pieces = range.split(';').map(str::trim);
        let name = pieces.next().unwrap_or_default().to_ascii_lowercase();
        let specific = match name.as_str() {
            name if name == kind => 3,
            name if name.strip_suffix("/*") == Some(family) => 2,
            "*/*" => 1,
            _ => continue,
        };
        let q = pieces.find_map(|piece| piece.strip_prefix("q=").or(piece.strip_prefix("Q=")));
        let q = q.map_or(Some(1.0), |q| q.parse::<f32>().ok()).unwrap_or(0.0);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 1000")]
        let q = (q.clamp(0.0, 1.0) * 1000.0) as u32;
        best = best.max((specific, q));
    }
    best.1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_browser_has_html_and_whoever_says_nothing_the_usual() {
        for (accept, html) in [
            ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", true),
            ("text/html", true),
            ("TEXT/HTML;q=0.9, application/json;q=0.1", true),
            ("text/*, application/json;q=0.5", true),
            ("application/json", false),
            ("application/json, text/html", false),
            ("text/html;q=0.1, application/json", false),
            ("text/html;q=0, */*", false),
            ("text/html;q=nonsense", false),
            ("*/*", false),
            ("", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, accept.parse().unwrap());
            assert_eq!(prefers(&headers, "text/html", "application/json"), html, "{accept}");
        }
        assert!(!prefers(&HeaderMap::new(), "text/html", "application/json"));
    }
}
