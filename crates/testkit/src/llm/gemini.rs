//! Gemini's wire, as Vertex speaks it.

use serde_json::{Value, json};

use super::{
    plan::{Answer, Plan, THINKING_PIECES, THINKING_SIGNATURE},
    route::Ask,
    script::event,
    usage::{self, gemini as counts},
};

pub(super) fn count() -> Value {
    json!({"totalTokens": counts::PROMPT, "promptTokensDetails": []})
}

pub(super) fn whole(ask: &Ask, plan: &Plan) -> Value {
    let mut parts = thoughts(plan);
    if plan.thinking {
        parts = vec![json!({"text": THINKING_PIECES.concat(), "thought": true})];
    }
    if plan.calls.is_empty() {
        parts.push(json!({"text": plan.whole_text()}));
    }
    parts.extend(calls(plan));
    chunk(ask, plan, &parts, true)
}

pub(super) fn stream(ask: &Ask, plan: &Plan) -> Answer {
    let piece = |part: Value| event(&chunk(ask, plan, &[part], false));
    let mut answer =
        Answer { lead: thoughts(plan).into_iter().map(piece).collect(), ..Answer::default() };
    if plan.calls.is_empty() {
        answer.deltas = plan.pieces.iter().map(|text| piece(json!({"text": text}))).collect();
    } else {
        answer.deltas = calls(plan).into_iter().map(piece).collect();
    }
    // The signature of a text comes behind it.
    let last = if plan.thinking && plan.calls.is_empty() {
        json!({"text": "", "thoughtSignature": THINKING_SIGNATURE})
    } else {
        json!({"text": ""})
    };
    answer.tail.push(event(&chunk(ask, plan, &[last], true)));
    answer
}

fn thoughts(plan: &Plan) -> Vec<Value> {
    let thoughts = THINKING_PIECES.iter().filter(|_| plan.thinking);
    thoughts.map(|text| json!({"text": text, "thought": true})).collect()
}

/// Only the first of several has a signature.
fn calls(plan: &Plan) -> Vec<Value> {
    let calls = plan.calls.iter().enumerate();
    calls
        .map(|(at, call)| {
            let mut part = json!({"functionCall": {"name": call.name, "args": call.arguments}});
            if at == 0 {
                part["thoughtSignature"] = json!(THINKING_SIGNATURE);
            }
            part
        })
        .collect()
}

fn chunk(ask: &Ask, plan: &Plan, parts: &[Value], is_last: bool) -> Value {
    let thoughts = if plan.thinking { usage::OUTPUT_THINKING } else { 0 };
    let said = usage::output(plan.calls.len() as u64, false);
    let mut counted = json!({
        "promptTokenCount": counts::PROMPT,
        "cachedContentTokenCount": counts::CACHED,
        "candidatesTokenCount": if is_last { said } else { 1 },
        "totalTokenCount": counts::PROMPT + said + thoughts,
        "trafficType": "ON_DEMAND",
    });
    if plan.thinking {
        counted["thoughtsTokenCount"] = json!(thoughts);
    }
    let mut candidate = json!({"content": {"role": "model", "parts": parts}});
    if is_last {
        candidate["finishReason"] = json!("STOP");
    }
    json!({
        "candidates": [candidate],
        "usageMetadata": counted,
        "modelVersion": ask.model(),
        "createTime": "2026-01-05T10:00:00.123456Z",
        "responseId": format!("mock{:020}", ask.number),
    })
}
