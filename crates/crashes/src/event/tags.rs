//! Tags: those that the client gave, and those made of what else the event says.

use serde_json::{Map, Value};

use super::{
    Event,
    read::{self, Faults},
    user_agent,
};

const MOST: usize = 100;
const KEY: usize = 64;
const VALUE: usize = 200;

/// What the event itself says: a client's tag of this name would say otherwise in a search.
pub(crate) const OWN: &[&str] =
    &["level", "environment", "release", "dist", "user", "handled", "mechanism"];

/// There is always room for it.
pub(crate) fn is_own(key: &str) -> bool {
    OWN.contains(&key)
}

/// A map, or a list of pairs, or of `{key, value}`.
pub(super) fn given(event: &Map<String, Value>, faults: &mut Faults) -> Vec<(String, String)> {
    let mut tags = Vec::new();
    match event.get("tags") {
        Some(Value::Object(map)) => {
            for (key, value) in map {
                add(&mut tags, key, value, faults);
            }
        }
        Some(Value::Array(list)) => {
            for entry in list {
                match entry {
                    Value::Array(pair) => {
                        if let [Value::String(key), value] = pair.as_slice() {
                            add(&mut tags, key, value, faults);
                        }
                    }
                    Value::Object(pair) => {
                        if let (Some(Value::String(key)), Some(value)) =
                            (pair.get("key"), pair.get("value"))
                        {
                            add(&mut tags, key, value, faults);
                        }
                    }
                    _ => {}
                }
            }
        }
        None | Some(Value::Null) => {}
        Some(other) => faults.add(format!("tags: {} instead of an object", read::kind(other))),
    }
    if tags.len() > MOST / 2 {
        faults.add(format!("tags: {} of {} left out", tags.len() - MOST / 2, tags.len()));
        tags.truncate(MOST / 2);
    }
    tags
}

fn add(tags: &mut Vec<(String, String)>, key: &str, value: &Value, faults: &mut Faults) {
    let key = key.trim();
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | ':' | '-');
    if key.is_empty() || key.len() > KEY || !key.chars().all(plain) {
        let key = read::text(key, KEY);
        faults.add(format!(
            "tags: the name `{key}` is not 1 to {KEY} letters, digits, `_`, `.`, `:` and `-`"
        ));
        return;
    }
    let Ok(Some(value)) = read::scalar(value, VALUE) else { return };
    put(tags, key, &value);
}

/// The last of a name wins.
fn put(tags: &mut Vec<(String, String)>, key: &str, value: &str) {
    let value = value.trim().replace(['\n', '\r', '\t'], " ");
    if value.is_empty() {
        return;
    }
    match tags.iter_mut().find(|(other, _)| other == key) {
        Some((_, other)) => *other = value,
        None => tags.push((key.to_owned(), value)),
    }
}

/// All of an event that is read otherwise.
pub(super) fn all(event: &Event, given: Vec<(String, String)>) -> Vec<(String, String)> {
    let mut tags: Vec<_> =
        given.into_iter().filter(|(key, _)| !OWN.contains(&key.as_str())).collect();
    for (key, value) in own(event) {
        put(&mut tags, key, &read::text(&value, VALUE));
    }
    for (key, value) in derived(&event.raw) {
        if !tags.iter().any(|(other, _)| other == key) {
            put(&mut tags, key, &read::text(&value, VALUE));
        }
    }
    tags.sort();
    tags.truncate(MOST);
    tags
}

fn own(event: &Event) -> Vec<(&'static str, String)> {
    let mut tags = vec![("level", event.level.as_str().to_owned())];
    let mut some = |key, value: Option<&String>| {
        if let Some(value) = value {
            tags.push((key, value.clone()));
        }
    };
    some("environment", event.environment.as_ref());
    some("release", event.release.as_ref());
    some("dist", event.dist.as_ref());
    some("transaction", event.transaction.as_ref());
    some("server_name", event.server_name.as_ref());
    some("logger", event.logger.as_ref());
    if let Some(user) = &event.user {
        some("user", user.label().as_ref());
    }
    let mechanisms = || event.exceptions.iter().rev().map(|exception| &exception.mechanism);
    some("mechanism", mechanisms().find_map(|mechanism| mechanism.kind.as_ref()));
    let handled: Vec<_> = mechanisms().filter_map(|mechanism| mechanism.handled).collect();
    if !handled.is_empty() {
        let handled = if handled.contains(&false) { "no" } else { "yes" };
        tags.push(("handled", handled.to_owned()));
    }
    tags
}

fn derived(raw: &Value) -> Vec<(&'static str, String)> {
    let mut tags = Vec::new();
    for (context, whole, part) in [
        ("os", "os", "os.name"),
        ("client_os", "os", "os.name"),
        ("browser", "browser", "browser.name"),
        ("runtime", "runtime", "runtime.name"),
    ] {
        if let Some((name, version)) = named(raw, context) {
            tags.push((whole, [name.as_str(), &version].join(" ").trim().to_owned()));
            tags.push((part, name));
        }
    }
    let text = |path: &str| raw.pointer(path).and_then(Value::as_str).map(ToOwned::to_owned);
    for (key, path) in [
        ("device", "/contexts/device/model"),
        ("device.family", "/contexts/device/family"),
        ("device.class", "/contexts/device/class"),
        ("app.version", "/contexts/app/app_version"),
        ("app.device", "/contexts/app/device_app_hash"),
    ] {
        tags.extend(text(path).map(|value| (key, value)));
    }
    if let Some(url) = text("/request/url") {
        let end = url.find(['?', '#']).unwrap_or(url.len());
        tags.push(("url", url.get(..end).unwrap_or_default().to_owned()));
    }
    if let Some(agent) = header(raw, "user-agent") {
        let (browser, os) = user_agent::read(&agent);
        if let Some((name, version)) = browser {
            tags.push(("browser", format!("{name} {version}").trim().to_owned()));
            tags.push(("browser.name", name.to_owned()));
        }
        if let Some(os) = os {
            tags.push(("os", os.to_owned()));
            tags.push(("os.name", os.to_owned()));
        }
    }
    tags
}

fn named(raw: &Value, context: &str) -> Option<(String, String)> {
    let context = raw.get("contexts")?.get(context)?;
    let name = context.get("name")?.as_str()?.to_owned();
    let version = match context.get("version") {
        Some(Value::String(version)) => version.clone(),
        Some(Value::Number(version)) => version.to_string(),
        _ => String::new(),
    };
    Some((name, version))
}

/// A header of the request, which may be a map or a list of pairs.
fn header(raw: &Value, name: &str) -> Option<String> {
    match raw.get("request")?.get("headers")? {
        Value::Object(map) => {
            map.iter().find(|(key, _)| key.eq_ignore_ascii_case(name))?.1.as_str().map(Into::into)
        }
        Value::Array(list) => list.iter().find_map(|pair| {
            let key = pair.get(0)?.as_str()?;
            key.eq_ignore_ascii_case(name).then(|| pair.get(1)?.as_str().map(Into::into))?
        }),
        _ => None,
    }
}
