//! The demo on Anthropic's Messages wire.

use serde_json::{Value, json};

use super::{
    MODEL, Piece,
    ask::{Answer, Ask, words},
};

pub(super) fn whole(ask: &Ask) -> Value {
    let content = match &ask.answer {
        Answer::Text(text) => json!([{"type": "text", "text": text}]),
        Answer::Call { name, arguments } => {
            json!([{"type": "tool_use", "id": ask.id("toolu"), "name": name, "input": arguments}])
        }
    };
    message(ask, &content, Some(stop_reason(ask)), ask.output_tokens)
}

fn message(ask: &Ask, content: &Value, stop_reason: Option<&str>, output: u64) -> Value {
    json!({
        "id": ask.id("msg"),
        "type": "message",
        "role": "assistant",
        "model": MODEL,
        "content": content,
        "stop_reason": stop_reason,
        "stop_sequence": null,
        "usage": {
            "input_tokens": ask.input_tokens,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "output_tokens": output,
        },
    })
}

fn stop_reason(ask: &Ask) -> &'static str {
    match ask.answer {
        Answer::Text(_) => "end_turn",
        Answer::Call { .. } => "tool_use",
    }
}

pub(super) fn stream(ask: &Ask) -> Vec<Piece> {
    let event = |data: Value| {
        let name = data.get("type").and_then(Value::as_str).unwrap_or_default().to_owned();
        Piece::named(&name, &data)
    };
    let delta = |delta: Value| {
        event(json!({"type": "content_block_delta", "index": 0, "delta": delta})).paced()
    };
    let (block, deltas): (Value, Vec<Piece>) = match &ask.answer {
        Answer::Text(text) => (
            json!({"type": "text", "text": ""}),
            words(text)
                .into_iter()
                .map(|word| delta(json!({"type": "text_delta", "text": word})))
                .collect(),
        ),
        Answer::Call { name, arguments } => (
            json!({"type": "tool_use", "id": ask.id("toolu"), "name": name, "input": {}}),
            words(&arguments.to_string())
                .into_iter()
                .map(|part| delta(json!({"type": "input_json_delta", "partial_json": part})))
                .collect(),
        ),
    };
    let mut pieces = vec![
        event(json!({"type": "message_start", "message": message(ask, &json!([]), None, 1)})),
        event(json!({"type": "content_block_start", "index": 0, "content_block": block})),
        event(json!({"type": "ping"})),
    ];
    pieces.extend(deltas);
    pieces.push(event(json!({"type": "content_block_stop", "index": 0})));
    pieces.push(event(json!({
        "type": "message_delta",
        "delta": {"stop_reason": stop_reason(ask), "stop_sequence": null},
        "usage": {"output_tokens": ask.output_tokens},
    })));
    pieces.push(event(json!({"type": "message_stop"})));
    pieces
}
