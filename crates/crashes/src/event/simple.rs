//! The simple form of the native routes, turned into the form that SDKs send.

use loom_core::error::FieldError;
use serde_json::{Map, Value, json};

use super::read::kind;

const LEVELS: &[&str] = &["fatal", "error", "warning", "info", "debug"];
/// Other names of the same.
const ALIASES: &[(&str, &str)] = &[
    ("user_context", "user"),
    ("device_context", "device"),
    ("browser_context", "browser"),
    ("os_context", "os"),
];

/// All that is wrong with it, by path.
pub(crate) fn from_simple(value: Value) -> Result<Value, Vec<FieldError>> {
    let Value::Object(mut of) = value else {
        return Err(vec![error("", format!("is {}, not an object", kind(&value)))]);
    };
    let mut errors = Vec::new();
    of.retain(|_, value| !value.is_null());
    for (name, types) in [
        ("exception_type", "a text"),
        ("exception_value", "a text"),
        ("level", "a text"),
        ("release", "a text"),
        ("dist", "a text"),
        ("environment", "a text"),
        ("platform", "a text"),
        ("server_name", "a text"),
        ("transaction", "a text"),
        ("session_id", "a text"),
        ("thread_id", "a text"),
        ("distinct_id", "a text"),
        ("timestamp", "a text or a number"),
        ("tags", "an object or a list"),
        ("user", "an object"),
        ("extra", "an object"),
        ("contexts", "an object"),
        ("request", "an object"),
        ("breadcrumbs", "a list or an object"),
        ("fingerprint", "a list"),
        ("stacktrace", "an object or a list"),
        ("user_context", "an object"),
        ("device_context", "an object"),
        ("browser_context", "an object"),
        ("os_context", "an object"),
    ] {
        if let Some(value) = of.get(name).filter(|value| !types.contains(kind(value))) {
            errors.push(error(name, format!("is {}, not {types}", kind(value))));
        }
    }
    if let Some(Value::String(level)) = of.get("level")
        && !LEVELS.contains(&level.as_str())
    {
        errors.push(error("level", format!("is none of {}", LEVELS.join(", "))));
    }
    if let Some(Value::Array(parts)) = of.get("fingerprint") {
        for (at, part) in parts.iter().enumerate().filter(|(_, part)| !part.is_string()) {
            errors.push(error(
                &format!("fingerprint[{at}]"),
                format!("is {}, not a text", kind(part)),
            ));
        }
    }
    if let Some(at) = of.get("timestamp")
        && super::time::read(at).is_none()
    {
        errors.push(error("timestamp", "is no time: RFC 3339, or seconds since 1970".to_owned()));
    }
    stack(&of, &mut errors);
    if !["exception_type", "exception_value", "exception", "message", "logentry"]
        .iter()
        .any(|name| of.contains_key(*name))
    {
        errors.push(error("exception_type", "is missing; give it, or a `message`".to_owned()));
    }
    if errors.is_empty() { Ok(Value::Object(turned(of))) } else { Err(errors) }
}

fn stack(of: &Map<String, Value>, errors: &mut Vec<FieldError>) {
    let (path, frames) = match of.get("stacktrace") {
        Some(Value::Object(stack)) => ("stacktrace.frames", stack.get("frames")),
        Some(list) => ("stacktrace", Some(list)),
        None => return,
    };
    match frames {
        Some(Value::Array(frames)) => {
            for (at, frame) in frames.iter().enumerate().filter(|(_, frame)| !frame.is_object()) {
                errors.push(error(
                    &format!("{path}[{at}]"),
                    format!("is {}, not an object", kind(frame)),
                ));
            }
        }
        None => errors.push(error(path, "is missing".to_owned())),
        Some(other) => errors.push(error(path, format!("is {}, not a list", kind(other)))),
    }
}

fn turned(mut of: Map<String, Value>) -> Map<String, Value> {
    of.remove("project_id");
    let (kind, value) = (of.remove("exception_type"), of.remove("exception_value"));
    if kind.is_some() || value.is_some() {
        let stack = of.remove("stacktrace");
        let mut exception = Map::new();
        exception.extend(kind.map(|kind| ("type".to_owned(), kind)));
        exception.extend(value.map(|value| ("value".to_owned(), value)));
        exception.extend(stack.map(|stack| ("stacktrace".to_owned(), stack)));
        of.insert("exception".to_owned(), json!({ "values": [exception] }));
    }
    if let Some(Value::String(platform)) = of.get_mut("platform") {
        let plain = platform.to_ascii_lowercase();
        *platform = if plain == "java_script" { "javascript".to_owned() } else { plain };
    }
    for (alias, name) in ALIASES {
        let Some(given) = of.remove(*alias) else { continue };
        let place = if *name == "user" {
            Some(&mut of)
        } else {
            of.entry("contexts").or_insert_with(|| json!({})).as_object_mut()
        };
        if let Some(place) = place {
            place.entry(*name).or_insert(given);
        }
    }
    if let Some(id) = of.remove("distinct_id").or_else(|| of.remove("person_id"))
        && let Some(user) = of.entry("user").or_insert_with(|| json!({})).as_object_mut()
    {
        user.entry("id").or_insert(id);
    }
    of
}

fn error(path: &str, message: String) -> FieldError {
    FieldError { path: path.to_owned(), message }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_simple_form_becomes_an_exception() {
        let turned = from_simple(json!({
            "project_id": "p", "exception_type": "TypeError", "exception_value": "x is undefined",
            "stacktrace": {"frames": [{"function": "f"}]}, "platform": "java_script",
            "distinct_id": "u1", "os_context": {"name": "Linux"},
        }));
        assert_eq!(
            turned.unwrap(),
            json!({
                "exception": {"values": [{
                    "type": "TypeError", "value": "x is undefined",
                    "stacktrace": {"frames": [{"function": "f"}]},
                }]},
                "platform": "javascript", "user": {"id": "u1"},
                "contexts": {"os": {"name": "Linux"}},
            })
        );
    }

    #[test]
    fn every_wrong_field_is_named() {
        let errors = from_simple(json!({
            "exception_type": 5, "level": "bad", "stacktrace": {"frames": [1]},
            "fingerprint": ["a", 1], "timestamp": "yesterday", "tags": "x",
        }))
        .unwrap_err();
        let paths: Vec<_> = errors.iter().map(|error| error.path.as_str()).collect();
        assert_eq!(
            paths,
            [
                "exception_type",
                "tags",
                "level",
                "fingerprint[1]",
                "timestamp",
                "stacktrace.frames[0]"
            ]
        );
        assert_eq!(from_simple(json!({})).unwrap_err()[0].path, "exception_type");
    }
}
