//! Requests that come in on a wire and go out on it again, or on another.

use proptest::prelude::*;
use serde_json::{Value, json, value::RawValue};

use crate::{
    dialect::Operation,
    translate::{
        anthropic,
        chat::{self, request_out::Manner},
        gemini,
        object::Faults,
        request::Request,
        responses,
    },
};

pub(super) fn read<'a>(wire: Operation, body: &'a RawValue) -> loom_core::Result<Request<'a>> {
    let mut faults = Faults::default();
    let request = match wire {
        Operation::Messages => anthropic::request_in::read(body, &mut faults),
        Operation::Chat => chat::request_in::read(body, &mut faults),
        _ => responses::request_in::read(body, &mut faults),
    };
    faults.finish().map(|()| request)
}

pub(super) fn through(from: Operation, to: Operation, body: &Value) -> loom_core::Result<Value> {
    let raw = RawValue::from_string(body.to_string()).unwrap();
    let request = read(from, &raw)?;
    let sent = match to {
        Operation::Messages => anthropic::request_out::body(&request),
        Operation::Chat => {
            let vendor = request.model == "gpt-5";
            chat::request_out::body(&request, Manner { counted: true, vendor })
        }
        Operation::GenerateContent => gemini::request_out::body(&request),
        _ => responses::request_out::body(&request),
    };
    sent.map(|sent| serde_json::from_slice(&sent).unwrap())
}

fn schema() -> Value {
    json!({"type": "object", "properties": {"city": {"type": "string"}}})
}

/// All that a wire can say, and that is of the neutral form.
fn everything(wire: Operation) -> Value {
    match wire {
        Operation::Messages => json!({
            "model": "claude-opus-5", "max_tokens": 9000, "stream": true,
            "system": [{"type": "text", "text": "Be short.", "cache_control": {"type": "ephemeral", "ttl": "1h"}}],
            "temperature": 0.5, "top_p": 0.9, "top_k": 40, "stop_sequences": ["END", "STOP", "A", "B", "C"],
            "thinking": {"type": "adaptive"},
            "output_config": {"effort": "xhigh", "format": {"type": "json_schema", "schema": schema()}},
            "metadata": {"user_id": "u"}, "service_tier": "standard_only",
            "tools": [{"name": "weather", "description": "Tells", "input_schema": schema(), "strict": true,
                "cache_control": {"type": "ephemeral"}}],
            "tool_choice": {"type": "tool", "name": "weather", "disable_parallel_tool_use": true},
            "messages": [
                {"role": "user", "content": [
                    {"type": "text", "text": "Look \"here\"\n", "cache_control": {"type": "ephemeral"}},
                    {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}},
                    {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}},
                    {"type": "document", "title": "t", "context": "c", "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBE"}},
                    {"type": "document", "source": {"type": "url", "url": "https://example.com/a.pdf"}},
                    {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "plain"}},
                ]},
                {"role": "assistant", "content": [
                    {"type": "thinking", "thinking": "Hm.", "signature": "sig="},
                    {"type": "redacted_thinking", "data": "xyz"},
                    {"type": "text", "text": "So:"},
                    {"type": "tool_use", "id": "t1", "name": "weather", "input": {"city": "Łódź"}},
                ]},
                {"role": "user", "content": [
                    {"type": "tool_result", "tool_use_id": "t1", "is_error": true, "content": [
                        {"type": "text", "text": "no"},
                        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}},
                    ]},
                    {"type": "text", "text": "And?"},
                ]},
                {"role": "system", "content": [{"type": "text", "text": "In French from now on."}]},
                {"role": "user", "content": [{"type": "text", "text": "Go."}]},
            ],
        }),
        Operation::Chat => json!({
            "model": "gpt-5", "max_completion_tokens": 900, "stream": true,
            "stream_options": {"include_usage": true},
            "temperature": 0.5, "top_p": 0.9, "stop": ["END"], "reasoning_effort": "minimal",
            "verbosity": "low", "user": "u", "service_tier": "default", "parallel_tool_calls": false,
            "response_format": {"type": "json_schema", "json_schema":
                {"name": "out", "description": "d", "schema": schema(), "strict": true}},
            "tools": [{"type": "function", "function":
                {"name": "weather", "description": "Tells", "parameters": schema(), "strict": true}}],
            "tool_choice": {"type": "function", "function": {"name": "weather"}},
            "messages": [
                {"role": "system", "content": "Be short."},
                {"role": "user", "content": [
                    {"type": "text", "text": "Look"},
                    {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
                    {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}},
                    {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBE"}},
                ]},
                {"role": "assistant", "content": "So:", "tool_calls": [
                    {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{\"city\": 1}"}},
                    {"id": "c2", "type": "function", "function": {"name": "weather", "arguments": "not JSON"}},
                ]},
                {"role": "tool", "tool_call_id": "c1", "content": "rain"},
                {"role": "tool", "tool_call_id": "c2", "content": "sun"},
                {"role": "system", "content": "In French."},
                {"role": "user", "content": "Go."},
            ],
        }),
        _ => json!({
            "model": "gpt-5", "instructions": "Be short.", "max_output_tokens": 900, "stream": true,
            "temperature": 0.5, "top_p": 0.9, "reasoning": {"effort": "high", "summary": "auto"},
            "include": ["reasoning.encrypted_content"], "store": false, "safety_identifier": "u",
            "service_tier": "default", "parallel_tool_calls": false,
            "text": {"verbosity": "high", "format":
                {"type": "json_schema", "name": "out", "schema": schema(), "strict": false}},
            "tools": [{"type": "function", "name": "weather", "description": "Tells", "parameters": schema(), "strict": true}],
            "tool_choice": "required",
            "input": [
                {"type": "message", "role": "user", "content": [
                    {"type": "input_text", "text": "Look"},
                    {"type": "input_image", "image_url": "data:image/png;base64,AAAA", "detail": "auto"},
                    {"type": "input_file", "filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBE"},
                    {"type": "input_file", "file_url": "https://example.com/a.pdf"},
                ]},
                {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "Hm."}], "encrypted_content": "sealed"},
                {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "So:"}]},
                {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": "{\"city\": 1}"},
                {"type": "function_call_output", "call_id": "c1", "output": [
                    {"type": "input_text", "text": "see"},
                    {"type": "input_image", "image_url": "https://example.com/a.png", "detail": "auto"},
                ]},
                {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "In French."}]},
                {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Go."}]},
            ],
        }),
    }
}

