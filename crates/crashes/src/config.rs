//! Settings of error tracking.

use std::path::{Path, PathBuf};

use loom_core::config::Env;

use crate::artifacts;

#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Where users, and applications, reach this server, without a slash at the end: DSNs begin with it.
    pub base_url: String,
    /// Artifacts and derived files lie under it.
    pub data_dir: PathBuf,
    pub(crate) artifacts: artifacts::config::Config,
}

impl Config {
    pub fn load(env: &mut Env, data_dir: &Path, base_url: &str) -> Self {
        Self {
            base_url: base_url.to_owned(),
            data_dir: data_dir.to_owned(),
            artifacts: artifacts::config::Config::load(env, data_dir),
        }
    }
}
