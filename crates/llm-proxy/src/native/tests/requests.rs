//! Requests: what is refused, and what each wire gets.

use loom_core::extract::parse_json;
use serde_json::{Value, json};

use crate::{
    native::{check::check, model::Request},
    translate::{
        anthropic,
        chat::{self, request_out::Manner},
    },
};

const OPENAI: Manner = Manner { counted: true, vendor: true };

fn to_anthropic(request: &Request, stream: bool) -> loom_core::Result<bytes::Bytes> {
    anthropic::request_out::body(&request.neutral(stream))
}

fn to_openai(request: &Request, stream: bool, how: Manner) -> loom_core::Result<bytes::Bytes> {
    chat::request_out::body(&request.neutral(stream), how)
}

fn parsed(body: &Value) -> loom_core::Result<Request> {
    let request: Request = parse_json(body.to_string().as_bytes())?;
    check(&request)?;
    Ok(request)
}

/// The paths that are complained of.
fn faults(outcome: loom_core::Result<impl Sized>) -> Vec<String> {
    let error = outcome.err().expect("a refusal");
    assert_eq!(error.status().as_u16(), 422, "{error:?}");
    error.problem("").errors.into_iter().map(|fault| fault.path).collect()
}

fn anthropic(body: &Value) -> Value {
    serde_json::from_slice(&to_anthropic(&parsed(body).unwrap(), false).unwrap()).unwrap()
}

fn openai(body: &Value) -> Value {
    serde_json::from_slice(&to_openai(&parsed(body).unwrap(), false, OPENAI).unwrap()).unwrap()
}

fn with_messages(messages: &Value) -> Value {
    json!({"model": "m", "messages": messages})
}

/// A conversation with everything in it that both wires can express.
fn conversation() -> Value {
    json!({
        "model": "m",
        "system": "Be short.",
        "max_tokens": 10_000,
        "temperature": 0.5,
        "top_p": 0.9,
        "stop": ["END"],
        "thinking": {"budget_tokens": 2000},
        "metadata": {"user_id": "u-1", "other": 1},
        "tool_choice": {"tool_name": "weather"},
        "tools": [{"name": "weather", "description": "Tells it", "input_schema":
            {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}],
        "unknown": "is ignored",
        "messages": [
            {"role": "system", "content": "And kind."},
            {"role": "user", "content": [
                {"type": "text", "text": "Look: "},
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}},
                {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}},
                {"type": "document", "title": "t.pdf", "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBE"}},
                {"type": "document", "title": "notes", "source": {"type": "text", "data": "plain"}},
            ]},
            {"role": "assistant", "content": "", "thinking": "Hm.",
             "thinking_blocks": [{"thinking": "Hm.", "signature": "sig"}, {"redacted": "xyz"}, {"thinking": "unsigned"}],
             "tool_calls": [
                {"id": "c1", "tool_name": "weather", "arguments_json": {"city": "Łódź"}},
                {"id": "c2", "tool_name": "weather", "arguments_json": "{\"city\": "},
             ]},
            {"role": "tool", "tool_call_id": "c1", "tool_name": "weather", "content": "rain"},
            {"role": "user", "content": [
                {"type": "text", "text": "so?"},
                {"type": "tool_result", "tool_call_id": "c2", "is_error": true, "content": [{"type": "text", "text": "bad"}]},
            ]},
        ],
    })
}

#[test]
fn a_conversation_on_anthropics_wire() {
    let expected = json!({
        "model": "m",
        "system": "Be short.\n\nAnd kind.",
        "max_tokens": 10_000,
        "temperature": 0.5,
        "top_p": 0.9,
        "stop_sequences": ["END"],
        "thinking": {"type": "enabled", "budget_tokens": 2000},
        "metadata": {"user_id": "u-1"},
        "tool_choice": {"type": "tool", "name": "weather"},
        "tools": [{"name": "weather", "description": "Tells it", "input_schema":
            {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}],
        "messages": [
            {"role": "user", "content": [
                {"type": "text", "text": "Look: "},
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}},
                {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}},
                {"type": "document", "title": "t.pdf", "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBE"}},
                {"type": "document", "title": "notes", "source": {"type": "text", "media_type": "text/plain", "data": "plain"}},
            ]},
            {"role": "assistant", "content": [
                {"type": "thinking", "thinking": "Hm.", "signature": "sig"},
                {"type": "redacted_thinking", "data": "xyz"},
                {"type": "tool_use", "id": "c1", "name": "weather", "input": {"city": "Łódź"}},
                {"type": "tool_use", "id": "c2", "name": "weather", "input": {"INVALID_JSON": "{\"city\": "}},
            ]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "c1", "content": [{"type": "text", "text": "rain"}]},
                {"type": "tool_result", "tool_use_id": "c2", "is_error": true, "content": [{"type": "text", "text": "bad"}]},
                {"type": "text", "text": "so?"},
            ]},
        ],
    });
    assert_eq!(anthropic(&conversation()), expected);
}

