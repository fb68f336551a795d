//! An event, read leniently from what SDKs send: nothing that is wrong in it costs the rest.

mod json;
mod model;
mod read;
mod simple;
mod stack;
mod tags;
#[cfg(test)]
mod tests;
mod time;
mod user_agent;

use chrono::{DateTime, TimeDelta, Utc};
use loom_core::id::ProjectId;
use serde_json::{Map, Value};

pub(crate) use json::object;
pub(crate) use model::*;
pub(crate) use simple::from_simple;
pub(crate) use tags::{OWN as OWN_TAGS, is_own as is_own_tag};

use read::{Faults, string};

const LOGGER: usize = 128;
const TRANSACTION: usize = 256;
const SERVER: usize = 256;
const RELEASE: usize = 250;
const DIST: usize = 64;
const ENVIRONMENT: usize = 64;
const MESSAGE: usize = 8_192;
const MOST_PARTS: usize = 32;
const PART: usize = 512;

/// `drift` is how far our clock is ahead of the sender's, as far as that counts.
pub(crate) fn parse(
    payload: &[u8],
    project: ProjectId,
    received_at: DateTime<Utc>,
    drift: TimeDelta,
) -> Result<Event, String> {
    of_value(object(payload)?, project, received_at, drift)
}

/// As [`parse`], of what is read already.
pub(crate) fn of_value(
    raw: Value,
    project: ProjectId,
    received_at: DateTime<Utc>,
    drift: TimeDelta,
) -> Result<Event, String> {
    let Value::Object(of) = &raw else {
        return Err(format!("the payload is {}, not an object", read::kind(&raw)));
    };
    let mut faults = Faults::default();
    let (at, fault) = time::happened(of.get("timestamp"), received_at, drift);
    if let Some(fault) = fault {
        faults.add(fault);
    }
    let given = tags::given(of, &mut faults);
    let tagged =
        |name: &str| given.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    let exceptions = stack::exceptions(of, &mut faults);
    let level = level(of, &mut faults);
    let mut event = Event {
        project,
        at,
        platform: string(of, "platform", DIST, &mut faults).map(|text| text.to_ascii_lowercase()),
        level,
        logger: string(of, "logger", LOGGER, &mut faults),
        transaction: string(of, "transaction", TRANSACTION, &mut faults)
            .or_else(|| string(of, "culprit", TRANSACTION, &mut faults))
            .or_else(|| tagged("transaction").map(ToOwned::to_owned)),
        server_name: string(of, "server_name", SERVER, &mut faults)
            .or_else(|| tagged("server_name").map(ToOwned::to_owned)),
        release: name_of(of, "release", RELEASE, &['/', '\\'], &mut faults),
        dist: name_of(of, "dist", DIST, &[], &mut faults),
        environment: name_of(of, "environment", ENVIRONMENT, &['/'], &mut faults)
            .or_else(|| tagged("environment").map(ToOwned::to_owned)),
        message: message(of, &mut faults),
        threads: stack::threads(of, &mut faults),
        images: stack::images(of, &mut faults),
        exceptions,
        tags: Vec::new(),
        user: user(of, &mut faults),
        fingerprint: fingerprint(of, &mut faults),
        trace_id: trace_id(of),
        session_id: session_id(of).or_else(|| tagged("session_id").map(ToOwned::to_owned)),
        thread: thread(of, tagged("thread_id").or_else(|| tagged("loom.thread_id"))),
        missing_files: Vec::new(),
        faults: Vec::new(),
        raw: Value::Null,
    };
    check_breadcrumbs(of, &mut faults);
    event.faults = faults.into_inner();
    event.raw = raw;
    event.tags = tags::all(&event, given);
    Ok(event)
}

fn level(of: &Map<String, Value>, faults: &mut Faults) -> Level {
    let level = match of.get("level") {
        None | Some(Value::Null) => return Level::Error,
        Some(Value::String(text)) => Level::read(text),
        // As Python's logging counts.
        Some(Value::Number(number)) => match number.as_i64() {
            Some(0..=19) => Some(Level::Debug),
            Some(20..=29) => Some(Level::Info),
            Some(30..=39) => Some(Level::Warning),
            Some(40..=49) => Some(Level::Error),
            Some(50..) => Some(Level::Fatal),
            _ => None,
        },
        Some(_) => None,
    };
    level.unwrap_or_else(|| {
        faults.add("level: none of fatal, error, warning, info, debug");
        Level::Error
    })
}

/// Of a release, a dist or an environment: what cannot be one is left out.
fn name_of(
    of: &Map<String, Value>,
    name: &str,
    most: usize,
    forbidden: &[char],
    faults: &mut Faults,
) -> Option<String> {
    let found = string(of, name, most + 1, faults)?;
    let bad = |c: char| c.is_control() || forbidden.contains(&c);
    let fault = if found.len() > most {
        format!("{name}: longer than {most} characters")
    } else if found.contains(bad) {
        format!("{name}: has a line break or one of {forbidden:?}")
    } else if found == "." || found == ".." {
        format!("{name}: is only dots")
    } else {
        return Some(found);
    };
    faults.add(fault);
    None
}

