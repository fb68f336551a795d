//! The stacks of an event, given to symbolication and put back. What the client sent stays in the raw form.

use loom_symbolication::{
    self as symbolication, Found, Language, Module, ModuleKind, Outcome, Request, Returns, Stack,
    Status, Wanted, debug_id_of_build_id, normalize_code_id, normalize_debug_id,
};
use serde_json::Value;

use crate::{
    Crashes,
    event::{Event, Exception, Frame, FrameStatus, Head, Image, MissingFile},
};

/// Gives the frames their symbols; each frame then says whether it has them, or why not.
pub(crate) async fn symbolicate(crashes: &Crashes, event: &mut Event) {
    let platform = event.platform.clone().unwrap_or_default();
    let frames = frame_lists(event);
    let concerned = |frame: &&Frame| language(frame, &platform) != Language::Other;
    if !frames.iter().flat_map(|list| list.iter()).any(|frame| concerned(&frame)) {
        return;
    }
    let returns = returns(event);
    let stacks = frames.iter().zip(returns).map(|(frames, returns)| Stack {
        frames: frames.iter().map(|frame| of_frame(frame, &platform)).collect(),
        returns,
    });
    let stacks = stacks.collect();
    let classes = event.exceptions.iter().map(class_name).collect();
    let request = Request {
        project: event.project,
        release: event.release.clone(),
        dist: event.dist.clone(),
        modules: event.images.iter().map(module).collect(),
        stacks,
        classes,
    };
    let answer = crashes.symbolicator.symbolicate(request).await;

    let lists = frame_lists_mut(event);
    for (list, outcomes) in lists.into_iter().zip(answer.stacks) {
        let before = std::mem::take(list);
        // Outcomes are as many as frames, unless symbolication failed as a whole.
        let outcomes = outcomes.into_iter().chain(std::iter::repeat_with(Outcome::default));
        *list = before.into_iter().zip(outcomes).flat_map(|(f, o)| put_back(f, o)).collect();
    }
    for (exception, class) in event.exceptions.iter_mut().zip(answer.classes) {
        if let Some(class) = class {
            let (module, kind) = match class.rsplit_once('.') {
                Some((module, kind)) => (Some(module.to_owned()), kind.to_owned()),
                None => (None, class),
            };
            let raw_type = exception.kind.replace(kind.clone());
            let raw_module = std::mem::replace(&mut exception.module, module.clone());
            exception.head = Some(Head { kind, module, raw_type, raw_module });
        }
    }
    event.missing_files = answer.missing.into_iter().map(missing).collect();
}

fn frame_lists(event: &Event) -> Vec<&Vec<Frame>> {
    let exceptions = event.exceptions.iter().map(|exception| &exception.frames);
    exceptions.chain(event.threads.iter().map(|thread| &thread.frames)).collect()
}

fn frame_lists_mut(event: &mut Event) -> Vec<&mut Vec<Frame>> {
    let exceptions = event.exceptions.iter_mut().map(|exception| &mut exception.frames);
    exceptions.chain(event.threads.iter_mut().map(|thread| &mut thread.frames)).collect()
}

/// What each stack says of its return addresses.
fn returns(event: &Event) -> Vec<Returns> {
    let of = |stack: &Value| match stack.pointer("/stacktrace/instruction_addr_adjustment") {
        Some(Value::String(how)) if how == "all" => Returns::All,
        Some(Value::String(how)) if how == "none" => Returns::None,
        _ => Returns::AllButNewest,
    };
    let read = |name: &str, count: usize| {
        let list = event.raw.get(name).map(|list| list.get("values").unwrap_or(list));
        let said: Vec<Returns> = list
            .and_then(Value::as_array)
            .map(|list| list.iter().map(of).collect())
            .unwrap_or_default();
        // Some were left out: which, is not known.
        if said.len() == count { said } else { vec![Returns::default(); count] }
    };
    let mut all = read("exception", event.exceptions.len());
    all.extend(read("threads", event.threads.len()));
    all
}

fn language(frame: &Frame, platform: &str) -> Language {
    match frame.platform.as_deref().unwrap_or(platform) {
        "javascript" | "node" => Language::JavaScript,
        "java" => Language::Java,
        "csharp" if frame.function_id.is_some() => Language::DotNet,
        "native" | "c" | "cocoa" | "objc" | "swift" | "rust" | "cpp" => Language::Native,
        _ if frame.instruction_addr.is_some() => Language::Native,
        _ => Language::Other,
    }
}

