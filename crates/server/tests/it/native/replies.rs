//! What a client gets: text, tool calls, thinking, tokens and their cost.

use loom_testkit::{
    Setup,
    llm::{Reply, THINKING_PIECES, THINKING_SIGNATURE, reply_text},
};
use serde_json::{Value, json};

use super::{
    Anthropic, OpenAi, Wire, accounted, both_ways, complete, hi, weather, with, with_user,
};

#[tokio::test]
async fn a_text_has_the_same_form_from_each_provider() {
    let (app, user) = with_user().await;
    for wire in Wire::ALL {
        for reply in both_ways(&user, wire, &hi(wire.model())).await {
            let expected = json!({
                "id": reply["id"],
                "model": wire.model(),
                "message": {"role": "assistant", "content": reply_text()},
                "tool_calls": [],
                "usage": wire.usage(0, false),
                "cost_usd": if wire == Anthropic { 0.007_725 } else { 0.002_4 },
                "finish_reason": "end_turn",
            });
            assert_eq!(reply, expected);
        }
    }
    for (at, row) in app.llm_requests(4).await.iter().enumerate() {
        let wire = Wire::ALL[at / 2];
        assert_eq!(row["provider"], wire.provider());
        assert_eq!(row["operation"], if wire == Anthropic { "messages" } else { "chat" });
        assert!(row["upstream_request_id"].as_str().unwrap().starts_with("req_mock"));
    }
}

#[tokio::test]
async fn usage_and_cost_are_those_of_the_account() {
    let (app, user) = with_user().await;
    let mut replies = Vec::new();
    for wire in Wire::ALL {
        let tools = json!({"tools": [weather()]});
        let think = json!({"thinking": {"budget_tokens": 2048}});
        for request in [
            hi(wire.model()),
            with(hi(wire.model()), tools),
            with(hi(wire.model()), think),
            hi("model-of-tomorrow"),
        ] {
            replies.extend(both_ways(&user, wire, &request).await);
        }
    }
    let rows = app.llm_requests(replies.len()).await;
    assert_eq!(rows.len(), replies.len());
    for (at, reply) in replies.iter().enumerate() {
        accounted(&rows, reply, at % 2 == 1);
        assert_eq!(reply["cost_usd"].is_null(), reply["model"] == "model-of-tomorrow");
    }
}

#[tokio::test]
async fn a_tool_call_has_its_name_and_arguments_as_an_object() {
    let (_app, user) = with_user().await;
    for wire in Wire::ALL {
        let request = with(hi(wire.model()), json!({"tools": [weather()]}));
        for reply in both_ways(&user, wire, &request).await {
            let calls = reply["tool_calls"].as_array().unwrap();
            assert_eq!(calls.len(), 1);
            assert_eq!(calls[0]["tool_name"], "weather");
            assert_eq!(calls[0]["arguments_json"], json!({"city": "Zürich", "days": 1}));
            assert!(!calls[0]["id"].as_str().unwrap().is_empty());
            assert_eq!(reply["finish_reason"], "tool_use");
            assert_eq!(reply["usage"], wire.usage(1, false));
            let content = if wire == Anthropic { "Let me look." } else { "" };
            assert_eq!(reply["message"], json!({"role": "assistant", "content": content}));
        }
    }
}

#[tokio::test]
async fn parallel_tool_calls_stay_apart() {
    let (_app, user) = with_user().await;
    let mut time = weather();
    time["name"] = json!("time");
    for wire in Wire::ALL {
        let request = json!({
            "model": wire.model(),
            "messages": [{"role": "user", "content": "Two at once, in parallel"}],
            "tools": [weather(), time],
        });
        for reply in both_ways(&user, wire, &request).await {
            let calls = reply["tool_calls"].as_array().unwrap();
            let part = |name: &str| calls.iter().map(|call| call[name].clone()).collect::<Vec<_>>();
            assert_eq!(part("tool_name"), ["weather", "time"]);
            let arguments =
                [json!({"city": "Zürich", "days": 1}), json!({"city": "東京", "days": 2})];
            assert_eq!(part("arguments_json"), arguments);
            assert_ne!(calls[0]["id"], calls[1]["id"]);
            assert_eq!(reply["usage"], wire.usage(2, false));
        }
    }
}

#[tokio::test]
async fn a_tool_without_arguments_is_called_with_an_empty_object() {
    let (_app, user) = with_user().await;
    let tool = json!({"name": "now", "input_schema": {"type": "object"}});
    for wire in Wire::ALL {
        let request = with(hi(wire.model()), json!({"tools": [tool]}));
        for reply in both_ways(&user, wire, &request).await {
            assert_eq!(reply["tool_calls"][0]["arguments_json"], json!({}));
        }
    }
}

