//! What holds for any event.

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::{event, grouped};
use crate::{
    event::{from_simple, object as read},
    grouping::{Rules, group, mark},
    scrub::{Settings, fill_address, scrub},
};

/// Names that mean something, so that arbitrary JSON gets further than the first look.
const NAMES: &[&str] = &[
    "exception",
    "values",
    "type",
    "value",
    "stacktrace",
    "frames",
    "function",
    "module",
    "filename",
    "abs_path",
    "in_app",
    "lineno",
    "instruction_addr",
    "image_addr",
    "addr_mode",
    "package",
    "context_line",
    "mechanism",
    "synthetic",
    "is_exception_group",
    "threads",
    "crashed",
    "current",
    "id",
    "debug_meta",
    "images",
    "debug_id",
    "code_file",
    "image_size",
    "tags",
    "user",
    "ip_address",
    "fingerprint",
    "message",
    "logentry",
    "formatted",
    "params",
    "level",
    "platform",
    "release",
    "environment",
    "timestamp",
    "contexts",
    "os",
    "name",
    "version",
    "trace",
    "trace_id",
    "request",
    "headers",
    "cookies",
    "query_string",
    "data",
    "breadcrumbs",
    "extra",
    "vars",
    "password",
    "transaction",
    "sdk",
    "settings",
    "infer_ip",
    "key",
];
const TEXTS: &[&str] = &[
    "python",
    "javascript",
    "native",
    "rust",
    "java",
    "csharp",
    "go",
    "php",
    "ruby",
    "{{ default }}",
    "{{auto}}",
    "app::f::h0123456789abcdef",
    "<T as U>::f",
    "a<b<c>",
    "operator<<",
    "f()::$_0::operator()(",
    "((((",
    "<<<<",
    "main.4f2a9c1b.js?x=1",
    "https://e.org/a.b",
    "0x1f",
    "rel:0",
    "{\"password\":\"x\"}",
    "[[",
    "a=b&token=c",
    "password: \"x",
    "4111 1111 1111 1111",
    "10.0.0.1",
    "::1",
    "2026-05-01T12:00:00Z",
    "é=ü:ö",
    "class@anonymous",
    "{closure:",
    "<Pay>d__1.",
    "block in ",
    "closure #1 in ",
    "- - -",
    "=\"",
    "Bearer abcdefghijklmnop1234",
];

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::sample::select(TEXTS).prop_map(ToOwned::to_owned),
        (prop::sample::select(TEXTS), prop::sample::select(TEXTS))
            .prop_map(|(a, b)| format!("{a}{b}")),
        "\\PC{0,40}",
        any::<String>(),
    ]
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![8 => prop::sample::select(NAMES).prop_map(ToOwned::to_owned), 1 => text()]
}

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        text().prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 64, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::Array),
            prop::collection::vec((name(), inner), 0..6)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

fn object() -> impl Strategy<Value = Value> {
    prop::collection::vec((name(), json_value()), 0..10)
        .prop_map(|fields| Value::Object(fields.into_iter().collect::<Map<_, _>>()))
}

fn frame() -> impl Strategy<Value = Value> {
    (text(), text(), text(), prop::option::of(any::<bool>()), any::<u32>(), any::<u32>()).prop_map(
        |(function, module, file, in_app, line, column)| {
            json!({"function": function, "module": module, "filename": file, "in_app": in_app,
                "lineno": line, "colno": column, "instruction_addr": null})
        },
    )
}

fn stack_event() -> impl Strategy<Value = Value> {
    let exception = (text(), text(), prop::collection::vec(frame(), 0..12)).prop_map(|(kind, value, frames)| {
        json!({"type": kind, "value": value, "stacktrace": {"frames": frames}})
    });
    (prop::collection::vec(exception, 1..4), prop::sample::select(TEXTS)).prop_map(
        |(values, platform)| json!({"platform": platform, "exception": {"values": values}}),
    )
}

