//! Replies that go out on a wire and come in again.

use proptest::prelude::*;

use bytes::BytesMut;

use super::{ALL, encoder, facts};
use crate::{
    dialect::Operation,
    translate::{
        anthropic, chat,
        reply::{Block, Finish, Reply},
        request::{Seal, Thought},
        responses,
        stream::{Decoder, whole},
    },
    usage::Usage,
};

fn text() -> impl Strategy<Value = String> {
    "[a-z äß🦀\"\\\\\n]{1,20}"
}

fn call() -> impl Strategy<Value = Block> {
    ("[a-z0-9_]{1,8}", "[a-z]{1,8}", "[a-zß 👋]{0,9}").prop_map(|(id, name, city)| Block::Call {
        id,
        name,
        arguments: serde_json::json!({"city": city}).to_string(),
    })
}

fn thought() -> impl Strategy<Value = Block> {
    (text(), "[A-Za-z0-9+/]{4,12}=").prop_map(|(text, signature)| {
        let seal = Some(Seal::Signature(signature.into()));
        Block::Thinking(Thought { text: text.into(), seal })
    })
}

fn redacted() -> impl Strategy<Value = Block> {
    "[A-Za-z0-9+/]{4,12}=".prop_map(|data| {
        Block::Thinking(Thought { text: "".into(), seal: Some(Seal::Redacted(data.into())) })
    })
}

/// What all wires can say, and chat too: thinking, then a text, then calls with ids of their own.
fn reply() -> impl Strategy<Value = Reply> {
    let thoughts = prop::collection::vec(prop_oneof![thought(), redacted()], 0..3);
    let calls = prop::collection::vec(call(), 0..3);
    (thoughts, prop::option::of(text()), calls, any::<bool>()).prop_map(
        |(mut blocks, text, calls, cut)| {
            blocks.extend(text.map(|text| Block::Text(text, Vec::new())));
            let calls = calls.into_iter().enumerate().map(|(at, mut call)| {
                if let Block::Call { id, .. } = &mut call {
                    id.push_str(&at.to_string());
                }
                call
            });
            blocks.extend(calls);
            let called = blocks.iter().any(|block| matches!(block, Block::Call { .. }));
            let end = if called { Finish::ToolUse } else { Finish::EndTurn };
            Reply {
                id: Some("1".to_owned()),
                model: Some("m".to_owned()),
                blocks,
                finish: Some(if cut { Finish::MaxTokens } else { end }),
                stop_sequence: None,
                counted: None,
            }
        },
    )
}

fn body(wire: Operation, reply: &Reply) -> String {
    let usage = Usage::default();
    let facts = facts(&usage);
    let value = match wire {
        Operation::Messages => anthropic::reply_out::whole(reply, &facts),
        Operation::Chat => chat::reply_out::whole(reply, &facts),
        _ => responses::reply_out::whole(reply, &Vec::new(), &facts),
    };
    value.to_string()
}

/// On chat the ids have a kind before them, and thinking is read without its seal: it is ours to tell
/// there, and nobody's to send.
fn as_read(wire: Operation, mut reply: Reply) -> Reply {
    let kind = match wire {
        Operation::Messages => "msg_",
        Operation::Chat => "chatcmpl-",
        _ => "resp_",
    };
    reply.id = reply.id.map(|id| format!("{kind}{id}"));
    if wire == Operation::Chat {
        let mut blocks: Vec<Block> = Vec::new();
        let mut thought = String::new();
        for block in std::mem::take(&mut reply.blocks) {
            match block {
                Block::Thinking(of) => thought.push_str(&of.text),
                other => blocks.push(other),
            }
        }
        if !thought.is_empty() {
            blocks.insert(0, Block::Thinking(Thought { text: thought.into(), seal: None }));
        }
        reply.blocks = blocks;
    }
    reply
}

fn streamed(wire: Operation, reply: Reply) -> Reply {
    let usage = Usage::default();
    let mut encoder = encoder(wire);
    let mut out = BytesMut::new();
    for event in reply.events() {
        encoder.event(event, &facts(&usage), &mut out);
    }
    let mut read = Reply::default();
    for event in Decoder::new(wire).feed(&out) {
        read.take(&event);
    }
    read
}

