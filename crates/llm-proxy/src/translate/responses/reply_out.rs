//! A reply, put on OpenAI's responses wire.

use serde_json::{Map, Value, json};

use super::request_in::Echo;
use crate::{
    translate::{
        Facts,
        reply::{Block, Citation, Finish, Reply},
        request::Seal,
        set,
        thinking::to_encrypted,
    },
    usage::Usage,
};

pub(crate) fn whole(reply: &Reply, echo: &Echo, facts: &Facts<'_>) -> Value {
    let own = facts.id(reply.id.as_deref()).into_owned();
    let (status, reason) = status(reply);
    let model = reply.model.as_deref().unwrap_or(facts.model);
    let mut response = response(&own, model, echo, facts);
    set(&mut response, "status", status);
    if let Some(reason) = reason {
        set(&mut response, "incomplete_details", json!({"reason": reason}));
    } else {
        set(&mut response, "completed_at", facts.now);
    }
    set(&mut response, "output", items(reply, &own));
    set(&mut response, "usage", usage(facts.usage));
    response
}

/// Neighbouring texts are parts of one message.
fn items(reply: &Reply, own: &str) -> Vec<Value> {
    let mut items: Vec<Value> = Vec::new();
    let mut in_message = false;
    for (at, block) in reply.blocks.iter().enumerate() {
        if block.text().is_empty() && matches!(block, Block::Text(..)) {
            continue;
        }
        let is_prose = matches!(block, Block::Text(..) | Block::Refusal(_));
        let parts = items.last_mut().and_then(|last| last.get_mut("content")?.as_array_mut());
        match parts.filter(|_| in_message && is_prose) {
            Some(parts) => parts.push(part(block)),
            None => items.push(item(block, own, at, Some("completed"))),
        }
        in_message = is_prose;
    }
    items
}

/// A block as an item of its own. Without a status it has only begun.
pub(super) fn item(block: &Block, own: &str, at: usize, status: Option<&str>) -> Value {
    let is_done = status.is_some();
    let status = status.unwrap_or("in_progress");
    match block {
        Block::Text(..) | Block::Refusal(_) => {
            let parts = if is_done { vec![part(block)] } else { Vec::new() };
            json!({"id": item_id(block, own, at), "type": "message", "role": "assistant",
                "status": status, "content": parts})
        }
        Block::Call { id, name, arguments } => {
            let arguments = if is_done && arguments.is_empty() { "{}" } else { arguments };
            json!({"id": item_id(block, own, at), "type": "function_call", "call_id": id,
                "name": name, "arguments": arguments, "status": status})
        }
        Block::Thinking(thought) => {
            let summary =
                if thought.text.is_empty() { Vec::new() } else { vec![summary(&thought.text)] };
            let sealed = thought.seal.as_ref().map(to_encrypted);
            let mut item = json!({"id": item_id(block, own, at), "type": "reasoning",
                "summary": summary});
            if let Some(sealed) = sealed {
                set(&mut item, "encrypted_content", sealed);
            }
            item
        }
    }
}

pub(super) fn item_id(block: &Block, own: &str, at: usize) -> String {
    match block {
        Block::Text(..) | Block::Refusal(_) => format!("msg_{own}_{at}"),
        Block::Call { .. } => format!("fc_{own}_{at}"),
        Block::Thinking(thought) => match &thought.seal {
            Some(Seal::Encrypted { id, .. }) => id.to_string(),
            _ => format!("rs_{own}_{at}"),
        },
    }
}

pub(super) fn part(block: &Block) -> Value {
    match block {
        Block::Refusal(text) => json!({"type": "refusal", "refusal": text}),
        block => json!({"type": "output_text", "text": block.text(),
            "annotations": annotations(block), "logprobs": []}),
    }
}

/// Where a text has it from.
pub(super) fn annotations(block: &Block) -> Vec<Value> {
    let Block::Text(text, citations) = block else { return Vec::new() };
    if citations.is_empty() {
        return Vec::new();
    }
    let len = text.chars().count();
    let annotation = |citation: &Citation| {
        let span = citation.span(len);
        json!({"type": "url_citation", "start_index": span.start, "end_index": span.end,
            "url": citation.url, "title": citation.title})
    };
    citations.iter().map(annotation).collect()
}

pub(super) fn summary(text: &str) -> Value {
    json!({"type": "summary_text", "text": text})
}

/// The ends that only Anthropic knows are those of a reply that is not whole. A model that says itself
/// that it will not has come to its end.
pub(super) fn status(reply: &Reply) -> (&'static str, Option<&'static str>) {
    match reply.finish() {
        Finish::Refused if reply.is_refusal() => ("completed", None),
        Finish::EndTurn | Finish::ToolUse | Finish::Stop => ("completed", None),
        Finish::Refused => ("incomplete", Some("content_filter")),
        Finish::MaxTokens | Finish::Paused | Finish::ContextFull => {
            ("incomplete", Some("max_output_tokens"))
        }
    }
}

/// A response that has begun, with what it repeats of the request.
pub(super) fn response(own: &str, model: &str, echo: &Echo, facts: &Facts<'_>) -> Value {
    let mut response = json!({
        "id": format!("resp_{own}"),
        "object": "response",
        "created_at": facts.now,
        "status": "in_progress",
        "background": false,
        "error": null,
        "incomplete_details": null,
        "instructions": null,
        "max_output_tokens": null,
        "metadata": {},
        "model": model,
        "output": [],
        "parallel_tool_calls": true,
        "previous_response_id": null,
        "reasoning": {"effort": null, "summary": null},
        "service_tier": "default",
        "store": false,
        "temperature": 1.0,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "truncation": "disabled",
        "usage": null,
    });
    if let Some(members) = response.as_object_mut() {
        for (name, value) in echo {
            if let Ok(value) = serde_json::from_str(value.get()) {
                members.insert((*name).to_owned(), value);
            }
        }
    }
    response
}

/// All that was read, cached or not, is of the input on this wire. Null when nothing is known.
pub(super) fn usage(usage: &Usage) -> Value {
    if usage.is_unknown() {
        return Value::Null;
    }
    let read = usage.cache_read.unwrap_or_default();
    let written = usage.cache_write().unwrap_or_default();
    let input = usage.input.unwrap_or_default() + read + written;
    let output = usage.output.unwrap_or_default();
    let mut told = Map::new();
    told.insert("input_tokens".to_owned(), input.into());
    told.insert(
        "input_tokens_details".to_owned(),
        json!({"cached_tokens": read, "cache_write_tokens": written}),
    );
    told.insert("output_tokens".to_owned(), output.into());
    told.insert(
        "output_tokens_details".to_owned(),
        json!({"reasoning_tokens": usage.reasoning.unwrap_or_default()}),
    );
    told.insert("total_tokens".to_owned(), (input + output).into());
    told.into()
}
