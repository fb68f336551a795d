//! Names of repositories and branches, as they may be.

const MAX: usize = 100;

/// 1 to 100 of letters, digits, `.`, `_` and `-`, and nothing that git, a path or a URL could take for
/// something else.
pub(crate) fn is_repository_name(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    (1..=MAX).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
        && !name.starts_with(['.', '-'])
        && !name.contains("..")
        && !name.ends_with('.')
        && ![".git", ".lock"].iter().any(|end| lower.ends_with(end))
        // In a URL an id stands in the same place.
        && name.parse::<uuid::Uuid>().is_err()
}

/// What `git check-ref-format` allows, of the characters that are the same everywhere.
pub(crate) fn is_branch_name(name: &str) -> bool {
    (1..=200).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-/+".contains(&byte))
        && !name.starts_with('-')
        && name != "HEAD"
        && !name.contains("..")
        && name.split('/').all(|part| {
            !part.is_empty()
                && !part.starts_with('.')
                && !part.ends_with('.')
                && !part.ends_with(".lock")
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_name_is_one_plain_word() {
        for good in ["a", "loom", "Loom.rs", "_x", "9", "a-b_c.d", &"x".repeat(100)] {
            assert!(is_repository_name(good), "{good}");
        }
        for bad in [
            "",
            ".",
            "..",
            "a/b",
            "a\\b",
            ".a",
            "-a",
            "a..b",
            "a.",
            "a.git",
            "a.GIT",
            "a.lock",
            "a b",
            "a\0",
            "ä",
            "a\n",
            "0199aaaa-0000-7000-8000-00000000dead",
            "../a",
            "%2e%2e",
            &"x".repeat(101),
        ] {
            assert!(!is_repository_name(bad), "{bad}");
        }
    }

    #[test]
    fn a_branch_name_is_one_that_git_takes() {
        for good in ["main", "release/1.0", "a-b", "v1+2"] {
            assert!(is_branch_name(good), "{good}");
        }
        for bad in [
            "", "-x", "a..b", "/a", "a/", "a//b", ".a", "a/.b", "a.lock", "a b", "HEAD", "a~1",
            "a\0",
        ] {
            assert!(!is_branch_name(bad), "{bad}");
        }
    }
}
