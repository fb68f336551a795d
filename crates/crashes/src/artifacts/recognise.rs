//! What an uploaded file is, and what it can be found by. Reads a file that anyone may have made: bounded,
//! and on a thread that may block.

use std::path::Path;

use loom_symbolication::{
    Format, Malformed, ObjectInfo,
    bundle::{Bundle, EntryKind, MAX_ENTRY},
    inspect, normalize_debug_id,
};
use serde::{Deserialize, de::IgnoredAny};
use symbolic_common::ByteView;

use super::model::{About, ArtifactKind, ArtifactObject, LONGEST_URL, What};

/// Scripts say their debug id and their map in their last lines.
const TAIL: usize = 64 << 10;

/// What a file turned out to be.
#[derive(Debug)]
pub(crate) struct Recognised {
    pub(crate) kind: ArtifactKind,
    pub(crate) objects: Vec<ArtifactObject>,
    /// The release that a bundle says of itself.
    pub(crate) release: Option<String>,
    pub(crate) dist: Option<String>,
}

/// Looks into a file; `about` says what the content cannot.
pub(crate) fn recognise(path: &Path, about: &About) -> Result<Recognised, Malformed> {
    let data = ByteView::open(path)?;
    if data.is_empty() {
        return Err(Malformed::new("the file is empty"));
    }
    if Bundle::test(&data) || data.starts_with(b"PK\x03\x04") {
        return of_bundle(&data);
    }
    if about.kind.is_some_and(ArtifactKind::is_script) {
        return of_script(&data, about);
    }
    match inspect(path) {
        Ok(objects) => of_objects(objects, &data, about),
        Err(error) if about.kind.is_some() => Err(error),
        Err(_) if looks_like_script(about) => of_script(&data, about),
        Err(error) => Err(error),
    }
}

fn looks_like_script(about: &About) -> bool {
    let name = about.name.as_deref().or(about.url.as_deref()).unwrap_or_default();
    [".js", ".mjs", ".cjs", ".map", ".bundle", ".jsbundle"].iter().any(|end| name.ends_with(end))
}

fn size(data: &[u8]) -> i64 {
    i64::try_from(data.len()).unwrap_or(i64::MAX)
}

fn of_objects(infos: Vec<ObjectInfo>, data: &[u8], about: &About) -> Result<Recognised, Malformed> {
    let format = infos.first().map(|info| info.format);
    let kind = match format {
        Some(Format::Elf) => ArtifactKind::Elf,
        Some(Format::MachO) => ArtifactKind::MachO,
        Some(Format::Pe) => ArtifactKind::Pe,
        Some(Format::Pdb) => ArtifactKind::Pdb,
        Some(Format::PortablePdb) => ArtifactKind::PortablePdb,
        Some(Format::Breakpad) => ArtifactKind::Breakpad,
        Some(Format::Wasm) => ArtifactKind::Wasm,
        Some(Format::ProGuard) => ArtifactKind::Proguard,
        Some(Format::SourceBundle) => ArtifactKind::SourceBundle,
        None => return Err(Malformed::new("there is no object in the file")),
    };
    let objects = infos.into_iter().map(|info| ArtifactObject {
        what: match info.format {
            Format::ProGuard => What::Mapping,
            Format::SourceBundle => What::Sources,
            _ => What::Debug,
        },
        // A mapping is known by the id that the build gave it, when the uploader says it.
        debug_id: match info.format {
            Format::ProGuard => about.debug_id.clone().or(info.debug_id),
            _ => info.debug_id.or_else(|| about.debug_id.clone()),
        },
        code_id: info.code_id,
        arch: Some(info.arch),
        features: info.features.names().into_iter().map(str::to_owned).collect(),
        size: size(data),
        ..ArtifactObject::default()
    });
    let objects: Vec<_> = objects.collect();
    if objects.iter().all(|object| object.debug_id.is_none() && object.code_id.is_none()) {
        return Err(Malformed::new(
            "the file has neither a debug id nor a build id: nothing could ever find it",
        ));
    }
    Ok(Recognised { kind, objects, release: None, dist: None })
}

