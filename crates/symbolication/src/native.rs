//! Addresses of machine code and of .NET into functions, files and lines.

use std::{collections::HashMap, io::Write, path::Path, sync::Arc};

use symbolic_common::{
    ByteView, DebugId, InstructionInfo, Language as NameLanguage, Name, NameMangling,
};
use symbolic_debuginfo::{Archive, Object, ObjectKind};
use symbolic_demangle::{Demangle, DemangleOptions};
use symbolic_ppdb::{PortablePdb, PortablePdbCache, PortablePdbCacheConverter};
use symbolic_symcache::{SymCache, SymCacheConverter};

use crate::{
    derived::{Failure, View},
    guard::Malformed,
    inflated,
    inspect::options,
    model::{Context, Found, Frame, Language, Module, ModuleKind, Outcome, Returns, Stack, Status},
    sources::Sources,
};

/// Debug files may be this large.
pub(crate) const MAX_FILE: u64 = 4 << 30;
/// Mangled names beyond this stay as they are: demanglers take their time.
const MAX_MANGLED: usize = 4_096;

/// What there is for a module.
#[derive(Clone)]
pub(crate) enum Symbols {
    Native { file: Arc<str>, view: View, sources: Option<Arc<Sources>> },
    DotNet { file: Arc<str>, view: View, sources: Option<Arc<Sources>> },
    None(Status),
}

/// Opens an uploaded file.
pub(crate) fn open(path: &Path, limit: u64) -> Result<ByteView<'static>, Failure> {
    let data = ByteView::open(path)?;
    if data.len() as u64 > limit {
        let limit = limit >> 20;
        return Err(Malformed::new(format_args!("the file is larger than {limit} MiB")).into());
    }
    Ok(data)
}

/// The object of a file that a module is an image of.
pub(crate) fn pick<'d>(data: &'d [u8], debug_id: Option<&str>) -> Result<Object<'d>, Malformed> {
    inflated::check(data)?;
    let archive = Archive::parse_with_opts(data, options(data.len()))
        .map_err(|e| Malformed::from_error(&e))?;
    let wanted: Option<DebugId> = debug_id.and_then(|id| id.parse().ok());
    let mut best = None;
    for object in archive.objects() {
        let object = object.map_err(|e| Malformed::from_error(&e))?;
        if wanted.is_some_and(|id| id == object.debug_id()) {
            return Ok(object);
        }
        best = best.or(Some(object));
    }
    best.ok_or_else(|| Malformed::new("there is no object in the file"))
}

pub(crate) fn make_symcache(
    path: &Path,
    debug_id: Option<&str>,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let data = open(path, MAX_FILE)?;
    let object = pick(&data, debug_id)?;
    if object.kind() == ObjectKind::Sources {
        return Err(Malformed::new("a bundle of sources has no symbols").into());
    }
    let mut converter = SymCacheConverter::new();
    converter.process_object(&object).map_err(|e| Malformed::from_error(&e))?;
    converter.serialize(&mut &mut *out)?;
    Ok(())
}

pub(crate) fn make_ppdb(path: &Path, out: &mut dyn Write) -> Result<(), Failure> {
    let data = open(path, MAX_FILE)?;
    // A PE file may have its portable PDB within.
    let embedded = match pick(&data, None) {
        Ok(Object::Pe(pe)) => embedded(&pe)?,
        _ => None,
    };
    let pdb = PortablePdb::parse(embedded.as_deref().unwrap_or(&data))
        .map_err(|e| Malformed::from_error(&e))?;
    let mut converter = PortablePdbCacheConverter::new();
    converter.process_portable_pdb(&pdb).map_err(|e| Malformed::from_error(&e))?;
    converter.serialize(&mut &mut *out)?;
    Ok(())
}

fn embedded(pe: &symbolic_debuginfo::pe::PeObject<'_>) -> Result<Option<Vec<u8>>, Malformed> {
    let Some(pdb) = pe.embedded_ppdb().map_err(|e| Malformed::from_error(&e))? else {
        return Ok(None);
    };
    if pdb.get_size() > 256 << 20 {
        return Err(Malformed::new("the embedded portable PDB is larger than 256 MiB"));
    }
    let mut content = Vec::new();
    pdb.decompress_to(&mut content).map_err(|e| Malformed::from_error(&e))?;
    Ok(Some(content))
}

/// Where modules lie.
pub(crate) struct Map {
    /// Begin, end and index, by begin.
    ranges: Vec<(u64, u64, usize)>,
    count: usize,
}

