//! The demo on OpenAI's responses wire: named, numbered events, no `[DONE]`.

use serde_json::{Value, json};

use super::{
    CREATED, MODEL, Piece,
    ask::{Answer, Ask, words},
};

pub(super) fn whole(ask: &Ask) -> Value {
    response(ask, Some(item(ask, true)))
}

/// The whole response, or the one that is only begun.
fn response(ask: &Ask, item: Option<Value>) -> Value {
    let done = item.is_some();
    let usage = json!({
        "input_tokens": ask.input_tokens,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": ask.output_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": ask.input_tokens + ask.output_tokens,
    });
    json!({
        "id": ask.id("resp"),
        "object": "response",
        "created_at": CREATED,
        "status": if done { "completed" } else { "in_progress" },
        "background": false,
        "error": null,
        "incomplete_details": null,
        "instructions": null,
        "max_output_tokens": null,
        "metadata": {"loom_demo": "true"},
        "model": MODEL,
        "output": item.into_iter().collect::<Vec<_>>(),
        "parallel_tool_calls": true,
        "previous_response_id": null,
        "reasoning": {"effort": null, "summary": null},
        "store": false,
        "temperature": 1.0,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "truncation": "disabled",
        "usage": if done { usage } else { Value::Null },
    })
}

fn item(ask: &Ask, done: bool) -> Value {
    let status = if done { "completed" } else { "in_progress" };
    match &ask.answer {
        Answer::Text(text) => {
            let content = if done { json!([part(text)]) } else { json!([]) };
            json!({
                "id": ask.id("msg"),
                "type": "message",
                "role": "assistant",
                "status": status,
                "content": content,
            })
        }
        Answer::Call { name, arguments } => {
            let arguments = if done { arguments.to_string() } else { String::new() };
            json!({
                "id": ask.id("fc"),
                "type": "function_call",
                "call_id": ask.id("call"),
                "name": name,
                "arguments": arguments,
                "status": status,
            })
        }
    }
}

fn part(text: &str) -> Value {
    json!({"type": "output_text", "text": text, "annotations": [], "logprobs": []})
}

/// Events, numbered as they are made.
#[derive(Default)]
struct Events(Vec<Piece>);

impl Events {
    /// `place` and `data` are both members of the event.
    fn push(&mut self, name: &str, place: &Value, data: Value) {
        let mut event = json!({"type": name, "sequence_number": self.0.len()});
        if let Some(members) = event.as_object_mut() {
            for more in [place.clone(), data] {
                if let Value::Object(more) = more {
                    members.extend(more);
                }
            }
        }
        let piece = Piece::named(name, &event);
        self.0.push(if name.ends_with(".delta") { piece.paced() } else { piece });
    }
}

pub(super) fn stream(ask: &Ask) -> Vec<Piece> {
    let mut events = Events::default();
    let nowhere = json!({});
    let begun = json!({"response": response(ask, None)});
    events.push("response.created", &nowhere, begun.clone());
    events.push("response.in_progress", &nowhere, begun);
    let output = json!({"output_index": 0});
    events.push("response.output_item.added", &output, json!({"item": item(ask, false)}));
    match &ask.answer {
        Answer::Text(text) => {
            let place = json!({"item_id": ask.id("msg"), "output_index": 0, "content_index": 0});
            events.push("response.content_part.added", &place, json!({"part": part("")}));
            for word in words(text) {
                let delta = json!({"delta": word, "logprobs": []});
                events.push("response.output_text.delta", &place, delta);
            }
            let done = json!({"text": text, "logprobs": []});
            events.push("response.output_text.done", &place, done);
            events.push("response.content_part.done", &place, json!({"part": part(text)}));
        }
        Answer::Call { name, arguments } => {
            let place = json!({"item_id": ask.id("fc"), "output_index": 0});
            let arguments = arguments.to_string();
            for part in words(&arguments) {
                let delta = json!({"delta": part});
                events.push("response.function_call_arguments.delta", &place, delta);
            }
            let done = json!({"arguments": arguments, "name": name});
            events.push("response.function_call_arguments.done", &place, done);
        }
    }
    events.push("response.output_item.done", &output, json!({"item": item(ask, true)}));
    events.push("response.completed", &nowhere, json!({"response": whole(ask)}));
    events.0
}
