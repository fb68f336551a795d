//! Envelope encryption of stored secrets. Each secret has a random key of its own; the master key
//! encrypts only these, so that a rotation re-wraps a few bytes and never touches the secret.

mod config;
mod envelope;
mod error;
mod key;
mod key_file;

use std::{fmt, path::Path};

use hmac::{Hmac, KeyInit, Mac};
use loom_common_secret::SecretString;
use loom_core::Result;
use sha2::Sha256;

pub use config::Config;
pub use error::OpenError;
pub use key::{BadKey, KeyId, MasterKey};
pub use key_file::NAME as KEY_FILE;

use envelope::Envelope;
use error::Fault;

/// The handle: the master key in force, and the one before it while a rotation is under way.
pub struct Vault {
    current: MasterKey,
    previous: Option<MasterKey>,
}

impl Vault {
    /// With the key of the configuration, else with the one kept in `<data_dir>/master.key`, which
    /// is made when there is none. Reads and writes files: call it at start only.
    pub fn open(config: Config, data_dir: &Path) -> Result<Self, OpenError> {
        let current = match config.master_key {
            Some(key) => key,
            None => key_file::read_or_make(data_dir)?,
        };
        let previous = config.previous_key.filter(|previous| previous.id() != current.id());
        Ok(Self { current, previous })
    }

    /// The key that [`Vault::open`] would take, and None where it would make one.
    pub fn key_in_force(config: &Config, data_dir: &Path) -> Result<Option<MasterKey>, OpenError> {
        match &config.master_key {
            Some(key) => Ok(Some(key.clone())),
            None => key_file::find(data_dir),
        }
    }

    /// With a key that is kept nowhere: what it seals dies with it.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub fn ephemeral() -> Result<Self> {
        let current = MasterKey::generate().map_err(loom_core::Error::internal)?;
        Ok(Self { current, previous: None })
    }

    /// The key that seals.
    pub fn key_id(&self) -> KeyId {
        self.current.id()
    }

    /// Encrypts a secret for storage. `context` says where it is kept (as `table/column/row id`);
    /// the result opens there and nowhere else, so that a row cannot be swapped for another.
    pub fn seal(&self, context: &str, secret: &SecretString) -> Result<Vec<u8>> {
        self.seal_bytes(context, secret.expose().as_bytes())
    }

    /// As [`Vault::seal`], for what is confidential without being a secret: a text of some megabytes
    /// takes some milliseconds.
    pub fn seal_bytes(&self, context: &str, plain: &[u8]) -> Result<Vec<u8>> {
        Ok(Envelope::seal(&self.current, context, plain)?.to_bytes())
    }

    /// What [`Vault::seal_bytes`] was given with the same `context`.
    ///
    /// # Errors
    /// As [`Vault::unseal`].
    pub fn unseal_bytes(&self, context: &str, sealed: &[u8]) -> Result<Vec<u8>> {
        let envelope = Envelope::parse(sealed)?;
        let key = self.key(envelope.key_id())?;
        Ok(envelope.unseal_bytes(key, context)?)
    }

    /// The secret that [`Vault::seal`] was given with the same `context`.
    ///
    /// # Errors
    /// 500: altered, of another context, or sealed with a key that is not here; the cause names the
    /// key that is needed and those that are there.
    pub fn unseal(&self, context: &str, sealed: &[u8]) -> Result<SecretString> {
        let envelope = Envelope::parse(sealed)?;
        let key = self.key(envelope.key_id())?;
        Ok(envelope.unseal(key, context)?)
    }

    /// Was it sealed with another key than the one in force? Also true for what is no envelope at
    /// all, so that [`Vault::rewrap`] gets to say so.
    pub fn needs_rewrap(&self, sealed: &[u8]) -> bool {
        Envelope::parse(sealed).map_or(true, |envelope| envelope.key_id() != self.current.id())
    }

    /// The same secret under the key in force. The secret itself is not decrypted, and the context
    /// stays what it was.
    pub fn rewrap(&self, sealed: &[u8]) -> Result<Vec<u8>> {
        let envelope = Envelope::parse(sealed)?;
        let key = self.key(envelope.key_id())?;
        Ok(envelope.rewrap(key, &self.current)?.to_bytes())
    }

    /// A key for another purpose, which all servers with this master key share, as hexadecimal digits.
    /// It tells nothing of the master key, nor of keys for other purposes (HMAC-SHA256 as the
    /// expansion of a key that is uniformly random already).
    ///
    /// # Errors
    /// Never, with a key of 32 bytes.
    pub fn derive(&self, purpose: &str) -> Result<SecretString> {
        derive(&self.current, purpose)
    }

    /// As [`Vault::derive`], and the same as before while a rotation is under way.
    ///
    /// # Errors
    /// Never, with a key of 32 bytes.
    pub fn derive_lasting(&self, purpose: &str) -> Result<SecretString> {
        derive(self.previous.as_ref().unwrap_or(&self.current), purpose)
    }

    fn key(&self, needed: KeyId) -> Result<&MasterKey, Fault> {
        let previous = self.previous.as_ref();
        std::iter::once(&self.current).chain(previous).find(|key| key.id() == needed).ok_or_else(
            || Fault::UnknownKey {
                needed,
                current: self.current.id(),
                previous: previous.map(MasterKey::id),
            },
        )
    }
}

fn derive(key: &MasterKey, purpose: &str) -> Result<SecretString> {
    let mut mac =
        Hmac::<Sha256>::new_from_slice(key.bytes()).map_err(loom_core::Error::internal)?;
    mac.update(b"loom/derived-key/1/");
    mac.update(purpose.as_bytes());
    Ok(SecretString::from(hex::encode(mac.finalize().into_bytes())))
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vault")
            .field("current", &self.current)
            .field("previous", &self.previous)
            .finish()
    }
}
