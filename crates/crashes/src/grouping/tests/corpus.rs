//! What the algorithm makes of events as SDKs of many platforms send them. It never changes: issues
//! would fall apart. Who has to change it makes another algorithm.

use serde_json::{Value, json};

use super::grouped;

#[test]
fn the_corpus_is_grouped_as_ever() {
    let events: Vec<Value> = serde_json::from_str(include_str!("corpus/events.json")).unwrap();
    assert!(events.len() >= 30);
    let found: Vec<_> = events
        .into_iter()
        .map(|mut entry| {
            let grouping = grouped(entry["event"].take());
            json!({
                "event": entry["name"],
                "hash": hex::encode(grouping.hash),
                "title": grouping.title,
                "culprit": grouping.culprit,
                "kind": grouping.kind,
                "value": grouping.value,
                "components": grouping.components,
            })
        })
        .collect();
    insta::assert_json_snapshot!("corpus", found);
}
