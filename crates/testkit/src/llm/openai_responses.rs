//! The Responses wire of OpenAI: named, numbered events, no `[DONE]`.

use bytes::Bytes;
use serde_json::{Value, json};

use super::{
    openai_misc::CREATED,
    plan::{Answer, Call, Plan, THINKING_PIECES},
    route::Ask,
    script::event,
    usage::{self, openai as counts},
};

/// The whole prompt, as a reply counts it, too.
pub(super) fn count() -> Value {
    json!({"object": "response.input_tokens", "input_tokens": counts::PROMPT})
}

pub(super) fn whole(ask: &Ask, plan: &Plan) -> Value {
    let mut output = Vec::new();
    if plan.thinking {
        output.push(reasoning(ask, &[summary(&THINKING_PIECES.concat())]));
    }
    if plan.calls.is_empty() {
        output.push(message(ask, "completed", &[part(&plan.whole_text())]));
    }
    let calls = plan.calls.iter().enumerate();
    output.extend(
        calls.map(|(at, call)| {
            function_call(ask, at, call, "completed", &call.arguments.to_string())
        }),
    );
    let mut response = response(ask);
    response["status"] = json!("completed");
    response["completed_at"] = json!(CREATED + 1);
    response["output"] = json!(output);
    response["usage"] = usage_of(plan);
    response
}

/// Numbers the events in the order in which they are made.
struct Events(u64);

impl Events {
    fn next(&mut self, kind: &str, mut data: Value) -> Bytes {
        data["type"] = json!(kind);
        data["sequence_number"] = json!(self.0);
        self.0 += 1;
        event(&data)
    }
}

pub(super) fn stream(ask: &Ask, plan: &Plan) -> Answer {
    let mut events = Events(0);
    let mut answer = Answer::default();
    for kind in ["response.created", "response.in_progress"] {
        answer.lead.push(events.next(kind, json!({"response": response(ask)})));
    }
    let mut index = 0;
    if plan.thinking {
        stream_reasoning(ask, &mut events, &mut answer.lead);
        index += 1;
    }
    if plan.calls.is_empty() {
        stream_message(ask, plan, index, &mut events, &mut answer);
    }
    for (at, call) in plan.calls.iter().enumerate() {
        stream_call(ask, (at, call), index + at, &mut events, &mut answer.deltas);
    }
    answer.tail.push(events.next("response.completed", json!({"response": whole(ask, plan)})));
    answer
}

fn stream_reasoning(ask: &Ask, events: &mut Events, out: &mut Vec<Bytes>) {
    let text = THINKING_PIECES.concat();
    let at = |mut more: Value| {
        more["item_id"] = json!(format!("rs_mock{:020}", ask.number));
        more["output_index"] = json!(0);
        more["summary_index"] = json!(0);
        more
    };
    let item = |item: Value| json!({"output_index": 0, "item": item});
    out.push(events.next("response.output_item.added", item(reasoning(ask, &[]))));
    let added = at(json!({"part": summary("")}));
    out.push(events.next("response.reasoning_summary_part.added", added));
    for piece in THINKING_PIECES {
        let delta = at(json!({"delta": piece}));
        out.push(events.next("response.reasoning_summary_text.delta", delta));
    }
    let done = at(json!({"text": text}));
    out.push(events.next("response.reasoning_summary_text.done", done));
    let done = at(json!({"part": summary(&text)}));
    out.push(events.next("response.reasoning_summary_part.done", done));
    let done = item(reasoning(ask, &[summary(&text)]));
    out.push(events.next("response.output_item.done", done));
}

fn stream_message(ask: &Ask, plan: &Plan, index: usize, events: &mut Events, to: &mut Answer) {
    let text = plan.whole_text();
    let at = |mut more: Value| {
        more["item_id"] = json!(format!("msg_mock{:020}", ask.number));
        more["output_index"] = json!(index);
        more["content_index"] = json!(0);
        more
    };
    let item = |item: Value| json!({"output_index": index, "item": item});
    let added = item(message(ask, "in_progress", &[]));
    to.lead.push(events.next("response.output_item.added", added));
    to.lead.push(events.next("response.content_part.added", at(json!({"part": part("")}))));
    for piece in &plan.pieces {
        let delta = at(json!({"delta": piece, "logprobs": []}));
        to.deltas.push(events.next("response.output_text.delta", delta));
    }
    let done = at(json!({"text": text, "logprobs": []}));
    to.tail.push(events.next("response.output_text.done", done));
    to.tail.push(events.next("response.content_part.done", at(json!({"part": part(&text)}))));
    let done = item(message(ask, "completed", &[part(&text)]));
    to.tail.push(events.next("response.output_item.done", done));
}

