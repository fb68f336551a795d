//! Every member that a request on one wire may have, towards a provider on another: told, left out
//! because it changes nothing in the reply, or refused by name.

use serde_json::{Value, json};

use super::requests::through;
use crate::dialect::Operation::{self, Chat, Messages, Responses};

/// What becomes of a member.
#[derive(Clone, Copy, Debug)]
enum Fate {
    /// It has this place on the other wire.
    Told(&'static str),
    /// It changes nothing in the reply.
    Dropped,
    /// A 400 that names this.
    Refused(&'static str),
}

use Fate::{Dropped, Refused, Told};

fn minimal(wire: Operation) -> Value {
    match wire {
        Messages => {
            json!({"model": "m", "max_tokens": 5000, "messages": [{"role": "user", "content": "x"}]})
        }
        Chat => json!({"model": "m", "messages": [{"role": "user", "content": "x"}]}),
        _ => json!({"model": "m", "input": "x"}),
    }
}

#[track_caller]
fn check(from: Operation, to: Operation, cases: &[(Value, Fate)]) {
    for (more, fate) in cases {
        let plain = through(from, to, &minimal(from)).unwrap();
        let mut body = minimal(from);
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        match (through(from, to, &body), fate) {
            (Ok(sent), Told(pointer)) => {
                assert!(sent.pointer(pointer).is_some(), "{more}: {sent}");
                assert_ne!(sent, plain, "{more}");
            }
            (Ok(sent), Dropped) => assert_eq!(sent, plain, "{more}"),
            (Err(error), Refused(field)) => {
                let faults = error.problem("").errors;
                assert_eq!(faults.len(), 1, "{more}: {faults:?}");
                assert_eq!(faults[0].path, *field, "{more}: {}", faults[0].message);
            }
            (outcome, fate) => panic!("{more}: {fate:?}, but {outcome:?}"),
        }
    }
}

#[test]
fn chat_to_anthropic() {
    let part = |part: Value| json!({"messages": [{"role": "user", "content": [part]}]});
    let schema = json!({"type": "json_schema", "json_schema": {"name": "n", "schema": {}}});
    let tool = json!([{"type": "function", "function": {"name": "f"}}]);
    check(
        Chat,
        Messages,
        &[
            (json!({"max_tokens": 7}), Told("/max_tokens")),
            (json!({"max_completion_tokens": 7}), Told("/max_tokens")),
            (json!({"temperature": 0.1}), Told("/temperature")),
            (json!({"temperature": 1.1}), Refused("temperature")),
            (json!({"top_p": 0.1}), Told("/top_p")),
            (json!({"stop": "END"}), Told("/stop_sequences/0")),
            (json!({"stop": ["A", "B"]}), Told("/stop_sequences/1")),
            (json!({"stop": 1}), Refused("stop")),
            (json!({"stream": true}), Told("/stream")),
            (json!({"stream_options": {"include_usage": true}}), Dropped),
            (json!({"tools": tool}), Told("/tools/0/input_schema")),
            (json!({"tools": tool, "tool_choice": "required"}), Told("/tool_choice/type")),
            (json!({"tool_choice": "sometimes"}), Refused("tool_choice")),
            (json!({"tool_choice": {"type": "allowed_tools"}}), Refused("tool_choice.type")),
            (json!({"tools": [{"type": "custom", "custom": {}}]}), Refused("tools[0].type")),
            (
                json!({"tools": tool, "parallel_tool_calls": false}),
                Told("/tool_choice/disable_parallel_tool_use"),
            ),
            (json!({"user": "u"}), Told("/metadata/user_id")),
            (json!({"safety_identifier": "u"}), Told("/metadata/user_id")),
            (json!({"response_format": {"type": "text"}}), Dropped),
            (json!({"response_format": schema}), Told("/output_config/format/schema")),
            (json!({"response_format": {"type": "json_object"}}), Refused("response_format")),
            (json!({"response_format": {"type": "grammar"}}), Refused("response_format.type")),
            (json!({"reasoning_effort": "high"}), Told("/thinking/budget_tokens")),
            (json!({"reasoning_effort": "none"}), Told("/thinking/type")),
            (json!({"reasoning_effort": "utmost"}), Refused("reasoning_effort")),
            (json!({"verbosity": "medium"}), Dropped),
            (json!({"verbosity": "low"}), Refused("verbosity")),
            (json!({"service_tier": "auto"}), Dropped),
            (json!({"service_tier": "default"}), Told("/service_tier")),
            (json!({"service_tier": "flex"}), Refused("service_tier")),
            (json!({"metadata": {"a": "b"}}), Dropped),
            (json!({"prediction": {"type": "content", "content": "x"}}), Dropped),
            (
                json!({"prompt_cache_key": "k", "prompt_cache_retention": "24h", "prompt_cache_options": {}}),
                Dropped,
            ),
            (
                json!({"n": 1, "logprobs": false, "top_logprobs": 0, "logit_bias": {}, "store": false}),
                Dropped,
            ),
            (
                json!({"frequency_penalty": 0, "presence_penalty": 0.0, "modalities": ["text"]}),
                Dropped,
            ),
            (json!({"seed": null, "audio": null, "of_tomorrow": null}), Dropped),
            (json!({"n": 2}), Refused("n")),
            (json!({"logprobs": true}), Refused("logprobs")),
            (json!({"top_logprobs": 2}), Refused("top_logprobs")),
            (json!({"logit_bias": {"1": 2}}), Refused("logit_bias")),
            (json!({"frequency_penalty": 0.5}), Refused("frequency_penalty")),
            (json!({"presence_penalty": 0.5}), Refused("presence_penalty")),
            (json!({"seed": 1}), Refused("seed")),
            (json!({"store": true}), Refused("store")),
            (json!({"modalities": ["text", "audio"]}), Refused("modalities")),
            (json!({"audio": {"voice": "x"}}), Refused("audio")),
            (json!({"moderation": {}}), Refused("moderation")),
            (json!({"web_search_options": {"search_context_size": "low"}}), Told("/tools/0/name")),
            (
                json!({"web_search_options": {"user_location": {"type": "approximate"}}}),
                Refused("web_search_options.user_location"),
            ),
            (json!({"functions": []}), Refused("functions")),
            (json!({"function_call": "auto"}), Refused("function_call")),
            (json!({"of_tomorrow": 1}), Refused("of_tomorrow")),
            (
                json!({"messages": [{"role": "user", "content": "x", "name": "me"}]}),
                Refused("messages[0].name"),
            ),
            (
                json!({"messages": [{"role": "function", "content": "x"}]}),
                Refused("messages[0].role"),
            ),
            (
                part(
                    json!({"type": "image_url", "image_url": {"url": "https://e.com/x", "detail": "low"}}),
                ),
                Told("/messages/0/content/0/source/url"),
            ),
            (
                part(json!({"type": "image_url", "image_url": {"url": "file:///x"}})),
                Refused("messages[0].content[0].image_url.url"),
            ),
            (
                part(json!({"type": "input_audio", "input_audio": {}})),
                Refused("messages[0].content[0].type"),
            ),
            (
                part(
                    json!({"type": "file", "file": {"file_id": "f", "file_data": "data:text/plain;base64,eA=="}}),
                ),
                Refused("messages[0].content[0].file.file_id"),
            ),
            (
                part(json!({"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}})),
                Told("/messages/0/content/0/cache_control"),
            ),
            (
                part(json!({"type": "text", "text": "x", "of_tomorrow": 1})),
                Refused("messages[0].content[0].of_tomorrow"),
            ),
        ],
    );
}

#[test]
fn responses_to_anthropic() {
    let item = |item: Value| json!({"input": [{"role": "user", "content": "x"}, item]});
    let tool = json!([{"type": "function", "name": "f", "parameters": {}, "strict": true}]);
    check(
        Responses,
        Messages,
        &[
            (json!({"max_output_tokens": 7}), Told("/max_tokens")),
            (json!({"instructions": "i"}), Told("/system")),
            (json!({"temperature": 0.1}), Told("/temperature")),
            (json!({"top_p": 0.1}), Told("/top_p")),
            (json!({"stream": true}), Told("/stream")),
            (json!({"tools": tool}), Told("/tools/0/strict")),
            (
                json!({"tools": tool, "tool_choice": {"type": "function", "name": "f"}}),
                Told("/tool_choice/name"),
            ),
            (json!({"tool_choice": {"type": "file_search"}}), Refused("tool_choice.type")),
            (json!({"tools": [{"type": "mcp"}]}), Refused("tools[0].type")),
            (json!({"reasoning": {"effort": "high", "summary": "auto"}}), Told("/thinking")),
            (json!({"reasoning": {"summary": "auto"}}), Dropped),
            (json!({"reasoning": {"mode": "pro"}}), Refused("reasoning.mode")),
            (
                json!({"text": {"format": {"type": "json_schema", "name": "n", "schema": {}}}}),
                Told("/output_config/format"),
            ),
            (json!({"text": {"format": {"type": "json_object"}}}), Refused("text.format")),
            (json!({"text": {"verbosity": "high"}}), Refused("text.verbosity")),
            (
                json!({"store": false, "background": false, "truncation": "disabled", "top_logprobs": 0}),
                Dropped,
            ),
            (json!({"metadata": {}, "prompt_cache_key": "k", "stream_options": {}}), Dropped),
            (json!({"include": ["reasoning.encrypted_content"]}), Dropped),
            (json!({"include": ["message.output_text.logprobs"]}), Refused("include[0]")),
            (json!({"store": true}), Refused("store")),
            (json!({"background": true}), Refused("background")),
            (json!({"truncation": "auto"}), Refused("truncation")),
            (json!({"previous_response_id": "r"}), Refused("previous_response_id")),
            (json!({"conversation": "c"}), Refused("conversation")),
            (json!({"prompt": {"id": "p"}}), Refused("prompt")),
            (json!({"max_tool_calls": 3}), Refused("max_tool_calls")),
            (json!({"context_management": []}), Refused("context_management")),
            (json!({"moderation": {}}), Refused("moderation")),
            (json!({"of_tomorrow": 1}), Refused("of_tomorrow")),
            (item(json!({"type": "item_reference", "id": "i"})), Refused("input[1].type")),
            (item(json!({"type": "item_reference", "id": "i"})), Refused("input[1].type")),
            (item(json!({"type": "web_search_call", "id": "i"})), Dropped),
            (item(json!({"type": "file_search_call", "id": "i"})), Refused("input[1].type")),
            (json!({"tools": [{"type": "web_search"}]}), Told("/tools/0/name")),
            (
                json!({"tools": [{"type": "web_search", "external_web_access": true,
                    "filters": {"allowed_domains": ["e.com"]}, "search_context_size": "high"}]}),
                Told("/tools/0/allowed_domains/0"),
            ),
            (
                json!({"tools": [{"type": "web_search_preview", "user_location": {"type": "approximate", "city": "Bern"}}]}),
                Told("/tools/0/user_location/city"),
            ),
            (
                json!({"tools": [{"type": "web_search", "external_web_access": false}]}),
                Refused("tools[0].external_web_access"),
            ),
            (item(json!({"role": "critic", "content": "x"})), Refused("input[1].role")),
            (item(json!({"role": "developer", "content": "x"})), Told("/messages/1/role")),
            (
                item(
                    json!({"type": "function_call_output", "call_id": "c", "output": "x", "status": "completed", "id": "i"}),
                ),
                Told("/messages/0/content/0/tool_use_id"),
            ),
            (
                item(
                    json!({"type": "reasoning", "id": "r", "summary": [], "encrypted_content": "theirs"}),
                ),
                Dropped,
            ),
            (
                item(
                    json!({"type": "reasoning", "id": "r", "summary": [], "encrypted_content": "anthropic.redacted.x"}),
                ),
                Told("/messages/1/content/0/data"),
            ),
            (
                item(
                    json!({"role": "user", "content": [{"type": "input_file", "file_id": "f", "file_url": "https://e.com/x"}]}),
                ),
                Refused("input[1].content[0].file_id"),
            ),
            (
                item(json!({"role": "user", "content": [{"type": "input_audio"}]})),
                Refused("input[1].content[0].type"),
            ),
        ],
    );
}

#[test]
fn anthropic_to_openai() {
    let block = |block: Value| json!({"messages": [{"role": "user", "content": [block]}]});
    let tool = json!([{"name": "f", "input_schema": {}, "cache_control": {"type": "ephemeral"}, "eager_input_streaming": true}]);
    let cases = [
        (json!({"system": "s"}), Told("/instructions")),
        (
            json!({"system": [{"type": "text", "text": "s", "cache_control": {"type": "ephemeral"}}]}),
            Told("/instructions"),
        ),
        (json!({"temperature": 0.1}), Told("/temperature")),
        (json!({"top_p": 0.1}), Told("/top_p")),
        (json!({"top_k": 3}), Refused("top_k")),
        (json!({"stop_sequences": ["a"]}), Refused("stop_sequences")),
        (json!({"stream": true}), Told("/stream")),
        (json!({"tools": tool}), Told("/tools/0/parameters")),
        (
            json!({"tools": [{"type": "web_search_20250305", "name": "web_search", "allowed_domains": ["e.com"]}]}),
            Told("/tools/0/filters/allowed_domains/0"),
        ),
        (
            json!({"tools": [{"type": "web_search_20250305", "name": "web_search", "max_uses": 3}]}),
            Refused("tools[0].max_uses"),
        ),
        (
            json!({"tools": [{"type": "code_execution_20250825", "name": "code_execution"}]}),
            Refused("tools[0].type"),
        ),
        (
            json!({"tools": [{"name": "f", "input_schema": {}, "input_examples": [{}]}]}),
            Refused("tools[0].input_examples"),
        ),
        (
            json!({"tools": [{"name": "f", "input_schema": {}, "defer_loading": true}]}),
            Refused("tools[0].defer_loading"),
        ),
        (json!({"tools": tool, "tool_choice": {"type": "any"}}), Told("/tool_choice")),
        (
            json!({"tools": tool, "tool_choice": {"type": "auto", "disable_parallel_tool_use": true}}),
            Told("/parallel_tool_calls"),
        ),
        (
            json!({"thinking": {"type": "enabled", "budget_tokens": 2000, "display": "omitted"}}),
            Told("/reasoning/effort"),
        ),
        (json!({"thinking": {"type": "adaptive"}}), Told("/reasoning/effort")),
        (json!({"thinking": {"type": "disabled"}}), Dropped),
        (json!({"thinking": {"type": "between_tools"}}), Refused("thinking.type")),
        (json!({"output_config": {"effort": "max"}}), Told("/reasoning/effort")),
        (
            json!({"output_config": {"format": {"type": "json_schema", "schema": {}}}}),
            Told("/text/format/schema"),
        ),
        (json!({"output_config": {"task_budget": {}}}), Refused("output_config.task_budget")),
        (json!({"metadata": {"user_id": "u"}}), Told("/safety_identifier")),
        (json!({"metadata": {"user_id": "u".repeat(65)}}), Dropped),
        (json!({"service_tier": "standard_only"}), Told("/service_tier")),
        (
            json!({"cache_control": {"type": "ephemeral"}, "diagnostics": {}, "speed": "standard"}),
            Dropped,
        ),
        (
            json!({"context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]}}),
            Dropped,
        ),
        (
            json!({"context_management": {"edits": [{"type": "clear_tool_uses_20250919"}]}}),
            Refused("context_management.edits[0].type"),
        ),
        (json!({"speed": "fast"}), Refused("speed")),
        (json!({"inference_geo": "eu"}), Refused("inference_geo")),
        (json!({"container": "c"}), Refused("container")),
        (json!({"mcp_servers": []}), Refused("mcp_servers")),
        (json!({"user_profile_id": "u"}), Refused("user_profile_id")),
        (json!({"of_tomorrow": 1}), Refused("of_tomorrow")),
        (
            block(json!({"type": "image", "source": {"type": "file", "file_id": "f"}})),
            Refused("messages[0].content[0].source.type"),
        ),
        (
            block(json!({"type": "document", "source": {"type": "url", "url": "https://e.com/x"}})),
            Told("/input/0/content/0/file_url"),
        ),
        (
            block(
                json!({"type": "document", "source": {"type": "text", "data": "x"}, "citations": {"enabled": true}}),
            ),
            Refused("messages[0].content[0].citations.enabled"),
        ),
        (block(json!({"type": "search_result"})), Refused("messages[0].content[0].type")),
        (block(json!({"type": "container_upload"})), Refused("messages[0].content[0].type")),
        (
            block(
                json!({"type": "tool_result", "tool_use_id": "t", "content": [{"type": "tool_reference"}]}),
            ),
            Refused("messages[0].content[0].content[0].type"),
        ),
        (
            block(
                json!({"type": "tool_result", "tool_use_id": "t", "is_error": true, "content": "x"}),
            ),
            Told("/input/0/output"),
        ),
        (
            block(
                json!({"type": "tool_result", "tool_use_id": "t", "content": [{"type": "tool_result"}]}),
            ),
            Refused("messages[0].content[0].content[0].type"),
        ),
        (
            block(json!({"type": "tool_use", "id": "t", "name": "f", "input": {}})),
            Refused("messages[0].content[0].type"),
        ),
        (json!({"system": [{"type": "image"}]}), Refused("system[0].type")),
        (json!({"messages": [{"role": "owner", "content": "x"}]}), Refused("messages[0].role")),
        (json!({"messages": [{"role": "user"}]}), Refused("messages[0].content")),
    ];
    check(Messages, Responses, &cases);
    // What only chat can say, and what it cannot.
    check(
        Messages,
        Chat,
        &[
            (json!({"stop_sequences": ["a"]}), Told("/stop/0")),
            (json!({"top_k": 3}), Refused("top_k")),
            (
                json!({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}),
                Refused("tools[0]"),
            ),
            (
                block(
                    json!({"type": "document", "source": {"type": "url", "url": "https://e.com/x"}}),
                ),
                Refused("messages[0].content[0].source.type"),
            ),
        ],
    );
}

#[test]
fn what_is_no_object_or_of_the_wrong_form_is_told_with_its_path() {
    let faults = |from, body: Value| {
        let error = through(from, Messages, &body).unwrap_err();
        let paths: Vec<_> = error.problem("").errors.into_iter().map(|fault| fault.path).collect();
        paths
    };
    assert_eq!(faults(Chat, json!([])), [""]);
    assert_eq!(faults(Chat, json!({"model": 1, "messages": 2})), ["model", "messages"]);
    assert_eq!(
        faults(Chat, json!({"model": "m", "messages": [1, {"role": "user", "content": 2}]})),
        ["messages[0]", "messages[1].content"]
    );
    assert_eq!(faults(Responses, json!({"model": "m"})), ["input"]);
    assert_eq!(faults(Responses, json!({"model": "m", "input": {}})), ["input"]);
    let many: Vec<Value> = vec![json!(1); 80];
    assert_eq!(faults(Chat, json!({"model": "m", "messages": many})).len(), 50);
}
