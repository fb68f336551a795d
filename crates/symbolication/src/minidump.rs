//! Minidumps: the threads of a process that crashed, each stack walked by what the debug files of its modules
//! say, else by frame pointers, else by what looks like a return address.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use loom_core::id::ProjectId;
use minidump::{
    Minidump, MinidumpAssertion, MinidumpBreakpadInfo, MinidumpException, MinidumpMemory,
    MinidumpMiscInfo, MinidumpModule, MinidumpModuleList, MinidumpSystemInfo, MinidumpThread,
    MinidumpThreadList, MinidumpThreadNames, Module, UnifiedMemory, UnifiedMemoryList,
    system_info::{Cpu, Os},
};
use minidump_unwind::{
    CallStack, FileError, FileKind, FillSymbolError, FrameSymbolizer, FrameTrust, FrameWalker,
    StackFrame, SymbolProvider, SystemInfo, walk_stack,
};
use tokio::sync::Notify;

use crate::{
    Symbolicator,
    guard::Malformed,
    inspect::{normalize_code_id, normalize_debug_id},
    symbolicator::Inner,
    unwind::Rules,
};

/// Dumps that are walked at the same time.
pub(crate) const WALKS: usize = 2;
/// A walk ends then, with what it has.
const PATIENCE: Duration = Duration::from_secs(30);
/// Frames of one stack, and of all: a recursion without end is known by its newest.
const MAX_FRAMES: usize = 512;
const MAX_ALL_FRAMES: usize = 12_500;
/// Threads that are walked, the one that crashed first.
const MAX_THREADS: usize = 256;
/// Bytes of a stack that are looked at, from its newest call on.
const MAX_STACK: u64 = 1 << 20;
/// Entries of one list in the file, and of those of its memory.
const MAX_ENTRIES: u32 = 8_192;
const MAX_REGIONS: u32 = 262_144;
const MAX_STREAMS: u32 = 512;
/// Bytes of all names in one list: entries may share them, and each is copied.
const MAX_NAMES: u64 = 16 << 20;
const MAX_TEXT: usize = 500;

/// What a minidump says.
#[derive(Clone, Debug, Default)]
pub struct Dump {
    /// As `SIGSEGV / SEGV_MAPERR`.
    pub reason: Option<String>,
    /// That the program could not reach.
    pub address: Option<u64>,
    /// What the program claimed, and was not so.
    pub assertion: Option<String>,
    pub os_name: String,
    pub os_version: String,
    pub os_build: Option<String>,
    /// As debug files name it.
    pub arch: String,
    /// `elf`, `macho` or `pe`.
    pub image_kind: &'static str,
    pub threads: Vec<DumpThread>,
    pub modules: Vec<DumpModule>,
    /// There was more: threads, frames or time.
    pub is_cut: bool,
}

#[derive(Clone, Debug, Default)]
pub struct DumpThread {
    pub id: u32,
    pub name: Option<String>,
    pub crashed: bool,
    /// Newest first.
    pub frames: Vec<DumpFrame>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DumpFrame {
    /// Where it goes on: behind the call, but for the newest.
    pub address: u64,
    /// How it was found: `context`, `cfi`, `fp`, `scan`…
    pub trust: &'static str,
}

#[derive(Clone, Debug)]
pub struct DumpModule {
    pub code_file: String,
    pub code_id: Option<String>,
    pub debug_file: Option<String>,
    pub debug_id: Option<String>,
    pub address: u64,
    pub size: u64,
}

impl Symbolicator {
    /// Walks the stacks of a minidump, which is read when it has its turn: few are in memory at once.
    ///
    /// # Errors
    /// Of reading it; within, what makes it none.
    pub async fn walk<E>(
        &self,
        project: ProjectId,
        dump: impl Future<Output = Result<Bytes, E>>,
    ) -> Result<Result<Dump, Malformed>, E> {
        let Ok(_turn) = self.0.walks.acquire().await else {
            return Ok(Err(Malformed::new("symbolication has ended")));
        };
        Ok(self.walk_now(project, dump.await?).await)
    }

