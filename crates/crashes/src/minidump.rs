//! Events whose stacks are in a minidump: it is read, and what it says stands in the event as if the client had
//! sent it. From there on it is an event like any other.

use chrono::TimeDelta;
use loom_symbolication::{Dump, DumpFrame, DumpThread};
use serde_json::{Map, Value, json};

use crate::{
    Crashes,
    event::{self, Event},
    extras,
    pipeline::Claimed,
    scrub,
};

/// What is shown in place of what came.
pub(crate) const PARTS: [&str; 3] = ["exception", "threads", "contexts"];
const MAX_FACT: usize = 100;
/// So often it is asked for when the store does not answer.
const PATIENCE: i32 = 5;

impl Crashes {
    /// Reads the minidump of an event that has one and no stack of its own.
    ///
    /// # Errors
    /// When it cannot be had just now.
    pub(crate) async fn walk_minidump(
        &self,
        claimed: &Claimed,
        event: Event,
        scrubbing: &scrub::Settings,
    ) -> Result<(Event, Map<String, Value>), String> {
        if !may_have_one(&event) {
            return Ok((event, Map::new()));
        }
        let file = extras::minidump(self, claimed).await.map_err(|error| error.to_string())?;
        let Some(file) = file else { return Ok((event, Map::new())) };
        // A walk may take half a minute, and all of a batch waits for each of its events, whosever they are:
        // one with a minidump is put back, and taken by itself.
        if claimed.attempts < 2 {
            return Err("its minidump is read when it is taken by itself".to_owned());
        }
        let why = match self.symbolicator.walk(event.project, extras::read(self, file)).await {
            Ok(Ok(dump)) => return Ok(laid_over(event, &dump, scrubbing)),
            Ok(Err(malformed)) => format!("minidump: cannot be read: {malformed}"),
            Err(error) if claimed.attempts < PATIENCE => return Err(error.to_string()),
            // The event without its stack is better than none; processed again, it may have it.
            Err(_) => "minidump: the store of attachments did not give it out".to_owned(),
        };
        let mut event = event;
        event.faults.push(why);
        Ok((event, Map::new()))
    }
}

/// Crash handlers send no stack beside the minidump; what has stacks is not asked for a file.
fn may_have_one(event: &Event) -> bool {
    matches!(event.platform.as_deref(), None | Some("native" | "c" | "cpp" | "rust" | "other"))
        && event.exceptions.iter().all(|exception| exception.frames.is_empty())
        && event.threads.iter().all(|thread| thread.frames.is_empty())
}

/// The event with what the minidump says, and those members of it that are new.
fn laid_over(
    event: Event,
    dump: &Dump,
    scrubbing: &scrub::Settings,
) -> (Event, Map<String, Value>) {
    let mut raw = event.raw.clone();
    let Some(members) = raw.as_object_mut() else { return (event, Map::new()) };
    let crashed = dump.threads.iter().find(|thread| thread.crashed);
    members.insert("exception".to_owned(), exception(dump, crashed, scrubbing));
    members.insert("threads".to_owned(), threads(dump));
    members.insert("debug_meta".to_owned(), images(dump));
    members.entry("platform").or_insert_with(|| "native".into());
    members.entry("level").or_insert_with(|| "fatal".into());
    let contexts = members.entry("contexts").or_insert_with(|| json!({}));
    if let Some(contexts) = contexts.as_object_mut() {
        let short = |text: &str| loom_core::text::cut(text, MAX_FACT).to_owned();
        contexts.entry("os").or_insert_with(|| {
            json!({
                "type": "os", "name": dump.os_name, "version": short(&dump.os_version),
                "build": dump.os_build.as_deref().map(short),
            })
        });
        contexts.entry("device").or_insert_with(|| json!({"type": "device", "arch": dump.arch}));
    }
    let parts = PARTS.iter().filter_map(|part| Some(((*part).to_owned(), raw.get(part)?.clone())));
    let parts = parts.collect();
    let read = event::of_value(raw, event.project, event.at, TimeDelta::zero());
    match read {
        Ok(mut read) => {
            // When it was, and what was wrong, was read from what came.
            read.at = event.at;
            read.faults = event.faults;
            if dump.is_cut {
                read.faults.push("minidump: some threads or calls were left out".to_owned());
            }
            (read, parts)
        }
        Err(_) => (event, Map::new()),
    }
}

fn exception(dump: &Dump, crashed: Option<&DumpThread>, scrubbing: &scrub::Settings) -> Value {
    let kind = dump.reason.as_deref().unwrap_or("Minidump");
    let value = match (&dump.assertion, dump.address) {
        (Some(assertion), _) => format!("Assertion failed: {assertion}"),
        (None, Some(address)) => format!("Fatal error at {address:#x}"),
        (None, None) => "A minidump of a process that did not crash".to_owned(),
    };
    // What was in the file could not be masked when the event came.
    let mut value = Value::String(value);
    scrub::scrub(&mut value, scrubbing);
    json!({"values": [{
        "type": kind,
        "value": value,
        "thread_id": crashed.map(|thread| thread.id),
        "mechanism": {
            "type": "minidump", "handled": dump.reason.is_none(), "synthetic": true,
            "meta": {"address": dump.address.map(hex)},
        },
        "stacktrace": crashed.map(|thread| json!({"frames": frames(&thread.frames)})),
    }]})
}

/// The stack of the one that crashed is that of the exception.
fn threads(dump: &Dump) -> Value {
    let threads = dump.threads.iter().map(|thread| {
        json!({
            "id": thread.id,
            "name": thread.name,
            "crashed": thread.crashed,
            "current": thread.crashed,
            "stacktrace": (!thread.crashed).then(|| json!({"frames": frames(&thread.frames)})),
        })
    });
    json!({"values": threads.collect::<Vec<_>>()})
}

/// Events have the oldest call first.
fn frames(frames: &[DumpFrame]) -> Vec<Value> {
    let frame = |frame: &DumpFrame| json!({"instruction_addr": hex(frame.address), "trust": frame.trust, "platform": "native"});
    frames.iter().rev().map(frame).collect()
}

fn images(dump: &Dump) -> Value {
    let images = dump.modules.iter().map(|module| {
        json!({
            "type": dump.image_kind, "code_file": module.code_file, "code_id": module.code_id,
            "debug_file": module.debug_file, "debug_id": module.debug_id,
            "image_addr": hex(module.address), "image_size": module.size, "arch": dump.arch,
        })
    });
    json!({"images": images.collect::<Vec<_>>()})
}

fn hex(address: u64) -> String {
    format!("{address:#x}")
}
