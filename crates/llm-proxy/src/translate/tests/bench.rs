//! What a translation costs: `cargo test --release -p loom-llm-proxy -- --ignored --nocapture cost_of`.

use std::{hint::black_box, time::Instant};

use serde_json::json;

use super::{ALL, PROVIDERS, encoder, facts, requests::through};
use crate::{
    dialect::Operation,
    translate::{
        reply::{Block, Reply},
        stream::Decoder,
    },
    usage::Usage,
};

const DELTAS: usize = 10_000;

/// A long text as the wire streams it: one piece for each event.
fn stream(wire: Operation) -> Vec<Vec<u8>> {
    if wire == Operation::GenerateContent {
        let piece = r#"data: {"candidates":[{"content":{"role":"model","parts":[{"text":"x"}]}}],"usageMetadata":{"promptTokenCount":10,"candidatesTokenCount":1,"totalTokenCount":11,"trafficType":"ON_DEMAND"},"modelVersion":"gemini-3-pro-preview","createTime":"2026-01-05T10:00:00.123456Z","responseId":"k7Zb_aX-9Q"}"#;
        return vec![format!("{piece}\n\n").into_bytes(); DELTAS];
    }
    let usage = Usage { input: Some(10), output: Some(20), ..Usage::default() };
    let reply = Reply { blocks: vec![Block::Text("x".to_owned(), Vec::new())], ..Reply::default() };
    let mut encoder = encoder(wire);
    let mut pieces = Vec::new();
    for event in reply.events() {
        let times =
            if matches!(event, crate::translate::reply::Event::Delta { .. }) { DELTAS } else { 1 };
        for _ in 0..times {
            let mut out = bytes::BytesMut::new();
            encoder.event(event.clone(), &facts(&usage), &mut out);
            pieces.push(out.to_vec());
        }
    }
    pieces
}

#[test]
#[ignore = "measures, and says what it measured"]
fn cost_of_an_event() {
    let usage = Usage::default();
    for from in PROVIDERS {
        let pieces = stream(from);
        for to in ALL.into_iter().filter(|to| *to != from) {
            let mut best = f64::MAX;
            for _ in 0..5 {
                let (mut decoder, mut encoder) = (Decoder::new(from), encoder(to));
                let started = Instant::now();
                for piece in &pieces {
                    let mut out = bytes::BytesMut::new();
                    for event in decoder.feed(piece) {
                        encoder.event(event, &facts(&usage), &mut out);
                    }
                    black_box(out);
                }
                let each = started.elapsed().as_secs_f64() * 1e6 / pieces.len() as f64;
                best = best.min(each);
            }
            println!("{} -> {}: {best:.2} µs an event", from.name(), to.name());
        }
    }
}

#[test]
#[ignore = "measures, and says what it measured"]
fn cost_of_a_request() {
    let text = "A text of some length, with \"quotes\" in it. ".repeat(20);
    let turns: Vec<_> = (0..200)
        .map(|at| json!({"role": if at % 2 == 0 { "user" } else { "assistant" }, "content": text}))
        .collect();
    let image = "A".repeat(1 << 20);
    for (name, body) in [
        ("200 turns, 190 kB", json!({"model": "m", "messages": turns})),
        (
            "an image of 1 MiB",
            json!({"model": "m", "messages": [{"role": "user", "content": [
            {"type": "image_url", "image_url": {"url": format!("data:image/png;base64,{image}")}}]}]}),
        ),
    ] {
        let raw = serde_json::value::to_raw_value(&body).unwrap();
        let mut best = f64::MAX;
        for _ in 0..20 {
            let started = Instant::now();
            let request = super::requests::read(Operation::Chat, &raw).unwrap();
            black_box(crate::translate::anthropic::request_out::body(&request).unwrap());
            best = best.min(started.elapsed().as_secs_f64() * 1e6);
        }
        println!("chat -> messages, {name}: {best:.0} µs");
    }
    through(Operation::Chat, Operation::Messages, &json!({"model": "m", "messages": turns}))
        .unwrap();
}
