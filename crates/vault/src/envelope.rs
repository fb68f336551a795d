//! The form of a sealed secret, version 1:
//!
//! | bytes | what |
//! |---|---|
//! | 1 | version |
//! | 4 | id of the master key |
//! | 24 + 48 | nonce, and the data key encrypted by the master key |
//! | 24 + n + 16 | nonce, and the secret encrypted by the data key |
//!
//! Both are XChaCha20-Poly1305. The master key's id is bound to the first, the context to the second.

use chacha20poly1305::{
    XChaCha20Poly1305, XNonce,
    aead::{Aead, KeyInit, Payload},
};
use loom_common_secret::SecretString;
use zeroize::{Zeroize, Zeroizing};

use crate::{
    KeyId, MasterKey,
    error::Fault,
    key::{KEY_LEN, random},
};

const VERSION: u8 = 1;
const NONCE: usize = 24;
const TAG: usize = 16;
const WRAPPED: usize = NONCE + KEY_LEN + TAG;

pub(crate) struct Envelope {
    key_id: KeyId,
    wrapped_key: Vec<u8>,
    sealed: Vec<u8>,
}

impl Envelope {
    pub(crate) fn seal(master: &MasterKey, context: &str, plain: &[u8]) -> Result<Self, Fault> {
        let data_key = Zeroizing::new(random::<KEY_LEN>().map_err(Fault::Random)?);
        Ok(Self {
            key_id: master.id(),
            wrapped_key: wrap(master, &data_key)?,
            sealed: encrypt(&data_key, &secret_aad(context), plain)?,
        })
    }

    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, Fault> {
        let (version, rest) = bytes.split_first().ok_or(Fault::UnknownForm)?;
        let (key_id, rest) = rest.split_first_chunk().ok_or(Fault::UnknownForm)?;
        let (wrapped_key, sealed) = rest.split_at_checked(WRAPPED).ok_or(Fault::UnknownForm)?;
        if *version != VERSION || sealed.len() < NONCE + TAG {
            return Err(Fault::UnknownForm);
        }
        Ok(Self {
            key_id: KeyId(*key_id),
            wrapped_key: wrapped_key.to_vec(),
            sealed: sealed.to_vec(),
        })
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        [&[VERSION], self.key_id.0.as_slice(), &self.wrapped_key, &self.sealed].concat()
    }

    pub(crate) fn key_id(&self) -> KeyId {
        self.key_id
    }

    pub(crate) fn unseal(&self, master: &MasterKey, context: &str) -> Result<SecretString, Fault> {
        String::from_utf8(self.unseal_bytes(master, context)?).map(SecretString::from).map_err(
            |error| {
                error.into_bytes().zeroize();
                Fault::DoesNotOpen(self.key_id)
            },
        )
    }

    pub(crate) fn unseal_bytes(&self, master: &MasterKey, context: &str) -> Result<Vec<u8>, Fault> {
        let data_key = self.unwrap_key(master)?;
        decrypt(&data_key, &secret_aad(context), &self.sealed)
            .ok_or(Fault::DoesNotOpen(self.key_id))
    }

    pub(crate) fn rewrap(self, from: &MasterKey, to: &MasterKey) -> Result<Self, Fault> {
        let data_key = self.unwrap_key(from)?;
        Ok(Self { key_id: to.id(), wrapped_key: wrap(to, &data_key)?, sealed: self.sealed })
    }

    fn unwrap_key(&self, master: &MasterKey) -> Result<Zeroizing<[u8; KEY_LEN]>, Fault> {
        let fault = || Fault::DoesNotOpen(self.key_id);
        let plain = decrypt(master.bytes(), &key_aad(self.key_id), &self.wrapped_key)
            .map(Zeroizing::new)
            .ok_or_else(fault)?;
        let mut data_key = Zeroizing::new([0; KEY_LEN]);
        if plain.len() != KEY_LEN {
            return Err(fault());
        }
        data_key.copy_from_slice(&plain);
        Ok(data_key)
    }
}

fn wrap(master: &MasterKey, data_key: &[u8; KEY_LEN]) -> Result<Vec<u8>, Fault> {
    encrypt(master.bytes(), &key_aad(master.id()), data_key)
}

fn key_aad(id: KeyId) -> Vec<u8> {
    [b"loom-vault/1 key\0".as_slice(), &id.0].concat()
}

fn secret_aad(context: &str) -> Vec<u8> {
    [b"loom-vault/1 secret\0".as_slice(), context.as_bytes()].concat()
}

/// The nonce, and behind it the ciphertext with its tag.
fn encrypt(key: &[u8; KEY_LEN], aad: &[u8], plain: &[u8]) -> Result<Vec<u8>, Fault> {
    let nonce = random::<NONCE>().map_err(Fault::Random)?;
    let cipher = XChaCha20Poly1305::new(key.into());
    let sealed = cipher
        .encrypt(&XNonce::from(nonce), Payload { msg: plain, aad })
        .map_err(|_| Fault::Encrypt)?;
    Ok([nonce.as_slice(), &sealed].concat())
}

fn decrypt(key: &[u8; KEY_LEN], aad: &[u8], bytes: &[u8]) -> Option<Vec<u8>> {
    let (nonce, sealed) = bytes.split_first_chunk::<NONCE>()?;
    let cipher = XChaCha20Poly1305::new(key.into());
    cipher.decrypt(&XNonce::from(*nonce), Payload { msg: sealed, aad }).ok()
}
