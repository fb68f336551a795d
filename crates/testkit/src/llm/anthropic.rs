//! The Messages wire of Anthropic.

use serde_json::{Value, json};

use super::{
    plan::{Answer, Plan, THINKING_PIECES, THINKING_SIGNATURE},
    route::Ask,
    script::event,
    usage::{self, anthropic as counts},
};

/// A content block: how it starts, its deltas, and all of it.
struct Block {
    start: Value,
    deltas: Vec<Value>,
    whole: Value,
}

pub(super) fn count_tokens() -> Value {
    json!({"input_tokens": counts::TOTAL_INPUT})
}

pub(super) fn whole(ask: &Ask, plan: &Plan) -> Value {
    let content: Vec<Value> = blocks(ask, plan).into_iter().map(|block| block.whole).collect();
    let mut message = message(ask);
    message["content"] = json!(content);
    message["stop_reason"] = json!(stop_reason(plan));
    message["usage"]["output_tokens"] = json!(output(plan));
    if plan.thinking {
        message["usage"]["output_tokens_details"] =
            json!({"thinking_tokens": usage::OUTPUT_THINKING});
    }
    message
}

pub(super) fn stream(ask: &Ask, plan: &Plan) -> Answer {
    let mut answer = Answer::default();
    let lead = &mut answer.lead;
    lead.push(event(&json!({"type": "message_start", "message": message(ask)})));
    let blocks = blocks(ask, plan);
    let last = blocks.len() - 1;
    for (index, block) in blocks.into_iter().enumerate() {
        let start = json!({
            "type": "content_block_start", "index": index, "content_block": block.start,
        });
        let deltas = block.deltas.iter().map(|delta| {
            event(&json!({"type": "content_block_delta", "index": index, "delta": delta}))
        });
        let stop = event(&json!({"type": "content_block_stop", "index": index}));
        answer.lead.push(event(&start));
        if index == 0 {
            answer.lead.push(event(&json!({"type": "ping"})));
        }
        if index < last {
            answer.lead.extend(deltas);
            answer.lead.push(stop);
        } else {
            answer.deltas.extend(deltas);
            answer.tail.push(stop);
        }
    }
    let mut final_usage = json!({
        "input_tokens": counts::INPUT,
        "cache_creation_input_tokens": counts::CACHE_CREATION,
        "cache_read_input_tokens": counts::CACHE_READ,
        "output_tokens": output(plan),
    });
    if plan.thinking {
        final_usage["output_tokens_details"] = json!({"thinking_tokens": usage::OUTPUT_THINKING});
    }
    answer.tail.push(event(&json!({
        "type": "message_delta",
        "delta": {"stop_reason": stop_reason(plan), "stop_sequence": null},
        "usage": final_usage,
    })));
    answer.tail.push(event(&json!({"type": "message_stop"})));
    answer
}

fn message(ask: &Ask) -> Value {
    json!({
        "id": format!("msg_mock{:020}", ask.number),
        "type": "message",
        "role": "assistant",
        "model": ask.model(),
        "content": [],
        "stop_reason": null,
        "stop_sequence": null,
        "usage": {
            "input_tokens": counts::INPUT,
            "cache_creation_input_tokens": counts::CACHE_CREATION,
            "cache_read_input_tokens": counts::CACHE_READ,
            "cache_creation": {
                "ephemeral_5m_input_tokens": counts::CACHE_CREATION_5M,
                "ephemeral_1h_input_tokens": counts::CACHE_CREATION_1H,
            },
            "output_tokens": counts::OUTPUT_AT_START,
            "service_tier": "standard",
            "inference_geo": "global",
        },
    })
}

fn blocks(ask: &Ask, plan: &Plan) -> Vec<Block> {
    let mut blocks = Vec::new();
    if plan.thinking {
        let thinking = THINKING_PIECES;
        let mut deltas: Vec<Value> =
            thinking.iter().map(|t| json!({"type": "thinking_delta", "thinking": t})).collect();
        deltas.push(json!({"type": "signature_delta", "signature": THINKING_SIGNATURE}));
        blocks.push(Block {
            start: json!({"type": "thinking", "thinking": "", "signature": ""}),
            deltas,
            whole: json!({
                "type": "thinking",
                "thinking": thinking.concat(),
                "signature": THINKING_SIGNATURE,
            }),
        });
    }
    let pieces =
        if plan.calls.is_empty() { plan.pieces.clone() } else { vec!["Let me look.".to_owned()] };
    blocks.push(Block {
        start: json!({"type": "text", "text": ""}),
        deltas: pieces.iter().map(|t| json!({"type": "text_delta", "text": t})).collect(),
        whole: json!({"type": "text", "text": pieces.concat()}),
    });
    for (at, call) in plan.calls.iter().enumerate() {
        let id = format!("toolu_mock{:016}{at:04}", ask.number);
        let delta = |part: &str| json!({"type": "input_json_delta", "partial_json": part});
        let mut deltas = vec![delta("")];
        deltas.extend(call.fragments().iter().map(|part| delta(part)));
        blocks.push(Block {
            start: json!({"type": "tool_use", "id": id, "name": call.name, "input": {}}),
            deltas,
            whole: json!({
                "type": "tool_use", "id": id, "name": call.name, "input": call.arguments,
            }),
        });
    }
    blocks
}

fn stop_reason(plan: &Plan) -> &'static str {
    if plan.calls.is_empty() { "end_turn" } else { "tool_use" }
}

fn output(plan: &Plan) -> u64 {
    usage::output(plan.calls.len() as u64, plan.thinking)
}