#[test]
fn what_a_wire_can_say_comes_back_from_the_neutral_form_as_it_was() {
    for wire in super::ALL {
        let body = everything(wire);
        assert_eq!(through(wire, wire, &body).unwrap(), body, "{wire:?}");
    }
}

#[test]
fn conversations_on_every_other_wire() {
    // Without what the other wires have no word for.
    let without = |wire, members: &[&str]| {
        let mut body = everything(wire);
        body.as_object_mut().unwrap().retain(|name, _| !members.contains(&name.as_str()));
        body
    };
    let mut messages = without(Operation::Messages, &["top_k", "stop_sequences"]);
    insta::assert_json_snapshot!(
        "messages_to_responses",
        through(Operation::Messages, Operation::Responses, &strip(&mut messages, "context"))
            .unwrap()
    );
    let mut messages = without(Operation::Messages, &["top_k"]);
    messages["messages"][0]["content"].as_array_mut().unwrap().remove(4);
    messages["messages"][2]["content"][0]["content"].as_array_mut().unwrap().truncate(1);
    insta::assert_json_snapshot!(
        "messages_to_chat",
        through(Operation::Messages, Operation::Chat, &strip(&mut messages, "context")).unwrap()
    );
    let mut chat = without(Operation::Chat, &["verbosity"]);
    chat["max_completion_tokens"] = json!(9000);
    insta::assert_json_snapshot!(
        "chat_to_messages",
        through(Operation::Chat, Operation::Messages, &chat).unwrap()
    );
    let mut responses = without(Operation::Responses, &[]);
    responses["text"].as_object_mut().unwrap().remove("verbosity");
    responses["max_output_tokens"] = json!(9000);
    insta::assert_json_snapshot!(
        "responses_to_messages",
        through(Operation::Responses, Operation::Messages, &responses).unwrap()
    );
    let to_gemini = |from, mut body: Value, list: &str| {
        // Instructions in the middle.
        let turns = body[list].as_array_mut().unwrap();
        let first_user = turns.iter().position(|turn| turn["role"] == "user").unwrap();
        let mut at = 0;
        turns.retain(|turn| {
            at += 1;
            at <= first_user || !matches!(turn["role"].as_str(), Some("system" | "developer"))
        });
        through(from, Operation::GenerateContent, &body).unwrap()
    };
    let mut messages = without(Operation::Messages, &[]);
    messages["model"] = json!("gemini-2.5-pro");
    insta::assert_json_snapshot!(
        "messages_to_gemini",
        to_gemini(Operation::Messages, messages, "messages")
    );
    let chat = without(Operation::Chat, &["verbosity"]);
    insta::assert_json_snapshot!("chat_to_gemini", to_gemini(Operation::Chat, chat, "messages"));
    responses["model"] = json!("gemini-3-flash-preview");
    insta::assert_json_snapshot!(
        "responses_to_gemini",
        to_gemini(Operation::Responses, responses, "input")
    );
}