    async fn walk_now(&self, project: ProjectId, dump: Bytes) -> Result<Dump, Malformed> {
        let inner = self.0.clone();
        // Reading takes its time, walking waits for files.
        let runtime = tokio::runtime::Handle::current();
        let walked = tokio::task::spawn_blocking(move || {
            crate::guard::guarded(|| {
                check(&dump)?;
                let read = Minidump::read(&*dump).map_err(|e| Malformed::from_error(&e))?;
                runtime.block_on(walk(inner, project, &read))
            })
        });
        walked.await.unwrap_or_else(|error| Err(Malformed::from_error(&error)))
    }
}

/// Refuses what would have the reader make far more of it than it is.
fn check(dump: &[u8]) -> Result<(), Malformed> {
    if !dump.starts_with(b"MDMP") {
        return Err(Malformed::new("not a minidump"));
    }
    let number = |at: usize| -> Option<u32> {
        let bytes = dump.get(at..at.checked_add(4)?)?;
        bytes.try_into().ok().map(u32::from_le_bytes)
    };
    let short = || Malformed::new("the minidump ends early");
    let count = number(8).ok_or_else(short)?;
    let directory = number(12).ok_or_else(short)? as usize;
    if count > MAX_STREAMS {
        return Err(Malformed::new(format_args!("the minidump has {count} parts")));
    }
    for entry in 0..count as usize {
        let at = directory.saturating_add(entry * 12);
        let kind = number(at).ok_or_else(short)?;
        let bytes = number(at + 4).ok_or_else(short)? as usize;
        let begin = number(at + 8).ok_or_else(short)? as usize;
        let count = number(begin).unwrap_or(0);
        // Of an entry: its size, and where it says where its name is.
        let (most, names) = match kind {
            MODULES => (MAX_ENTRIES, Some((108, 20))),
            THREAD_NAMES => (MAX_ENTRIES, Some((12, 4))),
            THREADS => (MAX_ENTRIES, None),
            MEMORY | MEMORY_64 => (MAX_REGIONS, None),
            _ => continue,
        };
        if count > most {
            return Err(Malformed::new(format_args!("a list of the minidump has {count} entries")));
        }
        let Some((size, name)) = names else { continue };
        // Lists may begin with four bytes that fill them up: the reader, too, knows it by their size.
        let fill = if bytes == 8 + count as usize * size { 8 } else { 4 };
        let mut copied = 0_u64;
        for place in 0..count as usize {
            let entry = begin.saturating_add(fill + place * size);
            let length = number(entry.saturating_add(name)).and_then(|name| number(name as usize));
            copied += u64::from(length.unwrap_or(0)).min(dump.len() as u64);
            // And what says which debug file goes with a module.
            if kind == MODULES {
                let record = number(entry.saturating_add(76)).unwrap_or(0);
                copied += u64::from(record).min(dump.len() as u64);
            }
        }
        if copied > 2 * MAX_NAMES {
            return Err(Malformed::new("the names in the minidump are too long"));
        }
    }
    Ok(())
}

const THREADS: u32 = 3;
const MODULES: u32 = 4;
const MEMORY: u32 = 5;
const MEMORY_64: u32 = 9;
const THREAD_NAMES: u32 = 24;

async fn walk(
    inner: Arc<Inner>,
    project: ProjectId,
    dump: &Minidump<'_, &[u8]>,
) -> Result<Dump, Malformed> {
    let threads = dump
        .get_stream::<MinidumpThreadList<'_>>()
        .map_err(|_| Malformed::new("the minidump has no list of threads"))?;
    let system = dump
        .get_stream::<MinidumpSystemInfo>()
        .map_err(|_| Malformed::new("the minidump does not say what system it is of"))?;
    let modules =
        dump.get_stream::<MinidumpModuleList>().unwrap_or_else(|_| MinidumpModuleList::new());
    let names = dump.get_stream::<MinidumpThreadNames>().unwrap_or_default();
    let misc = dump.get_stream::<MinidumpMiscInfo>().ok();
    let breakpad = dump.get_stream::<MinidumpBreakpadInfo>().ok();
    let exception = dump.get_stream::<MinidumpException<'_>>().ok();
    let memory = dump.get_memory().unwrap_or_default();
    let (version, build) = system.os_parts();
    let crashed = exception
        .as_ref()
        .map(MinidumpException::get_crashing_thread_id)
        .or_else(|| breakpad.as_ref().and_then(|info| info.requesting_thread_id));
    let writer = breakpad.as_ref().and_then(|info| info.dump_thread_id);
    let mut found = Dump {
        reason: exception
            .as_ref()
            .map(|exception| exception.get_crash_reason(system.os, system.cpu).to_string()),
        address: exception
            .as_ref()
            .map(|exception| exception.get_crash_address(system.os, system.cpu)),
        assertion: dump.get_stream::<MinidumpAssertion>().ok().as_ref().and_then(assertion),
        os_name: os_name(system.os),
        os_version: short(&version),
        os_build: build.as_deref().map(short),
        arch: arch(system.cpu),
        image_kind: image_kind(system.os),
        threads: Vec::new(),
        modules: modules.iter().map(|found| module(found, system.os)).collect(),
        is_cut: false,
    };
    let info = SystemInfo {
        os: system.os,
        os_version: None,
        os_build: None,
        cpu: system.cpu,
        cpu_info: None,
        cpu_microcode_version: None,
        cpu_count: 0,
    };
    // The one that all is about comes first, whatever the bounds.
    let mut order: Vec<_> = threads.threads.iter().collect();
    order.retain(|thread| writer != Some(thread.raw.thread_id));
    order.sort_by_key(|thread| Some(thread.raw.thread_id) != crashed);
    found.is_cut = order.len() > MAX_THREADS;
    let deadline = tokio::time::Instant::now() + PATIENCE;
    let provider = Provider { inner, project, known: Mutex::default() };
    let mut left = MAX_ALL_FRAMES;
    for thread in order.into_iter().take(MAX_THREADS) {
        let id = thread.raw.thread_id;
        let is_crashed = Some(id) == crashed;
        // Where the thread is now may be the handler of the crash.
        let context = exception
            .as_ref()
            .filter(|_| is_crashed)
            .and_then(|exception| exception.context(&system, misc.as_ref()))
            .or_else(|| thread.context(&system, misc.as_ref()));
        let mut walked = DumpThread {
            id,
            name: names.get_name(id).map(|name| short(&name)).filter(|name| !name.is_empty()),
            crashed: is_crashed,
            frames: Vec::new(),
        };
        if let Some(context) = context {
            let mut stack = CallStack::with_context(context.into_owned());
            let most = left.min(MAX_FRAMES);
            let seen = Seen { frames: Mutex::default(), most, full: Notify::new() };
            let pointer = stack.frames.first().map_or(0, |frame| frame.context.get_stack_pointer());
            let region = stack_of(thread, pointer, &memory);
            let walking = walk_stack(
                0,
                |_: usize, frame: &StackFrame| seen.add(frame),
                &mut stack,
                region.as_ref().map(UnifiedMemory::Memory),
                &modules,
                &info,
                &provider,
            );
            let whole = tokio::select! {
                biased;
                () = seen.full.notified() => false,
                () = tokio::time::sleep_until(deadline) => false,
                () = walking => true,
            };
            found.is_cut |= !whole;
            walked.frames = seen.frames.into_inner().unwrap_or_else(PoisonError::into_inner);
            left -= walked.frames.len().min(left);
        }
        found.threads.push(walked);
    }
    Ok(found)
}

/// The frames of a stack as they are found.
struct Seen {
    frames: Mutex<Vec<DumpFrame>>,
    most: usize,
    full: Notify,
}

impl Seen {
    fn add(&self, frame: &StackFrame) {
        let mut frames = self.frames.lock().unwrap_or_else(PoisonError::into_inner);
        if frames.len() < self.most {
            frames.push(DumpFrame { address: frame.resume_address, trust: trust(frame.trust) });
        } else {
            // The walk ends where it next asks for a file.
            self.full.notify_one();
        }
    }
}

/// As other tools of this kind name it.
fn trust(trust: FrameTrust) -> &'static str {
    match trust {
        FrameTrust::FramePointer => "fp",
        FrameTrust::CfiScan => "cfiscan",
        FrameTrust::None => "none",
        other => other.as_str(),
    }
}

