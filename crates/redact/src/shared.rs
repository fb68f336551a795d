//! The one redactor of this process: what it has learnt to be secret is masked in every exit, whoever
//! writes to it.

use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use arc_swap::ArcSwap;
use loom_common_secret::SecretString;
use percent_encoding::percent_decode_str;

use crate::Redactor;

/// More than any installation has keys; beyond, the oldest are forgotten.
const MOST_KNOWN: usize = 4_096;

static SHARED: LazyLock<ArcSwap<Redactor>> = LazyLock::new(ArcSwap::default);
/// Held while learning: making a redactor takes a while, and none may get lost.
static LEARNING: Mutex<()> = Mutex::new(());

/// The redactor of this process, with all that it has learnt until now.
pub fn shared() -> Arc<Redactor> {
    SHARED.load_full()
}

/// From now on these values are masked wherever the process shows a text; of a URL its password too.
/// Cheap when all are known already.
pub fn learn(secrets: impl IntoIterator<Item = SecretString>) {
    let _learning = LEARNING.lock().unwrap_or_else(PoisonError::into_inner);
    let known = SHARED.load_full();
    let mut all = known.known().to_vec();
    for secret in secrets {
        for value in passwords(secret.expose()).into_iter().chain([secret]) {
            if !all.contains(&value) {
                all.push(value);
            }
        }
    }
    if all.len() == known.known().len() {
        return;
    }
    let forgotten = all.len().saturating_sub(MOST_KNOWN);
    SHARED.store(Arc::new(Redactor::new(all.into_iter().skip(forgotten))));
}

/// These values are secrets no more, as a token that another one took the place of: so that what is
/// replaced every hour does not push out what lasts.
pub fn forget(secrets: &[SecretString]) {
    let _learning = LEARNING.lock().unwrap_or_else(PoisonError::into_inner);
    let known = SHARED.load_full();
    let kept: Vec<_> =
        known.known().iter().filter(|value| !secrets.contains(value)).cloned().collect();
    if kept.len() < known.known().len() {
        SHARED.store(Arc::new(Redactor::new(kept)));
    }
}

/// The password of a URL, in its userinfo or its query: as it stands there, and decoded.
fn passwords(url: &str) -> Vec<SecretString> {
    let Some((_, rest)) = url.split_once("://") else { return Vec::new() };
    let (authority, query) = rest.split_once('?').unwrap_or((rest, ""));
    // A password may hold a bare `@` or `/`; a host holds no `@`.
    let of_user = authority.rsplit_once('@').and_then(|(user, _)| user.split_once(':'));
    let of_query = query.split('&').filter_map(|pair| pair.split_once('='));
    of_user
        .into_iter()
        .chain(of_query.filter(|(name, _)| name.eq_ignore_ascii_case("password")))
        .flat_map(|(_, raw)| [raw.to_owned(), percent_decode_str(raw).decode_utf8_lossy().into()])
        .filter(|text| !text.is_empty())
        .map(SecretString::from)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_tells_its_password() {
        let of = |url| -> Vec<String> {
            passwords(url).iter().map(|secret| secret.expose().to_owned()).collect()
        };
        assert_eq!(of("postgres://u:p%40ss@h/d"), ["p%40ss", "p@ss"]);
        assert_eq!(of("postgres:///d?user=u&password=x%20y"), ["x%20y", "x y"]);
        for none in ["postgres://h/d", "postgres://u@h/d", "plain", "a:b@c"] {
            assert!(of(none).is_empty(), "{none}");
        }
    }
}