fn of_frame(frame: &Frame, platform: &str) -> symbolication::Frame {
    symbolication::Frame {
        language: language(frame, platform),
        function: frame.function.clone(),
        module: frame.module.clone(),
        filename: frame.filename.clone(),
        abs_path: frame.abs_path.clone(),
        lineno: frame.lineno,
        colno: frame.colno,
        has_context: frame.context_line.is_some(),
        instruction_addr: frame.instruction_addr,
        addr_mode: frame.addr_mode.clone(),
        function_id: frame.function_id,
    }
}

fn module(image: &Image) -> Module {
    let kind = match image.kind.as_str() {
        "sourcemap" => ModuleKind::Script,
        "proguard" => ModuleKind::Mapping,
        "pe_dotnet" => ModuleKind::DotNet,
        _ => ModuleKind::Native,
    };
    let id = image.debug_id.as_deref().or(image.uuid.as_deref());
    let from_code = || image.code_id.as_deref().and_then(debug_id_of_build_id);
    Module {
        kind,
        debug_id: id.and_then(normalize_debug_id).or_else(|| {
            matches!(image.kind.as_str(), "elf" | "symbolic").then(from_code).flatten()
        }),
        code_id: image.code_id.as_deref().and_then(normalize_code_id),
        code_file: image.code_file.clone(),
        address: image.image_addr.unwrap_or(0),
        size: image.image_size,
    }
}

/// The Java class of an exception, whole.
fn class_name(exception: &Exception) -> String {
    let kind = exception.kind.as_deref().unwrap_or_default();
    match exception.module.as_deref() {
        Some(module) => format!("{module}.{kind}"),
        None => kind.to_owned(),
    }
}

fn put_back(frame: Frame, outcome: Outcome) -> Vec<Frame> {
    let status = outcome.status.map(status);
    if outcome.frames.is_empty() {
        return vec![Frame { symbolication: status, ..frame }];
    }
    let last = outcome.frames.len() - 1;
    let merge = |(place, found): (usize, Found)| {
        let mut new = frame.clone();
        let context = found.context.unwrap_or_default();
        let has_context = !context.line.is_empty() || !context.pre.is_empty();
        // Nothing of the minified or mangled place stays beside what was found.
        new.function = found.function.or(new.function);
        new.raw_function = found.raw_function.or(new.raw_function);
        new.module = found.module;
        new.filename = found.filename.or(new.filename);
        new.abs_path = found.abs_path;
        new.lineno = found.lineno;
        new.colno = found.colno;
        new.context_line = has_context.then_some(context.line);
        (new.pre_context, new.post_context) = (context.pre, context.post);
        new.package = found.package.or(new.package);
        new.symbol_addr = found.symbol_addr.or(new.symbol_addr);
        new.image_addr = found.image_addr.or(new.image_addr);
        if found.foreign {
            new.in_app = Some(false);
        }
        if place != last {
            new.vars = None;
        }
        new.inlined = found.inlined;
        new.symbolication = status.clone();
        new
    };
    outcome.frames.into_iter().enumerate().map(merge).collect()
}

fn status(status: Status) -> FrameStatus {
    match status {
        Status::Symbolicated { file } => FrameStatus::Symbolicated { file },
        Status::MissingFile { wanted } => FrameStatus::MissingFile { wanted },
        Status::MissingSymbol { file } => FrameStatus::MissingSymbol { file },
        Status::Malformed { file, reason } => FrameStatus::Malformed { file, reason },
        Status::UnknownImage => FrameStatus::UnknownImage,
    }
}

fn missing(wanted: Wanted) -> MissingFile {
    let script = |map: bool| if map { "source_map" } else { "script" }.to_owned();
    match wanted {
        Wanted::Debug { debug_id, code_id, .. } => MissingFile {
            kind: "debug_file".to_owned(),
            debug_id,
            code_id,
            ..MissingFile::default()
        },
        Wanted::SourceBundle { debug_id } => MissingFile {
            kind: "source_bundle".to_owned(),
            debug_id: Some(debug_id),
            ..MissingFile::default()
        },
        Wanted::Mapping { uuid } => MissingFile {
            kind: "mapping".to_owned(),
            debug_id: Some(uuid),
            ..MissingFile::default()
        },
        Wanted::ScriptById { debug_id, source_map } => MissingFile {
            kind: script(source_map),
            debug_id: Some(debug_id),
            ..MissingFile::default()
        },
        Wanted::ScriptByUrl { release, dist, url, source_map } => MissingFile {
            kind: script(source_map),
            release: Some(release),
            dist,
            url: Some(url),
            ..MissingFile::default()
        },
    }
}
