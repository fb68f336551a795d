//! What real clients send out of habit, and what the providers in question would refuse of it.

use serde_json::{Value, json};

use super::{facts, requests::through, told};
use crate::{
    dialect::Operation::{Chat, Messages, Responses},
    translate::{anthropic, chat, stream},
    usage::Usage,
};

/// A coding agent on Anthropic's wire.
fn anthropic_agent() -> Value {
    let cache = json!({"type": "ephemeral", "ttl": "1h", "scope": "global"});
    json!({
        "model": "gpt-5", "max_tokens": 32000, "stream": true, "temperature": 1,
        "system": [
            {"type": "text", "text": "You are an agent."},
            {"type": "text", "text": "Be short.", "cache_control": cache},
        ],
        "metadata": {"user_id": "{\"device_id\":\"0123456789abcdef0123456789abcdef0123456789abcdef\"}"},
        "thinking": {"type": "adaptive"},
        "output_config": {"effort": "high"},
        "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
        "tools": [
            {"name": "list", "description": "Lists", "input_schema": {"type": "object"},
                "eager_input_streaming": true},
            {"name": "read", "input_schema": {"type": "object", "properties": {}}},
        ],
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "Look", "cache_control": cache}]},
            {"role": "assistant", "content": [
                {"type": "thinking", "thinking": "hm", "signature": "sig"},
                {"type": "text", "text": "\n\n"},
                {"type": "tool_use", "id": "t1", "name": "list", "input": {}, "caller": {"type": "direct"}},
            ]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "t1", "is_error": false, "content": [
                    {"type": "text", "text": "a.png"},
                    {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AA=="}},
                ]},
                {"type": "text", "text": "<system-reminder>x</system-reminder>"},
            ]},
        ],
    })
}

/// A coding agent on OpenAI's responses wire, in a conversation that another model began.
fn responses_agent() -> Value {
    json!({
        "model": "claude-sonnet-4-5", "instructions": "You are an agent.", "stream": true, "store": false,
        "tool_choice": "auto", "parallel_tool_calls": false, "prompt_cache_key": "k",
        "client_metadata": {"x-installation-id": "i"},
        "include": ["reasoning.encrypted_content"], "reasoning": {"effort": "medium", "summary": "auto"},
        "text": {"format": {"type": "text"}, "verbosity": "medium"},
        "tools": [{"type": "function", "name": "shell", "description": "Runs", "strict": false,
            "parameters": {}, "allowed_callers": ["direct"]}],
        "input": [
            {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "Sandboxed."}]},
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Look"}]},
            {"type": "reasoning", "id": "rs_1", "summary": [], "content": null, "encrypted_content": "x"},
            {"type": "message", "role": "assistant", "id": "msg_1", "status": "completed", "phase": "commentary",
                "content": [{"type": "output_text", "text": "\n", "annotations": [], "logprobs": []}]},
            {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "shell", "arguments": "",
                "status": "completed", "caller": {"type": "direct"}, "namespace": null},
            {"type": "function_call_output", "call_id": "c1", "output": "", "name": "shell",
                "caller": {"type": "direct"}},
        ],
    })
}

