//! Embeddings, and the lists of models of both vendors.

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

use super::{
    route::{Ask, Wire},
    usage::openai::EMBEDDING_PER_INPUT,
};

/// When everything was made.
pub(super) const CREATED: u64 = 1_767_225_600;

const ANTHROPIC: &[(&str, &str)] = &[
    ("claude-opus-4-5-20251101", "Claude Opus 4.5"),
    ("claude-sonnet-4-5-20250929", "Claude Sonnet 4.5"),
    ("claude-haiku-4-5-20251001", "Claude Haiku 4.5"),
];
const OPENAI: &[&str] = &["gpt-4.1-mini", "gpt-4o", "o4-mini", "text-embedding-3-small"];

pub(super) fn models(wire: Wire) -> Value {
    match wire {
        Wire::Anthropic => json!({
            "data": ANTHROPIC.iter().map(|(id, name)| anthropic(id, name)).collect::<Vec<_>>(),
            "has_more": false,
            "first_id": ANTHROPIC.first().map(|(id, _)| id),
            "last_id": ANTHROPIC.last().map(|(id, _)| id),
        }),
        Wire::OpenAi | Wire::Gemini => json!({
            "object": "list",
            "data": OPENAI.iter().map(|id| openai(id)).collect::<Vec<_>>(),
        }),
    }
}

/// A model of the list.
pub(super) fn model(wire: Wire, id: &str) -> Option<Value> {
    match wire {
        Wire::Anthropic => {
            ANTHROPIC.iter().find(|model| model.0 == id).map(|(id, name)| anthropic(id, name))
        }
        Wire::OpenAi | Wire::Gemini => OPENAI.contains(&id).then(|| openai(id)),
    }
}

fn anthropic(id: &str, name: &str) -> Value {
    json!({
        "type": "model",
        "id": id,
        "display_name": name,
        "created_at": "2025-11-24T00:00:00Z",
        "lifecycle": "active",
        "max_input_tokens": 200_000,
        "max_tokens": 64_000,
    })
}

fn openai(id: &str) -> Value {
    json!({"id": id, "object": "model", "created": CREATED, "owned_by": "system"})
}

/// The vector of the `at`th input is `(at + 1) / (i + 1)` at `i`.
pub(super) fn embeddings(ask: &Ask) -> Value {
    // A text, tokens, or a list of either.
    let inputs = match &ask.body["input"] {
        Value::Array(list) if !list.first().is_some_and(Value::is_number) => list.len(),
        _ => 1,
    };
    let dimensions = ask.body["dimensions"].as_u64().unwrap_or(1536);
    let vector = |at: usize| -> Value {
        let values = (1..=dimensions).map(|i| (at + 1) as f32 / i as f32);
        if ask.body["encoding_format"] == "base64" {
            let bytes: Vec<u8> = values.flat_map(f32::to_le_bytes).collect();
            json!(BASE64_STANDARD.encode(bytes))
        } else {
            values.collect()
        }
    };
    let data: Vec<Value> = (0..inputs)
        .map(|at| json!({"object": "embedding", "index": at, "embedding": vector(at)}))
        .collect();
    let tokens = EMBEDDING_PER_INPUT * inputs as u64;
    json!({
        "object": "list",
        "data": data,
        "model": ask.model(),
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    })
}
