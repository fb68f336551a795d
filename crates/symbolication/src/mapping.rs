//! Names of classes and methods that ProGuard or R8 made short.

use std::{io::Write, path::Path, sync::Arc};

use proguard::{ProguardCache, ProguardMapping, StackFrame};

use crate::{
    derived::{Failure, View},
    guard::Malformed,
    model::{Found, Frame, Outcome, Status},
    native::open,
};

/// Mappings may be this large.
const MAX_FILE: u64 = 1 << 30;

pub(crate) fn make(path: &Path, out: &mut dyn Write) -> Result<(), Failure> {
    let data = open(path, MAX_FILE)?;
    let mapping = ProguardMapping::new(&data);
    if !mapping.is_valid() {
        return Err(Malformed::new("not a ProGuard mapping").into());
    }
    ProguardCache::write(&mapping, &mut &mut *out)?;
    Ok(())
}

/// What there is for a mapping that an event names.
#[derive(Clone)]
pub(crate) enum Mapping {
    There { file: Arc<str>, view: View },
    None(Status),
}

pub(crate) fn resolve(mappings: &[Mapping], frame: &Frame) -> Outcome {
    let (Some(class), Some(method)) = (frame.module.as_deref(), frame.function.as_deref()) else {
        return Outcome::default();
    };
    let line = frame.lineno.and_then(|line| usize::try_from(line).ok()).unwrap_or(0);
    let mut status = None;
    for mapping in mappings {
        let (file, view) = match mapping {
            Mapping::None(why) => {
                status.get_or_insert_with(|| why.clone());
                continue;
            }
            Mapping::There { file, view } => (file, view),
        };
        let cache = match ProguardCache::parse(view.as_slice()) {
            Ok(cache) => cache,
            Err(error) => {
                let reason = Malformed::from_error(&error).reason;
                status = Some(Status::Malformed { file: file.to_string(), reason });
                continue;
            }
        };
        let asked = StackFrame::new(class, method, line);
        // The innermost comes first.
        let mut frames: Vec<Found> =
            cache.remap_frame(&asked).take(64).map(|f| found(&f)).collect();
        frames.reverse();
        if frames.is_empty()
            && let Some(class) = cache.remap_class(class)
        {
            // The class is known, the method or its line is not.
            frames.push(Found {
                module: Some(class.to_owned()),
                function: Some(method.to_owned()),
                filename: frame.filename.clone(),
                lineno: frame.lineno,
                ..Found::default()
            });
        }
        if !frames.is_empty() {
            for inlined in frames.iter_mut().skip(1) {
                inlined.inlined = true;
            }
            return Outcome {
                frames,
                status: Some(Status::Symbolicated { file: file.to_string() }),
            };
        }
        // Classes of the system keep their names, and are in no mapping.
    }
    Outcome { frames: Vec::new(), status }
}

fn found(frame: &StackFrame<'_>) -> Found {
    Found {
        module: Some(frame.class().to_owned()),
        function: Some(frame.method().to_owned()),
        filename: frame.file().map(str::to_owned),
        lineno: frame.line().and_then(|line| u32::try_from(line).ok()).filter(|line| *line > 0),
        ..Found::default()
    }
}

/// The name of a class that stands outside of a stack.
pub(crate) fn class(mappings: &[Mapping], name: &str) -> Option<String> {
    mappings.iter().find_map(|mapping| match mapping {
        Mapping::There { view, .. } => {
            let cache = ProguardCache::parse(view.as_slice()).ok()?;
            cache.remap_class(name).map(str::to_owned)
        }
        Mapping::None(_) => None,
    })
}