impl Map {
    pub(crate) fn new(modules: &[Module]) -> Self {
        let native = |module: &&(usize, &Module)| {
            matches!(module.1.kind, ModuleKind::Native | ModuleKind::DotNet)
        };
        let indexed: Vec<_> = modules.iter().enumerate().collect();
        let mut ranges: Vec<_> = indexed
            .iter()
            .filter(native)
            .map(|(index, module)| (module.address, module.size.unwrap_or(0), *index))
            .collect();
        ranges.sort_unstable();
        // Without a size it ends where the next begins.
        let begins: Vec<u64> = ranges.iter().skip(1).map(|range| range.0).collect();
        for (place, range) in ranges.iter_mut().enumerate() {
            let next = begins.get(place).copied().unwrap_or(u64::MAX);
            range.1 = if range.1 == 0 { next } else { range.0.saturating_add(range.1) };
        }
        Self { ranges, count: modules.len() }
    }

    /// The module of a frame, and the address in it.
    pub(crate) fn find(&self, modules: &[Module], frame: &Frame) -> Option<(usize, u64)> {
        let address = frame.instruction_addr?;
        match frame.addr_mode.as_deref() {
            Some(mode) if mode.starts_with("rel:") => {
                let index: usize = mode.get(4..)?.parse().ok()?;
                (index < self.count).then_some((index, address))
            }
            _ => {
                let after = self.ranges.partition_point(|range| range.0 <= address);
                let range = self.ranges.get(after.checked_sub(1)?)?;
                let module = modules.get(range.2)?;
                (address < range.1).then_some((range.2, address - module.address))
            }
        }
    }
}

/// Whether the frame has an address and lacks what the address could tell.
pub(crate) fn wants(frame: &Frame) -> bool {
    matches!(frame.language, Language::Native | Language::DotNet)
        && frame.instruction_addr.is_some()
        && (frame.function.is_none() || frame.lineno.is_none_or(|line| line == 0))
}

/// Looks up the frame at `place` of a stack.
pub(crate) fn resolve(
    modules: &[Module],
    map: &Map,
    symbols: &HashMap<usize, Symbols>,
    stack: &Stack,
    place: usize,
) -> Outcome {
    let Some(frame) = stack.frames.get(place).filter(|frame| wants(frame)) else {
        return Outcome::default();
    };
    let Some((index, address)) = map.find(modules, frame) else {
        return Outcome::only(Status::UnknownImage);
    };
    let Some(module) = modules.get(index) else { return Outcome::only(Status::UnknownImage) };
    match symbols.get(&index) {
        None => Outcome::only(Status::UnknownImage),
        Some(Symbols::None(status)) => Outcome::only(status.clone()),
        Some(Symbols::Native { file, view, sources }) => {
            let exact = match stack.returns {
                Returns::AllButNewest => place + 1 == stack.frames.len(),
                Returns::All => false,
                Returns::None => true,
            };
            let looked = Looked { module, frame, file, sources: sources.as_deref() };
            looked.native(view, address, exact)
        }
        Some(Symbols::DotNet { file, view, sources }) => {
            let looked = Looked { module, frame, file, sources: sources.as_deref() };
            looked.dotnet(view, address)
        }
    }
}

struct Looked<'a> {
    module: &'a Module,
    frame: &'a Frame,
    file: &'a str,
    sources: Option<&'a Sources>,
}

