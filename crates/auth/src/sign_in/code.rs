//! Codes that people type: eight letters that are not mistaken for each other and make no words.

use rand::RngExt;
use sha2::{Digest, Sha256};

/// No vowels, no letter that looks like another or like a digit: 20^8, about 34 bits.
const LETTERS: &[u8; 20] = b"BCDFGHJKLMNPQRSTVWXZ";
const LEN: usize = 8;

fn letter(at: usize) -> char {
    LETTERS.get(at % LETTERS.len()).copied().map_or('B', char::from)
}

/// A new code, as it is stored and compared: without the dash.
pub(crate) fn random() -> String {
    let mut rng = rand::rng();
    (0..LEN).map(|_| letter(rng.random_range(0..LETTERS.len()))).collect()
}

/// The code that belongs to a secret: whoever has the secret can show it, so that it is not stored.
pub(crate) fn of_secret(secret: &str) -> String {
    let digest = Sha256::new().chain_update(b"code\0").chain_update(secret).finalize();
    let mut number =
        digest.iter().take(16).fold(0_u128, |number, byte| (number << 8) | u128::from(*byte));
    (0..LEN)
        .map(|_| {
            let at = usize::try_from(number % 20).unwrap_or_default();
            number /= 20;
            letter(at)
        })
        .collect()
}

/// As it is shown: `BCDF-GHJK`.
pub(crate) fn shown(code: &str) -> String {
    let (first, second) = code.split_at_checked(LEN / 2).unwrap_or((code, ""));
    format!("{first}-{second}")
}

/// What somebody typed, as [`random`] gives it; None when it cannot be a code.
pub(crate) fn typed(text: &str) -> Option<String> {
    let code: String = text
        .chars()
        .filter(|c| !c.is_whitespace() && *c != '-')
        .take(LEN + 1)
        .map(|c| c.to_ascii_uppercase())
        .collect();
    let sound = code.len() == LEN && code.bytes().all(|byte| LETTERS.contains(&byte));
    sound.then_some(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_understood_however_it_is_typed() {
        let code = random();
        assert_eq!(typed(&shown(&code)), Some(code.clone()));
        assert_eq!(typed(&format!("  {} ", shown(&code).to_lowercase())), Some(code.clone()));
        assert_eq!(typed(&code), Some(code));
        for text in ["", "BCDF-GHJ", "BCDF-GHJKL", "AEIO-UAEI", "BCDF-GHJ\u{e4}", "12345678"] {
            assert_eq!(typed(text), None, "{text}");
        }
    }

    #[test]
    fn a_secret_always_leads_to_the_same_code_and_another_to_another() {
        assert_eq!(of_secret("one"), of_secret("one"));
        assert_ne!(of_secret("one"), of_secret("two"));
        assert_eq!(typed(&of_secret("one")), Some(of_secret("one")));
    }
}
