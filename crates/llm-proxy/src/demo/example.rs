//! A value that fits a JSON schema: the least one, always the same.

use std::cell::Cell;

use serde_json::{Map, Value, json};

/// Schemas may refer to themselves.
const MAX_DEPTH: usize = 8;
/// And do so in many places at once.
const MAX_VALUES: usize = 2000;

pub(super) fn example(schema: &Value) -> Value {
    of(schema, schema, 0, &Cell::new(MAX_VALUES))
}

fn of(schema: &Value, root: &Value, depth: usize, left: &Cell<usize>) -> Value {
    left.set(left.get().saturating_sub(1));
    if depth > MAX_DEPTH || left.get() == 0 {
        return Value::Null;
    }
    let deeper = |schema: &Value| of(schema, root, depth + 1, left);
    if let Some(to) = schema.get("$ref").and_then(Value::as_str) {
        let target = to.strip_prefix('#').and_then(|pointer| root.pointer(pointer));
        return target.map_or(Value::Null, deeper);
    }
    for name in ["const", "default"] {
        if let Some(value) = schema.get(name) {
            return value.clone();
        }
    }
    for name in ["enum", "examples"] {
        if let Some(value) = schema.get(name).and_then(|values| values.get(0)) {
            return value.clone();
        }
    }
    for name in ["anyOf", "oneOf", "allOf"] {
        if let Some(first) = schema.get(name).and_then(|schemas| schemas.get(0)) {
            return deeper(first);
        }
    }
    match kind(schema) {
        "object" => object(schema, deeper),
        "array" => array(schema, deeper),
        "integer" => json!(least(schema).ceil() as i64),
        "number" => json!(least(schema)),
        "boolean" => json!(true),
        "null" => Value::Null,
        _ => json!(string(schema)),
    }
}

fn kind(schema: &Value) -> &str {
    match schema.get("type") {
        Some(Value::String(kind)) => kind,
        Some(Value::Array(kinds)) => {
            kinds.iter().filter_map(Value::as_str).find(|kind| *kind != "null").unwrap_or("null")
        }
        _ if schema.get("properties").is_some() => "object",
        _ => "string",
    }
}

fn object(schema: &Value, deeper: impl Fn(&Value) -> Value) -> Value {
    let properties = schema.get("properties");
    let required = schema.get("required").and_then(Value::as_array).into_iter().flatten();
    let members: Map<_, _> = required
        .filter_map(Value::as_str)
        .map(|name| {
            let property = properties.and_then(|properties| properties.get(name));
            (name.to_owned(), property.map_or_else(|| json!("demo"), &deeper))
        })
        .collect();
    Value::Object(members)
}

fn array(schema: &Value, deeper: impl Fn(&Value) -> Value) -> Value {
    let least = schema.get("minItems").and_then(Value::as_u64).unwrap_or_default().min(16);
    let item = schema.get("items").map_or_else(|| json!("demo"), deeper);
    (0..least).map(|_| item.clone()).collect()
}

/// 1, or what comes next to it within the bounds.
fn least(schema: &Value) -> f64 {
    let bound = |name: &str| schema.get(name).and_then(Value::as_f64);
    let mut value = 1.0_f64;
    if let Some(most) =
        bound("maximum").or_else(|| bound("exclusiveMaximum").map(|most| most - 1.0))
    {
        value = value.min(most.floor());
    }
    if let Some(least) =
        bound("minimum").or_else(|| bound("exclusiveMinimum").map(|least| least + 1.0))
    {
        value = value.max(least);
    }
    value
}

fn string(schema: &Value) -> String {
    let text = match schema.get("format").and_then(Value::as_str) {
        Some("date") => "2026-01-01",
        Some("date-time") => "2026-01-01T00:00:00Z",
        Some("time") => "12:00:00Z",
        Some("email") => "demo@example.com",
        Some("uri" | "url") => "https://example.com/",
        Some("uuid") => "00000000-0000-4000-8000-000000000000",
        Some("ipv4") => "192.0.2.1",
        _ => "demo",
    };
    let least = schema.get("minLength").and_then(Value::as_u64).unwrap_or_default().min(1000);
    let mut text = text.to_owned();
    while u64::try_from(text.len()).is_ok_and(|len| len < least) {
        text.push('x');
    }
    text
}
