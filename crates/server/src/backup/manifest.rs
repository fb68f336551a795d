//! What a backup says of itself.

use std::{fs, path::Path};

use anyhow::{Context, bail};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

pub(super) const FILE: &str = "manifest.json";
/// The first; one that is newer is not read.
pub(super) const FORMAT: u32 = 1;

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Manifest {
    pub(super) format: u32,
    pub(super) created_at: DateTime<Utc>,
    /// Of the program that wrote it.
    pub(super) version: String,
    pub(super) git_sha: String,
    /// Applied ones.
    pub(super) migrations: Vec<i64>,
    pub(super) key: Key,
    pub(super) repositories: usize,
    pub(super) artifacts: Artifacts,
    /// Of all files.
    pub(super) bytes: u64,
}

/// The master key, by its id; what it sealed is in the database.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub(super) enum Key {
    /// There is none: no server has run yet.
    None,
    Included {
        id: String,
    },
    LeftOut {
        id: String,
    },
    /// It comes from the settings.
    Configured {
        id: String,
    },
}

impl Key {
    pub(super) fn id(&self) -> Option<&str> {
        match self {
            Self::None => None,
            Self::Included { id } | Self::LeftOut { id } | Self::Configured { id } => Some(id),
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "place", rename_all = "snake_case")]
pub(super) enum Artifacts {
    Included { files: usize },
    Bucket { bucket: String },
}

impl Manifest {
    pub(super) fn write(&self, into: &Path) -> anyhow::Result<()> {
        let text = serde_json::to_string_pretty(self)? + "\n";
        fs::write(into.join(FILE), text).with_context(|| format!("{FILE} cannot be written"))
    }

    pub(super) fn read(from: &Path) -> anyhow::Result<Self> {
        let path = from.join(FILE);
        let text = fs::read_to_string(&path)
            .with_context(|| format!("{} is not a backup: no {FILE} in it", from.display()))?;
        let value: serde_json::Value =
            serde_json::from_str(&text).with_context(|| format!("{} is broken", path.display()))?;
        let format = value.get("format").and_then(serde_json::Value::as_u64);
        if format != Some(u64::from(FORMAT)) {
            bail!(
                "{} is of a form that this version does not know; use a newer one",
                path.display()
            );
        }
        serde_json::from_value(value).with_context(|| format!("{} is broken", path.display()))
    }
}