/// `logentry`, or `message`: a text, or an object like it.
fn message(of: &Map<String, Value>, faults: &mut Faults) -> Option<Message> {
    let entry = ["logentry", "sentry.interfaces.Message", "message"]
        .into_iter()
        .filter_map(|name| of.get(name))
        .find(|value| match value {
            Value::Null => false,
            Value::Object(of) => !of.is_empty(),
            Value::String(text) => !text.trim().is_empty(),
            _ => true,
        })?;
    match entry {
        Value::Object(entry) => {
            let template = string(entry, "message", MESSAGE, faults);
            let formatted = string(entry, "formatted", MESSAGE, faults).or_else(|| {
                template.as_ref().map(|template| filled(template, entry.get("params")))
            })?;
            Some(Message { template, formatted: read::text(&formatted, MESSAGE) })
        }
        other => match read::scalar(other, MESSAGE) {
            Ok(text) => {
                text.map(|text| Message { template: None, formatted: text.trim().to_owned() })
            }
            Err(other) => {
                faults.add(format!("message: {} instead of a text", read::kind(other)));
                None
            }
        },
    }
}

/// `%s` and `{}` by the parameters, one after the other.
fn filled(template: &str, params: Option<&Value>) -> String {
    let Some(Value::Array(params)) = params else { return template.to_owned() };
    let mut text = String::with_capacity(template.len());
    let mut rest = template;
    for param in params.iter().take(MOST_PARTS) {
        let Some((before, after)) = ["%s", "%d", "%r", "{}"]
            .iter()
            .filter_map(|place| rest.split_once(place))
            .min_by_key(|(before, _)| before.len())
        else {
            break;
        };
        text.push_str(before);
        match param {
            Value::String(param) => text.push_str(&read::text(param, PART)),
            other => text.push_str(&read::text(&other.to_string(), PART)),
        }
        rest = after;
    }
    text + rest
}

fn user(of: &Map<String, Value>, faults: &mut Faults) -> Option<User> {
    let of = read::object(of, "user", faults)?;
    let user = User {
        id: string(of, "id", 128, faults),
        email: string(of, "email", 256, faults),
        username: string(of, "username", 128, faults),
        ip_address: string(of, "ip_address", 64, faults).filter(|ip| ip != "{{auto}}"),
    };
    user.label().is_some().then_some(user)
}

/// What an SDK sends that was not told one.
fn fingerprint(of: &Map<String, Value>, faults: &mut Faults) -> Option<Vec<String>> {
    let parts: Vec<_> = match of.get("fingerprint") {
        Some(Value::Array(parts)) => parts
            .iter()
            .filter_map(|part| read::scalar(part, PART).ok().flatten())
            .take(MOST_PARTS)
            .collect(),
        Some(Value::String(part)) => vec![read::text(part, PART)],
        None | Some(Value::Null) => return None,
        Some(other) => {
            faults.add(format!("fingerprint: {} instead of a list", read::kind(other)));
            return None;
        }
    };
    (!parts.is_empty()).then_some(parts)
}

fn trace_id(of: &Map<String, Value>) -> Option<String> {
    let id = of.get("contexts")?.get("trace")?.get("trace_id")?.as_str()?;
    let id = id.replace('-', "").to_ascii_lowercase();
    let hex = id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    (hex && id.bytes().any(|byte| byte != b'0')).then_some(id)
}

fn session_id(of: &Map<String, Value>) -> Option<String> {
    let own =
        of.get("session_id").or_else(|| of.get("contexts")?.get("loom")?.get("session_id"))?;
    own.as_str().map(|id| read::text(id.trim(), 128)).filter(|id| !id.is_empty())
}

fn thread(of: &Map<String, Value>, tag: Option<&str>) -> Option<uuid::Uuid> {
    let own = of
        .get("thread_id")
        .or_else(|| of.get("contexts")?.get("loom")?.get("thread_id"))
        .and_then(Value::as_str);
    let id = own.or(tag)?.trim();
    id.strip_prefix("T-").unwrap_or(id).parse().ok()
}

/// They stay in the raw form; here only what is wrong with them is said.
fn check_breadcrumbs(of: &Map<String, Value>, faults: &mut Faults) {
    read::values(of, "breadcrumbs", faults);
}

/// So many of the newest breadcrumbs are shown.
const MOST_BREADCRUMBS: usize = 100;

/// The breadcrumbs of a payload, oldest first.
pub(crate) fn breadcrumbs(raw: &Value) -> Vec<&Map<String, Value>> {
    let Value::Object(of) = raw else { return Vec::new() };
    let found = read::values(of, "breadcrumbs", &mut Faults::default());
    let from = found.len().saturating_sub(MOST_BREADCRUMBS);
    found.into_iter().skip(from).collect()
}
