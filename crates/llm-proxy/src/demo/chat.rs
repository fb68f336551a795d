//! The demo on OpenAI's chat completions wire.

use serde_json::{Value, json};

use super::{
    CREATED, MODEL, Piece,
    ask::{Answer, Ask, words},
};

pub(super) fn whole(ask: &Ask) -> Value {
    let message = match &ask.answer {
        Answer::Text(text) => json!({"role": "assistant", "content": text, "refusal": null}),
        Answer::Call { name, arguments } => json!({
            "role": "assistant",
            "content": null,
            "refusal": null,
            "tool_calls": [{
                "id": ask.id("call"),
                "type": "function",
                "function": {"name": name, "arguments": arguments.to_string()},
            }],
        }),
    };
    json!({
        "id": ask.id("chatcmpl"),
        "object": "chat.completion",
        "created": CREATED,
        "model": MODEL,
        "choices": [{
            "index": 0, "message": message, "logprobs": null, "finish_reason": finish_reason(ask),
        }],
        "usage": usage(ask),
        "system_fingerprint": MODEL,
    })
}

fn finish_reason(ask: &Ask) -> &'static str {
    match ask.answer {
        Answer::Text(_) => "stop",
        Answer::Call { .. } => "tool_calls",
    }
}

fn usage(ask: &Ask) -> Value {
    json!({
        "prompt_tokens": ask.input_tokens,
        "completion_tokens": ask.output_tokens,
        "total_tokens": ask.input_tokens + ask.output_tokens,
        "prompt_tokens_details": {"cached_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0},
    })
}

/// With usage asked for, every chunk has it as null, and one more chunk brings it.
pub(super) fn stream(ask: &Ask, with_usage: bool) -> Vec<Piece> {
    let raw = |choices: &Value, usage: &Value| {
        let mut chunk = json!({
            "id": ask.id("chatcmpl"),
            "object": "chat.completion.chunk",
            "created": CREATED,
            "model": MODEL,
            "system_fingerprint": MODEL,
            "choices": choices,
        });
        if with_usage && let Some(members) = chunk.as_object_mut() {
            members.insert("usage".to_owned(), usage.clone());
        }
        Piece::data(&chunk.to_string())
    };
    let chunk = |delta: &Value, finish_reason: Option<&str>| {
        let choice =
            json!({"index": 0, "delta": delta, "logprobs": null, "finish_reason": finish_reason});
        raw(&json!([choice]), &Value::Null)
    };
    let mut pieces = Vec::new();
    match &ask.answer {
        Answer::Text(text) => {
            pieces.push(chunk(&json!({"role": "assistant", "content": "", "refusal": null}), None));
            let words = words(text).into_iter();
            pieces.extend(words.map(|word| chunk(&json!({"content": word}), None).paced()));
        }
        Answer::Call { name, arguments } => {
            let call = json!({
                "index": 0,
                "id": ask.id("call"),
                "type": "function",
                "function": {"name": name, "arguments": ""},
            });
            let first = json!({"role": "assistant", "content": null, "tool_calls": [call]});
            pieces.push(chunk(&first, None));
            pieces.extend(words(&arguments.to_string()).into_iter().map(|part| {
                let more = json!({"index": 0, "function": {"arguments": part}});
                chunk(&json!({"tool_calls": [more]}), None).paced()
            }));
        }
    }
    pieces.push(chunk(&json!({}), Some(finish_reason(ask))));
    if with_usage {
        pieces.push(raw(&json!([]), &usage(ask)));
    }
    pieces.push(Piece::data("[DONE]"));
    pieces
}
