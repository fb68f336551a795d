//! The chat completions wire of OpenAI.

use bytes::Bytes;
use serde_json::{Value, json};

use super::{
    openai_misc::CREATED,
    plan::{Answer, Call, Plan},
    route::Ask,
    script::event,
    usage::{self, openai as counts},
};

pub(super) fn whole(ask: &Ask, plan: &Plan) -> Value {
    let mut message =
        json!({"role": "assistant", "content": null, "refusal": null, "annotations": []});
    if plan.calls.is_empty() {
        message["content"] = json!(plan.whole_text());
    } else {
        let call = |(at, call): (usize, &Call)| {
            json!({
                "id": call_id(ask, at),
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments.to_string()},
            })
        };
        message["tool_calls"] = plan.calls.iter().enumerate().map(call).collect();
    }
    json!({
        "id": id(ask),
        "object": "chat.completion",
        "created": CREATED,
        "model": ask.model(),
        "choices": [{
            "index": 0,
            "message": message,
            "logprobs": null,
            "finish_reason": finish_reason(plan),
        }],
        "usage": usage_of(plan),
        "service_tier": "default",
        "system_fingerprint": "fp_mock",
    })
}

/// Usage comes in a chunk of its own, and as null in the others, only for those who asked.
pub(super) fn stream(ask: &Ask, plan: &Plan) -> Answer {
    let with_usage = ask.body["stream_options"]["include_usage"] == true;
    let raw = |choices: Value, usage: Option<Value>| -> Bytes {
        let mut chunk = json!({
            "id": id(ask),
            "object": "chat.completion.chunk",
            "created": CREATED,
            "model": ask.model(),
            "service_tier": "default",
            "system_fingerprint": "fp_mock",
            "choices": choices,
        });
        if with_usage {
            chunk["usage"] = json!(usage);
        }
        event(&chunk)
    };
    let chunk = |delta: Value, finish_reason: Option<&str>| {
        let choice =
            json!({"index": 0, "delta": delta, "logprobs": null, "finish_reason": finish_reason});
        raw(json!([choice]), None)
    };
    let mut answer = Answer::default();
    if plan.calls.is_empty() {
        let first = json!({"role": "assistant", "content": "", "refusal": null});
        answer.lead.push(chunk(first, None));
        answer.deltas = plan.pieces.iter().map(|t| chunk(json!({"content": t}), None)).collect();
    } else {
        let first = json!({"role": "assistant", "content": null});
        answer.lead.push(chunk(first, None));
        for (at, call) in plan.calls.iter().enumerate() {
            let start = json!({
                "index": at,
                "id": call_id(ask, at),
                "type": "function",
                "function": {"name": call.name, "arguments": ""},
            });
            answer.deltas.push(chunk(json!({"tool_calls": [start]}), None));
            answer.deltas.extend(call.fragments().iter().map(|part| {
                let more = json!({"index": at, "function": {"arguments": part}});
                chunk(json!({"tool_calls": [more]}), None)
            }));
        }
    }
    answer.tail.push(chunk(json!({}), Some(finish_reason(plan))));
    if with_usage {
        answer.tail.push(raw(json!([]), Some(usage_of(plan))));
    }
    answer.tail.push(Bytes::from_static(b"data: [DONE]\n\n"));
    answer
}

fn usage_of(plan: &Plan) -> Value {
    let output = usage::output(plan.calls.len() as u64, plan.thinking);
    json!({
        "prompt_tokens": counts::PROMPT,
        "completion_tokens": output,
        "total_tokens": counts::PROMPT + output,
        "prompt_tokens_details": {
            "cached_tokens": counts::CACHED,
            "cache_write_tokens": counts::CACHE_WRITE,
            "audio_tokens": 0,
        },
        "completion_tokens_details": {
            "reasoning_tokens": if plan.thinking { usage::OUTPUT_THINKING } else { 0 },
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    })
}

fn finish_reason(plan: &Plan) -> &'static str {
    if plan.calls.is_empty() { "stop" } else { "tool_calls" }
}

fn id(ask: &Ask) -> String {
    format!("chatcmpl-mock{:020}", ask.number)
}

fn call_id(ask: &Ask, at: usize) -> String {
    format!("call_mock{:016}{at:04}", ask.number)
}
