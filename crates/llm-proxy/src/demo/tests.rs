//! The demo, read by our own decoders.

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http_body_util::BodyExt;
use serde_json::{Value, json};

use super::{MODEL, answer, ask::words, example::example, model};
use crate::{
    dialect::{Dialect, Operation},
    observe::Observer,
};

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap()
}

/// Status and body.
fn sent(operation: Operation, body: &Value) -> (u16, Bytes) {
    let response = answer(operation, &body.to_string().into()).unwrap();
    assert_eq!(response.headers()["x-loom-demo"], "true");
    let status = response.status().as_u16();
    let body = runtime().block_on(response.into_body().collect()).unwrap();
    (status, body.to_bytes())
}

fn json(operation: Operation, body: &Value) -> Value {
    let (status, body) = sent(operation, body);
    assert_eq!(status, 200);
    serde_json::from_slice(&body).unwrap()
}

fn ask(operation: Operation, stream: bool, tools: bool) -> Value {
    let mut body = json!({"model": MODEL, "stream": stream, "max_tokens": 100});
    let said = json!([{"role": "user", "content": "Hello, grüß dich"}]);
    body[if operation == Operation::Responses { "input" } else { "messages" }] = said;
    let schema = json!({"type": "object", "required": ["city", "days", "unit"], "properties": {
        "city": {"type": "string"}, "days": {"type": "integer", "minimum": 3}, "unit": {"enum": ["C", "F"]}, "more": {"type": "string"}}});
    if tools {
        body["tools"] = match operation {
            Operation::Messages | Operation::CountTokens => {
                json!([{"type": "web_search_20250305", "name": "web_search"}, {"name": "weather", "input_schema": schema}])
            }
            Operation::Responses => {
                json!([{"type": "function", "name": "weather", "parameters": schema}])
            }
            _ => {
                json!([{"type": "function", "function": {"name": "weather", "parameters": schema}}])
            }
        };
    }
    if operation == Operation::Chat && stream {
        body["stream_options"] = json!({"include_usage": true});
    }
    body
}

fn arguments() -> Value {
    json!({"city": "demo", "days": 3, "unit": "C"})
}

#[test]
fn each_wire_says_the_same() {
    let texts = [
        json(Operation::Messages, &ask(Operation::Messages, false, false))["content"][0]["text"].clone(),
        json(Operation::Chat, &ask(Operation::Chat, false, false))["choices"][0]["message"]["content"].clone(),
        json(Operation::Responses, &ask(Operation::Responses, false, false))["output"][0]["content"][0]["text"].clone(),
    ];
    for text in &texts {
        let text = text.as_str().unwrap();
        for part in ["demo", "Hello, grüß dich", "LOOM_SERVER_ANTHROPIC_API_KEY"] {
            assert!(text.contains(part), "{text}");
        }
        assert_eq!(words(text).concat(), text);
    }
    assert!(texts.iter().all(|text| *text == texts[0]));
}

#[test]
fn a_tool_is_called_with_what_its_schema_asks_for() {
    let reply = json(Operation::Messages, &ask(Operation::Messages, false, true));
    assert_eq!(reply["content"][0]["input"], arguments());
    assert_eq!(
        (&reply["content"][0]["name"], &reply["stop_reason"]),
        (&json!("weather"), &json!("tool_use"))
    );
    let parsed = |text: &Value| serde_json::from_str::<Value>(text.as_str().unwrap()).unwrap();
    let reply = json(Operation::Chat, &ask(Operation::Chat, false, true));
    let call = &reply["choices"][0]["message"]["tool_calls"][0];
    assert_eq!(parsed(&call["function"]["arguments"]), arguments());
    let reply = json(Operation::Responses, &ask(Operation::Responses, false, true));
    assert_eq!(parsed(&reply["output"][0]["arguments"]), arguments());

    let mut body = ask(Operation::Chat, false, true);
    body["tool_choice"] = json!("none");
    assert_eq!(json(Operation::Chat, &body)["choices"][0]["finish_reason"], "stop");
}

#[test]
fn after_a_tools_result_it_speaks_of_it() {
    let mut body = ask(Operation::Messages, false, true);
    body["messages"].as_array_mut().unwrap().extend([
        json!({"role": "assistant", "content": [{"type": "tool_use", "id": "1", "name": "weather", "input": {}}]}),
        json!({"role": "user", "content": [{"type": "tool_result", "tool_use_id": "1", "content": "sunny"}]}),
    ]);
    assert!(
        json(Operation::Messages, &body)["content"][0]["text"].as_str().unwrap().contains("sunny")
    );
    let mut body = ask(Operation::Chat, false, true);
    body["messages"]
        .as_array_mut()
        .unwrap()
        .push(json!({"role": "tool", "tool_call_id": "1", "content": "sunny"}));
    assert!(json(Operation::Chat, &body).to_string().contains("sunny"));
    let mut body = ask(Operation::Responses, false, true);
    body["input"]
        .as_array_mut()
        .unwrap()
        .push(json!({"type": "function_call_output", "call_id": "1", "output": "sunny"}));
    assert!(json(Operation::Responses, &body).to_string().contains("sunny"));
}

