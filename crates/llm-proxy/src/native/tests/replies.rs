//! Replies: whole ones, and streams in any pieces.

use loom_core::id::LlmRequestId;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::{
    dialect::Operation,
    native::reply::{arguments, native},
    translate::{
        reply::{Block, Event, Failure, Kind, Reply},
        stream::{Decoder, whole},
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

fn read<'a>(operation: Operation, pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<Event> {
    let mut decoder = Decoder::new(operation);
    let mut events: Vec<Event> = pieces.into_iter().flat_map(|p| decoder.feed(p)).collect();
    events.extend(decoder.finish());
    assert_eq!(decoder.feed(b"data: {}\n\n"), [], "nothing comes after the end");
    assert_eq!(decoder.finish(), []);
    events
}

/// What is said in the blocks of a kind.
fn told(events: &[Event], of: &Kind) -> String {
    let blocks: Vec<usize> = events
        .iter()
        .filter_map(|event| match event {
            Event::Open { block, kind } if kind == of => Some(*block),
            _ => None,
        })
        .collect();
    let texts = events.iter().filter_map(|event| match event {
        Event::Delta { block, text } if blocks.contains(block) => Some(text.as_str()),
        _ => None,
    });
    texts.collect()
}

/// The one event that ends a stream.
fn end(events: &[Event]) -> &Event {
    let ends =
        events.iter().filter(|e| matches!(e, Event::Finished { .. } | Event::Failed(_))).count();
    assert_eq!(ends, 1, "{events:?}");
    events.last().unwrap()
}

fn reply(reply: Reply) -> Value {
    let id = LlmRequestId(uuid::Uuid::nil());
    let usage = Usage { input: Some(3), output: Some(9), ..Usage::default() };
    serde_json::to_value(native(reply, id, "asked", &usage, Some(1_500_000))).unwrap()
}

fn completed(events: &[Event]) -> Reply {
    assert!(matches!(end(events), Event::Finished { .. }), "{events:?}");
    let mut reply = Reply::default();
    for event in events {
        reply.take(event);
    }
    reply
}

fn failed(events: &[Event]) -> &Failure {
    match end(events) {
        Event::Failed(failure) => failure,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_stream_of_anthropics() {
    let events = read(Operation::Messages, [ANTHROPIC.as_bytes()]);
    assert_eq!(told(&events, &Kind::Thinking), "Let me see.");
    assert_eq!(told(&events, &Kind::Text), "grüß dich 👋");
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
    let events = read(Operation::Chat, [OPENAI.as_bytes()]);
    assert_eq!(told(&events, &Kind::Text), "grüß dich 👋");
    let draft = completed(&events);
    for block in &draft.blocks {
        if let Block::Call { id, name, arguments } = block {
            let kind = Kind::Call { id: id.clone(), name: name.clone() };
            assert_eq!(told(&events, &kind), *arguments);
        }
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
    let all = whole(Operation::Messages, body.to_string().as_bytes()).unwrap();
    let streamed = completed(&read(Operation::Messages, [ANTHROPIC.as_bytes()]));
    assert_eq!(reply(all), reply(streamed));

    let body = json!({"model": "gpt-x", "choices": [{"index": 0, "finish_reason": "tool_calls", "message": {
    "role": "assistant", "content": "grüß dich 👋", "reasoning_content": "Let me see.", "tool_calls": [
        {"id": "t1", "type": "function", "function": {"name": "weather", "arguments": "{\"z\": 1, \"a\": 2}"}},
        {"id": "t2", "type": "function", "function": {"name": "time", "arguments": "{}"}},
    ]}}]});
    let all = whole(Operation::Chat, body.to_string().as_bytes()).unwrap();
    let streamed = completed(&read(Operation::Chat, [OPENAI.as_bytes()]));
    assert_eq!(reply(all), reply(streamed));
    assert!(whole(Operation::Chat, b"{\"choices\":[]}").is_err());
    assert!(whole(Operation::Chat, b"<html>").is_err());
    assert!(whole(Operation::Messages, b"[]").is_err());
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
        assert_eq!(
            reply(whole(Operation::Messages, body.as_bytes()).unwrap())["finish_reason"],
            to
        );
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
        assert_eq!(reply(whole(Operation::Chat, body.as_bytes()).unwrap())["finish_reason"], to);
    }
    let refusal = json!({"choices": [{"message": {"refusal": "no"}, "finish_reason": "stop"}]});
    let refusal = reply(whole(Operation::Chat, refusal.to_string().as_bytes()).unwrap());
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
    let failure = |operation, text: String| failed(&read(operation, [text.as_bytes()])).clone();
    assert_eq!(failure(Operation::Messages, format!("{begin}{told}")).code, "unavailable");
    assert_eq!(failure(Operation::Messages, begin.to_owned()).code, "upstream_error");
    let told = "data: {\"error\":{\"message\":\"slow\",\"type\":\"requests\",\"code\":\"rate_limit_exceeded\"}}\n\n";
    assert_eq!(failure(Operation::Chat, told.to_owned()).code, "rate_limited");
    assert!(
        failure(Operation::Chat, "data: {\"error\":\"boom\"}\n\n".to_owned())
            .message
            .contains("boom")
    );
    assert_eq!(failure(Operation::Chat, "data: <html>\n\n".to_owned()).code, "upstream_error");
    assert_eq!(failure(Operation::Chat, String::new()).code, "upstream_error");
}

#[test]
fn a_missing_done_after_a_reason_is_an_end_all_the_same() {
    let (stream, _) = OPENAI.split_once("data: [DONE]").unwrap();
    completed(&read(Operation::Chat, [stream.as_bytes()]));
}

#[test]
fn calls_that_share_an_index_are_told_apart_by_their_ids() {
    let chunk = |id: &str| {
        format!(
            "data: {{\"choices\":[{{\"delta\":{{\"tool_calls\":[{{\"index\":0,\"id\":\"{id}\",\"function\":{{\"name\":\"t\",\"arguments\":\"{{}}\"}}}}]}},\"finish_reason\":\"stop\"}}]}}\n\n"
        )
    };
    let stream = chunk("a") + &chunk("b");
    let draft = completed(&read(Operation::Chat, [stream.as_bytes()]));
    assert_eq!(draft.blocks.len(), 2);
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
    let draft = completed(&read(Operation::Chat, ten.iter().map(Vec::as_slice)));
    assert_eq!(draft.blocks[0].text().len(), 10 << 20);
    let twenty = chunks(&stream(20 << 20));
    failed(&read(Operation::Chat, twenty.iter().map(Vec::as_slice)));
}

/// Cuts `bytes` at the given places.
fn pieces<'a>(bytes: &'a [u8], cuts: &[usize]) -> Vec<&'a [u8]> {
    let mut at: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
    at.extend([0, bytes.len()]);
    at.sort_unstable();
    at.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect()
}

fn transcript() -> impl Strategy<Value = (Operation, &'static str)> {
    prop_oneof![Just((Operation::Messages, ANTHROPIC)), Just((Operation::Chat, OPENAI))]
}

proptest! {
    #[test]
    fn any_chunking_gives_the_same_events((operation, stream) in transcript(), cuts in prop::collection::vec(any::<usize>(), 0..40)) {
        prop_assert_eq!(read(operation, pieces(stream.as_bytes(), &cuts)), read(operation, [stream.as_bytes()]));
    }

    #[test]
    fn a_stream_cut_anywhere_ends_exactly_once((operation, stream) in transcript(), at in any::<usize>()) {
        let cut = &stream.as_bytes()[..at % stream.len()];
        end(&read(operation, [cut]));
    }

    #[test]
    fn nothing_makes_it_panic((operation, stream) in transcript(), at in any::<usize>(), noise in prop::collection::vec(any::<u8>(), 0..40), cuts in prop::collection::vec(any::<usize>(), 0..6)) {
        let mut bytes = stream.as_bytes().to_vec();
        let at = at % bytes.len();
        let to = (at + noise.len()).min(bytes.len());
        bytes.splice(at..to, noise);
        end(&read(operation, pieces(&bytes, &cuts)));
        for operation in [Operation::Messages, Operation::Chat, Operation::Responses] {
            let _ = whole(operation, &bytes);
        }
    }

    #[test]
    fn no_json_makes_it_panic(fields in prop::collection::vec("[a-z_]{0,12}|index|delta|choices|type|content", 0..6), value in "[0-9]{1,3}|null|\\[\\]|\\{\\}|\"[a-z]*\"") {
        let members: Vec<_> = fields.iter().map(|name| format!("\"{name}\":{value}")).collect();
        let line = format!("data: {{{}}}\n\n", members.join(","));
        for operation in [Operation::Messages, Operation::Chat] {
            end(&read(operation, [line.as_bytes()]));
        }
    }
}
