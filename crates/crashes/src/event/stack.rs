//! Exceptions, threads, their frames, and the images that addresses are in.

use serde_json::{Map, Value};

use super::{
    Exception, Frame, Image, Mechanism, Thread,
    read::{self, Faults},
};

const MOST_EXCEPTIONS: usize = 50;
const MOST_THREADS: usize = 256;
const MOST_FRAMES: usize = 250;
/// Of all exceptions, and of all threads, together.
const MOST_OF_ALL: usize = 12_500;
/// So many of those are the oldest calls.
const OLDEST: usize = 50;
const MOST_IMAGES: usize = 2_000;
const MOST_CONTEXT: usize = 10;

const TYPE: usize = 256;
const VALUE: usize = 8_192;
const NAME: usize = 512;
const PATH: usize = 1_024;
const LINE: usize = 512;

pub(super) fn exceptions(event: &Map<String, Value>, faults: &mut Faults) -> Vec<Exception> {
    let name =
        if event.contains_key("exception") { "exception" } else { "sentry.interfaces.Exception" };
    let found = read::values(event, name, faults);
    let found = read::ends(found, MOST_EXCEPTIONS, 10, "exception", faults);
    let most = share(found.len());
    found.into_iter().map(|exception| one_exception(exception, most, faults)).collect()
}

/// The frames that each of so many stacks may have.
fn share(stacks: usize) -> usize {
    MOST_FRAMES.min(MOST_OF_ALL / stacks.max(1))
}

fn one_exception(of: &Map<String, Value>, most: usize, faults: &mut Faults) -> Exception {
    let value = match of.get("value") {
        Some(value @ (Value::Array(_) | Value::Object(_))) => {
            Some(read::text(&value.to_string(), VALUE))
        }
        _ => read::string(of, "value", VALUE, faults),
    };
    Exception {
        kind: read::string(of, "type", TYPE, faults),
        value,
        module: read::string(of, "module", NAME, faults),
        thread_id: read::string(of, "thread_id", TYPE, faults),
        mechanism: of.get("mechanism").map(|value| mechanism(value, faults)).unwrap_or_default(),
        frames: frames(of, most, faults),
        head: None,
    }
}

fn mechanism(value: &Value, faults: &mut Faults) -> Mechanism {
    match value {
        Value::Object(of) => Mechanism {
            kind: read::string(of, "type", TYPE, faults),
            handled: read::flag(of, "handled"),
            synthetic: read::flag(of, "synthetic").unwrap_or(false),
            is_exception_group: read::flag(of, "is_exception_group").unwrap_or(false),
        },
        Value::String(kind) => {
            Mechanism { kind: Some(read::text(kind, TYPE)), ..Mechanism::default() }
        }
        Value::Null => Mechanism::default(),
        other => {
            faults.add(format!("mechanism: {} instead of an object", read::kind(other)));
            Mechanism::default()
        }
    }
}

pub(super) fn threads(event: &Map<String, Value>, faults: &mut Faults) -> Vec<Thread> {
    let mut found = read::values(event, "threads", faults);
    // Those that say something about the fault stay when there are too many.
    if found.len() > MOST_THREADS {
        found.sort_by_key(|thread| {
            !["crashed", "current"].iter().any(|name| read::flag(thread, name) == Some(true))
        });
    }
    let found = read::ends(found, MOST_THREADS, MOST_THREADS, "threads", faults);
    let most = share(found.len());
    let mut threads: Vec<_> = found
        .into_iter()
        .map(|of| Thread {
            id: read::string(of, "id", TYPE, faults),
            name: read::string(of, "name", TYPE, faults),
            crashed: read::flag(of, "crashed").unwrap_or(false),
            current: read::flag(of, "current").unwrap_or(false),
            frames: frames(of, most, faults),
        })
        .collect();
    // As old SDKs do with a message's stack.
    if threads.is_empty() && event.get("stacktrace").is_some_and(Value::is_object) {
        let frames = frames(event, MOST_FRAMES, faults);
        threads.push(Thread { current: true, frames, ..Thread::default() });
    }
    threads
}

