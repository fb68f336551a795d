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
    /// Batches of events that are processed at once.
    pub workers: u32,
    /// Alerts of a project in an hour; the first that is too many says so, the others are only logged.
    pub alerts_per_hour: i32,
}

/// Where the artifacts lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArtifactPlace<'a> {
    Directory(&'a Path),
    Bucket(&'a str),
}

impl Config {
    pub fn artifact_place(&self) -> ArtifactPlace<'_> {
        match &self.artifacts.place {
            artifacts::config::Place::Directory(path) => ArtifactPlace::Directory(path),
            artifacts::config::Place::S3(s3) => ArtifactPlace::Bucket(&s3.bucket),
        }
    }

    pub fn load(env: &mut Env, data_dir: &Path, base_url: &str) -> Self {
        let workers = env.number("LOOM_SERVER_CRASHES_WORKERS", 2, 1, 64);
        let alerts_per_hour = env.number("LOOM_SERVER_CRASHES_ALERTS_PER_HOUR", 20, 1, 10_000);
        Self {
            workers,
            alerts_per_hour,
            base_url: base_url.to_owned(),
            data_dir: data_dir.to_owned(),
            artifacts: artifacts::config::Config::load(env, data_dir),
        }
    }
}
