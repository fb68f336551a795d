//! Settings of the vault.

use loom_core::config::Env;

use crate::MasterKey;

const MASTER_KEY: &str = "LOOM_SERVER_MASTER_KEY";
const PREVIOUS_KEY: &str = "LOOM_SERVER_MASTER_KEY_PREVIOUS";

#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Encrypts stored secrets. Absent: one is made and kept in the data directory.
    pub master_key: Option<MasterKey>,
    /// Opens what was sealed before a rotation; seals nothing.
    pub previous_key: Option<MasterKey>,
}

impl Config {
    pub fn load(env: &mut Env) -> Self {
        Self { master_key: key(env, MASTER_KEY), previous_key: key(env, PREVIOUS_KEY) }
    }
}

fn key(env: &mut Env, name: &str) -> Option<MasterKey> {
    let text = env.secret(name)?;
    match text.expose().parse() {
        Ok(key) => Some(key),
        Err(error) => {
            env.problem(name, format!("{error}; `openssl rand -base64 32` makes one"));
            None
        }
    }
}