fn frames(of: &Map<String, Value>, most: usize, faults: &mut Faults) -> Vec<Frame> {
    let list = match of.get("stacktrace") {
        Some(Value::Object(stack)) => stack.get("frames"),
        Some(list @ Value::Array(_)) => Some(list),
        _ => None,
    };
    let found: Vec<_> = match list {
        Some(Value::Array(list)) => list.iter().filter_map(Value::as_object).collect(),
        None | Some(Value::Null) => Vec::new(),
        Some(other) => {
            faults.add(format!("frames: {} instead of a list", read::kind(other)));
            Vec::new()
        }
    };
    let found = read::ends(found, most, OLDEST.min(most / 4), "frames", faults);
    found.into_iter().map(|frame| one_frame(frame, faults)).collect()
}

fn one_frame(of: &Map<String, Value>, faults: &mut Faults) -> Frame {
    Frame {
        filename: read::string(of, "filename", PATH, faults),
        abs_path: read::string(of, "abs_path", PATH, faults),
        module: read::string(of, "module", NAME, faults),
        function: read::string(of, "function", NAME, faults),
        raw_function: read::string(of, "raw_function", PATH, faults),
        lineno: read::count(of, "lineno"),
        colno: read::count(of, "colno"),
        in_app: read::flag(of, "in_app"),
        context_line: read::line(of, "context_line", LINE),
        pre_context: lines(of, "pre_context"),
        post_context: lines(of, "post_context"),
        package: read::string(of, "package", PATH, faults),
        platform: read::string(of, "platform", TYPE, faults),
        image_addr: read::address(of, "image_addr", faults),
        instruction_addr: read::address(of, "instruction_addr", faults),
        symbol_addr: read::address(of, "symbol_addr", faults),
        addr_mode: read::string(of, "addr_mode", TYPE, faults),
        function_id: read::address(of, "function_id", faults),
        vars: of.get("vars").filter(|vars| vars.is_object() || vars.is_array()).cloned(),
        trust: read::string(of, "trust", TYPE, faults),
        inlined: false,
        symbolication: None,
    }
}

fn lines(of: &Map<String, Value>, name: &str) -> Vec<String> {
    let Some(Value::Array(list)) = of.get(name) else { return Vec::new() };
    list.iter()
        .take(MOST_CONTEXT)
        .map(|line| line.as_str().map(|line| read::text(line, LINE)).unwrap_or_default())
        .collect()
}

pub(super) fn images(event: &Map<String, Value>, faults: &mut Faults) -> Vec<Image> {
    let Some(meta) = read::object(event, "debug_meta", faults) else { return Vec::new() };
    let Some(Value::Array(list)) = meta.get("images") else { return Vec::new() };
    let found: Vec<_> = list.iter().filter_map(Value::as_object).collect();
    let found = read::ends(found, MOST_IMAGES, MOST_IMAGES, "debug_meta.images", faults);
    found
        .into_iter()
        .map(|of| Image {
            kind: read::string(of, "type", TYPE, faults).unwrap_or_default(),
            debug_id: read::string(of, "debug_id", TYPE, faults)
                .or_else(|| read::string(of, "id", TYPE, faults)),
            code_id: read::string(of, "code_id", TYPE, faults),
            code_file: read::string(of, "code_file", PATH, faults)
                .or_else(|| read::string(of, "name", PATH, faults)),
            debug_file: read::string(of, "debug_file", PATH, faults),
            image_addr: read::address(of, "image_addr", faults),
            image_size: read::address(of, "image_size", faults),
            arch: read::string(of, "arch", TYPE, faults),
            uuid: read::string(of, "uuid", TYPE, faults),
        })
        .collect()
}