fn stream_call(
    ask: &Ask,
    (nth, call): (usize, &Call),
    index: usize,
    events: &mut Events,
    out: &mut Vec<Bytes>,
) {
    let arguments = call.arguments.to_string();
    let at = |mut more: Value| {
        more["item_id"] = json!(format!("fc_mock{:016}{nth:04}", ask.number));
        more["output_index"] = json!(index);
        more
    };
    let item = |item: Value| json!({"output_index": index, "item": item});
    let added = item(function_call(ask, nth, call, "in_progress", ""));
    out.push(events.next("response.output_item.added", added));
    for part in call.fragments() {
        let delta = at(json!({"delta": part}));
        out.push(events.next("response.function_call_arguments.delta", delta));
    }
    let done = at(json!({"arguments": arguments, "name": call.name}));
    out.push(events.next("response.function_call_arguments.done", done));
    let done = item(function_call(ask, nth, call, "completed", &arguments));
    out.push(events.next("response.output_item.done", done));
}

fn response(ask: &Ask) -> Value {
    let body = &ask.body;
    let given = |name: &str, otherwise: Value| body.get(name).cloned().unwrap_or(otherwise);
    json!({
        "id": format!("resp_mock{:020}", ask.number),
        "object": "response",
        "created_at": CREATED,
        "status": "in_progress",
        "background": false,
        "error": null,
        "incomplete_details": null,
        "instructions": given("instructions", Value::Null),
        "max_output_tokens": given("max_output_tokens", Value::Null),
        "metadata": given("metadata", json!({})),
        "model": ask.model(),
        "output": [],
        "parallel_tool_calls": given("parallel_tool_calls", json!(true)),
        "previous_response_id": given("previous_response_id", Value::Null),
        "reasoning": given("reasoning", json!({"effort": null, "summary": null})),
        "service_tier": "default",
        "store": given("store", json!(true)),
        "temperature": given("temperature", json!(1.0)),
        "text": given("text", json!({"format": {"type": "text"}})),
        "tool_choice": given("tool_choice", json!("auto")),
        "tools": given("tools", json!([])),
        "top_p": given("top_p", json!(1.0)),
        "truncation": "disabled",
        "usage": null,
    })
}

fn reasoning(ask: &Ask, summary: &[Value]) -> Value {
    json!({"id": format!("rs_mock{:020}", ask.number), "type": "reasoning", "summary": summary})
}

fn summary(text: &str) -> Value {
    json!({"type": "summary_text", "text": text})
}

fn message(ask: &Ask, status: &str, content: &[Value]) -> Value {
    json!({
        "id": format!("msg_mock{:020}", ask.number),
        "type": "message",
        "role": "assistant",
        "status": status,
        "content": content,
    })
}

fn part(text: &str) -> Value {
    json!({"type": "output_text", "text": text, "annotations": [], "logprobs": []})
}

fn function_call(ask: &Ask, at: usize, call: &Call, status: &str, arguments: &str) -> Value {
    json!({
        "id": format!("fc_mock{:016}{at:04}", ask.number),
        "type": "function_call",
        "call_id": format!("call_mock{:016}{at:04}", ask.number),
        "name": call.name,
        "arguments": arguments,
        "status": status,
    })
}

fn usage_of(plan: &Plan) -> Value {
    let output = usage::output(plan.calls.len() as u64, plan.thinking);
    json!({
        "input_tokens": counts::PROMPT,
        "input_tokens_details": {
            "cached_tokens": counts::CACHED,
            "cache_write_tokens": counts::CACHE_WRITE,
        },
        "output_tokens": output,
        "output_tokens_details": {
            "reasoning_tokens": if plan.thinking { usage::OUTPUT_THINKING } else { 0 },
        },
        "total_tokens": counts::PROMPT + output,
    })
}
