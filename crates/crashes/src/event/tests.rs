//! Reading events of many shapes.

use serde_json::json;

use super::*;

fn read(raw: Value) -> Event {
    let received = "2026-05-01T12:00:00Z".parse().unwrap();
    of_value(raw, ProjectId(uuid::Uuid::nil()), received, TimeDelta::zero()).unwrap()
}

fn tag<'a>(event: &'a Event, key: &str) -> Option<&'a str> {
    event.tags.iter().find(|(other, _)| other == key).map(|(_, value)| value.as_str())
}

#[test]
fn lists_come_in_three_shapes() {
    let one = json!({"type": "A", "value": "b"});
    for exception in [json!({"values": [one]}), json!([one]), one.clone(), json!({"values": one})] {
        let event = read(json!({"exception": exception}));
        assert_eq!(event.exceptions.len(), 1, "{exception}");
        assert_eq!(event.exceptions[0].kind.as_deref(), Some("A"));
        assert!(event.faults.is_empty(), "{:?}", event.faults);
    }
}

#[test]
fn times_are_read_and_put_right() {
    let at = |value: Value| read(json!({"timestamp": value}));
    let expected = "2026-05-01T11:00:00.5Z".parse::<DateTime<Utc>>().unwrap();
    for value in [
        json!(1777633200.5),
        json!("1777633200.5"),
        json!(1777633200500_i64),
        json!("2026-05-01T11:00:00.5Z"),
        json!("2026-05-01T13:00:00.5+02:00"),
        json!("2026-05-01T11:00:00.5"),
        json!("2026-05-01 11:00:00.5"),
    ] {
        assert_eq!(at(value.clone()).at, expected, "{value}");
    }
    for value in [json!("2027-01-01T00:00:00Z"), json!(1), json!("soon"), json!({})] {
        let event = at(value.clone());
        assert_eq!(event.at, "2026-05-01T12:00:00Z".parse::<DateTime<Utc>>().unwrap(), "{value}");
        assert_eq!(event.faults.len(), 1, "{value}");
    }
}

#[test]
fn wrong_types_are_faults_and_the_rest_is_read() {
    let event = read(json!({
        "platform": ["x"], "level": "loud", "tags": 5, "user": "me", "release": "a/b",
        "environment": "p\nq", "dist": "x".repeat(100), "fingerprint": {"a": 1}, "debug_meta": [],
        "exception": {"values": [{"type": 7, "value": {"a": 1}, "mechanism": 3,
            "stacktrace": {"frames": [{"function": "f", "lineno": "12", "instruction_addr": true}, "x"]}}]},
        "breadcrumbs": "none", "message": ["a"],
    }));
    assert_eq!(event.level, Level::Error);
    assert_eq!(event.exceptions[0].kind.as_deref(), Some("7"));
    assert_eq!(event.exceptions[0].value.as_deref(), Some("{\"a\":1}"));
    assert_eq!(event.exceptions[0].frames[0].lineno, Some(12));
    assert_eq!((event.release, event.environment, event.dist), (None, None, None));
    for word in [
        "platform",
        "level",
        "tags",
        "user",
        "release",
        "environment",
        "dist",
        "fingerprint",
        "debug_meta",
        "mechanism",
        "instruction_addr",
        "breadcrumbs",
        "message",
    ] {
        assert!(
            event.faults.iter().any(|fault| fault.starts_with(word)),
            "{word}: {:?}",
            event.faults
        );
    }
}

#[test]
fn messages_have_many_forms() {
    let message = |raw| read(raw).message.unwrap();
    assert_eq!(message(json!({"message": "hello"})).formatted, "hello");
    let entry = message(json!({"logentry": {"message": "user %s of %d", "params": ["ann", 3]}}));
    assert_eq!(entry.template.as_deref(), Some("user %s of %d"));
    assert_eq!(entry.formatted, "user ann of 3");
    let entry = message(json!({"message": {"message": "a {}", "formatted": "a b"}}));
    assert_eq!(entry.formatted, "a b");
    let entry = message(json!({"logentry": null, "message": "plain"}));
    assert_eq!(entry.formatted, "plain");
}