/// What the account learns from a stream is what the whole reply says.
#[test]
fn streams_are_complete_and_counted() {
    for operation in [Operation::Messages, Operation::Chat, Operation::Responses] {
        for tools in [false, true] {
            let (status, stream) = sent(operation, &ask(operation, true, tools));
            assert_eq!(status, 200);
            let mut observer = Observer::stream(operation);
            observer.feed(&stream);
            let streamed = observer.seen;
            assert!(streamed.complete && streamed.first_content.is_some());
            let (_, whole) = sent(operation, &ask(operation, true, tools));
            assert_eq!(stream, whole, "the same to the same");
            assert_eq!(streamed.model.as_deref(), Some(MODEL));
            assert!(streamed.usage.input > Some(0) && streamed.usage.output > Some(1));
        }
    }
}

#[test]
fn our_own_decoders_read_it() {
    use crate::translate::{
        reply::{Block, Reply},
        stream::{Decoder, whole},
    };
    for operation in [Operation::Messages, Operation::Chat, Operation::Responses] {
        for tools in [true, false] {
            let (_, stream) = sent(operation, &ask(operation, true, tools));
            let mut streamed = Reply::default();
            for event in Decoder::new(operation).feed(&stream) {
                streamed.take(&event);
            }
            let (_, body) = sent(operation, &ask(operation, false, tools));
            let all = whole(operation, &body).unwrap();
            assert_eq!(streamed.finish(), all.finish());
            assert!(!all.blocks.is_empty());
            // Ids are made of the whole request.
            let texts = |reply: &Reply| -> Vec<String> {
                reply.blocks.iter().map(|block| block.text().to_owned()).collect()
            };
            assert_eq!(texts(&streamed), texts(&all));
            let calls = all.blocks.iter().any(|block| matches!(block, Block::Call { .. }));
            assert_eq!(calls, tools);
        }
    }
}

#[test]
fn chat_streams_have_usage_only_for_those_who_ask() {
    let mut body = ask(Operation::Chat, true, false);
    body.as_object_mut().unwrap().remove("stream_options");
    let (_, stream) = sent(Operation::Chat, &body);
    let text = String::from_utf8(stream.to_vec()).unwrap();
    assert!(!text.contains("usage") && text.ends_with("data: [DONE]\n\n"));
}

#[test]
fn responses_events_are_numbered_without_a_gap() {
    let (_, stream) = sent(Operation::Responses, &ask(Operation::Responses, true, true));
    let text = String::from_utf8(stream.to_vec()).unwrap();
    let numbers = text.lines().filter_map(|line| line.strip_prefix("data: ")).map(|data| {
        serde_json::from_str::<Value>(data).unwrap()["sequence_number"].as_u64().unwrap()
    });
    assert!(numbers.enumerate().all(|(at, number)| at as u64 == number));
}

#[test]
fn embeddings_are_unit_vectors_that_the_text_decides() {
    let of = |input: Value, more: Value| {
        let mut body = json!({"model": MODEL, "input": input});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json(Operation::Embeddings, &body)
    };
    let plain = of(json!(["a", "b", "a"]), json!({}));
    let vectors: Vec<Vec<f64>> = (0..3)
        .map(|at| serde_json::from_value(plain["data"][at]["embedding"].clone()).unwrap())
        .collect();
    assert_eq!(vectors[0].len(), 256);
    assert!(vectors[0] == vectors[2] && vectors[0] != vectors[1]);
    assert!((vectors[0].iter().map(|v| v * v).sum::<f64>() - 1.0).abs() < 1e-5);
    let coded = of(json!("a"), json!({"encoding_format": "base64"}));
    let bytes = BASE64_STANDARD.decode(coded["data"][0]["embedding"].as_str().unwrap()).unwrap();
    assert_eq!(bytes.len(), 256 * 4);
    let first = f32::from_le_bytes(bytes[..4].try_into().unwrap());
    assert!((f64::from(first) - vectors[0][0]).abs() < 1e-6);
    assert_eq!(
        of(json!([1, 2]), json!({"dimensions": 8}))["data"][0]["embedding"]
            .as_array()
            .unwrap()
            .len(),
        8
    );
}

#[test]
fn a_bad_request_is_refused_in_the_wires_own_shape() {
    for operation in [
        Operation::Messages,
        Operation::CountTokens,
        Operation::Chat,
        Operation::Responses,
        Operation::Embeddings,
    ] {
        for body in [
            json!({"model": MODEL}),
            json!({"model": MODEL, "messages": [], "input": []}),
            json!({"model": MODEL, "messages": [1], "input": 1}),
        ] {
            let (status, body) = sent(operation, &body);
            assert_eq!(status, 400, "{operation:?}");
            let body: Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(body["error"]["type"], "invalid_request_error");
        }
        let (status, _) =
            sent(operation, &json!({"model": "gpt-4o", "messages": [], "input": "x"}));
        assert_eq!(status, 404);
    }
}

#[test]
fn a_schema_that_refers_to_itself_has_an_end() {
    let names: Vec<String> = (0..20).map(|n| format!("p{n}")).collect();
    let properties: serde_json::Map<_, _> =
        names.iter().map(|name| (name.clone(), json!({"$ref": "#"}))).collect();
    example(&json!({"type": "object", "required": names, "properties": properties}));
    let odd = json!({"type": ["null", "array"], "minItems": 2, "items": {"type": "number", "maximum": 0.5}});
    assert_eq!(example(&odd), json!([0.0, 0.0]));
}

#[test]
fn tokens_are_counted_and_the_model_is_marked() {
    let count = json(Operation::CountTokens, &ask(Operation::CountTokens, false, false));
    assert!(count["input_tokens"].as_u64().unwrap() > 0);
    for dialect in [Dialect::Anthropic, Dialect::OpenAi] {
        assert_eq!((&model(dialect)["demo"], &model(dialect)["id"]), (&json!(true), &json!(MODEL)));
    }
}