#[test]
fn a_conversation_on_openais_wire() {
    let expected = json!({
        "model": "m",
        "max_completion_tokens": 10_000,
        "temperature": 0.5,
        "top_p": 0.9,
        "stop": ["END"],
        "reasoning_effort": "low",
        "user": "u-1",
        "tool_choice": {"type": "function", "function": {"name": "weather"}},
        "tools": [{"type": "function", "function": {"name": "weather", "description": "Tells it", "parameters":
            {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}}],
        "messages": [
            {"role": "system", "content": "Be short."},
            {"role": "system", "content": "And kind."},
            {"role": "user", "content": [
                {"type": "text", "text": "Look: "},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
                {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}},
                {"type": "file", "file": {"filename": "t.pdf", "file_data": "data:application/pdf;base64,JVBE"}},
                {"type": "text", "text": "notes\n\nplain"},
            ]},
            {"role": "assistant", "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{\"city\":\"Łódź\"}"}},
                {"id": "c2", "type": "function", "function": {"name": "weather", "arguments": "{\"city\": "}},
            ]},
            {"role": "tool", "tool_call_id": "c1", "content": "rain"},
            {"role": "tool", "tool_call_id": "c2", "content": "bad"},
            {"role": "user", "content": "so?"},
        ],
    });
    assert_eq!(openai(&conversation()), expected);
}

#[test]
fn a_schema_keeps_the_order_of_its_members() {
    let body = br#"{"model":"m","messages":[{"role":"user","content":"x"}],
        "tools":[{"name":"t","input_schema":{"type":"object","z":1, "properties":{"y":2,"b":3.50}}}]}"#;
    let request: Request = parse_json(body).unwrap();
    for wire in [to_anthropic(&request, true), to_openai(&request, false, OPENAI)] {
        let text = String::from_utf8(wire.unwrap().to_vec()).unwrap();
        assert!(
            text.contains(r#"{"type":"object","z":1, "properties":{"y":2,"b":3.50}}"#),
            "{text}"
        );
    }
}

#[test]
fn a_stream_asks_for_its_usage_where_that_is_known() {
    let request = parsed(&with_messages(&json!([{"role": "user", "content": "x"}]))).unwrap();
    let of = |manner| -> Value {
        serde_json::from_slice(&to_openai(&request, true, manner).unwrap()).unwrap()
    };
    let counted = of(OPENAI);
    assert_eq!(counted["stream"], true);
    assert_eq!(counted["stream_options"], json!({"include_usage": true}));
    assert_eq!(of(Manner { counted: false, ..OPENAI }).get("stream_options"), None);
    let whole = to_openai(&request, false, OPENAI).unwrap();
    let whole: Value = serde_json::from_slice(&whole).unwrap();
    assert_eq!((whole.get("stream"), whole.get("stream_options")), (None, None));
    let text = to_anthropic(&request, true).unwrap();
    let text: Value = serde_json::from_slice(&text).unwrap();
    assert_eq!((&text["stream"], &text["max_tokens"]), (&json!(true), &json!(4096)));
}

