//! Names of images: whether they are any, and whether they may run here.

const LONGEST: usize = 512;
/// Whose names have no host before them.
const HUB: &str = "docker.io";

/// The whole name of an image, `registry/path[:tag][@digest]`, if it is one.
pub(crate) fn whole(image: &str) -> Option<String> {
    if image.len() > LONGEST {
        return None;
    }
    let (name, digest) = match image.split_once('@') {
        Some((name, digest)) => (name, Some(digest)),
        None => (image, None),
    };
    if digest.is_some_and(|digest| !is_digest(digest)) {
        return None;
    }
    let last = name.rsplit('/').next().unwrap_or_default();
    // A colon before the last slash is a port's.
    let (path, tag) = match last.rsplit_once(':') {
        Some((_, tag)) => (name.strip_suffix(tag)?.strip_suffix(':')?, Some(tag)),
        None => (name, None),
    };
    if tag.is_some_and(|tag| !is_tag(tag)) {
        return None;
    }
    let (host, path) = split_host(path);
    if !is_host(host) || path.is_empty() || !path.split('/').all(is_part) {
        return None;
    }
    Some(format!("{}{}", with_hub(host, path), image.strip_prefix(name_without_tag(name, tag))?))
}

fn name_without_tag<'a>(name: &'a str, tag: Option<&str>) -> &'a str {
    tag.and_then(|tag| name.strip_suffix(tag)?.strip_suffix(':')).unwrap_or(name)
}

/// May an image of this whole name run where these may?
pub(crate) fn is_allowed(whole: &str, allowed: &[String]) -> bool {
    allowed.is_empty() || allowed.iter().any(|entry| is_covered(whole, entry))
}

/// An entry is the beginning of a name that ends in `/`, `:` or `@`, or a name as a whole.
fn is_covered(image: &str, entry: &str) -> bool {
    match entry.as_bytes().last() {
        Some(b'/') => {
            let (host, path) = split_host(entry.trim_end_matches('/'));
            // A host alone, as `ghcr.io/`, is no path of the hub.
            let begin = if path.is_empty() || is_registry(entry.trim_end_matches('/')) {
                entry.trim_end_matches('/').to_owned()
            } else {
                format!("{host}/{path}")
            };
            image.starts_with(&format!("{begin}/"))
        }
        Some(b':' | b'@') => {
            let (host, path) = split_host(entry.trim_end_matches([':', '@']));
            let begin = with_hub(host, path);
            let end = entry.trim_start_matches(entry.trim_end_matches([':', '@']));
            image.starts_with(&format!("{begin}{end}"))
        }
        _ => whole(entry).is_some_and(|entry| entry == image),
    }
}

fn is_registry(first: &str) -> bool {
    !first.contains('/') && (first.contains(['.', ':']) || first == "localhost")
}

fn split_host(name: &str) -> (&str, &str) {
    match name.split_once('/') {
        Some((host, path)) if is_registry(host) => (host, path),
        _ => (HUB, name),
    }
}

fn with_hub(host: &str, path: &str) -> String {
    let library = if host == HUB && !path.contains('/') { "library/" } else { "" };
    format!("{host}/{library}{path}")
}

fn is_host(host: &str) -> bool {
    let (name, port) = host.split_once(':').unwrap_or((host, "443"));
    let is_label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.split('.').all(is_label) && port.parse::<u16>().is_ok()
}

/// Lower case and digits, with single `.`, one or two `_`, or any number of `-` between them.
fn is_part(part: &str) -> bool {
    let mut run = String::new();
    let mut words = 0;
    for c in part.chars() {
        match c {
            'a'..='z' | '0'..='9' => {
                let is_separator =
                    matches!(run.as_str(), "" | "." | "_" | "__") || run.bytes().all(|b| b == b'-');
                if !is_separator || (words == 0 && !run.is_empty()) {
                    return false;
                }
                run.clear();
                words += 1;
            }
            '.' | '_' | '-' => run.push(c),
            _ => return false,
        }
    }
    words > 0 && run.is_empty()
}