/// The memory of a stack, from where it points to. Little of it: what is found in it takes a thousand bytes
/// for sixteen.
fn stack_of<'d>(
    thread: &'d MinidumpThread<'d>,
    pointer: u64,
    memory: &'d UnifiedMemoryList<'d>,
) -> Option<MinidumpMemory<'d>> {
    let holds = |memory: &UnifiedMemory<'_, '_>| {
        memory.memory_range().is_some_and(|range| range.contains(pointer))
    };
    // A crash may have been on a stack of its own.
    let region = thread
        .stack_memory(memory)
        .filter(holds)
        .or_else(|| memory.memory_at_address(pointer).filter(holds))?;
    let (base, bytes, endian) = match region {
        UnifiedMemory::Memory(region) => (region.base_address, region.bytes, region.endian),
        UnifiedMemory::Memory64(region) => (region.base_address, region.bytes, region.endian),
    };
    // Functions of x86-64 may use what lies a little below.
    let from = pointer.saturating_sub(256).max(base);
    let begin = usize::try_from(from - base).ok()?;
    let rest = bytes.get(begin..)?;
    let size = (rest.len() as u64).min(MAX_STACK);
    let desc = thread.raw.stack;
    let bytes = rest.get(..usize::try_from(size).ok()?)?;
    Some(MinidumpMemory { desc, base_address: from, size, bytes, endian })
}

