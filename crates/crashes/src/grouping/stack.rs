//! Which frames of a stack count, as what, and why the others do not.

use std::collections::HashSet;

use serde_json::{Map, Value, json};

use super::{family::Family, file, function, in_app, rules::Said};
use crate::event::{Event, Frame, Image};

/// So many of the innermost calls count.
const MOST: usize = 32;
/// Calls that repeat in a circle are one circle; larger ones are rare.
const LARGEST_CIRCLE: usize = 8;
const LONGEST_CONTEXT: usize = 120;
/// So many frames that do not count are shown.
const MOST_SHOWN: usize = 64;

/// A stack as it is grouped by.
pub(super) struct Stack {
    /// None counts: empty.
    pub(super) keys: Vec<String>,
    pub(super) shown: Vec<Value>,
    /// Of the application, none was found: all count.
    pub(super) all_count: bool,
}

struct Seen<'a> {
    frame: &'a Frame,
    key: Result<Key, &'static str>,
    in_app: bool,
    by_rule: Option<usize>,
    off: Option<usize>,
}

struct Key {
    place: String,
    name: String,
    what: &'static str,
}

pub(super) fn of(frames: &[Frame], event: &Event, said: &dyn Fn(&Frame) -> Said) -> Stack {
    let seen: Vec<Seen<'_>> = frames
        .iter()
        .map(|frame| {
            let family = Family::of(frame.platform.as_deref(), event.platform.as_deref());
            let said = said(frame);
            Seen {
                frame,
                key: key(frame, family, &event.images),
                in_app: said.in_app.map_or_else(|| effective(frame, family), |(in_app, _)| in_app),
                by_rule: said.in_app.map(|(_, rule)| rule),
                off: said.counts.filter(|(counts, _)| !counts).map(|(_, rule)| rule),
            }
        })
        .collect();
    let may = |seen: &Seen<'_>| seen.key.is_ok() && seen.off.is_none();
    let all_count = !seen.iter().any(|seen| seen.in_app && may(seen));
    let candidates: Vec<usize> = seen
        .iter()
        .enumerate()
        .filter(|(_, seen)| may(seen) && (all_count || seen.in_app))
        .map(|(at, _)| at)
        .collect();
    let name = |at: usize| {
        let key = seen.get(at).and_then(|seen| seen.key.as_ref().ok());
        key.map(|key| (key.place.as_str(), key.name.as_str()))
    };
    let distinct = without_circles(&candidates, &name);
    let counted = distinct.get(distinct.len().saturating_sub(MOST)..).unwrap_or_default();
    let keys = counted
        .iter()
        .filter_map(|at| name(*at))
        .map(|(place, name)| format!("{place}\0{name}"))
        .collect();
    let counts: HashSet<usize> = counted.iter().copied().collect();
    let kept: HashSet<usize> = distinct.iter().copied().collect();
    let candidates: HashSet<usize> = candidates.into_iter().collect();
    let mut shown = Vec::new();
    let mut left_out = 0_usize;
    for (at, seen) in seen.iter().enumerate() {
        let why = if counts.contains(&at) {
            None
        } else if let Some(rule) = seen.off {
            Some(format!("switched off by rule {rule}"))
        } else if let Err(why) = seen.key {
            Some(why.to_owned())
        } else if candidates.contains(&at) {
            let why = if kept.contains(&at) {
                "only the 32 innermost calls count"
            } else {
                "repeats calls before it"
            };
            Some(why.to_owned())
        } else {
            Some(seen.by_rule.map_or_else(
                || "not of the application".to_owned(),
                |rule| format!("not of the application, by rule {rule}"),
            ))
        };
        if why.is_some() && shown.len() >= MOST_SHOWN {
            left_out += 1;
        } else {
            shown.push(seen.show(why));
        }
    }
    if left_out > 0 {
        shown.push(json!({ "left_out": left_out, "counts": false }));
    }
    Stack { keys, shown, all_count }
}

impl Seen<'_> {
    fn show(&self, why: Option<String>) -> Value {
        let mut shown = Map::new();
        let name = self.frame.function.as_deref().unwrap_or("?");
        let place = self.frame.module.as_deref().or(self.frame.filename.as_deref());
        let place = place.or(self.frame.package.as_deref());
        let text = place.map_or_else(|| name.to_owned(), |place| format!("{name} in {place}"));
        shown.insert("frame".to_owned(), text.into());
        shown.insert("counts".to_owned(), why.is_none().into());
        shown.insert("in_app".to_owned(), self.in_app.into());
        match why {
            Some(why) => {
                shown.insert("why".to_owned(), why.into());
            }
            None => {
                if let Ok(key) = &self.key {
                    shown
                        .insert("as".to_owned(), json!({ "place": key.place, key.what: key.name }));
                }
            }
        }
        Value::Object(shown)
    }
}

