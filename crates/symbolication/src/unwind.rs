//! How stacks are unwound: the rules of a debug file as lines of text, kept as a derived file, and read for
//! the walk.

use std::{
    io::{self, Write},
    path::Path,
};

use minidump::Module;
use minidump_unwind::{FrameWalker, SymbolFile};
use symbolic_cfi::AsciiCfiWriter;
use symbolic_debuginfo::ObjectKind;

use crate::{
    derived::Failure,
    guard::Malformed,
    native::{MAX_FILE, open, pick},
};

/// Lines of one file; those of a whole browser have 80 MiB.
const MAX_TEXT: u64 = 128 << 20;
/// What is read takes about so many times its text.
const SPREAD: usize = 3;
/// Bytes of rules that are kept in memory.
pub(crate) const MAX_KEPT: u64 = 512 << 20;
/// Windows says how one function is unwound in pieces that name each other.
const MAX_CHAIN: usize = 64;

/// Writes the rules of the object that a module is an image of.
pub(crate) fn make(
    path: &Path,
    debug_id: Option<&str>,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let data = open(path, MAX_FILE)?;
    let object = pick(&data, debug_id)?;
    if object.kind() == ObjectKind::Sources || !object.has_unwind_info() {
        return Err(Malformed::new("the file does not say how stacks are unwound").into());
    }
    AsciiCfiWriter::new(Bounded { out, left: MAX_TEXT })
        .max_unwind_chain_len(Some(MAX_CHAIN))
        .process(&object)
        .map_err(|error| Malformed::from_error(&error))?;
    Ok(())
}

struct Bounded<'a> {
    out: &'a mut dyn Write,
    left: u64,
}

impl Write for Bounded<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.left = self.left.checked_sub(bytes.len() as u64).ok_or_else(|| {
            io::Error::other(format!("the rules have more than {} MiB", MAX_TEXT >> 20))
        })?;
        self.out.write_all(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// The rules of a module, in memory.
pub(crate) struct Rules {
    file: SymbolFile,
    pub(crate) weight: u32,
}

impl Rules {
    pub(crate) fn read(text: &[u8]) -> Result<Self, Malformed> {
        let file = SymbolFile::from_bytes(text).map_err(|error| Malformed::from_error(&error))?;
        let weight = u32::try_from(text.len().saturating_mul(SPREAD)).unwrap_or(u32::MAX);
        Ok(Self { file, weight: weight.max(256) })
    }

    /// Whether there is code at this place of the module.
    pub(crate) fn covers(&self, place: u64) -> bool {
        self.file.cfi_stack_info.get(place).is_some()
            || self.file.win_stack_framedata_info.get(place).is_some()
            || self.file.win_stack_fpo_info.get(place).is_some()
    }

    pub(crate) fn walk(&self, module: &dyn Module, walker: &mut dyn FrameWalker) -> Option<()> {
        self.file.walk_frame(module, walker)
    }
}
