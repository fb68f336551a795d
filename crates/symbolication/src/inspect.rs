//! What a file is: which objects it holds and what they could tell.

use std::{fs, path::Path};

use proguard::ProguardMapping;
use serde::Serialize;
use symbolic_common::{ByteView, CodeId, DebugId};
use symbolic_debuginfo::{Archive, FileFormat, Object, ParseObjectOptions};
use uuid::Uuid;

use crate::{
    bundle::Bundle,
    guard::{Malformed, guarded},
    inflated,
};

/// Sections and sources that unpack to more than this are not read.
pub(crate) const MAX_UNPACKED: usize = 1 << 30;
/// How many times its file a section may be, when it is larger than this.
const MOST_PACKED: usize = 16;
const LEAST_UNPACKED: usize = 16 << 20;
/// Objects of a fat file that are looked at.
const MAX_OBJECTS: usize = 64;

/// The format of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    Elf,
    MachO,
    Pe,
    Pdb,
    PortablePdb,
    Breakpad,
    Wasm,
    SourceBundle,
    ProGuard,
}

impl Format {
    /// As debug tools name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Elf => "elf",
            Self::MachO => "macho",
            Self::Pe => "pe",
            Self::Pdb => "pdb",
            Self::PortablePdb => "portablepdb",
            Self::Breakpad => "breakpad",
            Self::Wasm => "wasm",
            Self::SourceBundle => "sourcebundle",
            Self::ProGuard => "proguard",
        }
    }
}

/// What an object can be asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Features {
    /// Names of functions.
    pub symtab: bool,
    /// Lines and inlined functions.
    pub debug: bool,
    /// How stacks are unwound.
    pub unwind: bool,
    pub sources: bool,
}

impl Features {
    /// As debug tools name them.
    pub fn names(self) -> Vec<&'static str> {
        [
            (self.symtab, "symtab"),
            (self.debug, "debug"),
            (self.unwind, "unwind"),
            (self.sources, "sources"),
        ]
        .into_iter()
        .filter_map(|(has, name)| has.then_some(name))
        .collect()
    }
}

/// One object of a file; a fat Mach-O file has several.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ObjectInfo {
    pub format: Format,
    /// `exe`, `lib`, `dbg`, `rel`, `src`, `proguard`…
    pub kind: &'static str,
    /// As events name it: a UUID in small letters, `-` and the age in hex when it has one.
    pub debug_id: Option<String>,
    pub code_id: Option<String>,
    /// `x86_64`, `arm64`… or `unknown`; `any` of mappings.
    pub arch: String,
    pub features: Features,
    /// The name that the object says of itself.
    pub name: Option<String>,
}

/// The objects of a debug file, a source bundle or a ProGuard mapping.
pub fn inspect(path: &Path) -> Result<Vec<ObjectInfo>, Malformed> {
    guarded(|| {
        let length = fs::metadata(path)?.len();
        if length == 0 {
            return Err(Malformed::new("the file is empty"));
        }
        let data = ByteView::open(path)?;
        inspect_bytes(&data)
    })
}

/// The debug id as all of Loom writes it, of any form that events and tools write: with and without
/// dashes, with an age or none, in any case.
pub fn normalize_debug_id(id: &str) -> Option<String> {
    let id = id.trim();
    if id.len() > 80 {
        return None;
    }
    let parsed: DebugId = id.parse().ok().or_else(|| DebugId::from_breakpad(id).ok())?;
    (!parsed.is_nil()).then(|| parsed.to_string())
}

/// The code id as all of Loom writes it: hex in small letters.
pub fn normalize_code_id(id: &str) -> Option<String> {
    let id = id.trim();
    if id.len() > 128 {
        return None;
    }
    let parsed: CodeId = id.parse().ok()?;
    (!parsed.is_nil()).then(|| parsed.to_string())
}