#[test]
fn an_agents_request_is_taken_with_all_that_it_sends() {
    through(Messages, Responses, &anthropic_agent()).unwrap();
    let sent = through(Responses, Messages, &responses_agent()).unwrap();
    assert_eq!(
        sent["messages"],
        json!([
            {"role": "user", "content": [{"type": "text", "text": "Look"}]},
            {"role": "assistant", "content": [
                {"type": "tool_use", "id": "c1", "name": "shell", "input": {}}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c1"}]},
        ])
    );
    through(Responses, Chat, &responses_agent()).unwrap();
}

#[test]
fn a_tool_without_arguments_has_the_schema_that_each_provider_wants() {
    let sent = through(Messages, Responses, &anthropic_agent()).unwrap();
    let empty = json!({"type": "object", "properties": {}});
    assert_eq!(sent["tools"][0]["parameters"], empty);
    let sent = through(Messages, Chat, &{
        let mut body = anthropic_agent();
        body["messages"] = json!([{"role": "user", "content": "x"}]);
        body
    });
    assert_eq!(sent.unwrap()["tools"][0]["function"]["parameters"], empty);
    let sent = through(Responses, Messages, &responses_agent()).unwrap();
    assert_eq!(sent["tools"][0]["input_schema"], empty);
    for (given, wanted) in [
        (json!({"properties": {"a": {}}}), json!({"type": "object", "properties": {"a": {}}})),
        (
            json!({"type": "object", "additionalProperties": false}),
            json!({"type": "object", "properties": {}, "additionalProperties": false}),
        ),
        (json!([1, 2]), json!([1, 2])),
    ] {
        let tool = json!({"type": "function", "function": {"name": "f", "parameters": given}});
        let body = json!({"model": "m", "tools": [tool],
            "messages": [{"role": "user", "content": "x"}]});
        let sent = through(Chat, Messages, &body).unwrap();
        assert_eq!(sent["tools"][0]["input_schema"], wanted);
    }
}

#[test]
fn a_temperature_and_a_top_p_of_one_are_not_worth_a_refusal() {
    let body = json!({"model": "gpt-5", "max_tokens": 99, "temperature": 1, "top_p": 1.0,
        "messages": [{"role": "user", "content": "x"}]});
    for (from, to) in [(Chat, Messages), (Messages, Responses), (Messages, Chat)] {
        let sent = through(from, to, &body).unwrap();
        assert!(sent.get("temperature").is_none() && sent.get("top_p").is_none(), "{sent}");
    }
    // What a compatible provider has by default is its own affair.
    let mut other = body;
    other["model"] = json!("m");
    assert_eq!(through(Messages, Chat, &other).unwrap()["temperature"], json!(1.0));
}

#[test]
fn files_are_named_as_the_provider_knows_them() {
    let image = json!({"type": "image_url", "image_url": {"url": "data:image/JPG;base64,AA=="}});
    let body = json!({"model": "m", "messages": [{"role": "user", "content": [image]}]});
    let sent = through(Chat, Messages, &body).unwrap();
    let source = &sent["messages"][0]["content"][0]["source"];
    assert_eq!(source["media_type"], "image/jpeg");
    for (title, name) in [("Report, 2nd draft", "Report, 2nd draft.pdf"), ("a.PDF", "a.PDF")] {
        let pdf = json!({"type": "document", "title": title,
            "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="}});
        let body = json!({"model": "m", "max_tokens": 99,
            "messages": [{"role": "user", "content": [pdf]}]});
        let sent = through(Messages, Responses, &body).unwrap();
        assert_eq!(sent["input"][0]["content"][0]["filename"], name);
        let sent = through(Messages, Chat, &body).unwrap();
        assert_eq!(sent["messages"][0]["content"][0]["file"]["filename"], name);
    }
}

/// As OpenAI answers when nobody asked for the reasoning.
const HIDDEN: &str = r#"{"id":"resp_1","model":"gpt-5","status":"completed","output":[
    {"type":"reasoning","id":"rs_1","summary":[]},
    {"type":"message","id":"msg_1","role":"assistant","status":"completed",
        "content":[{"type":"output_text","text":"Hi","annotations":[]}]}]}"#;
const HIDDEN_STREAM: &str = r#"data: {"type":"response.created","response":{"id":"resp_1","model":"gpt-5"}}

data: {"type":"response.output_item.added","output_index":0,"item":{"type":"reasoning","id":"rs_1","summary":[]}}

data: {"type":"response.output_item.done","output_index":0,"item":{"type":"reasoning","id":"rs_1","summary":[]}}

data: {"type":"response.output_item.added","output_index":1,"item":{"type":"message","id":"msg_1","content":[]}}

data: {"type":"response.content_part.added","output_index":1,"content_index":0,"part":{"type":"output_text","text":""}}

data: {"type":"response.output_text.delta","output_index":1,"content_index":0,"delta":"Hi"}

data: {"type":"response.output_item.done","output_index":1,"item":{"type":"message","id":"msg_1","content":[]}}

data: {"type":"response.completed","response":{"id":"resp_1","status":"completed"}}

"#;

#[test]
fn reasoning_of_which_nothing_is_shown_is_no_block() {
    let usage = Usage::default();
    let reply = stream::whole(Responses, HIDDEN.as_bytes()).unwrap();
    let whole = anthropic::reply_out::whole(&reply, &facts(&usage));
    assert_eq!(whole["content"], json!([{"type": "text", "text": "Hi"}]));
    let whole = chat::reply_out::whole(&reply, &facts(&usage));
    assert!(whole["choices"][0]["message"].get("reasoning_details").is_none(), "{whole}");
    let (streamed, _) = told(Responses, Messages, [HIDDEN_STREAM.as_bytes()]);
    assert!(!streamed.contains("thinking"), "{streamed}");
    assert!(
        streamed.contains(r#""content_block":{"text":"","type":"text"},"index":0"#),
        "{streamed}"
    );
}

#[test]
fn a_chat_hears_all_citations_at_once_as_openais_sdk_puts_no_lists_together() {
    let blocks: String = ["ä", "b"]
        .iter()
        .enumerate()
        .flat_map(|(at, text)| {
            let cite = json!({"type": "web_search_result_location", "url": format!("https://{at}")});
            [
                json!({"type": "content_block_start", "index": at, "content_block": {"type": "text", "text": text}}),
                json!({"type": "content_block_delta", "index": at, "delta": {"type": "citations_delta", "citation": cite}}),
                json!({"type": "content_block_stop", "index": at}),
            ]
        })
        .chain([json!({"type": "message_stop"})])
        .map(|event| format!("data: {event}\n\n"))
        .collect();
    let (told, _) = told(Messages, Chat, [blocks.as_bytes()]);
    let lists: Vec<Value> = told
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line.strip_prefix("data: ")?).ok())
        .filter_map(|chunk| chunk.pointer("/choices/0/delta/annotations").cloned())
        .collect();
    let cited = |start, end, url| {
        json!({"type": "url_citation", "url_citation":
            {"start_index": start, "end_index": end, "url": url, "title": ""}})
    };
    assert_eq!(lists, [json!([cited(0, 1, "https://0"), cited(1, 2, "https://1")])]);
}
