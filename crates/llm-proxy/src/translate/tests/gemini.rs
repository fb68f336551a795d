//! What only Gemini's wire wants of a request, and what becomes of its signatures on each surface.

use bytes::BytesMut;
use serde_json::{Value, json};

use super::{ALL, encoder, facts, requests::through};
use crate::{
    dialect::Operation::{self, Chat, GenerateContent, Messages, Responses},
    translate::{
        anthropic, chat,
        reply::{Block, Reply},
        request::{Seal, Thought},
        responses, stream,
    },
    usage::Usage,
};

fn thinking(model: &str, asked: Value) -> Value {
    let mut body =
        json!({"model": model, "max_tokens": 9000, "messages": [{"role": "user", "content": "x"}]});
    if let (Some(body), Value::Object(asked)) = (body.as_object_mut(), asked) {
        body.extend(asked);
    }
    let sent = through(Messages, GenerateContent, &body).unwrap();
    sent["generationConfig"]["thinkingConfig"].clone()
}

#[test]
fn thinking_is_a_budget_before_gemini_3_and_a_level_from_then_on() {
    let adaptive = json!({"thinking": {"type": "adaptive"}});
    let off = json!({"thinking": {"type": "disabled"}});
    let effort = |effort: &str| json!({"output_config": {"effort": effort}});
    let budget = |tokens: i32| json!({"includeThoughts": true, "thinkingBudget": tokens});
    let level = |level: &str| json!({"includeThoughts": true, "thinkingLevel": level});
    let (pro, flash, older) = ("gemini-3.1-pro", "gemini-3-flash-preview", "gemini-2.5-flash");
    assert_eq!(thinking(older, adaptive.clone()), budget(-1));
    assert_eq!(thinking(older, effort("low")), budget(1024));
    assert_eq!(thinking(older, effort("medium")), budget(8192));
    assert_eq!(thinking(older, effort("max")), budget(24_576));
    assert_eq!(thinking(older, off.clone()), json!({"thinkingBudget": 0}));
    assert_eq!(thinking(pro, adaptive), json!({"includeThoughts": true}));
    assert_eq!(thinking(pro, effort("low")), level("low"));
    assert_eq!(thinking(pro, effort("xhigh")), level("high"));
    assert_eq!(thinking(pro, off.clone()), json!({"thinkingLevel": "low"}));
    assert_eq!(thinking(flash, off), json!({"thinkingLevel": "minimal"}));
    assert_eq!(thinking(flash, json!({})), Value::Null);
    let given = json!({"thinking": {"type": "enabled", "budget_tokens": 2000}});
    assert_eq!(thinking(pro, given), budget(2000));
}

#[test]
fn tools_are_chosen_in_geminis_words() {
    let config = |choice: Value, strict: bool| {
        let body = json!({"model": "gemini-2.5-pro", "messages": [{"role": "user", "content": "x"}],
            "tools": [{"type": "function", "function": {"name": "f", "strict": strict}}],
            "tool_choice": choice});
        let sent = through(Chat, GenerateContent, &body).unwrap();
        assert!(sent["tools"][0]["functionDeclarations"][0].get("parametersJsonSchema").is_none());
        sent["toolConfig"]["functionCallingConfig"].clone()
    };
    assert_eq!(config(Value::Null, false), Value::Null);
    assert_eq!(config(json!("auto"), false), json!({"mode": "AUTO"}));
    assert_eq!(config(json!("auto"), true), json!({"mode": "VALIDATED"}));
    assert_eq!(config(json!("none"), true), json!({"mode": "NONE"}));
    assert_eq!(config(json!("required"), false), json!({"mode": "ANY"}));
    let named = json!({"type": "function", "function": {"name": "f"}});
    assert_eq!(config(named, false), json!({"mode": "ANY", "allowedFunctionNames": ["f"]}));
}

#[test]
fn a_search_of_the_web_is_googles() {
    let body = json!({"model": "gemini-2.5-pro", "input": "x", "tools": [{"type": "web_search"}]});
    let sent = through(Responses, GenerateContent, &body).unwrap();
    assert_eq!(sent["tools"], json!([{"googleSearch": {}}]));
}

