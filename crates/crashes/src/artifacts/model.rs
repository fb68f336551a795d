//! Artifacts on the wire and in rows.

use chrono::{DateTime, Utc};
use loom_core::{
    Error, Result,
    id::{ArtifactId, ProjectId},
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, sqlx::Type, ToSchema)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub(crate) enum ArtifactKind {
    SourceMap,
    MinifiedSource,
    Elf,
    MachO,
    Pe,
    Pdb,
    PortablePdb,
    Breakpad,
    Wasm,
    Proguard,
    /// Sources of a native module, as sentry-cli gathers them.
    SourceBundle,
    /// Scripts and their maps, as sentry-cli gathers them.
    ArtifactBundle,
}

impl ArtifactKind {
    pub(crate) fn is_script(self) -> bool {
        matches!(self, Self::SourceMap | Self::MinifiedSource)
    }
}

/// A file that was uploaded for a project.
#[derive(Clone, Debug, Serialize, sqlx::FromRow, ToSchema)]
pub(crate) struct Artifact {
    pub id: ArtifactId,
    #[schema(value_type = String)]
    pub project_id: ProjectId,
    pub kind: ArtifactKind,
    pub name: String,
    #[serde(rename = "size_bytes")]
    pub size: i64,
    /// Of the content, in hexadecimal digits: two artifacts with the same share the space.
    #[serde(serialize_with = "as_hex")]
    #[schema(value_type = String)]
    pub sha256: Vec<u8>,
    pub release: Option<String>,
    pub dist: Option<String>,
    /// An e-mail address or a key's name.
    pub uploaded_by: Option<String>,
    #[serde(serialize_with = "loom_core::clock::millis")]
    pub created_at: DateTime<Utc>,
    /// By the day; it is removed when it was not used for the time that artifacts are kept.
    #[serde(serialize_with = "loom_core::clock::millis")]
    pub last_used_at: DateTime<Utc>,
}

fn as_hex<S: serde::Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&hex::encode(bytes))
}

/// What a file is found by.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct ArtifactObject {
    pub what: What,
    pub debug_id: Option<String>,
    pub code_id: Option<String>,
    pub arch: Option<String>,
    /// `symtab`, `debug`, `unwind`, `sources`
    pub features: Vec<String>,
    /// `~/static/app.min.js`: at any origin.
    pub url: Option<String>,
    /// The file of the bundle.
    pub entry: Option<String>,
    /// Where the script's map is, as the bundle says it.
    pub source_map: Option<String>,
    #[serde(rename = "size_bytes")]
    pub size: i64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, sqlx::Type, ToSchema)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub(crate) enum What {
    #[default]
    Debug,
    Sources,
    Mapping,
    Script,
    SourceMap,
}

impl What {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Sources => "sources",
            Self::Mapping => "mapping",
            Self::Script => "script",
            Self::SourceMap => "source_map",
        }
    }
}

/// An artifact with what it is found by.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ArtifactDetail {
    #[serde(flatten)]
    pub artifact: Artifact,
    /// The first 200.
    pub objects: Vec<ArtifactObject>,
    pub object_count: i64,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ArtifactPage {
    pub artifacts: Vec<Artifact>,
    pub next_cursor: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ArtifactFilter {
    pub release: Option<String>,
    pub dist: Option<String>,
    pub kind: Option<ArtifactKind>,
    /// Those with an object or a script of this debug id.
    pub debug_id: Option<String>,
}

/// What an uploader says of a file.
#[derive(Clone, Debug, Default)]
pub(crate) struct About {
    pub name: Option<String>,
    pub kind: Option<ArtifactKind>,
    pub release: Option<String>,
    pub dist: Option<String>,
    pub url: Option<String>,
    /// Said by whoever makes it known, where the file itself cannot say it.
    pub debug_id: Option<String>,
    pub uploaded_by: Option<String>,
}

const LONGEST_NAME: usize = 512;
/// An index takes no longer ones.
pub(crate) const LONGEST_URL: usize = 2000;

impl About {
    /// # Errors
    /// 422 for what cannot be stored or found again.
    pub(crate) fn check(mut self) -> Result<Self> {
        for (field, value) in [("release", &self.release), ("dist", &self.dist)] {
            if let Some(value) = value {
                crate::releases::check_version(field, value)?;
            }
        }
        if self.url.as_ref().is_some_and(|url| url.len() > LONGEST_URL || url.contains('\0')) {
            return Err(Error::invalid("url", format!("has at most {LONGEST_URL} bytes")));
        }
        self.name = self.name.map(|name| file_name(&name));
        Ok(self)
    }
}

/// The last part of what a client calls its file. It is shown, and never a path here.
pub(crate) fn file_name(name: &str) -> String {
    let last = name.rsplit(['/', '\\']).find(|part| !part.trim().is_empty()).unwrap_or("file");
    let clean: String = last.chars().filter(|c| !c.is_control()).take(LONGEST_NAME).collect();
    if clean.trim_matches('.').is_empty() { "file".to_owned() } else { clean }
}
