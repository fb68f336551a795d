//! Bundles of sources: a ZIP with a manifest, behind eight bytes of header. The sources of a native module
//! (source bundle), or scripts and their maps (artifact bundle).

use std::{
    collections::BTreeMap,
    io::{Cursor, Read, Write},
};

use serde::Deserialize;
use zip::ZipArchive;

use crate::{
    guard::{Malformed, guarded},
    inspect::{normalize_code_id, normalize_debug_id},
};

/// The bytes that a bundle begins with; its version follows, and then the ZIP.
pub const MAGIC: [u8; 4] = *b"SYSB";
/// An entry may unpack to this many bytes.
pub const MAX_ENTRY: u64 = 256 << 20;
/// Entries of a bundle.
pub const MAX_ENTRIES: usize = 50_000;
const MAX_MANIFEST: u64 = 64 << 20;

/// What a file of a bundle is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EntryKind {
    Source,
    MinifiedSource,
    SourceMap,
    IndexedRamBundle,
    /// Not said, or a word that is not known.
    #[serde(other)]
    Other,
}

impl EntryKind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::MinifiedSource => "minified_source",
            Self::SourceMap => "source_map",
            Self::IndexedRamBundle => "indexed_ram_bundle",
            Self::Other => "other",
        }
    }
}

/// A file of a bundle, as the manifest describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name in the ZIP.
    pub zip_path: String,
    pub kind: EntryKind,
    /// As `~/static/app.min.js`.
    pub url: Option<String>,
    /// Where the source was when it was compiled.
    pub path: Option<String>,
    pub debug_id: Option<String>,
    /// Header `sourcemap`: where its map is, relative to it.
    pub source_map: Option<String>,
    pub headers: BTreeMap<String, String>,
}

/// An open bundle.
pub struct Bundle<D: AsRef<[u8]>> {
    /// Of the native module whose sources these are.
    pub debug_id: Option<String>,
    pub code_id: Option<String>,
    pub object_name: Option<String>,
    pub arch: Option<String>,
    pub org: Option<String>,
    pub project: Option<String>,
    pub release: Option<String>,
    pub dist: Option<String>,
    pub entries: Vec<Entry>,
    archive: ZipArchive<Cursor<D>>,
}

#[derive(Deserialize)]
struct Manifest {
    #[serde(default)]
    files: BTreeMap<String, ManifestEntry>,
    #[serde(flatten)]
    attributes: BTreeMap<String, serde_json::Value>,
}

#[derive(Deserialize)]
struct ManifestEntry {
    #[serde(rename = "type")]
    kind: Option<EntryKind>,
    url: Option<String>,
    path: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
}

impl Bundle<&[u8]> {
    /// Whether the bytes begin as a bundle does.
    pub fn test(data: &[u8]) -> bool {
        data.starts_with(&MAGIC)
    }
}

impl<D: AsRef<[u8]>> Bundle<D> {
    /// Reads the manifest; also of a plain ZIP that has one.
    pub fn parse(data: D) -> Result<Self, Malformed> {
        guarded(|| Self::open(data))
    }

    fn open(data: D) -> Result<Self, Malformed> {
        let mut archive = ZipArchive::new(Cursor::new(data))
            .map_err(|e| Malformed::new(format_args!("not a ZIP: {e}")))?;
        if archive.len() > MAX_ENTRIES + 1 {
            return Err(Malformed::new(format_args!("more than {MAX_ENTRIES} files")));
        }
        let manifest = read(&mut archive, "manifest.json", MAX_MANIFEST)?;
        let manifest: Manifest = serde_json::from_slice(&manifest)
            .map_err(|e| Malformed::new(format_args!("manifest.json: {e}")))?;
        if manifest.files.len() > MAX_ENTRIES {
            return Err(Malformed::new(format_args!("more than {MAX_ENTRIES} files")));
        }
        let attribute = |name: &str| {
            let value = manifest.attributes.get(name)?.as_str()?;
            (!value.is_empty()).then(|| value.to_owned())
        };
        Ok(Self {
            debug_id: attribute("debug_id").and_then(|id| normalize_debug_id(&id)),
            code_id: attribute("code_id").and_then(|id| normalize_code_id(&id)),
            object_name: attribute("object_name"),
            arch: attribute("arch"),
            org: attribute("org"),
            project: attribute("project"),
            release: attribute("release"),
            dist: attribute("dist"),
            entries: manifest.files.into_iter().map(|(path, entry)| entry.named(path)).collect(),
            archive,
        })
    }

    /// The content of a file, which may be no larger than [`MAX_ENTRY`].
    pub fn read(&mut self, zip_path: &str) -> Result<Vec<u8>, Malformed> {
        guarded(|| read(&mut self.archive, zip_path, MAX_ENTRY))
    }

    /// The content of a file, written where the caller wants it; how many bytes.
    pub fn copy(&mut self, zip_path: &str, to: &mut dyn Write) -> Result<u64, Malformed> {
        guarded(|| {
            let file = entry(&mut self.archive, zip_path)?;
            let copied = std::io::copy(&mut file.take(MAX_ENTRY + 1), to)?;
            if copied > MAX_ENTRY { Err(too_large(zip_path, MAX_ENTRY)) } else { Ok(copied) }
        })
    }
}

impl ManifestEntry {
    fn named(self, zip_path: String) -> Entry {
        // Names of headers are case-insensitive; the manifest is not asked to write them small.
        let headers: BTreeMap<String, String> =
            self.headers.into_iter().map(|(k, v)| (k.to_ascii_lowercase(), v)).collect();
        Entry {
            zip_path,
            kind: self.kind.unwrap_or(EntryKind::Other),
            url: self.url.filter(|url| !url.is_empty()),
            path: self.path.filter(|path| !path.is_empty()),
            debug_id: headers.get("debug-id").and_then(|id| normalize_debug_id(id)),
            source_map: headers.get("sourcemap").or_else(|| headers.get("x-sourcemap")).cloned(),
            headers,
        }
    }
}

fn entry<'a, D: AsRef<[u8]>>(
    archive: &'a mut ZipArchive<Cursor<D>>,
    name: &str,
) -> Result<zip::read::ZipFile<'a, Cursor<D>>, Malformed> {
    archive.by_name(name).map_err(|e| Malformed::new(format_args!("{name}: {e}")))
}

fn read<D: AsRef<[u8]>>(
    archive: &mut ZipArchive<Cursor<D>>,
    name: &str,
    limit: u64,
) -> Result<Vec<u8>, Malformed> {
    let file = entry(archive, name)?;
    // The size that the directory says is a claim only.
    let mut content = Vec::with_capacity(usize::try_from(file.size().min(1 << 20)).unwrap_or(0));
    file.take(limit + 1).read_to_end(&mut content)?;
    if content.len() as u64 > limit { Err(too_large(name, limit)) } else { Ok(content) }
}

fn too_large(name: &str, limit: u64) -> Malformed {
    Malformed::new(format_args!("{name}: larger than {} MiB", limit >> 20))
}
