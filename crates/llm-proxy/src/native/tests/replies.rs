//! Replies: whole ones, and streams in any pieces.

use loom_core::id::LlmRequestId;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::{
    dialect::Dialect,
    native::{
        draft::{Draft, Event, Failure, arguments},
        from_anthropic, from_openai,
        stream::Decoder,
    },
    usage::Usage,
};

const ANTHROPIC: &str = r#"event: message_start
data: {"type":"message_start","message":{"id":"msg_1","model":"claude-x","content":[],"usage":{"input_tokens":3,"output_tokens":1}}}

event: content_block_start
data: {"type":"content_block_start","index":0,"content_block":{"type":"thinking","thinking":"","signature":""}}

event: ping
data: {"type":"ping"}

event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta","thinking":"Let me see."}}

event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"signature_delta","signature":"c2ln"}}

event: content_block_start
data: {"type":"content_block_start","index":1,"content_block":{"type":"redacted_thinking","data":"xyz"}}

event: content_block_start
data: {"type":"content_block_start","index":2,"content_block":{"type":"text","text":""}}

event: content_block_delta
data: {"type":"content_block_delta","index":2,"delta":{"type":"text_delta","text":"grüß "}}

event: content_block_delta
data: {"type":"content_block_delta","index":2,"delta":{"type":"text_delta","text":"dich 👋"}}

event: content_block_start
data: {"type":"content_block_start","index":3,"content_block":{"type":"tool_use","id":"t1","name":"weather","input":{}}}

event: content_block_delta
data: {"type":"content_block_delta","index":3,"delta":{"type":"input_json_delta","partial_json":""}}

event: content_block_delta
data: {"type":"content_block_delta","index":3,"delta":{"type":"input_json_delta","partial_json":"{\"z\": 1, "}}

event: content_block_start
data: {"type":"content_block_start","index":4,"content_block":{"type":"server_tool_use","id":"s1","name":"web_search","input":{}}}

event: content_block_delta
data: {"type":"content_block_delta","index":4,"delta":{"type":"input_json_delta","partial_json":"{\"q\":1}"}}

event: content_block_delta
data: {"type":"content_block_delta","index":3,"delta":{"type":"input_json_delta","partial_json":"\"a\": 2}"}}

event: of_tomorrow
data: {"type":"of_tomorrow","delta":"what"}

event: message_delta
data: {"type":"message_delta","delta":{"stop_reason":"tool_use","stop_sequence":null},"usage":{"output_tokens":9}}

event: message_stop
data: {"type":"message_stop"}

"#;

const OPENAI: &str = r#"data: {"model":"gpt-x","choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}],"usage":null}

data: {"model":"gpt-x","choices":[{"index":0,"delta":{"reasoning_content":"Let me see."}}]}

data: {"model":"gpt-x","choices":[{"index":0,"delta":{"content":"grüß "}}]}

data: {"model":"gpt-x","choices":[{"index":0,"delta":{"content":"dich 👋"}}]}

data: {"model":"gpt-x","choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"t1","type":"function","function":{"name":"weather","arguments":""}}]}}]}

data: {"model":"gpt-x","choices":[{"index":0,"delta":{"tool_calls":[{"index":1,"id":"t2","type":"function","function":{"name":"time","arguments":"{}"}}]}}]}

data: {"model":"gpt-x","choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"{\"z\": 1, "}}]}}]}

data: {"model":"gpt-x","choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"\"a\": 2}"}}]}}]}

data: {"model":"gpt-x","choices":[{"index":0,"delta":{},"finish_reason":"tool_calls"}]}

data: {"model":"gpt-x","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":9}}

data: [DONE]

"#;

fn read<'a>(dialect: Dialect, pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<Event> {
    let mut decoder = Decoder::new(dialect);
    let mut events: Vec<Event> = pieces.into_iter().flat_map(|p| decoder.feed(p)).collect();
    events.extend(decoder.finish());
    assert_eq!(decoder.feed(b"data: {}\n\n"), [], "nothing comes after the end");
    assert_eq!(decoder.finish(), []);
    events
}

