//! The demo's embeddings: a unit vector that the text alone decides, and no meaning in it.

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

use super::{
    MODEL, Refusal,
    ask::{count, digest, tokens},
};

const DIMENSIONS: u64 = 256;

pub(super) fn reply(body: &Value) -> Result<Value, Refusal> {
    let input = body.get("input").unwrap_or(&Value::Null);
    // A text, tokens, or a list of either.
    let inputs: Vec<&Value> = match input {
        Value::String(text) if !text.is_empty() => vec![input],
        Value::Array(list) if list.first().is_some_and(Value::is_number) => vec![input],
        Value::Array(list) if !list.is_empty() => list.iter().collect(),
        _ => return Err(Refusal::malformed("`input` must be a text or a list that is not empty")),
    };
    if !inputs.iter().all(|input| input.is_string() || input.is_array()) {
        return Err(Refusal::malformed("`input` must hold texts or lists of tokens"));
    }
    let dimensions = match body.get("dimensions") {
        None | Some(Value::Null) => DIMENSIONS,
        Some(given) => given
            .as_u64()
            .filter(|given| (1..=DIMENSIONS).contains(given))
            .ok_or_else(|| Refusal::malformed("`dimensions` must be from 1 to 256"))?,
    };
    let base64 = body.get("encoding_format").and_then(Value::as_str) == Some("base64");
    let data: Vec<Value> = (0_u64..)
        .zip(&inputs)
        .map(|(index, input)| {
            let vector = vector(input, dimensions);
            let embedding = if base64 {
                let bytes: Vec<u8> = vector.iter().flat_map(|value| value.to_le_bytes()).collect();
                json!(BASE64_STANDARD.encode(bytes))
            } else {
                json!(vector)
            };
            json!({"object": "embedding", "index": index, "embedding": embedding})
        })
        .collect();
    let mut size = 0;
    count(Some(input), &mut size);
    let tokens = tokens(size);
    Ok(json!({
        "object": "list",
        "data": data,
        "model": MODEL,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }))
}

fn vector(input: &Value, dimensions: u64) -> Vec<f32> {
    let mut state = digest(input.to_string().as_bytes());
    let values: Vec<f32> = (0..dimensions)
        .map(|_| {
            // splitmix64, of which 16 bits are enough here.
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            let bits = u16::try_from(mixed >> 48).unwrap_or_default();
            f32::from(bits) / 32_768.0 - 1.0
        })
        .collect();
    let length = values.iter().map(|value| value * value).sum::<f32>().sqrt();
    if length == 0.0 {
        return values;
    }
    values.iter().map(|value| value / length).collect()
}