fn assertion(said: &MinidumpAssertion) -> Option<String> {
    let expression = said.expression().filter(|text| !text.is_empty())?;
    Some(match (said.file(), said.function()) {
        (Some(file), _) if !file.is_empty() => {
            short(&format!("{expression} at {file}:{}", said.raw.line))
        }
        (_, Some(function)) if !function.is_empty() => {
            short(&format!("{expression} in {function}"))
        }
        _ => short(&expression),
    })
}

fn short(text: &str) -> String {
    text.chars().filter(|letter| !letter.is_control()).take(MAX_TEXT).collect()
}

fn os_name(os: Os) -> String {
    match os {
        Os::Windows => "Windows".to_owned(),
        Os::MacOs => "macOS".to_owned(),
        other => other.long_name().into_owned(),
    }
}

fn image_kind(os: Os) -> &'static str {
    match os {
        Os::Windows => "pe",
        Os::MacOs | Os::Ios => "macho",
        _ => "elf",
    }
}

fn arch(cpu: Cpu) -> String {
    match cpu {
        Cpu::X86_64 => "x86_64".to_owned(),
        other => other.to_string(),
    }
}

fn module(found: &MinidumpModule, os: Os) -> DumpModule {
    DumpModule {
        code_file: short(&found.code_file()),
        code_id: found.code_identifier().and_then(|id| normalize_code_id(id.as_str())),
        debug_file: found.debug_file().map(|name| short(&name)).filter(|_| os == Os::Windows),
        debug_id: found.debug_identifier().and_then(|id| normalize_debug_id(&id.to_string())),
        address: found.base_address(),
        size: found.size(),
    }
}

/// Gives the walk what our files say.
struct Provider {
    inner: Arc<Inner>,
    project: ProjectId,
    /// By where the module begins.
    known: Mutex<HashMap<u64, Option<Arc<Rules>>>>,
}

impl Provider {
    async fn rules(&self, module: &(dyn Module + Sync)) -> Option<Arc<Rules>> {
        // Whoever walks is to see that it is enough.
        tokio::task::yield_now().await;
        let begin = module.base_address();
        let known = || self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(rules) = known().get(&begin) {
            return rules.clone();
        }
        let code_id = module.code_identifier().and_then(|id| normalize_code_id(id.as_str()));
        let debug_id = module.debug_identifier().and_then(|id| normalize_debug_id(&id.to_string()));
        let rules = self.inner.rules(self.project, debug_id, code_id).await;
        known().insert(begin, rules.clone());
        rules
    }
}

#[async_trait]
impl SymbolProvider for Provider {
    /// Asked whether what looks like an address of code is one; names are given to frames later.
    async fn fill_symbol(
        &self,
        module: &(dyn Module + Sync),
        frame: &mut (dyn FrameSymbolizer + Send),
    ) -> Result<(), FillSymbolError> {
        let Some(rules) = self.rules(module).await else { return Err(FillSymbolError {}) };
        let place = frame.get_instruction().checked_sub(module.base_address());
        if let Some(place) = place.filter(|place| rules.covers(*place)) {
            frame.set_function("code", module.base_address() + place, 0);
        }
        Ok(())
    }

    async fn walk_frame(
        &self,
        module: &(dyn Module + Sync),
        walker: &mut (dyn FrameWalker + Send),
    ) -> Option<()> {
        self.rules(module).await?.walk(module, walker)
    }

    async fn get_file_path(
        &self,
        _module: &(dyn Module + Sync),
        _kind: FileKind,
    ) -> Result<PathBuf, FileError> {
        Err(FileError::NotFound)
    }
}
