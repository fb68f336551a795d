//! The settings of repositories.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use loom_core::config::Env;

#[derive(Clone, Debug)]
pub struct Config {
    /// Where the repositories lie; replicas share it.
    pub(crate) root: PathBuf,
    /// Without a slash at its end.
    pub(crate) base_url: String,
    pub(crate) max_push_bytes: u64,
    pub(crate) max_repository_bytes: u64,
    pub(crate) max_repositories: i64,
    pub(crate) max_processes: usize,
    /// Without a byte in either direction.
    pub(crate) idle_timeout: Duration,
    /// A whole clone or push.
    pub(crate) timeout: Duration,
    pub(crate) maintenance_interval: Duration,
    /// Of one repository.
    pub(crate) maintenance_timeout: Duration,
}

impl Config {
    /// Where the repositories lie: `<organisation>/<repository>.git`, by ids.
    pub fn directory(&self) -> &Path {
        &self.root
    }

    pub fn load(env: &mut Env, data_dir: &Path, base_url: &str) -> Self {
        // Git runs elsewhere than we do.
        let data_dir = std::path::absolute(data_dir).unwrap_or_else(|_| data_dir.to_owned());
        Self {
            root: data_dir.join("repos"),
            base_url: base_url.to_owned(),
            max_push_bytes: env.number("LOOM_SERVER_SCM_MAX_PUSH_BYTES", 1 << 30, 1 << 10, 1 << 40),
            max_repository_bytes: env.number(
                "LOOM_SERVER_SCM_MAX_REPOSITORY_BYTES",
                10 << 30,
                1 << 10,
                1 << 44,
            ),
            max_repositories: env.number("LOOM_SERVER_SCM_MAX_REPOSITORIES", 1000, 1, 1_000_000),
            max_processes: env.number("LOOM_SERVER_SCM_MAX_PROCESSES", 32, 1, 10_000),
            idle_timeout: env.secs("LOOM_SERVER_SCM_IDLE_TIMEOUT_SECS", 120, 1, 3600),
            timeout: env.secs("LOOM_SERVER_SCM_TIMEOUT_SECS", 3600, 1, 24 * 3600),
            maintenance_interval: env.secs(
                "LOOM_SERVER_SCM_MAINTENANCE_INTERVAL_SECS",
                86_400,
                60,
                31 * 86_400,
            ),
            maintenance_timeout: env.secs(
                "LOOM_SERVER_SCM_MAINTENANCE_TIMEOUT_SECS",
                1800,
                1,
                24 * 3600,
            ),
        }
    }
}
