//! Events, as the SDKs of several platforms send them.

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};

use crate::{
    chance::Chance,
    stacks::{Family, Sort},
    text,
};

const BROWSERS: [(&str, &str); 5] = [
    ("Chrome", "141.0.0"),
    ("Firefox", "144.0"),
    ("Safari", "26.0"),
    ("Edge", "141.0.0"),
    ("Mobile Safari", "26.1"),
];
const SYSTEMS: [(&str, &str); 4] =
    [("Windows", "11"), ("macOS", "26.1"), ("Linux", "6.12"), ("iOS", "26.1")];
const PHONES: [(&str, &str); 5] = [
    ("Pixel 9", "16"),
    ("Galaxy S24", "15"),
    ("Galaxy A54", "14"),
    ("Xperia 10 VI", "15"),
    ("Moto G84", "14"),
];
const REGIONS: [&str; 3] = ["eu-central", "us-east", "ap-south"];
const COUNTRIES: [&str; 6] = ["DE", "FR", "PL", "US", "IN", "BR"];

/// One occurrence.
pub(crate) struct Occurrence<'a> {
    pub(crate) family: &'a Family,
    pub(crate) sort: &'a Sort,
    pub(crate) at: DateTime<Utc>,
    pub(crate) release: &'a str,
    pub(crate) trace: &'a str,
}

/// The envelope of an event.
pub(crate) fn envelope(chance: &mut Chance, of: &Occurrence<'_>) -> String {
    let id = chance.id(of.at).simple().to_string();
    let event = event(chance, of, &id);
    let head = json!({"event_id": id, "sent_at": text(of.at)});
    format!("{head}\n{}\n{event}\n", json!({"type": "event"}))
}

fn event(chance: &mut Chance, of: &Occurrence<'_>, id: &str) -> Value {
    let sort = of.sort;
    let number = chance.number(1, 9);
    let value = sort
        .value
        .replace("{n}", &number.to_string())
        .replace("{chunk}", &format!("page-{}", chance.hex(6)))
        .replace("{sku}", &format!("SKU-{}", 4000 + number * 37));
    let environment = if chance.holds(0.82) { "production" } else { "staging" };
    let (sdk, handled) = match of.family.platform {
        "javascript" => ("sentry.javascript.react", false),
        "python" => ("sentry.python.fastapi", true),
        "go" => ("sentry.go", true),
        "rust" => ("sentry.rust", sort.level != "fatal"),
        _ => ("sentry.java", sort.level != "fatal"),
    };
    let exception = json!({
        "type": sort.kind,
        "value": value,
        "mechanism": {"type": "generic", "handled": handled},
        "stacktrace": of.family.stack(sort),
    });
    let mut event = json!({
        "event_id": id,
        "timestamp": text(of.at),
        "platform": of.family.platform,
        "level": sort.level,
        "release": of.release,
        "environment": environment,
        "transaction": sort.transaction,
        "exception": {"values": [exception]},
        "sdk": {"name": sdk, "version": "9.4.0"},
        "tags": {"region": chance.one(&REGIONS), "country": chance.one(&COUNTRIES)},
        "breadcrumbs": {"values": breadcrumbs(chance, of)},
    });
    let Some(members) = event.as_object_mut() else { return event };
    if sort.users > 0 {
        let user = chance.number(1, i64::from(sort.users));
        let user = json!({"id": format!("{}", 10_000 + user * 13), "email": format!("customer{user}@example.org")});
        members.insert("user".to_owned(), user);
    }
    let mut contexts = json!({"trace": {"trace_id": of.trace, "span_id": chance.hex(16)}});
    surroundings(chance, of, &mut contexts, members);
    members.insert("contexts".to_owned(), contexts);
    event
}

/// What it ran on.
fn surroundings(
    chance: &mut Chance,
    of: &Occurrence<'_>,
    contexts: &mut Value,
    members: &mut serde_json::Map<String, Value>,
) {
    let Some(contexts) = contexts.as_object_mut() else { return };
    match of.family.slug {
        "shop-web" => {
            let (browser, version) = chance.one(&BROWSERS);
            let (os, os_version) = chance.one(&SYSTEMS);
            contexts.insert("browser".to_owned(), json!({"name": browser, "version": version}));
            contexts.insert("os".to_owned(), json!({"name": os, "version": os_version}));
            let url = format!(
                "https://shop.example.com{}",
                of.sort.transaction.replace(":slug", "blue-kettle")
            );
            members.insert("request".to_owned(), json!({"url": url, "method": "GET"}));
        }
        "mobile-app" => {
            let (phone, version) = chance.one(&PHONES);
            contexts.insert(
                "device".to_owned(),
                json!({"model": phone, "family": phone, "arch": "arm64-v8a"}),
            );
            contexts.insert("os".to_owned(), json!({"name": "Android", "version": version}));
        }
        slug => {
            let host = format!("{slug}-{}", chance.number(1, 4));
            members.insert("server_name".to_owned(), json!(host));
            contexts.insert("os".to_owned(), json!({"name": "Linux", "version": "6.12.43"}));
            if let Some((method, path)) = of.sort.transaction.split_once(' ') {
                let url = format!("https://api.shop.example.com{}", path.replace("{id}", "4711"));
                let request = json!({"url": url, "method": method, "headers": {"User-Agent": "shop-web/4.16 node"}});
                members.insert("request".to_owned(), request);
            }
        }
    }
}

fn breadcrumbs(chance: &mut Chance, of: &Occurrence<'_>) -> Vec<Value> {
    let steps: &[(&str, &str, &str)] = match of.family.slug {
        "shop-web" => &[
            ("navigation", "info", "/ → /search?q=kettle"),
            ("http", "info", "GET /api/search?q=kettle [200]"),
            ("ui.click", "info", "button.add-to-cart > span"),
            ("http", "info", "POST /api/cart/lines [201]"),
            ("console", "warning", "offer 8812 has ended, showing the list price"),
            ("navigation", "info", "/product/blue-kettle → /cart"),
        ],
        "mobile-app" => &[
            ("app.lifecycle", "info", "foreground"),
            ("navigation", "info", "HomeScreen → ProductScreen"),
            ("http", "info", "GET /v2/products/8812 [200]"),
            ("device.event", "warning", "low memory"),
            ("http", "error", "GET /v2/products/8813 [504]"),
        ],
        _ => &[
            ("query", "info", "SELECT … FROM orders WHERE id = $1 (2.1 ms)"),
            ("http", "info", "POST https://psp.example.com/authorisations [200]"),
            ("log", "info", "lock taken on order 88123"),
            ("log", "warning", "attempt 2 of 3 after 400 ms"),
            ("query", "info", "UPDATE orders SET state = $2 WHERE id = $1 (3.7 ms)"),
        ],
    };
    let skipped = usize::try_from(chance.number(0, 2)).unwrap_or_default();
    let count = i64::try_from(steps.len()).unwrap_or_default();
    let crumb = |(n, (category, level, message)): (i64, &(&str, &str, &str))| {
        let at = of.at - TimeDelta::milliseconds((count - n) * 1730);
        json!({"timestamp": text(at), "category": category, "level": level, "message": message})
    };
    (0..).zip(steps).skip(skipped).map(crumb).collect()
}
