//! The vault from outside: sealing, tampering, rotation, and the key file.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic")]

mod files;
mod sealing;

use std::path::PathBuf;

use loom_vault::{Config, MasterKey, Vault};

/// A directory of one test, removed with it.
struct TempDir(PathBuf);

impl TempDir {
    fn new() -> Self {
        let name = format!("loom-vault-test-{:016x}", rand::random::<u64>());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A key that is `seed` and 31 further bytes.
fn key(seed: u8) -> MasterKey {
    let hex: String = (0..32u8).map(|i| format!("{:02x}", i ^ seed)).collect();
    hex.parse().unwrap()
}

fn vault(current: u8, previous: Option<u8>) -> Vault {
    let config = Config { master_key: Some(key(current)), previous_key: previous.map(key) };
    Vault::open(config, "/nonexistent".as_ref()).unwrap()
}