/// A member of the first message's blocks away.
fn strip(body: &mut Value, member: &str) -> Value {
    for block in body["messages"][0]["content"].as_array_mut().unwrap() {
        block.as_object_mut().unwrap().remove(member);
    }
    body.clone()
}

#[test]
fn a_limit_is_the_models_where_the_client_set_none() {
    for (model, limit) in [
        ("claude-3-haiku-20240307", 4096),
        ("claude-3-5-sonnet-20241022", 8192),
        ("claude-sonnet-4-5", 32_000),
        ("claude-opus-5", 32_000),
    ] {
        let body = json!({"model": model, "messages": [{"role": "user", "content": "x"}]});
        let sent = through(Operation::Chat, Operation::Messages, &body).unwrap();
        assert_eq!(sent["max_tokens"], limit, "{model}");
    }
}

#[test]
fn effort_is_a_budget_for_older_models_and_an_effort_for_newer_ones() {
    let of = |model: &str, effort: &str| {
        let body = json!({"model": model, "reasoning_effort": effort,
            "messages": [{"role": "user", "content": "x"}]});
        let sent = through(Operation::Chat, Operation::Messages, &body).unwrap();
        (sent["thinking"].clone(), sent["output_config"]["effort"].clone())
    };
    let budget = |tokens: u32| json!({"type": "enabled", "budget_tokens": tokens});
    assert_eq!(of("claude-sonnet-4-5-20250929", "low"), (budget(4096), Value::Null));
    assert_eq!(of("claude-opus-4-1", "high"), (budget(16_384), Value::Null));
    assert_eq!(of("claude-opus-4-20250514", "high"), (budget(16_384), Value::Null));
    assert_eq!(of("claude-opus-4-6", "xhigh"), (json!({"type": "adaptive"}), json!("xhigh")));
    assert_eq!(of("claude-haiku-5-5", "minimal"), (json!({"type": "adaptive"}), json!("low")));
    assert_eq!(of("claude-opus-5", "none"), (json!({"type": "disabled"}), Value::Null));
}

#[test]
fn thinking_that_nobody_sealed_goes_back_to_a_compatible_provider_with_its_calls_alone() {
    let turn = |block: Value| {
        json!({"model": "m", "max_tokens": 10, "messages": [
            {"role": "user", "content": "x"},
            {"role": "assistant", "content": [{"type": "thinking", "thinking": "Hm.", "signature": ""}, block]},
        ]})
    };
    let call = json!({"type": "tool_use", "id": "t", "name": "f", "input": {}});
    let sent = through(Operation::Messages, Operation::Chat, &turn(call)).unwrap();
    assert_eq!(sent["messages"][1]["reasoning_content"], "Hm.");
    let text = json!({"type": "text", "text": "y"});
    let sent = through(Operation::Messages, Operation::Chat, &turn(text)).unwrap();
    assert!(sent["messages"][1].get("reasoning_content").is_none());
}

/// Every place in a body, as JSON pointers.
pub(super) fn places(value: &Value, at: &str, all: &mut Vec<String>) {
    all.push(at.to_owned());
    match value {
        Value::Object(members) => {
            members.iter().for_each(|(name, value)| places(value, &format!("{at}/{name}"), all));
        }
        Value::Array(list) => {
            (0..).zip(list).for_each(|(n, value)| places(value, &format!("{at}/{n}"), all));
        }
        _ => {}
    }
}

proptest! {
    #[test]
    fn a_request_with_anything_anywhere_is_told_or_refused(
        from in prop::sample::select(super::ALL.to_vec()), to in prop::sample::select(super::PROVIDERS.to_vec()),
        at in any::<prop::sample::Index>(),
        by in prop::sample::select(vec![
            json!(null), json!(true), json!(-1), json!(1e300), json!(""), json!("none"), json!([]),
            json!({}), json!([[]]), json!({"type": "text"}), json!([{"type": "tool_result"}]),
            json!("data:;base64,"), json!("data:image/png,x"),
        ]),
    ) {
        let mut body = everything(from);
        let mut all = Vec::new();
        places(&body, "", &mut all);
        let at: &String = at.get(&all);
        *body.pointer_mut(at).unwrap() = by;
        if let Err(error) = through(from, to, &body) {
            prop_assert_eq!(error.status().as_u16(), 422);
            prop_assert!(!error.problem("").errors.is_empty());
        }
    }
}