#[tokio::test]
async fn a_whole_tool_round_ends_with_an_answer() {
    let (app, user) = with_user().await;
    for wire in Wire::ALL {
        let request = json!({
            "model": wire.model(),
            "system": "Be brief.",
            "messages": [{"role": "user", "content": "The weather in two places, in parallel"}],
            "tools": [weather()],
        });
        let asked = complete(&user, wire, &request).await;
        // The assistant's turn goes back as it came, its calls added.
        let mut turn = asked["message"].clone();
        turn["tool_calls"] = asked["tool_calls"].clone();
        let (first, second) = (&asked["tool_calls"][0]["id"], &asked["tool_calls"][1]["id"]);
        let mut request = request;
        let messages = request["messages"].as_array_mut().unwrap();
        messages.push(turn);
        messages.push(json!({
            "role": "tool", "tool_call_id": first, "tool_name": "weather", "content": "rain",
        }));
        messages.push(json!({
            "role": "tool", "tool_call_id": second, "is_error": true,
            "content": [{"type": "text", "text": "no such"}, {"type": "text", "text": "city"}],
        }));
        app.mock.clear();
        for reply in both_ways(&user, wire, &request).await {
            assert_eq!(reply["message"]["content"], reply_text());
            assert_eq!(reply["finish_reason"], "end_turn");
            assert_eq!(reply["tool_calls"], json!([]));
        }
        let arguments = [json!({"city": "Zürich", "days": 1}), json!({"city": "東京", "days": 2})];
        for sent in app.mock.requests() {
            let sent = sent.json();
            if wire == Anthropic {
                let expected = json!([
                    {"role": "user", "content": [{"type": "text", "text": "The weather in two places, in parallel"}]},
                    {"role": "assistant", "content": [
                        {"type": "text", "text": "Let me look."},
                        {"type": "tool_use", "id": first, "name": "weather", "input": arguments[0]},
                        {"type": "tool_use", "id": second, "name": "weather", "input": arguments[1]},
                    ]},
                    {"role": "user", "content": [
                        {"type": "tool_result", "tool_use_id": first, "content": [{"type": "text", "text": "rain"}]},
                        {"type": "tool_result", "tool_use_id": second, "is_error": true, "content": [
                            {"type": "text", "text": "no such"}, {"type": "text", "text": "city"},
                        ]},
                    ]},
                ]);
                assert_eq!(sent["messages"], expected);
                continue;
            }
            let messages = sent["messages"].as_array().unwrap();
            assert_eq!(messages.len(), 5);
            assert_eq!(messages[2]["role"], "assistant");
            for (at, (id, arguments)) in
                [(first, &arguments[0]), (second, &arguments[1])].into_iter().enumerate()
            {
                let call = &messages[2]["tool_calls"][at];
                assert_eq!(call["id"], *id);
                assert_eq!(call["type"], "function");
                assert_eq!(call["function"]["name"], "weather");
                let told: Value =
                    serde_json::from_str(call["function"]["arguments"].as_str().unwrap()).unwrap();
                assert_eq!(told, *arguments);
            }
            assert_eq!(
                messages[3],
                json!({"role": "tool", "tool_call_id": first, "content": "rain"})
            );
            assert_eq!(messages[4]["tool_call_id"], *second);
            assert_eq!(messages[4]["content"][1]["text"], "city");
        }
    }
}

#[tokio::test]
async fn thinking_comes_with_its_signature_and_goes_back_with_it() {
    let (app, user) = with_user().await;
    let thought = THINKING_PIECES.concat();
    let block = json!({"thinking": thought, "signature": THINKING_SIGNATURE});
    let request = with(
        hi(Anthropic.model()),
        json!({"thinking": {"budget_tokens": 2048}, "tools": [weather()]}),
    );
    for reply in both_ways(&user, Anthropic, &request).await {
        let message = &reply["message"];
        assert_eq!(message["thinking"], thought);
        assert_eq!(message["thinking_blocks"], json!([block]));
        assert_eq!(reply["usage"], Anthropic.usage(1, true));
        let mut turn = message.clone();
        turn["tool_calls"] = reply["tool_calls"].clone();
        let mut next = request.clone();
        let messages = next["messages"].as_array_mut().unwrap();
        messages.push(turn);
        let id = &reply["tool_calls"][0]["id"];
        messages.push(json!({"role": "tool", "tool_call_id": id, "content": "rain"}));
        app.mock.clear();
        complete(&user, Anthropic, &next).await;
        let sent = app.mock.requests()[0].json();
        assert_eq!(sent["thinking"], json!({"type": "enabled", "budget_tokens": 2048}));
        let first = &sent["messages"][1]["content"][0];
        let expected =
            json!({"type": "thinking", "thinking": thought, "signature": THINKING_SIGNATURE});
        assert_eq!(*first, expected);
        // As a part of the content it goes back too; another provider gets none of it.
        let parts = json!([
            {"type": "thinking", "thinking": thought, "signature": THINKING_SIGNATURE},
            {"type": "thinking", "redacted": "b3BhcXVl"},
            {"type": "text", "text": "Well."},
        ]);
        next["messages"] = json!([
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": parts},
            {"role": "user", "content": "And?"},
        ]);
        next["max_tokens"] = json!(4000);
        complete(&user, Anthropic, &next).await;
        let sent = app.mock.requests()[1].json();
        let content = json!([
            expected,
            {"type": "redacted_thinking", "data": "b3BhcXVl"},
            {"type": "text", "text": "Well."},
        ]);
        assert_eq!(sent["messages"][1]["content"], content);
        complete(&user, OpenAi, &next).await;
        let sent = app.mock.requests()[2].json();
        assert!(!sent.to_string().contains(THINKING_SIGNATURE), "{sent}");
        assert!(sent.to_string().contains("Well."), "{sent}");
    }
}

