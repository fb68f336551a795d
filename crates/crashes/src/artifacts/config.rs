//! Settings of artifacts and of symbolication's cache.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use loom_common_secret::SecretString;
use loom_core::config::Env;

#[derive(Clone, Debug, Default)]
pub(crate) struct Config {
    pub(crate) place: Place,
    /// Of one file, also as it is when it is unpacked.
    pub(crate) max_bytes: u64,
    /// Since its last use.
    pub(crate) retention: Duration,
    /// Where files of bundles and of a remote store lie for a while.
    pub(crate) cache_dir: PathBuf,
    pub(crate) cache_bytes: u64,
    pub(crate) symbolication: loom_symbolication::Config,
}

/// Where the contents lie.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    /// A directory that all replicas share.
    Directory(PathBuf),
    S3(S3),
}

impl Default for Place {
    fn default() -> Self {
        Self::Directory(PathBuf::new())
    }
}

/// A bucket of AWS, or of what speaks S3.
#[derive(Clone, Debug)]
pub(crate) struct S3 {
    pub(crate) bucket: String,
    pub(crate) region: String,
    /// None: that of AWS.
    pub(crate) endpoint: Option<String>,
    /// None: the role of the machine.
    pub(crate) access_key: Option<(String, SecretString)>,
    /// What all names begin with.
    pub(crate) prefix: String,
    pub(crate) virtual_hosted: bool,
}

impl Config {
    pub(crate) fn load(env: &mut Env, data_dir: &Path) -> Self {
        let directory = env.path("LOOM_SERVER_ARTIFACTS_DIR");
        let s3 = load_s3(env);
        if directory.is_some() && s3.is_some() {
            env.problem(
                "LOOM_SERVER_ARTIFACTS_DIR",
                "give a directory or LOOM_SERVER_ARTIFACTS_S3_BUCKET, not both",
            );
        }
        let place = s3.map_or_else(
            || Place::Directory(directory.unwrap_or_else(|| data_dir.join("artifacts"))),
            Place::S3,
        );
        let days: u64 = env.number("LOOM_SERVER_ARTIFACTS_RETENTION_DAYS", 90, 1, 3650);
        Self {
            place,
            max_bytes: env.number("LOOM_SERVER_ARTIFACTS_MAX_BYTES", 2 << 30, 1 << 10, 16 << 30),
            retention: Duration::from_secs(days * 86_400),
            cache_dir: data_dir.join("cache/artifacts"),
            cache_bytes: env.number("LOOM_SERVER_ARTIFACTS_CACHE_BYTES", 2 << 30, 1 << 20, 1 << 44),
            symbolication: loom_symbolication::Config {
                cache_dir: data_dir.join("cache/symbols"),
                cache_bytes: env.number(
                    "LOOM_SERVER_SYMBOLICATION_CACHE_BYTES",
                    2 << 30,
                    1 << 20,
                    1 << 44,
                ),
                parallel: env.number("LOOM_SERVER_SYMBOLICATION_PARALLEL", 4, 1, 1024),
            },
        }
    }
}

fn load_s3(env: &mut Env) -> Option<S3> {
    let bucket = env.optional::<String>("LOOM_SERVER_ARTIFACTS_S3_BUCKET", "a name");
    let region = env.get("LOOM_SERVER_ARTIFACTS_S3_REGION", "us-east-1".to_owned(), "a region");
    let endpoint = env.optional::<String>("LOOM_SERVER_ARTIFACTS_S3_ENDPOINT", "an http(s) URL");
    if endpoint
        .as_ref()
        .is_some_and(|url| !url.starts_with("https://") && !url.starts_with("http://"))
    {
        env.problem("LOOM_SERVER_ARTIFACTS_S3_ENDPOINT", "must be an http(s) URL");
    }
    let id = env.optional::<String>("LOOM_SERVER_ARTIFACTS_S3_ACCESS_KEY_ID", "the id of a key");
    let secret = env.secret("LOOM_SERVER_ARTIFACTS_S3_SECRET_ACCESS_KEY");
    let prefix = env.get("LOOM_SERVER_ARTIFACTS_S3_PREFIX", "loom".to_owned(), "a path");
    let virtual_hosted = env.flag("LOOM_SERVER_ARTIFACTS_S3_VIRTUAL_HOSTED", endpoint.is_none());
    if id.is_some() != secret.is_some() {
        env.problem(
            "LOOM_SERVER_ARTIFACTS_S3_ACCESS_KEY_ID",
            "goes with LOOM_SERVER_ARTIFACTS_S3_SECRET_ACCESS_KEY",
        );
    }
    Some(S3 {
        bucket: bucket?,
        region,
        endpoint,
        access_key: id.zip(secret),
        prefix,
        virtual_hosted,
    })
}
