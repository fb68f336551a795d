//! What arrives at the provider, on each wire.

use loom_testkit::{TestApp, User};
use serde_json::{Value, json};

use super::{Anthropic, OpenAi, Wire, hi, weather, with, with_user};

/// What one request becomes; asked for whole, and as a stream.
async fn sent((app, user): &(TestApp, User), wire: Wire, request: &Value) -> Value {
    app.mock.clear();
    for path in wire.both() {
        user.post(&path, request).await.expect(200);
    }
    let [whole, streamed] = &app.mock.requests()[..] else { panic!("two requests") };
    for request in [whole, streamed] {
        assert_eq!(request.path, wire.upstream_path());
        assert_eq!(request.header("content-type"), Some("application/json"));
        let own = if wire == Anthropic { "x-api-key" } else { "authorization" };
        let other = if wire == Anthropic { "authorization" } else { "x-api-key" };
        assert!(request.header(own).unwrap().ends_with(loom_testkit::app::UPSTREAM_KEY));
        assert_eq!(request.header(other), None);
        assert_eq!(request.header("anthropic-version").is_some(), wire == Anthropic);
    }
    let mut streaming = whole.json();
    streaming["stream"] = json!(true);
    if wire == OpenAi {
        streaming["stream_options"] = json!({"include_usage": true});
    }
    assert_eq!(streamed.json(), streaming);
    whole.json()
}

#[tokio::test]
async fn a_plain_request_has_nothing_that_was_not_asked_for() {
    let rig = with_user().await;
    let anthropic = json!({
        "model": "m",
        "max_tokens": 4096,
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}],
    });
    assert_eq!(sent(&rig, Anthropic, &hi("m")).await, anthropic);
    let openai = json!({"model": "m", "messages": [{"role": "user", "content": "Hi"}]});
    assert_eq!(sent(&rig, OpenAi, &hi("m")).await, openai);
}

#[tokio::test]
async fn every_setting_has_its_place_on_each_wire() {
    let rig = with_user().await;
    let request = json!({
        "model": "m",
        "system": "Be brief.",
        "messages": [
            {"role": "system", "content": [{"type": "text", "text": "And kind."}]},
            {"role": "user", "content": "Hi"},
        ],
        "max_tokens": 100,
        "temperature": 0.5,
        "top_p": 0.25,
        "stop": ["END", "STOP"],
        "metadata": {"user_id": "u-1", "other": {"stays": "here"}},
        "unknown": true,
    });
    let anthropic = json!({
        "model": "m",
        "system": "Be brief.\n\nAnd kind.",
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}],
        "max_tokens": 100,
        "temperature": 0.5,
        "top_p": 0.25,
        "stop_sequences": ["END", "STOP"],
        "metadata": {"user_id": "u-1"},
    });
    assert_eq!(sent(&rig, Anthropic, &request).await, anthropic);
    let openai = json!({
        "model": "m",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "system", "content": "And kind."},
            {"role": "user", "content": "Hi"},
        ],
        "max_completion_tokens": 100,
        "temperature": 0.5,
        "top_p": 0.25,
        "stop": ["END", "STOP"],
        "user": "u-1",
    });
    assert_eq!(sent(&rig, OpenAi, &request).await, openai);
}

#[tokio::test]
async fn tools_keep_their_schema_and_the_choice_its_meaning() {
    let rig = with_user().await;
    for (choice, anthropic, openai) in [
        (json!("auto"), json!({"type": "auto"}), json!("auto")),
        (json!("none"), json!({"type": "none"}), json!("none")),
        (json!("required"), json!({"type": "any"}), json!("required")),
        (
            json!({"tool_name": "weather"}),
            json!({"type": "tool", "name": "weather"}),
            json!({"type": "function", "function": {"name": "weather"}}),
        ),
        (Value::Null, Value::Null, Value::Null),
    ] {
        let request = with(hi("m"), json!({"tools": [weather()], "tool_choice": choice}));
        let body = sent(&rig, Anthropic, &request).await;
        assert_eq!(body["tools"], json!([weather()]));
        assert_eq!(body["tool_choice"], anthropic);
        let body = sent(&rig, OpenAi, &request).await;
        let function = json!({
            "name": "weather",
            "description": "The weather somewhere",
            "parameters": weather()["input_schema"],
        });
        assert_eq!(body["tools"], json!([{"type": "function", "function": function}]));
        assert_eq!(body["tool_choice"], openai);
    }
}