#[tokio::test]
async fn reasoning_of_openais_wire_is_counted_and_shown_where_a_provider_shows_it() {
    let (app, user) = with_user().await;
    let request = with(hi("o4-mini"), json!({"thinking": {"effort": "low"}}));
    for reply in both_ways(&user, OpenAi, &request).await {
        assert_eq!(reply["usage"], OpenAi.usage(0, true));
        assert!(reply["message"].get("thinking").is_none());
    }
    for member in ["reasoning_content", "reasoning"] {
        let message = json!({"role": "assistant", member: "Let me see.", "content": "Yes."});
        let choice = json!({"index": 0, "message": message, "finish_reason": "stop"});
        app.mock.enqueue(Reply::json(200, &json!({"model": "r", "choices": [choice]})));
        let reply = complete(&user, OpenAi, &hi("r")).await;
        assert_eq!(reply["message"]["thinking"], "Let me see.");
        assert_eq!(reply["message"]["content"], "Yes.");
        // The provider told no tokens.
        assert_eq!(reply["usage"]["input_tokens"], Value::Null);
        assert_eq!(reply["cost_usd"], Value::Null);
    }
}

#[tokio::test]
async fn each_reason_for_the_end_has_its_word() {
    let (app, user) = with_user().await;
    for (told, word) in [
        ("end_turn", "end_turn"),
        ("max_tokens", "max_tokens"),
        ("stop_sequence", "stop"),
        ("tool_use", "tool_use"),
        ("refusal", "content_filter"),
        ("pause_turn", "end_turn"),
        ("model_context_window_exceeded", "max_tokens"),
    ] {
        app.mock.enqueue(Reply::json(200, &json!({
            "type": "message", "role": "assistant", "model": "m", "stop_reason": told,
            "content": [{"type": "text", "text": "x"}], "usage": {"input_tokens": 1, "output_tokens": 1},
        })));
        assert_eq!(complete(&user, Anthropic, &hi("m")).await["finish_reason"], word, "{told}");
    }
    for (told, word) in [
        ("stop", "end_turn"),
        ("length", "max_tokens"),
        ("content_filter", "content_filter"),
        ("tool_calls", "tool_use"),
    ] {
        let message = json!({"role": "assistant", "content": "x"});
        let choice = json!({"index": 0, "message": message, "finish_reason": told});
        app.mock.enqueue(Reply::json(200, &json!({"model": "m", "choices": [choice]})));
        assert_eq!(complete(&user, OpenAi, &hi("m")).await["finish_reason"], word, "{told}");
    }
}

#[tokio::test]
async fn arguments_that_are_not_json_come_as_the_text_that_they_are() {
    let (app, user) = with_user().await;
    let call =
        json!({"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{\"a\": "}});
    let message = json!({"role": "assistant", "content": null, "tool_calls": [call]});
    let choice = json!({"index": 0, "message": message, "finish_reason": "length"});
    app.mock.enqueue(Reply::json(200, &json!({"model": "m", "choices": [choice]})));
    let reply = complete(&user, OpenAi, &hi("m")).await;
    assert_eq!(reply["tool_calls"][0]["arguments_json"], "{\"a\": ");
    assert_eq!(reply["finish_reason"], "max_tokens");
}

#[tokio::test]
async fn a_compatible_provider_is_asked_by_its_name() {
    let mock = loom_testkit::llm::MockLlm::start("sk-other-5d1c");
    let app = Setup::default()
        .set("LOOM_SERVER_LLM_PROVIDERS", "local")
        .set("LOOM_SERVER_LLM_LOCAL_BASE_URL", format!("{}/v1", mock.url()))
        .set("LOOM_SERVER_LLM_LOCAL_API_KEY", "sk-other-5d1c")
        .start()
        .await;
    let user = app.user("a@example.com").await;
    let request = with(hi("llama"), json!({"max_tokens": 77}));
    for path in ["/proxy/local/complete", "/proxy/local/stream"] {
        let answer = user.post(path, &request).await.expect(200);
        assert!(answer.text.contains("Hello"), "{}", answer.text);
    }
    for sent in mock.requests() {
        assert_eq!(sent.json()["max_tokens"], 77);
        assert_eq!(sent.json()["model"], "llama");
    }
    assert_eq!(mock.requests().len(), 2);
    assert!(app.mock.requests().is_empty());
}