#[test]
fn limits_and_thinking_fit_each_other() {
    let of = |more: Value| {
        let mut body = with_messages(&json!([{"role": "user", "content": "x"}]));
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let body = anthropic(&of(json!({"thinking": {"effort": "high"}})));
    assert_eq!(body["thinking"]["budget_tokens"], 16_384);
    assert_eq!(body["max_tokens"], 4096 + 16_384);
    let body = anthropic(&of(json!({"thinking": {}, "max_tokens": 2000})));
    assert_eq!(body["thinking"]["budget_tokens"], 1999);
    let body = anthropic(&of(json!({"thinking": {"type": "adaptive", "effort": "minimal"}})));
    assert_eq!(body["thinking"], json!({"type": "adaptive"}));
    assert_eq!(body["output_config"], json!({"effort": "low"}));
    let refused = |body: &Value| faults(to_anthropic(&parsed(body).unwrap(), false));
    assert_eq!(refused(&of(json!({"thinking": {}, "max_tokens": 1000}))), ["max_tokens"]);
    let over = of(json!({"thinking": {"budget_tokens": 5000}, "max_tokens": 5000}));
    assert_eq!(refused(&over), ["thinking.budget_tokens"]);
    let most = of(json!({"thinking": {"budget_tokens": u32::MAX}}));
    assert_eq!(refused(&most), ["thinking.budget_tokens"]);
    assert_eq!(refused(&of(json!({"temperature": 1.5}))), ["temperature"]);
    assert_eq!(
        openai(&of(json!({"thinking": {"type": "disabled"}}))).get("reasoning_effort"),
        None
    );
    assert_eq!(openai(&of(json!({"thinking": {}})))["reasoning_effort"], "medium");
}

#[test]
fn a_fault_is_told_with_its_path() {
    let user = json!({"role": "user", "content": "x"});
    let cases = [
        (
            json!([user, {"role": "user", "content": [{"type": "video"}]}]),
            "messages[1].content[0].type",
        ),
        (
            json!([{"role": "user", "content": [{"type": "text", "text": "x"}, {"type": "text"}]}]),
            "messages[0].content[1].text",
        ),
        (
            json!([{"role": "user", "content": [{"type": "text", "text": 1}]}]),
            "messages[0].content[0].text",
        ),
        (json!([{"role": "user", "content": 7}]), "messages[0].content"),
        (json!([{"role": "owner", "content": "x"}]), "messages[0].role"),
        (json!([{"role": "user"}]), "messages[0].content"),
        (
            json!([{"role": "user", "content": [{"type": "thinking", "thinking": "x"}]}]),
            "messages[0].content[0].type",
        ),
        (
            json!([{"role": "user", "content": [{"type": "image"}]}]),
            "messages[0].content[0].source",
        ),
        (
            json!([{"role": "user", "content": [{"type": "image", "source": {"type": "base64", "data": "A"}}]}]),
            "messages[0].content[0].source.media_type",
        ),
        (
            json!([{"role": "user", "content": [{"type": "image", "source": {"type": "url", "url": "file:///x"}}]}]),
            "messages[0].content[0].source.url",
        ),
        (json!([{"role": "tool", "content": "x"}]), "messages[0].tool_call_id"),
        (
            json!([{"role": "user", "content": "x", "tool_calls": [{"id": "1", "tool_name": "t", "arguments_json": {}}]}]),
            "messages[0].tool_calls",
        ),
        (
            json!([{"role": "user", "content": [{"type": "tool_result", "tool_call_id": "1", "content": [{"type": "tool_result"}]}]}]),
            "messages[0].content[0].content[0].type",
        ),
        (json!([]), "messages"),
    ];
    for (messages, path) in cases {
        assert_eq!(faults(parsed(&with_messages(&messages))), [path]);
    }
    let with = |name: &str, value: Value| {
        let mut body = with_messages(&json!([user]));
        body[name] = value;
        faults(parsed(&body))
    };
    assert_eq!(with("tool_choice", json!("required")), ["tool_choice"]);
    assert_eq!(with("tool_choice", json!("always")), ["tool_choice"]);
    assert_eq!(with("tool_choice", json!({"tool_name": "t"})), ["tool_choice.tool_name"]);
    assert_eq!(with("tools", json!([{"name": "a b", "input_schema": {}}])), ["tools[0].name"]);
    assert_eq!(
        with("tools", json!([{"name": "a", "input_schema": []}])),
        ["tools[0].input_schema"]
    );
    assert_eq!(with("max_tokens", json!(0)), ["max_tokens"]);
    assert_eq!(with("top_p", json!(2)), ["top_p"]);
    assert_eq!(with("model", json!("")), ["model"]);
}

#[test]
fn what_a_wire_cannot_express_is_named() {
    let only_system = with_messages(&json!([{"role": "system", "content": "y"}]));
    assert_eq!(faults(to_anthropic(&parsed(&only_system).unwrap(), false)), ["messages"]);

    let image = json!({"type": "image", "source": {"type": "url", "url": "https://example.com/x"}});
    let result = with_messages(&json!([{"role": "tool", "tool_call_id": "1", "content": [image]}]));
    let openai = |body: &Value| faults(to_openai(&parsed(body).unwrap(), false, OPENAI));
    assert_eq!(openai(&result), ["messages[0].content[0].type"]);
    assert!(to_anthropic(&parsed(&result).unwrap(), false).is_ok());
    let nested = with_messages(
        &json!([{"role": "user", "content": [{"type": "tool_result", "tool_call_id": "1", "content": [image]}]}]),
    );
    assert_eq!(openai(&nested), ["messages[0].content[0].content[0].type"]);
    let linked = json!([{"role": "user", "content": [{"type": "document", "source": {"type": "url", "url": "https://example.com/x"}}]}]);
    assert_eq!(openai(&with_messages(&linked)), ["messages[0].content[0].source.type"]);
    let garbled = json!([{"role": "user", "content": [{"type": "document", "source": {"type": "base64", "media_type": "text/plain", "data": "%"}}]}]);
    assert_eq!(openai(&with_messages(&garbled)), ["messages[0].content[0].source.data"]);
}

#[test]
fn every_content_may_be_a_text_of_any_language() {
    let body = anthropic(&with_messages(&json!([{"role": "user", "content": "grüß 日本語 👋"}])));
    assert_eq!(body["messages"][0]["content"][0]["text"], "grüß 日本語 👋");
}
