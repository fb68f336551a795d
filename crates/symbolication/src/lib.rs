//! Addresses and minified positions into functions, files and lines. Knows files, no database and no
//! project: where the files are is the caller's matter ([`Files`]).

pub mod bundle;
mod derived;
mod guard;
mod inflated;
mod inspect;
mod lookup;
mod mapping;
mod measures;
mod minidump;
mod model;
mod native;
mod script;
mod sources;
mod symbolicator;
mod unwind;

use std::path::PathBuf;

use loom_core::{
    Result,
    id::{ArtifactId, ProjectId},
    port::BoxFuture,
};

pub use guard::Malformed;
pub use inspect::{
    Features, Format, ObjectInfo, debug_id_of_build_id, inspect, normalize_code_id,
    normalize_debug_id,
};
pub use measures::METRICS;
pub use minidump::{Dump, DumpFrame, DumpModule, DumpThread};
pub use model::*;
pub use symbolicator::Symbolicator;

/// Which file could know.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Wanted {
    /// A debug file of a native module; with symbols (true) or with what unwinds stacks (false).
    Debug { debug_id: Option<String>, code_id: Option<String>, symbols: bool },
    /// Sources of a native module.
    SourceBundle { debug_id: String },
    /// A ProGuard or R8 mapping.
    Mapping { uuid: String },
    /// A script with a debug id, or its source map.
    ScriptById { debug_id: String, source_map: bool },
    /// A script by its URL (`~/static/app.js` matches any origin), or the map that it names.
    ScriptByUrl { release: String, dist: Option<String>, url: String, source_map: bool },
}

/// A file on this machine.
#[derive(Clone, Debug)]
pub struct File {
    pub id: ArtifactId,
    /// SHA-256 of the content, which derived files are kept under.
    pub digest: [u8; 32],
    pub name: String,
    pub path: PathBuf,
    /// Header `sourcemap` of a script in a bundle: where its map is, relative to the script.
    pub source_map: Option<String>,
}

/// Where files are. Implemented by the owner of artifacts.
pub trait Files: Send + Sync {
    /// The best file of a project for what is wanted; fetched to this machine when it is elsewhere.
    fn find<'a>(
        &'a self,
        project: ProjectId,
        wanted: &'a Wanted,
    ) -> BoxFuture<'a, Result<Option<File>>>;
}

#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Derived files lie here.
    pub cache_dir: PathBuf,
    /// Bytes of derived files; the least used go first.
    pub cache_bytes: u64,
    /// Files that are worked on at the same time.
    pub parallel: usize,
}
