//! What is asked, and what comes back.

use loom_core::id::ProjectId;

use crate::Wanted;

/// The stacks of one event.
#[derive(Clone, Debug)]
pub struct Request {
    pub project: ProjectId,
    pub release: Option<String>,
    pub dist: Option<String>,
    pub modules: Vec<Module>,
    pub stacks: Vec<Stack>,
    /// Names of Java classes that stand outside of stacks: of exceptions.
    pub classes: Vec<String>,
}

/// A module that was loaded, a script with a debug id, or a mapping.
#[derive(Clone, Debug, Default)]
pub struct Module {
    pub kind: ModuleKind,
    pub debug_id: Option<String>,
    pub code_id: Option<String>,
    /// A path; of scripts, the URL.
    pub code_file: Option<String>,
    pub address: u64,
    pub size: Option<u64>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ModuleKind {
    /// ELF, Mach-O, PE, WASM.
    #[default]
    Native,
    /// With a portable PDB.
    DotNet,
    Script,
    Mapping,
}

/// The calls of a thread, oldest first.
#[derive(Clone, Debug, Default)]
pub struct Stack {
    pub frames: Vec<Frame>,
    pub returns: Returns,
}

/// Which addresses of a stack are those of the instruction after a call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Returns {
    /// All but the newest, which is where it stood.
    #[default]
    AllButNewest,
    All,
    /// The client has taken care of it.
    None,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Language {
    #[default]
    Native,
    JavaScript,
    Java,
    DotNet,
    /// Has nothing to look up.
    Other,
}

/// One call, as the client sent it.
#[derive(Clone, Debug, Default)]
pub struct Frame {
    pub language: Language,
    pub function: Option<String>,
    /// A Java class; a script's module.
    pub module: Option<String>,
    pub filename: Option<String>,
    /// A path or URL.
    pub abs_path: Option<String>,
    pub lineno: Option<u32>,
    pub colno: Option<u32>,
    /// The client sent the source around it.
    pub has_context: bool,
    pub instruction_addr: Option<u64>,
    /// `abs`, or `rel:3`: from the beginning of the fourth module.
    pub addr_mode: Option<String>,
    /// Token of a .NET method; its address is an offset into the intermediate language.
    pub function_id: Option<u64>,
}

/// What came of a request; lists are as those of the request.
#[derive(Clone, Debug, Default)]
pub struct Response {
    pub stacks: Vec<Vec<Outcome>>,
    pub classes: Vec<Option<String>>,
    /// Files that would have helped, and are not there.
    pub missing: Vec<Wanted>,
}

/// What came of one frame.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// What the frame is replaced with, oldest first; empty: it stays as it is.
    pub frames: Vec<Found>,
    /// None: there was nothing to look up.
    pub status: Option<Status>,
}

impl Outcome {
    pub(crate) fn only(status: Status) -> Self {
        Self { frames: Vec::new(), status: Some(status) }
    }
}

/// What became of an address or a minified position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    Symbolicated { file: String },
    MissingFile { wanted: String },
    MissingSymbol { file: String },
    Malformed { file: String, reason: String },
    UnknownImage,
}

/// A call as it was in the source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    pub function: Option<String>,
    /// As the compiler named it, when that is another name.
    pub raw_function: Option<String>,
    pub module: Option<String>,
    pub filename: Option<String>,
    pub abs_path: Option<String>,
    pub lineno: Option<u32>,
    pub colno: Option<u32>,
    /// Path of the native module.
    pub package: Option<String>,
    pub symbol_addr: Option<u64>,
    pub image_addr: Option<u64>,
    /// Known not to be the program's own code.
    pub foreign: bool,
    /// Inlined in the frame before it.
    pub inlined: bool,
    pub context: Option<Context>,
}

/// A line of source and its neighbours.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Context {
    pub pre: Vec<String>,
    pub line: String,
    pub post: Vec<String>,
}

/// Lines on each side.
const AROUND: usize = 5;
/// Characters of a line.
const MAX_LINE: usize = 500;

impl Context {
    /// Around a line, the first is 1.
    pub(crate) fn of(source: &str, line: u32) -> Option<Self> {
        let line = usize::try_from(line).ok()?.checked_sub(1)?;
        let start = line.saturating_sub(AROUND);
        let mut lines = source.lines().skip(start).map(|text| {
            text.char_indices()
                .nth(MAX_LINE)
                .map_or(text, |(end, _)| text.get(..end).unwrap_or(text))
                .to_owned()
        });
        let pre = lines.by_ref().take(line - start).collect();
        Some(Self { pre, line: lines.next()?, post: lines.take(AROUND).collect() })
    }
}