fn text_of(events: &[Event]) -> String {
    let text = events.iter().filter_map(|event| match event {
        Event::Text(text) => Some(text.as_str()),
        _ => None,
    });
    text.collect()
}

/// The one event that ends a stream.
fn end(events: &[Event]) -> &Event {
    let ends =
        events.iter().filter(|e| matches!(e, Event::Completed(_) | Event::Failed(_))).count();
    assert_eq!(ends, 1, "{events:?}");
    events.last().unwrap()
}

fn reply(draft: Draft) -> Value {
    let id = LlmRequestId(uuid::Uuid::nil());
    let usage = Usage { input: Some(3), output: Some(9), ..Usage::default() };
    serde_json::to_value(draft.reply(id, "asked", &usage, Some(1_500_000))).unwrap()
}

fn completed(events: &[Event]) -> Draft {
    match end(events) {
        Event::Completed(draft) => (**draft).clone(),
        other => panic!("{other:?}"),
    }
}

fn failed(events: &[Event]) -> &Failure {
    match end(events) {
        Event::Failed(failure) => failure,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_stream_of_anthropics() {
    let events = read(Dialect::Anthropic, [ANTHROPIC.as_bytes()]);
    assert_eq!(events[0], Event::Thinking("Let me see.".to_owned()));
    assert_eq!(text_of(&events), "grüß dich 👋");
    let reply = reply(completed(&events));
    let expected = json!({
        "id": "00000000-0000-0000-0000-000000000000",
        "model": "claude-x",
        "message": {
            "role": "assistant",
            "content": "grüß dich 👋",
            "thinking": "Let me see.",
            "thinking_blocks": [
                {"thinking": "Let me see.", "signature": "c2ln"},
                {"thinking": "", "redacted": "xyz"},
            ],
        },
        "tool_calls": [{"id": "t1", "tool_name": "weather", "arguments_json": {"z": 1, "a": 2}}],
        "usage": {"input_tokens": 3, "output_tokens": 9, "cache_read_tokens": 0, "cache_write_tokens": 0, "reasoning_tokens": null},
        "cost_usd": 0.0015,
        "finish_reason": "tool_use",
    });
    assert_eq!(reply, expected);
}

#[test]
fn a_stream_of_openais() {
    let events = read(Dialect::OpenAi, [OPENAI.as_bytes()]);
    assert_eq!(text_of(&events), "grüß dich 👋");
    let draft = completed(&events);
    for call in &draft.calls {
        let told: String = events
            .iter()
            .filter_map(|event| match event {
                Event::ToolCall { id, fragment, .. } if *id == call.id => Some(fragment.as_str()),
                _ => None,
            })
            .collect();
        assert_eq!(told, call.arguments);
    }
    let reply = reply(draft);
    assert_eq!(reply["model"], "gpt-x");
    assert_eq!(reply["message"]["thinking"], "Let me see.");
    assert_eq!(reply["finish_reason"], "tool_use");
    let calls = json!([
        {"id": "t1", "tool_name": "weather", "arguments_json": {"z": 1, "a": 2}},
        {"id": "t2", "tool_name": "time", "arguments_json": {}},
    ]);
    assert_eq!(reply["tool_calls"], calls);
}

#[test]
fn whole_replies_read_as_their_streams() {
    let body = json!({"model": "claude-x", "stop_reason": "tool_use", "content": [
        {"type": "thinking", "thinking": "Let me see.", "signature": "c2ln"},
        {"type": "redacted_thinking", "data": "xyz"},
        {"type": "text", "text": "grüß dich 👋", "citations": null},
        {"type": "tool_use", "id": "t1", "name": "weather", "input": {"z": 1, "a": 2}},
        {"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {}},
    ]});
    let whole = from_anthropic::whole(body.to_string().as_bytes()).unwrap();
    let streamed = completed(&read(Dialect::Anthropic, [ANTHROPIC.as_bytes()]));
    assert_eq!(reply(whole), reply(streamed));

    let body = json!({"model": "gpt-x", "choices": [{"index": 0, "finish_reason": "tool_calls", "message": {
    "role": "assistant", "content": "grüß dich 👋", "reasoning_content": "Let me see.", "tool_calls": [
        {"id": "t1", "type": "function", "function": {"name": "weather", "arguments": "{\"z\": 1, \"a\": 2}"}},
        {"id": "t2", "type": "function", "function": {"name": "time", "arguments": "{}"}},
    ]}}]});
    let whole = from_openai::whole(body.to_string().as_bytes()).unwrap();
    let streamed = completed(&read(Dialect::OpenAi, [OPENAI.as_bytes()]));
    assert_eq!(reply(whole), reply(streamed));
    assert!(from_openai::whole(b"{\"choices\":[]}").is_err());
    assert!(from_openai::whole(b"<html>").is_err());
    assert!(from_anthropic::whole(b"[]").is_err());
}

#[test]
fn every_reason_for_the_end_has_its_word() {
    let anthropic = [
        ("end_turn", "end_turn"),
        ("pause_turn", "end_turn"),
        ("of_tomorrow", "end_turn"),
        ("tool_use", "tool_use"),
        ("max_tokens", "max_tokens"),
        ("model_context_window_exceeded", "max_tokens"),
        ("stop_sequence", "stop"),
        ("refusal", "content_filter"),
    ];
    for (from, to) in anthropic {
        let body = json!({"content": [], "stop_reason": from}).to_string();
        assert_eq!(reply(from_anthropic::whole(body.as_bytes()).unwrap())["finish_reason"], to);
    }
    let openai = [
        ("stop", "end_turn"),
        ("length", "max_tokens"),
        ("tool_calls", "tool_use"),
        ("function_call", "tool_use"),
        ("content_filter", "content_filter"),
    ];
    for (from, to) in openai {
        let body =
            json!({"choices": [{"message": {"content": "x"}, "finish_reason": from}]}).to_string();
        assert_eq!(reply(from_openai::whole(body.as_bytes()).unwrap())["finish_reason"], to);
    }
    let refusal = json!({"choices": [{"message": {"refusal": "no"}, "finish_reason": "stop"}]});
    let refusal = reply(from_openai::whole(refusal.to_string().as_bytes()).unwrap());
    assert_eq!(
        (&refusal["finish_reason"], &refusal["message"]["content"]),
        (&json!("content_filter"), &json!("no"))
    );
}

#[test]
fn arguments_that_are_not_json_stay_text() {
    let value = |text: &str| serde_json::to_value(arguments(text.to_owned())).unwrap();
    assert_eq!(value(""), json!({}));
    assert_eq!(value(" {\"a\":1} "), json!({"a": 1}));
    assert_eq!(value("{\"a\":"), json!("{\"a\":"));
    assert_eq!(value("\"\\ud800\""), json!("\"\\ud800\""));
    assert_eq!(arguments("{\"z\":1,\"a\":2.50}".to_owned()).get(), "{\"z\":1,\"a\":2.50}");
}

#[test]
fn a_stream_that_goes_wrong_ends_with_its_error() {
    let told = "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"Overloaded\"}}\n\n";
    let (begin, _) = ANTHROPIC.split_once("event: content_block_start").unwrap();
    let failure = |dialect, text: String| failed(&read(dialect, [text.as_bytes()])).clone();
    assert_eq!(failure(Dialect::Anthropic, format!("{begin}{told}")).code, "unavailable");
    assert_eq!(failure(Dialect::Anthropic, begin.to_owned()).code, "upstream_error");
    let told = "data: {\"error\":{\"message\":\"slow\",\"type\":\"requests\",\"code\":\"rate_limit_exceeded\"}}\n\n";
    assert_eq!(failure(Dialect::OpenAi, told.to_owned()).code, "rate_limited");
    assert!(
        failure(Dialect::OpenAi, "data: {\"error\":\"boom\"}\n\n".to_owned())
            .message
            .contains("boom")
    );
    assert_eq!(failure(Dialect::OpenAi, "data: <html>\n\n".to_owned()).code, "upstream_error");
    assert_eq!(failure(Dialect::OpenAi, String::new()).code, "upstream_error");
}

#[test]
fn a_missing_done_after_a_reason_is_an_end_all_the_same() {
    let (stream, _) = OPENAI.split_once("data: [DONE]").unwrap();
    completed(&read(Dialect::OpenAi, [stream.as_bytes()]));
}

#[test]
fn calls_that_share_an_index_are_told_apart_by_their_ids() {
    let chunk = |id: &str| {
        format!(
            "data: {{\"choices\":[{{\"delta\":{{\"tool_calls\":[{{\"index\":0,\"id\":\"{id}\",\"function\":{{\"name\":\"t\",\"arguments\":\"{{}}\"}}}}]}},\"finish_reason\":\"stop\"}}]}}\n\n"
        )
    };
    let stream = chunk("a") + &chunk("b");
    let draft = completed(&read(Dialect::OpenAi, [stream.as_bytes()]));
    assert_eq!(draft.calls.len(), 2);
    assert_eq!(reply(draft)["finish_reason"], "tool_use");
}

#[test]
fn a_line_of_ten_megabytes_is_read_and_one_of_twenty_is_an_error() {
    let stream = |size: usize| {
        let text = "x".repeat(size);
        format!(
            "data: {{\"choices\":[{{\"delta\":{{\"content\":\"{text}\"}},\"finish_reason\":\"stop\"}}]}}\n\ndata: [DONE]\n\n"
        )
    };
    let chunks =
        |text: &str| text.as_bytes().chunks(1 << 16).map(<[u8]>::to_vec).collect::<Vec<_>>();
    let ten = chunks(&stream(10 << 20));
    let draft = completed(&read(Dialect::OpenAi, ten.iter().map(Vec::as_slice)));
    assert_eq!(draft.text.len(), 10 << 20);
    let twenty = chunks(&stream(20 << 20));
    failed(&read(Dialect::OpenAi, twenty.iter().map(Vec::as_slice)));
}

/// Cuts `bytes` at the given places.
fn pieces<'a>(bytes: &'a [u8], cuts: &[usize]) -> Vec<&'a [u8]> {
    let mut at: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
    at.extend([0, bytes.len()]);
    at.sort_unstable();
    at.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect()
}

fn transcript() -> impl Strategy<Value = (Dialect, &'static str)> {
    prop_oneof![Just((Dialect::Anthropic, ANTHROPIC)), Just((Dialect::OpenAi, OPENAI))]
}

proptest! {
    #[test]
    fn any_chunking_gives_the_same_events((dialect, stream) in transcript(), cuts in prop::collection::vec(any::<usize>(), 0..40)) {
        prop_assert_eq!(read(dialect, pieces(stream.as_bytes(), &cuts)), read(dialect, [stream.as_bytes()]));
    }

    #[test]
    fn a_stream_cut_anywhere_ends_exactly_once((dialect, stream) in transcript(), at in any::<usize>()) {
        let cut = &stream.as_bytes()[..at % stream.len()];
        end(&read(dialect, [cut]));
    }

    #[test]
    fn nothing_makes_it_panic((dialect, stream) in transcript(), at in any::<usize>(), noise in prop::collection::vec(any::<u8>(), 0..40), cuts in prop::collection::vec(any::<usize>(), 0..6)) {
        let mut bytes = stream.as_bytes().to_vec();
        let at = at % bytes.len();
        let to = (at + noise.len()).min(bytes.len());
        bytes.splice(at..to, noise);
        end(&read(dialect, pieces(&bytes, &cuts)));
        let _ = from_anthropic::whole(&bytes);
        let _ = from_openai::whole(&bytes);
    }

    #[test]
    fn no_json_makes_it_panic(fields in prop::collection::vec("[a-z_]{0,12}|index|delta|choices|type|content", 0..6), value in "[0-9]{1,3}|null|\\[\\]|\\{\\}|\"[a-z]*\"") {
        let members: Vec<_> = fields.iter().map(|name| format!("\"{name}\":{value}")).collect();
        let line = format!("data: {{{}}}\n\n", members.join(","));
        for dialect in [Dialect::Anthropic, Dialect::OpenAi] {
            end(&read(dialect, [line.as_bytes()]));
        }
    }
}