#[test]
fn files_are_told_with_their_kind_and_texts_as_texts() {
    let parts = |content: Value| {
        let body = json!({"model": "gemini-2.5-pro", "max_tokens": 9,
            "messages": [{"role": "user", "content": [content]}]});
        through(Messages, GenerateContent, &body).map(|sent| sent["contents"][0]["parts"].clone())
    };
    let url = |url: &str| json!({"type": "image", "source": {"type": "url", "url": url}});
    assert_eq!(
        parts(url("https://example.com/a.b/c.JPG?x=1#y")).unwrap(),
        json!([{"fileData": {"mimeType": "image/jpeg", "fileUri": "https://example.com/a.b/c.JPG?x=1#y"}}])
    );
    for unknown in ["https://example.com/a.b/c", "https://example.com", "https://example.com/c.svg"]
    {
        let error = parts(url(unknown)).unwrap_err();
        assert_eq!(error.problem("").errors[0].path, "messages[0].content[0]", "{unknown}");
    }
    let text = json!({"type": "document", "title": "T", "source": {"type": "text", "data": "x"}});
    assert_eq!(parts(text).unwrap(), json!([{"text": "T\n\nx"}]));
    let pdf = json!({"type": "document", "title": "T", "context": "C",
        "source": {"type": "base64", "media_type": "application/pdf", "data": "AA=="}});
    assert_eq!(
        parts(pdf).unwrap(),
        json!([{"text": "T"}, {"text": "C"}, {"inlineData": {"mimeType": "application/pdf", "data": "AA=="}}])
    );
}

/// A turn of Gemini's, as a client of a surface sends it back.
fn sent_back(surface: Operation, reply: &Reply) -> Value {
    let usage = Usage::default();
    let user = json!({"role": "user", "content": "x"});
    match surface {
        Messages => {
            let whole = anthropic::reply_out::whole(reply, &facts(&usage));
            let turn = json!({"role": "assistant", "content": whole["content"]});
            let results: Vec<_> = whole["content"].as_array().unwrap().iter().filter(|b| b["type"] == "tool_use")
                .map(|call| json!({"type": "tool_result", "tool_use_id": call["id"], "content": "r"})).collect();
            json!({"model": "gemini-3-pro", "max_tokens": 9, "messages": [user, turn, {"role": "user", "content": results}]})
        }
        Chat => {
            let whole = chat::reply_out::whole(reply, &facts(&usage));
            let turn = &whole["choices"][0]["message"];
            let results =
                turn["tool_calls"].as_array().unwrap().iter().map(
                    |call| json!({"role": "tool", "tool_call_id": call["id"], "content": "r"}),
                );
            let messages: Vec<_> = [user, turn.clone()].into_iter().chain(results).collect();
            json!({"model": "gemini-3-pro", "messages": messages})
        }
        _ => {
            let whole = responses::reply_out::whole(reply, &Vec::new(), &facts(&usage));
            let output = whole["output"].as_array().unwrap();
            let results = output.iter().filter(|item| item["type"] == "function_call")
                .map(|call| json!({"type": "function_call_output", "call_id": call["call_id"], "output": "r"}));
            let input: Vec<_> =
                [user].into_iter().chain(output.iter().cloned()).chain(results).collect();
            json!({"model": "gemini-3-pro", "input": input})
        }
    }
}