proptest! {
    #[test]
    fn a_reply_comes_back_from_every_wire_as_it_went_out(reply in reply()) {
        for wire in ALL {
            let expected = as_read(wire, reply.clone());
            let read = whole(wire, body(wire, &reply).as_bytes()).unwrap();
            prop_assert_eq!(&read, &expected, "{:?} whole", wire);
            prop_assert_eq!(&streamed(wire, reply.clone()), &expected, "{:?} streamed", wire);
        }
    }
}

#[test]
fn every_end_has_its_word_on_every_wire() {
    let cases = [
        (Finish::EndTurn, "end_turn", "stop", "completed"),
        (Finish::ToolUse, "tool_use", "tool_calls", "completed"),
        (Finish::Stop, "stop_sequence", "stop", "completed"),
        (Finish::MaxTokens, "max_tokens", "length", "incomplete"),
        (Finish::Refused, "refusal", "content_filter", "incomplete"),
        (Finish::Paused, "pause_turn", "length", "incomplete"),
        (Finish::ContextFull, "model_context_window_exceeded", "length", "incomplete"),
    ];
    for (finish, anthropic, chat, responses) in cases {
        let reply = Reply { finish: Some(finish), ..Reply::default() };
        let of = |wire, pointer: &str| {
            let value: serde_json::Value = serde_json::from_str(&body(wire, &reply)).unwrap();
            value.pointer(pointer).unwrap().as_str().unwrap().to_owned()
        };
        assert_eq!(of(Operation::Messages, "/stop_reason"), anthropic);
        assert_eq!(of(Operation::Chat, "/choices/0/finish_reason"), chat);
        assert_eq!(of(Operation::Responses, "/status"), responses);
    }
}

#[test]
fn a_seal_of_openais_comes_back_by_way_of_anthropics_wire() {
    let seal = Seal::Encrypted { id: "rs_1".into(), content: "a.b=".into() };
    let thought = Block::Thinking(Thought { text: "Hm.".into(), seal: Some(seal) });
    let reply = Reply { blocks: vec![thought], ..Reply::default() };
    let read = whole(Operation::Messages, body(Operation::Messages, &reply).as_bytes()).unwrap();
    assert_eq!(read.blocks, reply.blocks);
    assert_eq!(streamed(Operation::Messages, reply.clone()).blocks, reply.blocks);
}

#[test]
fn where_a_whole_reply_has_its_text_from_is_told_on_openais_wires() {
    let claude = serde_json::json!({"id": "msg_1", "content": [
        {"type": "text", "text": "Łódź: "},
        {"type": "text", "text": "650,000", "citations": [
            {"type": "web_search_result_location", "url": "https://e.com", "title": null,
             "cited_text": "x", "encrypted_index": "y"},
            {"type": "char_location", "document_index": 0, "cited_text": "x"}]}]});
    let reply = whole(Operation::Messages, claude.to_string().as_bytes()).unwrap();
    let told = |wire, pointer: &str| {
        let value: serde_json::Value = serde_json::from_str(&body(wire, &reply)).unwrap();
        value.pointer(pointer).unwrap().clone()
    };
    assert_eq!(
        told(Operation::Chat, "/choices/0/message/annotations"),
        serde_json::json!([{"type": "url_citation", "url_citation":
            {"start_index": 6, "end_index": 13, "url": "https://e.com", "title": ""}}])
    );
    assert_eq!(
        told(Operation::Responses, "/output/0/content/1/annotations"),
        serde_json::json!([{"type": "url_citation", "start_index": 0, "end_index": 7,
            "url": "https://e.com", "title": ""}])
    );
    let mut again = Reply::default();
    for event in reply.clone().events() {
        again.take(&event);
    }
    assert_eq!(again, reply);

    let gemini = serde_json::json!({"candidates": [{"finishReason": "STOP",
        "content": {"parts": [{"text": "650,000"}]},
        "groundingMetadata": {"groundingChunks": [{"web": {"uri": "https://e.com"}}, {}]}}]});
    let reply = whole(Operation::GenerateContent, gemini.to_string().as_bytes()).unwrap();
    let value: serde_json::Value = serde_json::from_str(&body(Operation::Chat, &reply)).unwrap();
    assert_eq!(value["choices"][0]["message"]["annotations"][0]["url_citation"]["end_index"], 7);
}