impl Looked<'_> {
    fn native(&self, view: &View, address: u64, exact: bool) -> Outcome {
        let cache = match SymCache::parse(view.as_slice()) {
            Ok(cache) => cache,
            Err(error) => return self.malformed(&error),
        };
        // The address after a call belongs to the next line, or even to the next function.
        let looked_up =
            InstructionInfo::new(cache.arch(), address).is_crashing_frame(exact).caller_address();
        let relative = self.frame.addr_mode.as_deref().is_some_and(|mode| mode.starts_with("rel:"));
        let base = if relative { 0 } else { self.module.address };
        let mut frames: Vec<Found> = cache
            .lookup(looked_up)
            .map(|location| {
                let function = location.function();
                let (name, raw) = demangle(function.name(), function.language());
                let path = location.file().map(|file| file.full_path());
                let line = Some(location.line()).filter(|line| *line > 0);
                let context =
                    path.as_deref().zip(line).and_then(|(path, line)| self.context(path, line));
                Found {
                    function: Some(name).filter(|name| !name.is_empty() && name != "?"),
                    raw_function: raw,
                    filename: path.as_deref().map(|path| base_name(path).to_owned()),
                    foreign: path.as_deref().is_some_and(is_foreign_source)
                        || self.module.code_file.as_deref().is_some_and(is_system_library),
                    abs_path: path,
                    lineno: line,
                    package: self.module.code_file.clone(),
                    symbol_addr: (function.entry_pc() != u32::MAX)
                        .then(|| base.saturating_add(u64::from(function.entry_pc()))),
                    image_addr: (!relative).then_some(self.module.address),
                    inlined: true,
                    context,
                    ..Found::default()
                }
            })
            .take(256)
            .collect();
        frames.reverse();
        if let Some(outermost) = frames.first_mut() {
            outermost.inlined = false;
        }
        self.outcome(frames)
    }

    fn dotnet(&self, view: &View, offset: u64) -> Outcome {
        let cache = match PortablePdbCache::parse(view.as_slice()) {
            Ok(cache) => cache,
            Err(error) => return self.malformed(&error),
        };
        // A metadata token: the table in the upper byte (06: methods), the row in the others.
        let method = self.frame.function_id.map(|token| token & 0x00ff_ffff);
        let found = method
            .and_then(|method| u32::try_from(method).ok())
            .zip(u32::try_from(offset).ok())
            .and_then(|(method, offset)| cache.lookup(method, offset));
        let frames = found.map(|line| {
            let path = line.file_name.to_owned();
            Found {
                function: self.frame.function.clone(),
                module: self.frame.module.clone(),
                filename: Some(base_name(&path).to_owned()),
                lineno: Some(line.line),
                package: self.module.code_file.clone(),
                context: self.context(&path, line.line),
                abs_path: Some(path),
                ..Found::default()
            }
        });
        self.outcome(frames.into_iter().collect())
    }

    fn context(&self, path: &str, line: u32) -> Option<Context> {
        Context::of(&self.sources?.by_path(path)?, line)
    }

    fn outcome(&self, frames: Vec<Found>) -> Outcome {
        let file = self.file.to_owned();
        if frames.is_empty() {
            Outcome::only(Status::MissingSymbol { file })
        } else {
            Outcome { frames, status: Some(Status::Symbolicated { file }) }
        }
    }

    fn malformed(&self, error: &dyn std::error::Error) -> Outcome {
        let reason = Malformed::from_error(error).reason;
        Outcome::only(Status::Malformed { file: self.file.to_owned(), reason })
    }
}

/// The name for people, and the other when it is not the same.
pub(crate) fn demangle(name: &str, language: NameLanguage) -> (String, Option<String>) {
    if name.len() > MAX_MANGLED {
        return (name.chars().take(MAX_MANGLED).collect(), None);
    }
    let whole = whole_function(name);
    let parsed = Name::new(whole, NameMangling::Unknown, language);
    let demangled =
        parsed.demangle(DemangleOptions::name_only()).unwrap_or_else(|| whole.to_owned());
    let raw = (demangled != name).then(|| name.to_owned());
    (demangled, raw)
}

/// Compilers make several functions of one, and say so behind its name: `main.cold`, `f.part.0`.
fn whole_function(name: &str) -> &str {
    const PARTS: [&str; 5] = [".cold", ".part.", ".isra.", ".constprop.", ".llvm."];
    let end = PARTS.iter().filter_map(|part| name.find(part)).min().filter(|end| *end > 0);
    end.and_then(|end| name.get(..end)).unwrap_or(name)
}

fn base_name(path: &str) -> &str {
    path.rsplit(['/', '\\']).next().unwrap_or(path)
}

/// Of the standard library, or of a package.
fn is_foreign_source(path: &str) -> bool {
    path.starts_with("/rustc/")
        || path.starts_with("/usr/include/")
        || path.contains("/.cargo/registry/")
        || path.contains("/rustlib/src/")
}

fn is_system_library(path: &str) -> bool {
    const BEGINS: [&str; 8] = [
        "/lib/",
        "/lib64/",
        "/usr/lib/",
        "/usr/lib64/",
        "/System/Library/",
        "/system/lib",
        "/apex/",
        "linux-gate",
    ];
    let windows = path.get(1..12).is_some_and(|rest| rest.eq_ignore_ascii_case(r":\windows\s"));
    windows || BEGINS.iter().any(|begin| path.starts_with(begin))
}
