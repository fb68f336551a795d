//! Settings of error tracking.

use std::path::{Path, PathBuf};

use loom_core::config::Env;

#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Where users, and applications, reach this server, without a slash at the end: DSNs begin with it.
    pub base_url: String,
    /// Artifacts and derived files lie under it.
    pub data_dir: PathBuf,
    /// Batches of events that are processed at once.
    pub workers: u32,
}

impl Config {
    pub fn load(env: &mut Env, data_dir: &Path, base_url: &str) -> Self {
        let workers = env.number("LOOM_SERVER_CRASHES_WORKERS", 2, 1, 64);
        Self { workers, base_url: base_url.to_owned(), data_dir: data_dir.to_owned() }
    }
}
