//! Which repository a git remote names, whatever way it is written: `host/owner/repo`.

/// The longest remote that is taken, in bytes.
pub(crate) const MAX_BYTES: usize = 1000;

/// `host/path`, the host in lower case, without scheme, user, password, port and `.git`.
/// None when it names no host with a path, as a directory on the client's disk does.
pub(crate) fn normalise(remote: &str) -> Option<String> {
    let remote = remote.trim();
    if remote.is_empty() || remote.len() > MAX_BYTES || remote.chars().any(char::is_control) {
        return None;
    }
    let (authority, path) = match remote.split_once("://") {
        Some((scheme, _)) if scheme.eq_ignore_ascii_case("file") => return None,
        Some((_, rest)) => rest.split_once('/')?,
        None => split_without_scheme(remote)?,
    };
    let host = authority.rsplit('@').next().unwrap_or(authority);
    let host = without_port(host).to_ascii_lowercase();
    // A query or fragment names no repository, and may hold a token.
    let path = path.split(['?', '#']).next().unwrap_or(path);
    let path = path.trim_matches('/');
    let path = path.strip_suffix(".git").unwrap_or(path).trim_end_matches('/');
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let plain_host = !host.is_empty()
        && host
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '[' | ']'));
    let plain_path =
        parts.iter().all(|part| !matches!(*part, "." | ".." | "~") && !part.contains('@'));
    if !plain_host || parts.is_empty() || !plain_path {
        return None;
    }
    Some(format!("{host}/{}", parts.join("/")))
}

/// `user@host:path` as scp writes it, or `host/path` as we do.
fn split_without_scheme(remote: &str) -> Option<(&str, &str)> {
    let head = remote.split('/').next().unwrap_or(remote);
    let user = head.rfind('@').map_or(0, |at| at + 1);
    let remote = remote.get(user..)?;
    let slash = remote.find('/');
    match remote.split_once(':') {
        Some((host, path)) if slash.is_none_or(|slash| host.len() < slash) => {
            let drive = user == 0 && host.len() == 1 && path.starts_with(['/', '\\']);
            // `host:22/owner/repo`: a port, not a path.
            let port = path.split_once('/').filter(|(port, _)| is_number(port));
            (!drive).then_some((host, port.map_or(path, |(_, rest)| rest)))
        }
        _ => own_form(remote, slash?),
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// `host/owner/repo`: the host has a dot, or it would be a path on somebody's disk.
fn own_form(remote: &str, slash: usize) -> Option<(&str, &str)> {
    let (host, path) = remote.split_at_checked(slash)?;
    let named = host == "localhost" || (host.contains('.') && !host.starts_with('.'));
    named.then_some((host, path))
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if is_number(port) && !name.ends_with(':') => name,
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::normalise;

    #[test]
    fn every_way_to_write_a_remote_names_the_same_repository() {
        for remote in [
            "git@git.example.com:team/app.git",
            "git@git.example.com:/team/app.git",
            "https://git.example.com/team/app",
            "https://git.example.com/team/app.git/",
            "https://user:tok%40en@git.example.com/team/app.git",
            "https://GIT.example.com/team/app.git?token=x#y",
            "user:token@git.example.com/team/app.git",
            "ssh://git@git.example.com:22/team/app.git",
            "git://git.example.com/team//app",
            "git@git.example.com:22/team/app.git",
            " git.example.com/team/app ",
        ] {
            assert_eq!(normalise(remote).as_deref(), Some("git.example.com/team/app"), "{remote}");
        }
        assert_eq!(normalise("h:o/r.git").as_deref(), Some("h/o/r"));
        assert_eq!(normalise("https://h/a/b/c.git").as_deref(), Some("h/a/b/c"));
    }

    #[test]
    fn what_it_gives_it_takes() {
        for remote in ["git@git.example.com:o/r.git", "https://localhost:3000/o/r"] {
            let once = normalise(remote).unwrap();
            assert_eq!(normalise(&once), Some(once));
        }
    }

    #[test]
    fn no_part_of_a_password_comes_through() {
        for remote in ["https://user:tok/en@h/o/r", "user:tok/en@h/o/r"] {
            assert_eq!(normalise(remote), None, "{remote}");
        }
    }

    #[test]
    fn a_directory_is_no_repository() {
        for remote in [
            "",
            "/srv/git/app.git",
            "./app",
            "../app",
            "file:///srv/app",
            "app",
            "https://h",
            "git@h:",
            "C:/src/app",
        ] {
            assert_eq!(normalise(remote), None, "{remote}");
        }
    }
}