#[test]
fn tags_are_given_and_derived() {
    let event = read(json!({
        "tags": [["a", 1], ["level", "fatal"], ["bad key", "x"]],
        "level": "warn", "release": "1.0", "environment": "prod", "transaction": "/x",
        "user": {"id": 42}, "server_name": "web-1",
        "contexts": {"os": {"name": "Linux", "version": "6.1"}, "device": {"model": "P"}},
        "request": {"url": "https://e.org/a?b=c", "headers": [["User-Agent",
            "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36"]]},
        "exception": [{"type": "A", "mechanism": {"type": "onerror", "handled": false}}],
    }));
    for (key, value) in [
        ("a", "1"),
        ("level", "warning"),
        ("release", "1.0"),
        ("environment", "prod"),
        ("user", "id:42"),
        ("os", "Linux 6.1"),
        ("os.name", "Linux"),
        ("browser", "Chrome 126"),
        ("device", "P"),
        ("url", "https://e.org/a"),
        ("handled", "no"),
        ("mechanism", "onerror"),
        ("server_name", "web-1"),
        ("transaction", "/x"),
    ] {
        assert_eq!(tag(&event, key), Some(value), "{key}");
    }
    assert_eq!(tag(&event, "bad key"), None);
    assert_eq!(event.faults.len(), 1);
}

#[test]
fn addresses_and_images_have_aliases() {
    let event = read(json!({
        "exception": [{"type": "A", "stacktrace": [{"instruction_addr": "0x10"}, {"instruction_addr": 16},
            {"instruction_addr": "16"}]}],
        "debug_meta": {"images": [{"type": "symbolic", "id": "ac42", "name": "/app/bin", "image_addr": "0x1000"}]},
    }));
    for frame in &event.exceptions[0].frames {
        assert_eq!(frame.instruction_addr, Some(16));
    }
    assert_eq!(event.images[0].debug_id.as_deref(), Some("ac42"));
    assert_eq!(event.images[0].code_file.as_deref(), Some("/app/bin"));
    assert_eq!(event.images[0].image_addr, Some(0x1000));
}

#[test]
fn everything_is_bounded() {
    let frames: Vec<_> = (0..1_000).map(|n| json!({"function": format!("f{n}")})).collect();
    let exceptions: Vec<_> = (0..80)
        .map(|n| {
            json!({"type": format!("E{n}"), "value": "v".repeat(20_000),
            "stacktrace": {"frames": if n == 79 { frames.clone() } else { vec![] }}})
        })
        .collect();
    let event = read(json!({"exception": exceptions}));
    assert_eq!(event.exceptions.len(), 50);
    let last = event.exceptions.last().unwrap();
    assert_eq!(last.kind.as_deref(), Some("E79"));
    assert_eq!(last.frames.len(), 250);
    assert_eq!(last.frames.first().unwrap().function.as_deref(), Some("f0"));
    assert_eq!(last.frames.last().unwrap().function.as_deref(), Some("f999"));
    assert!(last.value.as_ref().unwrap().len() <= 8_200);
    assert_eq!(event.faults.len(), 2);
}

#[test]
fn the_thread_session_and_trace_are_found() {
    let uuid = "0192f3c4-7d1e-7c3a-9b2f-8a1d5e6f7a8b";
    for raw in [
        json!({"thread_id": format!("T-{uuid}")}),
        json!({"contexts": {"loom": {"thread_id": uuid}}}),
        json!({"tags": {"thread_id": uuid}}),
    ] {
        assert_eq!(read(raw).thread, uuid.parse().ok());
    }
    let event = read(json!({"session_id": "s1", "contexts": {"trace":
        {"trace_id": "771a43a4192642f0b136d5159a501700"}}}));
    assert_eq!(event.session_id.as_deref(), Some("s1"));
    assert_eq!(event.trace_id.as_deref(), Some("771a43a4192642f0b136d5159a501700"));
}

#[test]
fn all_stacks_together_are_bounded() {
    let frames: Vec<_> = (0..400).map(|n| json!({"function": format!("f{n}")})).collect();
    let threads: Vec<_> = (0..300)
        .map(|n| json!({"id": n, "frames": [], "stacktrace": {"frames": frames}}))
        .collect();
    let event = read(json!({"threads": threads}));
    let all: usize = event.threads.iter().map(|thread| thread.frames.len()).sum();
    assert_eq!(event.threads.len(), 256);
    assert!((10_000..=12_500).contains(&all), "{all}");
}
