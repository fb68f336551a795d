//! Which release is the older one: by semantic version where both are one of the same package, else by
//! which was seen first.

use std::cmp::Ordering;

use chrono::{DateTime, Utc};

/// Digits of a number in a key.
const WIDTH: usize = 20;

/// A release with what orders it.
#[derive(Clone, Debug)]
pub(crate) struct Known<'a> {
    pub version: &'a str,
    /// None: never seen, and so younger than all that were.
    pub first_seen: Option<DateTime<Utc>>,
}

pub(crate) fn compare(a: &Known<'_>, b: &Known<'_>) -> Ordering {
    if a.version == b.version {
        return Ordering::Equal;
    }
    if package(a.version) == package(b.version)
        && let (Some(a), Some(b)) = (sort_key(a.version), sort_key(b.version))
    {
        return a.cmp(&b);
    }
    match (a.first_seen, b.first_seen) {
        (Some(a), Some(b)) => a.cmp(&b),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => Ordering::Equal,
    }
}

/// `shop` of `shop@1.2.3`.
fn package(version: &str) -> &str {
    version.rsplit_once('@').map_or("", |(package, _)| package)
}

/// A text that sorts, by its bytes (`COLLATE "C"`), as the semantic version in `package@version` does; none
/// where it is no such version. One to four numbers count as a version, and a `v` before it.
pub(crate) fn sort_key(version: &str) -> Option<String> {
    let version = version.rsplit_once('@').map_or(version, |(_, version)| version);
    let version = version.strip_prefix('v').unwrap_or(version);
    // What was built twice of the same is equal, by the standard.
    let version = version.split('+').next()?;
    let (numbers, before) = match version.split_once('-') {
        Some((numbers, before)) => (numbers, Some(before)),
        None => (version, None),
    };
    let mut key = String::new();
    let mut count = 0;
    for number in numbers.split('.') {
        count += 1;
        if count > 4 {
            return None;
        }
        key.push_str(&padded(number)?);
    }
    // A bare number is a build or a date as often as not, and orders all the same.
    for _ in count..4 {
        key.push_str(&padded("0")?);
    }
    match before {
        // After everything that comes before it.
        None => key.push('~'),
        Some(before) => {
            for part in before.split('.') {
                match padded(part) {
                    Some(number) => {
                        key.push_str("!0");
                        key.push_str(&number);
                    }
                    None if is_word(part) => {
                        key.push_str("!1");
                        key.push_str(part);
                    }
                    None => return None,
                }
            }
        }
    }
    Some(key)
}

fn is_word(part: &str) -> bool {
    !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

fn padded(number: &str) -> Option<String> {
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    (is_number && number.len() <= WIDTH).then(|| format!("{number:0>WIDTH$}"))
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;

    #[test]
    fn versions_sort_as_the_standard_says() {
        let sorted = [
            "1.0.0-alpha",
            "1.0.0-alpha.1",
            "1.0.0-alpha.beta",
            "1.0.0-beta",
            "1.0.0-beta.2",
            "1.0.0-beta.11",
            "1.0.0-rc.1",
            "1.0.0",
            "1.0.1",
            "1.2",
            "1.10.0",
            "v2.0.0",
            "10.0.0.1",
        ];
        for pair in sorted.windows(2) {
            assert!(sort_key(pair[0]) < sort_key(pair[1]), "{pair:?}");
        }
        assert_eq!(sort_key("shop@1.0.0+5"), sort_key("1.0.0+6"));
        for other in ["7f3a9c", "2026-11-23", "1..2", "", "1.2.3.4.5", "1.0.0-ü", "release"] {
            assert_eq!(sort_key(other).is_some(), other == "2026-11-23", "{other}");
        }
    }

    #[test]
    fn what_is_no_version_goes_by_when_it_was_seen() {
        let at = |secs| DateTime::from_timestamp(secs, 0);
        let known = |version, secs| Known { version, first_seen: at(secs) };
        assert_eq!(compare(&known("7f3a9c", 1), &known("01bd77", 2)), Ordering::Less);
        // Versions of different packages say nothing of each other.
        assert_eq!(compare(&known("a@9.0.0", 1), &known("b@1.0.0", 2)), Ordering::Less);
        assert_eq!(compare(&known("a@9.0.0", 1), &known("a@1.0.0", 2)), Ordering::Greater);
        let unseen = Known { version: "abcdef", first_seen: None };
        assert_eq!(compare(&known("7f3a9c", 1), &unseen), Ordering::Less);
    }
}
