//! The form of our tokens: `loom_<kind>_`, 30 random base62 characters, and 6 that hold the CRC32 of
//! all before them, so that a fake is told offline (the scheme GitHub uses for its tokens).

use loom_common_secret::SecretString;
use rand::RngExt;
use sha2::{Digest, Sha256};

const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const RANDOM: usize = 30;
const CHECK: usize = 6;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TokenKind {
    /// A user's API key.
    Personal,
    /// An organisation's own key.
    Service,
    Weaver,
    /// A session of a command-line client.
    Cli,
}

impl TokenKind {
    const ALL: [Self; 4] = [Self::Personal, Self::Service, Self::Weaver, Self::Cli];

    fn prefix(self) -> &'static str {
        match self {
            Self::Personal => "loom_pat_",
            Self::Service => "loom_svc_",
            Self::Weaver => "loom_wvr_",
            Self::Cli => "loom_cli_",
        }
    }
}

/// What the database keeps of a token.
pub(crate) fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

/// What is mailed to somebody: 43 characters, about 256 bits of randomness. It is no credential.
pub(crate) fn one_time() -> SecretString {
    let mut rng = rand::rng();
    let text: String = (0..43).map(|_| base62(rng.random_range(0..62))).collect();
    SecretString::from(text)
}

/// A new token, about 178 bits of randomness.
pub(crate) fn generate(kind: TokenKind) -> SecretString {
    let mut rng = rand::rng();
    let mut token = String::with_capacity(kind.prefix().len() + RANDOM + CHECK);
    token.push_str(kind.prefix());
    for _ in 0..RANDOM {
        token.push(base62(rng.random_range(0..62)));
    }
    let check = checksum(&token);
    token.push_str(&check);
    SecretString::from(token)
}

/// The kind of a token that is well-formed and whose checksum is right; nothing else is looked up.
pub(crate) fn parse(token: &str) -> Option<TokenKind> {
    let kind = TokenKind::ALL.into_iter().find(|kind| token.starts_with(kind.prefix()))?;
    let secret = token.strip_prefix(kind.prefix())?;
    if secret.len() != RANDOM + CHECK || !secret.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return None;
    }
    let (body, check) = token.split_at(token.len() - CHECK);
    (checksum(body) == check).then_some(kind)
}

fn checksum(body: &str) -> String {
    let mut rest = crc32fast::hash(body.as_bytes());
    let mut digits = [0_u32; CHECK];
    for digit in digits.iter_mut().rev() {
        *digit = rest % 62;
        rest /= 62;
    }
    digits.into_iter().map(base62).collect()
}

fn base62(digit: u32) -> char {
    BASE62.get(digit as usize).copied().map_or('0', char::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generated_token_parses_as_its_kind_and_a_changed_one_does_not() {
        for kind in TokenKind::ALL {
            let token = generate(kind);
            assert_eq!(parse(token.expose()), Some(kind));
            let mut changed = token.expose().to_owned().into_bytes();
            let at = changed.len() - 10;
            changed[at] = if changed[at] == b'a' { b'b' } else { b'a' };
            assert_eq!(parse(&String::from_utf8(changed).unwrap()), None);
        }
    }

    #[test]
    fn other_texts_are_no_tokens() {
        for text in
            ["", "loom_pat_", "sk-ant-api03-abc", "loom_pat_äöüäöüäöüäöüäöüäöü", "loom_xyz_000000"]
        {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
