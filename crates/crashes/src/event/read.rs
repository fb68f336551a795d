//! Reading values that may be of any type: what does not fit is said in words and left out.

use serde_json::{Map, Value};

/// More is not said.
const MOST_FAULTS: usize = 50;

/// What was wrong so far.
#[derive(Default)]
pub(super) struct Faults(Vec<String>);

impl Faults {
    pub(super) fn add(&mut self, fault: impl Into<String>) {
        if self.0.len() < MOST_FAULTS {
            self.0.push(fault.into());
        }
    }

    pub(super) fn into_inner(self) -> Vec<String> {
        self.0
    }

    fn wrong(&mut self, name: &str, value: &Value, wanted: &str) {
        self.add(format!("{name}: {} instead of {wanted}", kind(value)));
    }
}

pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// At most so many bytes, without characters that the database does not take.
pub(super) fn text(text: &str, most: usize) -> String {
    let cut = match text.get(..most) {
        _ if text.len() <= most => text.to_owned(),
        Some(cut) => format!("{cut}…"),
        None => format!("{}…", text.get(..text.floor_char_boundary(most)).unwrap_or_default()),
    };
    if cut.contains('\0') { cut.replace('\0', "\u{fffd}") } else { cut }
}

/// A text, or what can be written as one; without white space around it, none when nothing is left.
pub(super) fn string(
    of: &Map<String, Value>,
    name: &str,
    most: usize,
    faults: &mut Faults,
) -> Option<String> {
    let found = scalar(of.get(name)?, most).unwrap_or_else(|value| {
        faults.wrong(name, value, "a text");
        None
    });
    found.map(|found| found.trim().to_owned()).filter(|found| !found.is_empty())
}

/// As [`string`], with its white space: lines of source code.
pub(super) fn line(of: &Map<String, Value>, name: &str, most: usize) -> Option<String> {
    match of.get(name)? {
        Value::String(found) => Some(text(found, most)),
        _ => None,
    }
}

/// None for null; the value itself when it is no scalar.
pub(super) fn scalar(value: &Value, most: usize) -> Result<Option<String>, &Value> {
    match value {
        Value::String(found) => Ok(Some(text(found, most))),
        Value::Number(number) => Ok(Some(number.to_string())),
        Value::Bool(value) => Ok(Some(value.to_string())),
        Value::Null => Ok(None),
        Value::Array(_) | Value::Object(_) => Err(value),
    }
}

pub(super) fn flag(of: &Map<String, Value>, name: &str) -> Option<bool> {
    match of.get(name)? {
        Value::Bool(value) => Some(*value),
        Value::String(text) if text.eq_ignore_ascii_case("true") => Some(true),
        Value::String(text) if text.eq_ignore_ascii_case("false") => Some(false),
        Value::Number(number) => number.as_i64().map(|number| number != 0),
        _ => None,
    }
}

pub(super) fn integer(of: &Map<String, Value>, name: &str) -> Option<i64> {
    match of.get(name)? {
        Value::Number(number) => {
            number.as_i64().or_else(|| number.as_f64().map(|number| number as i64))
        }
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

pub(super) fn count(of: &Map<String, Value>, name: &str) -> Option<u32> {
    integer(of, name).and_then(|number| u32::try_from(number).ok())
}

/// `"0x7f…"`, `"7f…"` is not hexadecimal but decimal, or a number.
pub(super) fn address(of: &Map<String, Value>, name: &str, faults: &mut Faults) -> Option<u64> {
    let value = of.get(name)?;
    let found = match value {
        Value::Null => return None,
        Value::Number(number) => number.as_u64().or_else(|| {
            number.as_f64().filter(|number| *number >= 0.0).map(|number| number as u64)
        }),
        Value::String(text) => {
            let text = text.trim();
            match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
                Some(hex) => u64::from_str_radix(hex, 16).ok(),
                None => text.parse().ok(),
            }
        }
        Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    };
    if found.is_none() {
        faults.wrong(name, value, "an address");
    }
    found
}

pub(super) fn object<'a>(
    of: &'a Map<String, Value>,
    name: &str,
    faults: &mut Faults,
) -> Option<&'a Map<String, Value>> {
    match of.get(name)? {
        Value::Object(found) => Some(found),
        Value::Null => None,
        other => {
            faults.wrong(name, other, "an object");
            None
        }
    }
}

/// What is in `{"values": […]}`, a list, or one object; without those that are null.
pub(super) fn values<'a>(
    of: &'a Map<String, Value>,
    name: &str,
    faults: &mut Faults,
) -> Vec<&'a Map<String, Value>> {
    let list = match of.get(name) {
        None | Some(Value::Null) => return Vec::new(),
        Some(Value::Array(list)) => list.as_slice(),
        Some(Value::Object(object)) => match object.get("values") {
            Some(Value::Array(list)) => list.as_slice(),
            Some(Value::Object(one)) => return vec![one],
            Some(Value::Null) => return Vec::new(),
            None if !object.is_empty() => return vec![object],
            _ => return Vec::new(),
        },
        Some(other) => {
            faults.wrong(name, other, "a list");
            return Vec::new();
        }
    };
    let found: Vec<_> = list.iter().filter_map(Value::as_object).collect();
    let strange = list.iter().filter(|value| !value.is_object() && !value.is_null()).count();
    if strange > 0 {
        faults.add(format!("{name}: {strange} entries are no objects"));
    }
    found
}

/// The first and the last of a list that is too long: `first` and the rest of `most`.
pub(super) fn ends<T>(
    mut list: Vec<T>,
    most: usize,
    first: usize,
    name: &str,
    faults: &mut Faults,
) -> Vec<T> {
    if list.len() > most {
        faults.add(format!("{name}: {} of {} left out", list.len() - most, list.len()));
        let from = first.min(most);
        let to = list.len() - (most - from);
        list.drain(from..to);
    }
    list
}