#[tokio::test]
async fn a_schema_arrives_byte_for_byte() {
    let (app, user) = with_user().await;
    // The order of members and the form of numbers are the client's.
    let schema = "{\"type\":\"object\",\"properties\":{},\"zeta\":1.50,\"alpha\":1e400,\"big\":123456789012345678901234567890}";
    for wire in Wire::ALL {
        let body = format!(
            "{{\"model\":\"m\",\"messages\":[{{\"role\":\"user\",\"content\":\"Hi\"}}],\"tools\":[{{\"name\":\"f\",\"input_schema\":{schema}}}],\"tool_choice\":\"none\"}}"
        );
        let request = user.request(http::Method::POST, &wire.complete());
        let request = request.header("content-type", "application/json").body(body);
        user.send(request).await;
    }
    for sent in app.mock.requests() {
        assert!(String::from_utf8_lossy(&sent.body).contains(schema), "{:?}", sent.body);
    }
    assert_eq!(app.mock.requests().len(), 2);
}

#[tokio::test]
async fn images_and_documents_arrive_as_each_wire_has_them() {
    let rig = with_user().await;
    let (png, pdf, text) = ("iVBORw0KGgo=", "JVBERi0xLjQ=", "R3LDvMOfZQ==");
    let base64 = |media_type: &str, data: &str| json!({"type": "base64", "media_type": media_type, "data": data});
    let url = json!({"type": "url", "url": "https://example.com/a.png"});
    let request = json!({"model": "m", "messages": [{"role": "user", "content": [
        {"type": "text", "text": "Look:"},
        {"type": "image", "source": base64("image/png", png)},
        {"type": "image", "source": url},
        {"type": "document", "source": base64("application/pdf", pdf), "title": "a.pdf"},
        {"type": "document", "source": base64("application/pdf", pdf)},
        {"type": "document", "source": base64("text/markdown", text)},
        {"type": "document", "source": {"type": "text", "data": "Plain."}, "title": "Notes"},
    ]}]});
    let anthropic = json!([{"role": "user", "content": [
        {"type": "text", "text": "Look:"},
        {"type": "image", "source": base64("image/png", png)},
        {"type": "image", "source": url},
        {"type": "document", "source": base64("application/pdf", pdf), "title": "a.pdf"},
        {"type": "document", "source": base64("application/pdf", pdf)},
        {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "Grüße"}},
        {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "Plain."}, "title": "Notes"},
    ]}]);
    assert_eq!(sent(&rig, Anthropic, &request).await["messages"], anthropic);
    let pdf = format!("data:application/pdf;base64,{pdf}");
    let openai = json!([{"role": "user", "content": [
        {"type": "text", "text": "Look:"},
        {"type": "image_url", "image_url": {"url": format!("data:image/png;base64,{png}")}},
        {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}},
        {"type": "file", "file": {"filename": "a.pdf", "file_data": pdf}},
        {"type": "file", "file": {"filename": "document.pdf", "file_data": pdf}},
        {"type": "text", "text": "Grüße"},
        {"type": "text", "text": "Notes\n\nPlain."},
    ]}]);
    assert_eq!(sent(&rig, OpenAi, &request).await["messages"], openai);
}

