//! Changes of an object in the shapes that clients send.

use serde_json::Value;

use super::store::{Answer, refusal};

/// As JSON Merge Patch does; lists are replaced.
pub(super) fn merge(target: &mut Value, patch: &Value) {
    let Some(patch) = patch.as_object() else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(serde_json::Map::new());
    }
    let target = target.as_object_mut().unwrap();
    for (name, value) in patch {
        if value.is_null() {
            target.remove(name);
        } else {
            merge(target.entry(name).or_insert(Value::Null), value);
        }
    }
}

/// As JSON Patch does: `add`, `replace`, `remove` and `test`.
pub(super) fn steps(target: &mut Value, patch: &Value) -> Answer<()> {
    for step in patch.as_array().into_iter().flatten() {
        let path = step["path"].as_str().unwrap_or_default();
        let operation = step["op"].as_str().unwrap_or_default();
        if operation == "test" {
            if target.pointer(path) != Some(&step["value"]) {
                return refusal(422, "Invalid", format!("testing path {path} failed"));
            }
            continue;
        }
        let Some((parent, last)) = path.rsplit_once('/') else {
            return refusal(422, "Invalid", "the path of a patch begins with a slash");
        };
        let last = last.replace("~1", "/").replace("~0", "~");
        match target.pointer_mut(parent) {
            Some(Value::Object(map)) => {
                if operation == "remove" {
                    map.remove(&last);
                } else {
                    map.insert(last, step["value"].clone());
                }
            }
            Some(Value::Array(list)) if operation == "add" => {
                let at = last.parse().unwrap_or(list.len()).min(list.len());
                list.insert(at, step["value"].clone());
            }
            _ => return refusal(422, "Invalid", format!("there is no {parent}")),
        }
    }
    Ok(())
}