fn of_bundle(data: &[u8]) -> Result<Recognised, Malformed> {
    let bundle = Bundle::parse(data)?;
    let mut objects = Vec::new();
    for entry in &bundle.entries {
        let what = match entry.kind {
            EntryKind::MinifiedSource | EntryKind::IndexedRamBundle => What::Script,
            EntryKind::SourceMap => What::SourceMap,
            EntryKind::Source | EntryKind::Other => continue,
        };
        let url = entry.url.as_deref().filter(|url| url.len() <= LONGEST_URL);
        if url.is_none() && entry.debug_id.is_none() {
            continue;
        }
        objects.push(ArtifactObject {
            what,
            debug_id: entry.debug_id.clone(),
            url: url.map(storable),
            entry: Some(storable(&entry.zip_path)),
            source_map: entry.source_map.as_deref().map(storable),
            ..ArtifactObject::default()
        });
    }
    let is_native = objects.is_empty() && bundle.debug_id.is_some();
    if is_native {
        objects.push(ArtifactObject {
            what: What::Sources,
            debug_id: bundle.debug_id.clone(),
            code_id: bundle.code_id.clone(),
            arch: bundle.arch.clone(),
            features: vec!["sources".to_owned()],
            size: size(data),
            ..ArtifactObject::default()
        });
    }
    if objects.is_empty() {
        return Err(Malformed::new(
            "the bundle has no script or source map with a URL or a debug id, and is of no native module",
        ));
    }
    Ok(Recognised {
        kind: if is_native { ArtifactKind::SourceBundle } else { ArtifactKind::ArtifactBundle },
        objects,
        release: bundle.release.clone().filter(|v| crate::releases::is_version(v)),
        dist: bundle.dist.clone().filter(|v| crate::releases::is_version(v)),
    })
}

#[derive(Deserialize)]
struct MapHead {
    version: Option<u32>,
    #[serde(alias = "debugId")]
    debug_id: Option<String>,
    mappings: Option<IgnoredAny>,
    sections: Option<IgnoredAny>,
}

fn of_script(data: &[u8], about: &About) -> Result<Recognised, Malformed> {
    if data.len() as u64 > MAX_ENTRY {
        return Err(Malformed::new(format_args!("larger than {} MiB", MAX_ENTRY >> 20)));
    }
    let map = of_map(data);
    let is_map = match (about.kind, &map) {
        (Some(ArtifactKind::SourceMap), Err(error)) => return Err(error.clone()),
        (Some(ArtifactKind::MinifiedSource), _) => false,
        (_, found) => found.is_ok(),
    };
    let (debug_id, source_map) = match map {
        Ok(map) if is_map => (map.debug_id, None),
        _ => tail(data),
    };
    if !is_map && std::str::from_utf8(data).is_err() {
        return Err(Malformed::new("a script is text in UTF-8"));
    }
    let url = about.url.clone().or_else(|| {
        // Without a release nothing is found by its URL.
        let name = about.name.as_ref()?;
        about.release.is_some().then(|| format!("~/{name}"))
    });
    let debug_id = debug_id.as_deref().and_then(normalize_debug_id).or(about.debug_id.clone());
    if debug_id.is_none() && (url.is_none() || about.release.is_none()) {
        return Err(Malformed::new(
            "the file has no debug id: say `release`, and `url` where it is served, so that it can be found",
        ));
    }
    let object = ArtifactObject {
        what: if is_map { What::SourceMap } else { What::Script },
        debug_id,
        url: url.as_deref().map(storable),
        source_map: source_map.as_deref().map(storable),
        size: size(data),
        ..ArtifactObject::default()
    };
    let kind = if is_map { ArtifactKind::SourceMap } else { ArtifactKind::MinifiedSource };
    Ok(Recognised { kind, objects: vec![object], release: None, dist: None })
}

/// The head of a source map.
fn of_map(data: &[u8]) -> Result<MapHead, Malformed> {
    // Some servers put this before JSON, so that no page can run it.
    let json = match data.strip_prefix(b")]}'") {
        Some(rest) => {
            rest.iter().position(|byte| *byte == b'\n').map_or(rest, |at| rest.split_at(at).1)
        }
        None => data,
    };
    let map: MapHead = serde_json::from_slice(json)
        .map_err(|error| Malformed::new(format_args!("not a source map: {error}")))?;
    let is_map = map.version.is_some() && (map.mappings.is_some() || map.sections.is_some());
    if is_map {
        Ok(map)
    } else {
        Err(Malformed::new("not a source map: no `version` and `mappings`"))
    }
}

/// Debug id and map of a script, as its last lines say them.
fn tail(data: &[u8]) -> (Option<String>, Option<String>) {
    let (_, end) = data.split_at(data.len().saturating_sub(TAIL));
    let text = String::from_utf8_lossy(end);
    let find = |names: [&str; 2]| {
        text.lines().rev().find_map(|line| {
            let value = names.iter().find_map(|name| line.trim().strip_prefix(name))?;
            let value = value.trim();
            (!value.is_empty() && value.len() <= LONGEST_URL && !value.starts_with("data:"))
                .then(|| value.to_owned())
        })
    };
    (
        find(["//# debugId=", "//@ debugId="]),
        find(["//# sourceMappingURL=", "//@ sourceMappingURL="]),
    )
}

fn storable(text: &str) -> String {
    text.replace('\0', "").chars().take(LONGEST_URL).collect()
}