#[tokio::test]
async fn results_in_a_users_turn_come_first_and_may_hold_images() {
    let rig = with_user().await;
    let image = json!({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}});
    let call = json!({"id": "c1", "tool_name": "shot", "arguments_json": {"n": 1}});
    let request = |content: Value| {
        json!({"model": "m", "messages": [
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "tool_calls": [call]},
            {"role": "user", "content": [
                {"type": "text", "text": "And now?"},
                {"type": "tool_result", "tool_call_id": "c1", "content": content},
            ]},
        ]})
    };
    let body = sent(&rig, Anthropic, &request(json!([image]))).await;
    let turns = json!([
        {"role": "user", "content": [{"type": "text", "text": "Hi"}]},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "c1", "name": "shot", "input": {"n": 1}}]},
        {"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": "c1", "content": [image]},
            {"type": "text", "text": "And now?"},
        ]},
    ]);
    assert_eq!(body["messages"], turns);
    let body = sent(&rig, OpenAi, &request(json!("done"))).await;
    let call = json!({"id": "c1", "type": "function", "function": {"name": "shot", "arguments": "{\"n\":1}"}});
    let turns = json!([
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "done"},
        {"role": "user", "content": "And now?"},
    ]);
    assert_eq!(body["messages"], turns);
}

#[tokio::test]
async fn thinking_is_a_budget_here_and_an_effort_there() {
    let rig = with_user().await;
    for (thinking, limit, anthropic, max_tokens, effort) in [
        (
            json!({}),
            Value::Null,
            json!({"type": "enabled", "budget_tokens": 8192}),
            12_288,
            "medium",
        ),
        (
            json!({"budget_tokens": 2048}),
            Value::Null,
            json!({"type": "enabled", "budget_tokens": 2048}),
            6144,
            "low",
        ),
        (
            json!({"budget_tokens": 2048}),
            json!(3000),
            json!({"type": "enabled", "budget_tokens": 2048}),
            3000,
            "low",
        ),
        (
            json!({"effort": "high"}),
            json!(5000),
            json!({"type": "enabled", "budget_tokens": 4999}),
            5000,
            "high",
        ),
        (
            json!({"type": "adaptive", "effort": "low"}),
            Value::Null,
            json!({"type": "adaptive"}),
            4096,
            "low",
        ),
        (json!({"type": "disabled"}), Value::Null, json!({"type": "disabled"}), 4096, ""),
    ] {
        let request = with(hi("m"), json!({"thinking": thinking, "max_tokens": limit}));
        let body = sent(&rig, Anthropic, &request).await;
        assert_eq!(body["thinking"], anthropic, "{thinking}");
        assert_eq!(body["max_tokens"], max_tokens, "{thinking}");
        let adaptive = thinking["type"] == "adaptive";
        let expected = if adaptive { json!({"effort": "low"}) } else { Value::Null };
        assert_eq!(body["output_config"], expected);
        let body = sent(&rig, OpenAi, &request).await;
        let expected = if effort.is_empty() { Value::Null } else { json!(effort) };
        assert_eq!(body["reasoning_effort"], expected, "{thinking}");
        assert_eq!(body["max_completion_tokens"], limit);
    }
}

#[tokio::test]
async fn of_the_clients_headers_only_its_name_and_trace_go_along() {
    let (app, user) = with_user().await;
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let caller = user
        .with("user-agent", "my-agent/1")
        .with("traceparent", trace)
        .with("cookie", "a=b")
        .with("x-forwarded-for", "203.0.113.9")
        .with("openai-organization", "org-x")
        .with("anthropic-beta", "context-1m")
        .with("x-loom-tags", "t")
        .with("x-something", "else");
    for wire in Wire::ALL {
        caller.post(&wire.complete(), &hi("m")).await.expect(200);
    }
    for sent in app.mock.requests() {
        assert_eq!(sent.header("user-agent"), Some("my-agent/1"));
        assert!(sent.header("traceparent").is_some());
        for name in [
            "cookie",
            "x-forwarded-for",
            "openai-organization",
            "anthropic-beta",
            "x-loom-tags",
            "x-something",
        ] {
            assert_eq!(sent.header(name), None, "{name}");
        }
        let key = user.key.as_deref().unwrap();
        assert!(!format!("{:?}", sent.headers).contains(key));
    }
}