/// Whether a frame is of the application, when no rule says it.
pub(super) fn effective(frame: &Frame, family: Family) -> bool {
    in_app::overruled(frame, family)
        .or(frame.in_app)
        .unwrap_or_else(|| in_app::decide(frame, family))
}

/// What a frame counts as, or why it cannot.
fn key(frame: &Frame, family: Family, images: &[Image]) -> Result<Key, &'static str> {
    let written = frame.function.as_deref().unwrap_or_default();
    // Comprehensions have frames of their own in older versions only.
    if family == Family::Python && matches!(written, "<listcomp>" | "<dictcomp>" | "<setcomp>") {
        return Err("a comprehension counts as the function that it is in");
    }
    let path = frame.filename.as_deref().or(frame.abs_path.as_deref());
    let module = frame
        .module
        .as_deref()
        .filter(|module| !matches!(*module, "__main__" | "<unknown module>" | "?"))
        .map(|module| file::module(module, family));
    let place = module
        .or_else(|| path.map(|path| file::name(path, family)))
        .or_else(|| frame.package.as_deref().map(|package| file::name(package, Family::Native)))
        .unwrap_or_default();
    let built = family == Family::JavaScript && path.is_some_and(file::is_built);
    if let Some(name) = function::key(written, family) {
        // Those who make bundles small give other names each time.
        if !(built && name.chars().count() <= 2) {
            return Ok(Key { place, name, what: "function" });
        }
    }
    if let Some(line) = frame.context_line.as_deref() {
        let line: Vec<&str> = line.split_whitespace().collect();
        let line = line.join(" ");
        let says = !line.is_empty() && (!built || line.len() <= LONGEST_CONTEXT);
        if says {
            let end = line.floor_char_boundary(LONGEST_CONTEXT);
            let name = line.get(..end).unwrap_or_default().to_owned();
            return Ok(Key { place, name, what: "source_line" });
        }
    }
    address(frame, images).ok_or(if built {
        "a name in a minified bundle is another after each build"
    } else {
        "has neither a name of its function nor a line of source"
    })
}

/// Of a frame without symbols: where in which image.
fn address(frame: &Frame, images: &[Image]) -> Option<Key> {
    let address = frame.instruction_addr.filter(|address| *address > 0)?;
    let relative = frame.addr_mode.as_deref().and_then(|mode| mode.strip_prefix("rel:"));
    let image = match relative {
        Some(index) => images.get(index.parse::<usize>().ok()?),
        None => images.iter().find(|image| {
            let start = image.image_addr.unwrap_or(0);
            start > 0
                && address >= start
                && image.image_size.is_none_or(|size| address - start < size)
        }),
    };
    let start = match (relative, image) {
        (Some(_), _) => 0,
        (None, Some(image)) => image.image_addr?,
        (None, None) => frame.image_addr.filter(|start| *start > 0 && *start <= address)?,
    };
    let path = image
        .and_then(|image| image.code_file.as_deref().or(image.debug_file.as_deref()))
        .or(frame.package.as_deref())?;
    let base = file::name(path, Family::Native);
    let id = image.and_then(|image| image.debug_id.as_deref()).unwrap_or_default();
    let place = if id.is_empty() { base } else { format!("{base} {}", id.to_ascii_lowercase()) };
    Some(Key { place, name: format!("0x{:x}", address - start), what: "address" })
}

/// Calls that go in a circle, once around.
fn without_circles<'a, K: PartialEq + 'a>(
    calls: &[usize],
    name: &impl Fn(usize) -> Option<K>,
) -> Vec<usize> {
    let mut kept: Vec<usize> = Vec::with_capacity(calls.len());
    for call in calls {
        kept.push(*call);
        for circle in 1..=LARGEST_CIRCLE.min(kept.len() / 2) {
            let (before, last) = kept.split_at(kept.len() - circle);
            let earlier = before.get(before.len() - circle..).unwrap_or_default();
            if last.iter().map(|at| name(*at)).eq(earlier.iter().map(|at| name(*at))) {
                kept.truncate(kept.len() - circle);
                break;
            }
        }
    }
    kept
}