/// The debug id of an ELF image of which only the build id is known.
pub fn debug_id_of_build_id(code_id: &str) -> Option<String> {
    let code_id = normalize_code_id(code_id)?;
    let mut bytes = [0_u8; 16];
    let digits = code_id.as_bytes();
    if digits.len() < 2 {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(DebugId::from_uuid(Uuid::from_bytes_le(bytes)).to_string())
}

/// Of a file of so many bytes. Sections of programs are packed to a fifth; what is packed far smaller is meant
/// to fill the memory.
pub(crate) fn options(len: usize) -> ParseObjectOptions {
    let mut options = ParseObjectOptions::default();
    let unpacked = len.saturating_mul(MOST_PACKED).clamp(LEAST_UNPACKED, MAX_UNPACKED);
    options.max_decompressed_section_size = Some(unpacked);
    options.max_decompressed_embedded_source_size = Some(crate::bundle::MAX_ENTRY as usize);
    options.max_inline_depth = Some(256);
    options
}

fn inspect_bytes(data: &[u8]) -> Result<Vec<ObjectInfo>, Malformed> {
    if Bundle::test(data) {
        return Ok(vec![of_bundle(&Bundle::parse(data)?)]);
    }
    match Archive::peek(data) {
        FileFormat::Unknown => of_mapping(data),
        _ => {
            inflated::check(data)?;
            let archive = Archive::parse_with_opts(data, options(data.len()))
                .map_err(|e| Malformed::from_error(&e))?;
            let mut objects = Vec::new();
            for object in archive.objects().take(MAX_OBJECTS) {
                objects.push(of_object(&object.map_err(|e| Malformed::from_error(&e))?));
            }
            if objects.is_empty() {
                return Err(Malformed::new("there is no object in the file"));
            }
            Ok(objects)
        }
    }
}

fn of_object(object: &Object<'_>) -> ObjectInfo {
    let format = match object {
        Object::Breakpad(_) => Format::Breakpad,
        Object::Elf(_) => Format::Elf,
        Object::MachO(_) => Format::MachO,
        Object::Pdb(_) => Format::Pdb,
        Object::Pe(_) => Format::Pe,
        Object::PortablePdb(_) => Format::PortablePdb,
        Object::SourceBundle(_) => Format::SourceBundle,
        Object::Wasm(_) => Format::Wasm,
    };
    let debug_id = object.debug_id();
    ObjectInfo {
        format,
        kind: object.kind().name(),
        debug_id: (!debug_id.is_nil()).then(|| debug_id.to_string()),
        code_id: object.code_id().map(|id| id.to_string()),
        arch: object.arch().name().to_owned(),
        features: Features {
            symtab: object.has_symbols(),
            debug: object.has_debug_info(),
            unwind: object.has_unwind_info(),
            sources: object.has_sources(),
        },
        name: match object {
            Object::Elf(elf) => elf.name().map(str::to_owned),
            Object::MachO(macho) => macho.name().map(str::to_owned),
            Object::Breakpad(breakpad) => Some(breakpad.name().to_owned()),
            Object::Pe(pe) => pe.debug_file_name().map(std::borrow::Cow::into_owned),
            _ => None,
        }
        .filter(|name| !name.is_empty()),
    }
}

fn of_bundle(bundle: &Bundle<&[u8]>) -> ObjectInfo {
    ObjectInfo {
        format: Format::SourceBundle,
        kind: "src",
        debug_id: bundle.debug_id.clone(),
        code_id: bundle.code_id.clone(),
        arch: bundle.arch.clone().unwrap_or_else(|| "unknown".to_owned()),
        features: Features { sources: true, ..Features::default() },
        name: bundle.object_name.clone(),
    }
}

/// Mappings are known by the UUID that is made of their content.
fn of_mapping(data: &[u8]) -> Result<Vec<ObjectInfo>, Malformed> {
    let mapping = ProguardMapping::new(data);
    if !mapping.is_valid() {
        return Err(Malformed::new(
            "neither a debug file nor a source bundle nor a ProGuard mapping",
        ));
    }
    Ok(vec![ObjectInfo {
        format: Format::ProGuard,
        kind: "proguard",
        debug_id: Some(mapping.uuid().to_string()),
        code_id: None,
        arch: "any".to_owned(),
        features: Features { symtab: true, debug: mapping.has_line_info(), ..Features::default() },
        name: None,
    }])
}