fn is_tag(tag: &str) -> bool {
    let rest = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    (1..=128).contains(&tag.len()) && tag.bytes().all(rest) && !tag.starts_with(['.', '-'])
}

fn is_digest(digest: &str) -> bool {
    let Some((kind, hex)) = digest.split_once(':') else { return false };
    let length = match kind {
        "sha256" => 64,
        "sha512" => 128,
        _ => return false,
    };
    hex.len() == length && hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_a_name_of_an_image_and_what_is_none() {
        let digest = format!("sha256:{}", "a".repeat(64));
        for (image, name) in [
            ("alpine".to_owned(), "docker.io/library/alpine".to_owned()),
            ("alpine:3.20".to_owned(), "docker.io/library/alpine:3.20".to_owned()),
            ("acme/agent:1".to_owned(), "docker.io/acme/agent:1".to_owned()),
            ("ghcr.io/acme/agent".to_owned(), "ghcr.io/acme/agent".to_owned()),
            ("localhost:5000/a/b-c__d:x".to_owned(), "localhost:5000/a/b-c__d:x".to_owned()),
            (format!("a@{digest}"), format!("docker.io/library/a@{digest}")),
            (format!("r.io/a:1@{digest}"), format!("r.io/a:1@{digest}")),
        ] {
            assert_eq!(whole(&image).as_deref(), Some(name.as_str()), "{image}");
        }
        for image in [
            "",
            " ",
            "a b",
            "a;rm -rf /",
            "$(id)",
            "`id`",
            "a|b",
            "a\nb",
            "a&b",
            "Alpine",
            "a:",
            "a@",
            "a:b:c",
            "/a",
            "a/",
            "a//b",
            "../a",
            "a/../b",
            "a@sha256:12",
            "a:-x",
            "http://a/b",
            "a..b/c",
            ".a",
            "-a",
            "a-",
            "é",
            "ghcr.io/",
            "ghcr.io:99999/a",
            "a@md5:00",
            "a:tag/b:c:d",
        ] {
            assert_eq!(whole(image), None, "{image}");
        }
        assert_eq!(whole(&"a".repeat(513)), None);
    }

    #[test]
    fn the_list_holds_names_and_beginnings_of_names() {
        let allowed = |list: &[&str], image: &str| {
            let list: Vec<String> = list.iter().map(|&entry| entry.to_owned()).collect();
            is_allowed(&whole(image).unwrap(), &list)
        };
        for (list, image, yes) in [
            (&[][..], "anything", true),
            (&["ghcr.io/acme/"], "ghcr.io/acme/agent:1", true),
            (&["ghcr.io/acme/"], "ghcr.io/acme-evil/agent:1", false),
            (&["ghcr.io/"], "ghcr.io/any/thing", true),
            (&["ghcr.io/"], "ghcr.io.evil.com/any/thing", false),
            (&["acme/"], "acme/agent", true),
            (&["acme/"], "docker.io/acme/agent", true),
            (&["acme/"], "evil.com/acme/agent", false),
            (&["alpine:"], "alpine:3", true),
            (&["alpine:"], "alpine", false),
            (&["alpine:"], "alpine-evil:3", false),
            (&["alpine"], "alpine", true),
            (&["alpine"], "docker.io/library/alpine", true),
            (&["alpine"], "alpine:3", false),
            (&["alpine", "busybox:1"], "busybox:1", true),
        ] {
            assert_eq!(allowed(list, image), yes, "{list:?} {image}");
        }
        let digest = format!("sha256:{}", "a".repeat(64));
        assert!(allowed(&["r.io/a@"], &format!("r.io/a@{digest}")));
        assert!(!allowed(&["r.io/a@"], "r.io/a:1"));
    }
}
