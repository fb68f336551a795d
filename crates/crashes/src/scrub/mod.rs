//! What must not be stored, masked before it is: by the names of fields, by the shapes of secrets, by
//! what the project says. In its place stands `[Filtered]`.

mod address;
mod card;
mod names;
mod settings;
#[cfg(test)]
mod tests;
mod text;

use std::{mem, sync::Arc};

use loom_redact::Redactor;
use serde_json::{Map, Value};

pub(crate) use address::fill as fill_address;
pub(crate) use settings::Settings;

use names::Names;

/// What stands in place of what was masked.
pub(crate) const MARK: &str = "[Filtered]";
/// A value nested deeper is masked unseen.
const DEEPEST: usize = 128;
/// A text of JSON in a text of JSON in a text.
const NESTED: usize = 2;
/// Names of fields that are shorter hold no secret themselves.
const LONG_NAME: usize = 16;

/// Masks what is not to be stored. To be called again changes nothing.
pub(crate) fn scrub(event: &mut Value, settings: &Settings) {
    let redactor = loom_redact::shared();
    Scrubber { settings, redactor, nested: 0 }.value(event, &Place::default(), 0);
}

/// Where in an event a value is.
#[derive(Clone, Copy, Default)]
struct Place {
    /// In the request: there `session` is a secret.
    request: bool,
    /// Source code, names of functions and files: `token = read()` is no secret there.
    code: bool,
    /// A version is no address.
    version: bool,
}

struct Scrubber<'a> {
    settings: &'a Settings,
    redactor: Arc<Redactor>,
    nested: usize,
}

impl Scrubber<'_> {
    fn value(&mut self, value: &mut Value, place: &Place, depth: usize) {
        match value {
            Value::String(text) => self.string(text, place),
            Value::Array(_) | Value::Object(_) if depth >= DEEPEST => mask(value),
            Value::Array(values) => self.array(values, place, depth),
            Value::Object(fields) => self.object(fields, place, depth),
            Value::Number(number) => {
                let card =
                    number.as_u64().is_some_and(|number| card::is_number(&number.to_string()));
                if self.settings.defaults && card {
                    *value = Value::from(MARK);
                }
            }
            Value::Null | Value::Bool(_) => {}
        }
    }

    /// Headers, query strings and tags come as pairs, too.
    fn array(&mut self, values: &mut [Value], place: &Place, depth: usize) {
        if let [Value::String(name), value] = values {
            let name = name.clone();
            if self.field(&name, value, place, depth) {
                if let Some(first) = values.first_mut() {
                    self.value(first, place, depth + 1);
                }
                return;
            }
        }
        for value in values {
            self.value(value, place, depth + 1);
        }
    }

    fn object(&mut self, fields: &mut Map<String, Value>, place: &Place, depth: usize) {
        // `{"key": "password", "value": …}`
        let named = ["key", "name"]
            .iter()
            .find_map(|key| fields.get(*key).and_then(Value::as_str))
            .is_some_and(|name| self.names().secret(name, place.request));
        if named && let Some(value) = fields.get_mut("value") {
            mask(value);
        }
        let mut names_masked = false;
        for (name, value) in fields.iter_mut() {
            if !self.field(name, value, place, depth) {
                self.value(value, &place.of(name), depth + 1);
            }
            names_masked |=
                self.settings.defaults && name.len() >= LONG_NAME && !self.redactor.is_clean(name);
        }
        if names_masked {
            for (mut name, value) in mem::take(fields) {
                self.string(&mut name, place);
                fields.insert(name, value);
            }
        }
    }

    /// A value by the name of its field; false when the name says nothing.
    fn field(&mut self, name: &str, value: &mut Value, place: &Place, depth: usize) -> bool {
        if let Some(ip) = value.as_str().filter(|_| address::is_name(name)) {
            if let Some(policy) = self.settings.ip.apply(ip) {
                *value = policy;
            }
            return true;
        }
        match self.names().of(name, place.request) {
            names::Verdict::Plain => return false,
            names::Verdict::Safe => {
                if value.is_object() || value.is_array() {
                    self.value(value, &place.of(name), depth + 1);
                }
            }
            names::Verdict::Secret => mask(value),
            names::Verdict::Cookies => cookies(value),
        }
        true
    }

    fn string(&mut self, text: &mut String, place: &Place) {
        if text.len() < 4 || text == MARK {
            return;
        }
        if !place.version
            && let Some(Value::String(other)) = self.settings.ip.whole(text)
        {
            *text = other;
            return;
        }
        let nests = self.nested < NESTED && text.trim_start().starts_with(['{', '[']);
        if nests && let Ok(mut inner) = serde_json::from_str::<Value>(text) {
            let before = inner.clone();
            self.nested += 1;
            self.value(&mut inner, place, 0);
            self.nested -= 1;
            if inner != before {
                *text = inner.to_string();
            }
            return;
        }
        if self.settings.defaults {
            text::shapes(text, &self.redactor);
            card::mask(text);
        }
        if !place.code {
            text::pairs(text, self.names(), place.request);
        }
        for pattern in &self.settings.patterns {
            text::pattern(text, pattern);
        }
    }

    fn names(&self) -> &Names {
        &self.settings.names
    }
}

impl Place {
    fn of(&self, name: &str) -> Self {
        Self {
            request: self.request || name == "request",
            code: matches!(
                name,
                "context_line"
                    | "pre_context"
                    | "post_context"
                    | "function"
                    | "raw_function"
                    | "filename"
                    | "abs_path"
                    | "module"
                    | "package"
            ),
            version: name.contains("version") || name == "release" || name == "dist",
        }
    }
}

fn mask(value: &mut Value) {
    match value {
        Value::Null | Value::Bool(_) => {}
        Value::String(text) if text.is_empty() => {}
        _ => *value = Value::from(MARK),
    }
}

/// Their names stay, when they can be told.
fn cookies(value: &mut Value) {
    match value {
        Value::Object(cookies) => cookies.values_mut().for_each(mask),
        Value::Array(cookies) => {
            for cookie in cookies {
                match cookie {
                    Value::Array(pair) if pair.len() == 2 => pair.iter_mut().skip(1).for_each(mask),
                    Value::Object(cookie) if cookie.contains_key("value") => {
                        cookie.get_mut("value").into_iter().for_each(mask);
                    }
                    other => mask(other),
                }
            }
        }
        other => mask(other),
    }
}
