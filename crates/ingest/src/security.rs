//! Reports that browsers send by themselves: violations of a content security policy and of certificates,
//! made into events.

use std::borrow::Cow;

use bytes::Bytes;
use loom_core::port::Delivery;
use serde_json::{Map, Value, json};

use crate::refusal::Refusal;

/// Reports in one request of the Reporting API.
const MOST: usize = 20;

/// The events of a request: one, or as many as a browser gathered. `query` may name release and environment.
///
/// # Errors
/// When it is no report that is known.
pub(crate) fn events(
    payload: &[u8],
    delivery: &Delivery,
    query: &[(Cow<'_, str>, Cow<'_, str>)],
) -> Result<Vec<Bytes>, Refusal> {
    let unknown =
        || Refusal::malformed("this is no report of a content security policy or certificate");
    let report: Value = serde_json::from_slice(payload).map_err(|_| unknown())?;
    let reports = match report {
        Value::Array(reports) => reports,
        one => vec![one],
    };
    let events: Vec<Bytes> = reports
        .into_iter()
        .take(MOST)
        .filter_map(event)
        .map(|mut event| {
            surround(&mut event, delivery, query);
            Bytes::from(Value::Object(event).to_string())
        })
        .collect();
    if events.is_empty() { Err(unknown()) } else { Ok(events) }
}

/// What came with the report.
fn surround(
    event: &mut Map<String, Value>,
    delivery: &Delivery,
    query: &[(Cow<'_, str>, Cow<'_, str>)],
) {
    event.insert("platform".to_owned(), "other".into());
    for (name, value) in query {
        let name = match &**name {
            "sentry_release" => "release",
            "sentry_environment" => "environment",
            _ => continue,
        };
        event.insert(name.to_owned(), (&**value).into());
    }
    if let Some(agent) = &delivery.user_agent {
        let request = event.entry("request").or_insert_with(|| json!({}));
        if let Some(request) = request.as_object_mut() {
            request.insert("headers".to_owned(), json!([["User-Agent", agent]]));
        }
    }
    event.insert("user".to_owned(), json!({"ip_address": "{{auto}}"}));
}

fn event(report: Value) -> Option<Map<String, Value>> {
    let Value::Object(mut report) = report else { return None };
    for (name, kind) in [
        ("csp-report", Kind::Csp),
        ("expect-ct-report", Kind::ExpectCt),
        ("expect-staple-report", Kind::ExpectStaple),
    ] {
        if let Some(Value::Object(body)) = report.remove(name) {
            return Some(made(kind, &body));
        }
    }
    // The Reporting API wraps it, and writes its names in another way.
    if report.get("type").and_then(Value::as_str) == Some("csp-violation") {
        let Some(Value::Object(body)) = report.remove("body") else { return None };
        let body = body.into_iter().map(|(name, value)| (dashed(&name), value)).collect();
        return Some(made(Kind::Csp, &body));
    }
    report.contains_key("known-pins").then(|| made(Kind::Hpkp, &report))
}

/// `blockedURL` as `blocked-uri`.
fn dashed(name: &str) -> String {
    let mut dashed = String::with_capacity(name.len() + 4);
    for c in name.replace("URL", "Uri").chars() {
        if c.is_ascii_uppercase() {
            dashed.push('-');
        }
        dashed.push(c.to_ascii_lowercase());
    }
    dashed
}

#[derive(Clone, Copy)]
enum Kind {
    Csp,
    ExpectCt,
    ExpectStaple,
    Hpkp,
}

impl Kind {
    /// The logger, and the member of the event that holds the report.
    fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Csp => ("csp", "csp"),
            Self::ExpectCt => ("expect-ct", "expectct"),
            Self::ExpectStaple => ("expect-staple", "expectstaple"),
            Self::Hpkp => ("hpkp", "hpkp"),
        }
    }
}

fn made(kind: Kind, report: &Map<String, Value>) -> Map<String, Value> {
    let text = |name: &str| report.get(name).and_then(Value::as_str).unwrap_or_default();
    let (logger, member) = kind.names();
    let mut tags = Map::new();
    let (message, page, culprit, key);
    match kind {
        Kind::Csp => {
            let directive = [text("effective-directive"), text("violated-directive")]
                .into_iter()
                .find_map(|words| words.split_whitespace().next())
                .unwrap_or("unknown")
                .to_owned();
            let blocked = text("blocked-uri");
            page = text("document-uri").to_owned();
            let from = origin(blocked, &page);
            message = match blocked {
                "inline" => format!("Blocked inline code by '{directive}'"),
                "eval" => format!("Blocked eval by '{directive}'"),
                _ => format!("Blocked '{}' from '{from}'", directive.trim_end_matches("-src")),
            };
            culprit = directive.clone();
            key = from.clone();
            tags.insert("effective-directive".to_owned(), directive.into());
            tags.insert("blocked-uri".to_owned(), blocked.into());
        }
        Kind::ExpectCt | Kind::ExpectStaple | Kind::Hpkp => {
            let host = text("hostname").to_owned();
            let what = match kind {
                Kind::ExpectCt => "Expect-CT failed",
                Kind::ExpectStaple => "Expect-Staple failed",
                Kind::Csp | Kind::Hpkp => "Public key pinning validation failed",
            };
            message = format!("{what} for '{host}'");
            page = format!("https://{host}/");
            culprit = host.clone();
            key = host.clone();
            tags.insert("hostname".to_owned(), host.into());
            if let Some(port) = report.get("port") {
                tags.insert("port".to_owned(), port.to_string().into());
            }
        }
    }
    let event = json!({
        "logger": logger,
        "level": "error",
        "logentry": {"formatted": message},
        "transaction": culprit,
        "tags": tags,
        "fingerprint": [logger, culprit, key],
        "request": {"url": page},
        member: report,
    });
    match event {
        Value::Object(event) => event,
        _ => Map::new(),
    }
}

/// Where something was loaded from: `self` for the page's own.
fn origin(blocked: &str, page: &str) -> String {
    let host = |url: &str| {
        let (_, rest) = url.split_once("://")?;
        Some(rest.split(['/', '?', '#']).next().unwrap_or(rest).to_ascii_lowercase())
    };
    match (host(blocked), host(page)) {
        (Some(blocked), Some(page)) if blocked == page => "self".to_owned(),
        (Some(blocked), _) => blocked,
        // A scheme alone, as `data`, or a word.
        (None, _) => {
            blocked.split(':').next().filter(|word| !word.is_empty()).unwrap_or("self").to_owned()
        }
    }
}
