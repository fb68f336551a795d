//! What a line looks like, in its three forms.

use loom_logs::Form;
use serde_json::{Value, json};

use crate::world::World;

fn log_one() {
    let outer = tracing::info_span!("outer", request_id = "r-1", trace_id = tracing::field::Empty);
    let _outer = outer.enter();
    let inner = tracing::info_span!("inner", depth = 2, password = "hunter2").entered();
    outer.record("trace_id", "t-1");
    tracing::warn!(
        target: "loom_x", count = 3_u64, below = -1, share = 0.5, none = f64::NAN, yes = true,
        who = ?Some("a\"b"), code = "not_found", api_key = "short",
        "it is\nthis: \u{1} \\ ä"
    );
    drop(inner);
}

#[test]
fn on_standard_output_a_line_is_an_object_with_its_fields_and_those_of_its_spans() {
    let world = World::new(Form::Json);
    world.log(|| {
        log_one();
        tracing::info!("two");
    });
    let lines: Vec<Value> =
        world.written().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2);
    let mut first = lines[0].clone();
    let at = first.as_object_mut().unwrap().remove("timestamp").unwrap();
    assert!(at.as_str().unwrap().ends_with('Z'));
    assert_eq!(
        first,
        json!({
            "level": "WARN", "target": "loom_x", "message": "it is\nthis: \u{1} \\ ä",
            "count": 3, "below": -1, "share": 0.5, "none": null, "yes": true,
            "who": "Some(\"a\\\"b\")", "code": "not_found", "api_key": "[redacted:field]",
            "request_id": "r-1", "trace_id": "t-1", "depth": 2, "password": "[redacted:field]",
        })
    );
}

#[test]
fn an_entry_has_the_fields_together_and_what_is_searched_for_apart() {
    let world = World::new(Form::Json);
    world.log(log_one);
    let read = world.read("");
    let entry = &read["entries"][0];
    assert_eq!(
        (&entry["level"], &entry["target"], &entry["request_id"], &entry["span"]),
        (&"warn".into(), &"loom_x".into(), &"r-1".into(), &"outer:inner".into())
    );
    assert_eq!(entry["message"], "it is\nthis: \u{1} \\ ä");
    assert_eq!(entry["replica"], "here:1");
    assert_eq!(
        entry["fields"],
        json!({
            "count": 3, "below": -1, "share": 0.5, "none": null, "yes": true,
            "who": "Some(\"a\\\"b\")", "code": "not_found", "api_key": "[redacted:field]",
            "trace_id": "t-1", "depth": 2, "password": "[redacted:field]",
        })
    );
}

#[test]
fn for_people_a_line_is_text_without_commands_to_their_terminal() {
    let world = World::new(Form::Pretty { colours: false });
    world.log(|| tracing::error!(target: "loom_x", who = "\u{1b}[31mred", tries = 2, "it broke"));
    let line = world.written();
    let (_, rest) = line.split_once("Z ").unwrap();
    assert_eq!(rest, "ERROR it broke who=\\u{1b}[31mred tries=2\n");
}

#[test]
fn a_line_that_is_too_long_is_cut_and_not_within_a_secret() {
    let token = format!("ghp_{}", "a1B2c3".repeat(6));
    let world = World::new(Form::Json);
    // The cut goes through the token, at each of its bytes.
    for at in 1..token.len() {
        let text = format!("{}{token}{}", "x ".repeat((32 << 10) - 1), "y".repeat(100));
        let message = &text[at..];
        world.log(|| tracing::info!(target: "loom_x", "{message}"));
    }
    let read = world.read("?limit=1000").to_string();
    for text in [&world.written(), &read] {
        assert!(text.contains("…[cut]"));
        assert!(!text.contains("ghp_a"), "the beginning of a token is left");
    }
}
