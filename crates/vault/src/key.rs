//! The master key: 32 bytes that are wiped from memory, and the id by which it is spoken of.

use std::{fmt, str::FromStr};

use base64::{
    Engine, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig, general_purpose::STANDARD},
};
use rand::{TryRng, rngs::SysRng};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

pub(crate) const KEY_LEN: usize = 32;

const LENIENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const BASE64: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
const BASE64_URL: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);

/// The key that all others are wrapped with. Shows its id only.
#[derive(Clone)]
pub struct MasterKey {
    bytes: Zeroizing<[u8; KEY_LEN]>,
    id: KeyId,
}

/// Names a key without telling it: the first 4 bytes of its SHA-256, 8 hexadecimal digits in text.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyId(pub(crate) [u8; Self::LEN]);

/// Text that is no master key. Says nothing of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadKey {
    #[error("must be 32 random bytes, as 64 hexadecimal digits or in base64")]
    Form,
    #[error("must be 32 random bytes, and these are all the same")]
    Placeholder,
}

impl MasterKey {
    fn new(bytes: Zeroizing<[u8; KEY_LEN]>) -> Self {
        let digest: [u8; KEY_LEN] = Sha256::digest(bytes.as_slice()).into();
        let mut id = [0; KeyId::LEN];
        for (to, from) in id.iter_mut().zip(digest) {
            *to = from;
        }
        Self { bytes, id: KeyId(id) }
    }

    /// From the operating system's randomness.
    pub(crate) fn generate() -> Result<Self, String> {
        random().map(Zeroizing::new).map(Self::new)
    }

    pub fn id(&self) -> KeyId {
        self.id
    }

    pub(crate) fn bytes(&self) -> &[u8; KEY_LEN] {
        &self.bytes
    }

    /// As it is kept in a file.
    pub(crate) fn to_text(&self) -> Zeroizing<String> {
        Zeroizing::new(STANDARD.encode(self.bytes.as_slice()))
    }
}

/// Random bytes from the operating system; a text when it has none to give.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], String> {
    let mut bytes = [0; N];
    SysRng.try_fill_bytes(&mut bytes).map_err(|error| error.to_string())?;
    Ok(bytes)
}

impl FromStr for MasterKey {
    type Err = BadKey;

    /// 64 hexadecimal digits, or base64 in either alphabet, padded or not.
    fn from_str(text: &str) -> Result<Self, BadKey> {
        let text = text.trim();
        let decoded = hex::decode(text)
            .ok()
            .or_else(|| BASE64.decode(text).ok())
            .or_else(|| BASE64_URL.decode(text).ok())
            .map(Zeroizing::new)
            .ok_or(BadKey::Form)?;
        let mut bytes = Zeroizing::new([0; KEY_LEN]);
        if decoded.len() != KEY_LEN {
            return Err(BadKey::Form);
        }
        bytes.copy_from_slice(&decoded);
        if bytes.iter().all(|byte| Some(byte) == bytes.first()) {
            return Err(BadKey::Placeholder);
        }
        Ok(Self::new(bytes))
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MasterKey({})", self.id)
    }
}

impl KeyId {
    pub(crate) const LEN: usize = 4;
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