#[test]
fn signatures_go_through_every_surface_and_come_back_on_their_parts() {
    let told = json!({"responseId": "r-1", "candidates": [{"finishReason": "STOP", "content": {"parts": [
        {"text": "Hm.", "thought": true},
        {"text": "So:", "thoughtSignature": "sig-text"},
        {"functionCall": {"name": "f", "args": {"a": 1}}, "thoughtSignature": "sig-call"},
        {"functionCall": {"name": "g"}},
    ]}}]});
    let reply = stream::whole(GenerateContent, told.to_string().as_bytes()).unwrap();
    for surface in ALL {
        let sent = through(surface, GenerateContent, &sent_back(surface, &reply)).unwrap();
        let parts = sent["contents"][1]["parts"].as_array().unwrap();
        let of = |is: &dyn Fn(&Value) -> bool| parts.iter().find(|part| is(part)).unwrap().clone();
        let f = of(&|part| part["functionCall"]["name"] == "f");
        assert_eq!(f["thoughtSignature"], "sig-call", "{surface:?}");
        assert_eq!(f["functionCall"]["args"], json!({"a": 1}));
        let g = of(&|part| part["functionCall"]["name"] == "g");
        assert!(g.get("thoughtSignature").is_none(), "{surface:?}");
        assert!(
            parts.iter().any(|part| part["thoughtSignature"] == "sig-text"),
            "{surface:?}: {parts:?}"
        );
        let back = sent["contents"][2]["parts"].as_array().unwrap();
        let names: Vec<_> = back.iter().map(|part| &part["functionResponse"]["name"]).collect();
        assert_eq!(names, ["f", "g"], "{surface:?}");
    }
}

#[test]
fn a_call_that_another_model_made_is_marked_as_such_for_gemini_3_alone() {
    let call = |id: &str| json!({"type": "tool_use", "id": id, "name": "f", "input": {}});
    let result = |id: &str| json!({"type": "tool_result", "tool_use_id": id, "is_error": true, "content": "no"});
    let body = |model: &str| {
        json!({"model": model, "max_tokens": 9, "messages": [
            {"role": "user", "content": "x"},
            {"role": "assistant", "content": [
                {"type": "thinking", "thinking": "Hm.", "signature": "of-anthropic"}, call("a"), call("b")]},
            {"role": "user", "content": [{"type": "text", "text": "Both failed."}, result("a"), result("b")]},
        ]})
    };
    let sent = through(Messages, GenerateContent, &body("gemini-3-pro")).unwrap();
    let parts = &sent["contents"][1]["parts"];
    assert_eq!(parts.as_array().unwrap().len(), 2, "{parts}");
    assert_eq!(parts[0]["thoughtSignature"], "skip_thought_signature_validator");
    assert!(parts[1].get("thoughtSignature").is_none());
    let results = &sent["contents"][2]["parts"];
    assert_eq!(results[0]["functionResponse"]["response"], json!({"error": "no"}));
    assert_eq!(results[2]["text"], "Both failed.");
    let sent = through(Messages, GenerateContent, &body("gemini-2.5-pro")).unwrap();
    assert!(sent["contents"][1]["parts"][0].get("thoughtSignature").is_none());
}

#[test]
fn another_provider_does_not_get_googles_signatures() {
    let seal = Seal::Google { call: None, signature: "s".into() };
    let blocks = vec![
        Block::Thinking(Thought { text: "Hm.".into(), seal: Some(seal) }),
        Block::Call { id: "t".to_owned(), name: "f".to_owned(), arguments: String::new() },
    ];
    let reply = Reply { blocks, ..Reply::default() };
    for surface in ALL {
        for to in ALL.into_iter().filter(|to| *to != surface) {
            let mut body = sent_back(surface, &reply);
            body["model"] = json!("m");
            let sent = through(surface, to, &body).unwrap().to_string();
            assert!(!sent.contains("google."), "{surface:?} to {to:?}: {sent}");
        }
    }
}

#[test]
fn of_several_calls_a_client_that_takes_one_gets_the_first() {
    let chunk = |name: &str, more: Value| {
        let mut candidate = json!({"content": {"parts": [{"functionCall": {"name": name}}]}});
        candidate.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        format!("data: {}\n\n", json!({"candidates": [candidate], "responseId": "r"}))
    };
    let stream = chunk("first", json!({})) + &chunk("second", json!({"finishReason": "STOP"}));
    let mut decoder = stream::Decoder::of_one_call();
    let (mut encoder, mut out) = (encoder(Chat), BytesMut::new());
    let usage = Usage::default();
    let mut events = decoder.feed(stream.as_bytes());
    events.extend(decoder.finish());
    for event in events {
        encoder.event(event, &facts(&usage), &mut out);
    }
    let told = String::from_utf8(out.to_vec()).unwrap();
    assert!(told.contains("first") && !told.contains("second"), "{told}");
    assert!(told.contains(r#""finish_reason":"tool_calls""#), "{told}");
}