fn settings() -> Vec<Settings> {
    ["keep", "anonymise", "drop"]
        .into_iter()
        .map(|ip| {
            Settings::parse(
                &json!({"ip": ip, "sensitive_fields": ["shoe size"], "patterns": ["[0-9]{5}x"]}),
            )
            .unwrap()
        })
        .collect()
}

/// Every place where a secret may stand in an event.
fn planted(secret: &str, fault: &str) -> Value {
    json!({
        "message": format!("{fault}: password={secret} was wrong"),
        "request": {
            "url": format!("https://e.org/a?access_token={secret}&b=1"),
            "query_string": [["password", secret], ["b", "1"]],
            "headers": {"Authorization": format!("Bearer {secret}"), "cookie": format!("session={secret}; a=b"),
                "X-Auth-Token": secret},
            "cookies": {"anything": secret}, "env": {"DATABASE_PASSWORD": secret},
            "data": format!("{{\"user\":{{\"password\":\"{secret}\"}}}}"),
        },
        "exception": {"values": [{"type": fault, "value": format!("{{'api_key': '{secret}'}}"), "stacktrace": {"frames": [
            {"function": "f", "vars": {"db_password": secret, "config": {"client-secret": [secret, {"x": secret}]},
                "repr": format!("Config(secret='{secret}')")}}]}}]},
        "breadcrumbs": {"values": [{"message": format!("postgres://ann:{secret}@db/x"), "data": {"passwd": secret}}]},
        "extra": {"a": [{"b": {"Private Key": secret}}], "pairs": [{"key": "token", "value": secret}]},
        "contexts": {"app": {"credentials": {"login": secret}}},
        "tags": [["auth", secret]],
        "user": {"id": "7", "data": {"apiKey": secret}},
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn nothing_that_is_sent_makes_it_panic(raw in object(), rules in json_value(), more in json_value()) {
        let mut scrubbed = raw.clone();
        fill_address(&mut scrubbed, Some("203.0.113.9".parse().unwrap()));
        for settings in settings() {
            scrub(&mut scrubbed, &settings);
        }
        let _ = from_simple(raw.clone());
        let _ = Settings::parse(&more);
        let rules = Rules::parse(&rules).unwrap_or_default();
        let mut read = event(scrubbed);
        let before = group(&read, &rules);
        mark(&mut read, &rules);
        prop_assert_eq!(group(&read, &rules).hash, before.hash, "marking changes nothing");
        let bytes = before.components.to_string();
        prop_assert!(!bytes.contains("\\u0000"));
        prop_assert!(before.title.len() <= 170 && !before.title.is_empty());
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200), raw in object()) {
        let _ = read(&bytes);
        let mut text = raw.to_string().into_bytes();
        let at = bytes.len() % text.len();
        text.splice(at..at, bytes);
        let _ = read(&text);
    }

    #[test]
    fn lines_and_columns_do_not_count(raw in stack_event(), line in any::<u32>()) {
        let mut moved = raw.clone();
        for exception in moved["exception"]["values"].as_array_mut().unwrap() {
            for frame in exception["stacktrace"]["frames"].as_array_mut().unwrap() {
                frame["lineno"] = line.into();
                frame["colno"] = 1.into();
                frame["pre_context"] = json!(["another"]);
            }
        }
        prop_assert_eq!(grouped(raw).hash, grouped(moved).hash);
    }

    #[test]
    fn masking_twice_changes_nothing(raw in object()) {
        for settings in settings() {
            let mut once = raw.clone();
            scrub(&mut once, &settings);
            let mut twice = once.clone();
            scrub(&mut twice, &settings);
            prop_assert_eq!(&once, &twice);
        }
    }

    #[test]
    fn a_secret_is_nowhere_in_what_is_stored(secret in "zq[A-Za-z0-9]{14,30}7", fault in "[A-Z][a-z]{3,10}Error") {
        let mut raw = planted(&secret, &fault);
        scrub(&mut raw, &Settings::default());
        let stored = raw.to_string();
        prop_assert!(!stored.contains(&secret), "{}", stored);
        prop_assert_eq!(&raw["exception"]["values"][0]["type"], &Value::from(fault));
        prop_assert_eq!(&raw["user"]["id"], "7");
    }
}
