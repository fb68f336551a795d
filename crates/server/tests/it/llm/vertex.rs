//! Vertex as a provider: Claude on Anthropic's wire, Gemini on its own, on each surface.

use loom_testkit::{
    Setup, TestApp,
    llm::{
        MockLlm, Reply, Script, THINKING_SIGNATURE, reply_text,
        usage::{anthropic, gemini, openai},
    },
};
use serde_json::{Value, json};

use super::{GPT, Op, SONNET, ask, post, stream};

const TOKEN: &str = "ya29.mock-access-token";
const GEMINI: &str = "gemini-3-pro-preview";
const FLASH: &str = "gemini-2.5-flash";

pub(super) fn with_vertex(mock: &MockLlm) -> Setup {
    Setup::default()
        .set("LOOM_SERVER_VERTEX_PROJECT", "project-1")
        .set("LOOM_SERVER_VERTEX_REGION", "europe-west1")
        .set("LOOM_SERVER_VERTEX_MODELS", "gemini-3-pro-preview,gemini-2.5-flash")
        .set("LOOM_SERVER_VERTEX_BASE_URL", format!("{}/v1", mock.url()))
        .set("LOOM_SERVER_VERTEX_SERVICE_ACCOUNT", TOKEN)
}

async fn start() -> (TestApp, MockLlm) {
    let mock = MockLlm::start(TOKEN);
    let app = with_vertex(&mock).start().await;
    (app, mock)
}

fn at(publisher: &str, model: &str) -> String {
    format!("/v1/projects/project-1/locations/europe-west1/publishers/{publisher}/models/{model}")
}

#[tokio::test]
async fn gemini_answers_on_every_surface_whole_and_streamed_and_is_counted() {
    let (app, mock) = start().await;
    let user = app.user("a@example.com").await;
    let mut rows = 0;
    for op in Op::ALL {
        let reply = ask(&user, op, GEMINI).await.expect(200);
        assert!(reply.text.contains(&reply_text()), "{}", reply.text);
        let whole = mock.requests().last().unwrap().clone();
        assert_eq!(whole.path, at("google", "gemini-3-pro-preview:generateContent"));
        assert_eq!(whole.header("authorization"), Some(&*format!("Bearer {TOKEN}")));
        let streamed = stream(&user, op, GEMINI).await;
        assert_eq!(streamed.status, 200);
        assert!(streamed.text().contains("grüß") && !streamed.broke_off);
        let path = at("google", "gemini-3-pro-preview:streamGenerateContent?alt=sse");
        assert_eq!(mock.requests().last().unwrap().path, path);
        rows += 2;
        let rows = app.llm_requests(rows).await;
        for row in &rows[rows.len() - 2..] {
            assert_eq!(row["outcome"], "succeeded", "{op:?}: {row}");
            assert_eq!(
                (&row["provider"], &row["operation"]),
                (&json!("vertex"), &json!("generate_content"))
            );
            let tokens = ["input_tokens", "cache_read_tokens", "output_tokens"].map(|of| &row[of]);
            let counted = [gemini::PROMPT - gemini::CACHED, gemini::CACHED, 40].map(|n| json!(n));
            assert_eq!(tokens, counted.each_ref(), "{op:?}");
        }
    }
}

#[tokio::test]
async fn the_native_surface_asks_both_vendors_models() {
    let (app, mock) = start().await;
    let user = app.user("a@example.com").await;
    for (model, path) in [
        (GEMINI, at("google", "gemini-3-pro-preview:generateContent")),
        (SONNET, at("anthropic", "claude-sonnet-4-5@20250929:rawPredict")),
    ] {
        let body = json!({"model": model, "messages": [{"role": "user", "content": "Hi"}]});
        let reply = user.post("/proxy/vertex/complete", &body).await.expect(200).json();
        assert_eq!(reply["message"]["content"], reply_text());
        assert_eq!(mock.requests().last().unwrap().path, path);
        let streamed = post(&user, "/proxy/vertex/stream", body.to_string()).await;
        assert!(streamed.text().contains("completed"), "{}", streamed.text());
    }
}

#[tokio::test]
async fn claude_passes_but_for_the_model_and_the_version() {
    let (app, mock) = start().await;
    let user = app.user("a@example.com").await;
    let sent = |model: &str| {
        format!(
            r#"{{"max_tokens": 9, "model":"{model}","messages":[{{"role":"user","content":"\u0041"}}], "stream" : true}}"#
        )
    };
    let reply =
        post(&user, "/v1/messages?beta=true", sent("vertex/claude-sonnet-4-5-20250929")).await;
    assert!(reply.text().contains("event: message_stop"), "{}", reply.text());
    let request = mock.requests().last().unwrap().clone();
    assert_eq!(request.path, at("anthropic", "claude-sonnet-4-5@20250929:streamRawPredict"));
    let version = r#""anthropic_version":"vertex-2023-10-16""#;
    let expected = sent("M").replace(r#""model":"M""#, version);
    assert_eq!(String::from_utf8_lossy(&request.body), expected);
    let rows = app.llm_requests(1).await;
    assert_eq!(rows[0]["cache_read_tokens"], json!(anthropic::CACHE_READ));
    // The same model in other words.
    let reply = ask(&user, Op::Chat, "vertex/claude-sonnet-4-5-20250929").await.expect(200);
    assert_eq!(reply.json()["choices"][0]["message"]["content"], reply_text());
    let request = mock.requests().last().unwrap().clone();
    assert_eq!(request.json()["anthropic_version"], "vertex-2023-10-16");
}

#[tokio::test]
async fn claude_is_asked_at_vertex_where_anthropic_is_not_configured() {
    let mock = MockLlm::start(TOKEN);
    let app = with_vertex(&mock).set("LOOM_SERVER_ANTHROPIC_API_KEY", "").start().await;
    let user = app.user("a@example.com").await;
    for op in Op::ALL {
        ask(&user, op, SONNET).await.expect(200);
        let path = at("anthropic", "claude-sonnet-4-5@20250929:rawPredict");
        assert_eq!(mock.requests().last().unwrap().path, path, "{op:?}");
    }
    assert!(app.mock.requests().is_empty());
}

#[tokio::test]
async fn tokens_are_counted_for_the_models_of_every_wire_that_counts() {
    let (app, mock) = start().await;
    let user = app.user("a@example.com").await;
    let count = async |model: &str| {
        let body = json!({"model": model, "system": "Be short.",
            "messages": [{"role": "user", "content": "Hi"}]});
        user.post("/v1/messages/count_tokens", &body).await
    };
    assert_eq!(count(GEMINI).await.expect(200).json(), json!({"input_tokens": gemini::PROMPT}));
    let asked = mock.requests().last().unwrap().clone();
    assert_eq!(asked.path, at("google", "gemini-3-pro-preview:countTokens"));
    assert!(asked.json().get("generationConfig").is_none(), "{}", asked.json());
    let claude = count("vertex/claude-opus-4-6").await.expect(200).json();
    assert_eq!(claude, json!({"input_tokens": anthropic::TOTAL_INPUT}));
    assert_eq!(mock.requests().last().unwrap().path, at("anthropic", "count-tokens:rawPredict"));
    assert_eq!(count(GPT).await.expect(200).json(), json!({"input_tokens": openai::PROMPT}));
    let asked = app.mock.requests().last().unwrap().json();
    assert_eq!((&asked["instructions"], &asked["model"]), (&json!("Be short."), &json!(GPT)));
    for member in ["store", "max_output_tokens", "stream", "include"] {
        assert!(asked.get(member).is_none(), "{member}: {asked}");
    }
}

#[tokio::test]
async fn a_provider_that_does_not_count_is_a_400_that_says_so() {
    let mock = MockLlm::start(TOKEN);
    let app = with_vertex(&mock)
        .set("LOOM_SERVER_LLM_PROVIDERS", "other")
        .set("LOOM_SERVER_LLM_OTHER_BASE_URL", format!("{}/openai/v1", mock.url()))
        .start()
        .await;
    let user = app.user("a@example.com").await;
    let body = json!({"model": "other/m", "messages": [{"role": "user", "content": "Hi"}]});
    let refused = user.post("/v1/messages/count_tokens", &body).await.expect(400);
    let (message, kind) = Op::Messages.error_of(&refused.json());
    assert_eq!(kind, "invalid_request_error");
    assert!(message.contains("model") && message.contains("`other`"), "{message}");
    assert!(mock.requests().is_empty());
}

/// A conversation with tools: what came with each signature goes back with the same part.
#[tokio::test]
async fn signatures_come_back_on_the_calls_that_they_came_with() {
    let (app, mock) = start().await;
    let user = app.user("a@example.com").await;
    let schema = json!({"type": "object", "properties": {"city": {"type": "string"}},
        "$schema": "https://json-schema.org/draft/2020-12/schema", "additionalProperties": false});
    let tools = json!([{"name": "weather", "input_schema": schema}]);
    let mut messages =
        json!([{"role": "user", "content": "The weather in two places, in parallel"}]);
    let body = json!({"model": GEMINI, "max_tokens": 5000, "messages": messages, "tools": tools,
        "thinking": {"type": "adaptive"}, "output_config": {"effort": "low"}});
    let reply = user.post("/v1/messages", &body).await.expect(200).json();
    assert_eq!(reply["stop_reason"], "tool_use", "{reply}");
    let sent = mock.requests().last().unwrap().json();
    assert_eq!(sent["tools"][0]["functionDeclarations"][0]["parametersJsonSchema"], schema);
    let thinking = &sent["generationConfig"]["thinkingConfig"];
    assert_eq!(thinking, &json!({"includeThoughts": true, "thinkingLevel": "low"}));
    let content = reply["content"].as_array().unwrap();
    let calls: Vec<_> = content.iter().filter(|block| block["type"] == "tool_use").collect();
    assert_eq!(calls.len(), 2);
    let result =
        |call: &Value| json!({"type": "tool_result", "tool_use_id": call["id"], "content": "rain"});
    let results: Vec<_> = calls.iter().map(|call| result(call)).collect();
    let all = messages.as_array_mut().unwrap();
    all.push(json!({"role": "assistant", "content": content}));
    all.push(json!({"role": "user", "content": results}));
    let body = json!({"model": GEMINI, "max_tokens": 5000, "messages": messages, "tools": tools});
    user.post("/v1/messages", &body).await.expect(200);
    let sent = mock.requests().last().unwrap().json();
    let parts = sent["contents"][1]["parts"].as_array().unwrap();
    assert_eq!(parts.len(), 2, "{parts:?}");
    assert_eq!(parts[0]["thoughtSignature"], THINKING_SIGNATURE);
    assert_eq!(parts[0]["functionCall"]["args"]["city"], "Zürich");
    assert!(parts[1].get("thoughtSignature").is_none());
    let back = json!({"functionResponse": {"name": "weather", "response": {"output": "rain"}}});
    assert_eq!(sent["contents"][2]["parts"], json!([back, back]));
}

#[tokio::test]
async fn a_client_that_takes_one_call_at_once_gets_one() {
    let (app, _mock) = start().await;
    let user = app.user("a@example.com").await;
    let tool = json!({"type": "function", "name": "weather", "strict": false,
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}});
    let body = |model: &str, stream: bool| {
        json!({"model": model, "input": "Two places, in parallel", "tools": [tool],
            "parallel_tool_calls": false, "stream": stream})
    };
    let reply = user.post("/v1/responses", &body(FLASH, false)).await.expect(200).json();
    let output = reply["output"].as_array().unwrap();
    let calls = output.iter().filter(|item| item["type"] == "function_call").count();
    assert_eq!(calls, 1, "{reply}");
    let streamed = post(&user, "/v1/responses", body(FLASH, true).to_string()).await;
    let done = "event: response.function_call_arguments.done";
    assert_eq!(streamed.text().matches(done).count(), 1, "{}", streamed.text());
    assert!(streamed.text().contains("event: response.completed"));
}

#[tokio::test]
async fn what_gemini_cannot_be_told_is_a_400_that_names_the_field() {
    let (app, mock) = start().await;
    let user = app.user("a@example.com").await;
    let image =
        json!({"type": "image_url", "image_url": {"url": "https://example.com/image?id=7"}});
    let cases = [
        (Op::Chat, json!({"stop": ["a", "b", "c", "d", "e", "f"]}), "stop"),
        (Op::Chat, json!({"verbosity": "low"}), "verbosity"),
        (
            Op::Chat,
            json!({"messages": [{"role": "user", "content": [image]}]}),
            "messages[0].content[0]",
        ),
        (
            Op::Chat,
            json!({"messages": [{"role": "user", "content": "x"}, {"role": "system", "content": "y"}]}),
            "messages",
        ),
        (
            Op::Chat,
            json!({"messages": [{"role": "tool", "tool_call_id": "t", "content": "x"}]}),
            "messages",
        ),
        (Op::Messages, json!({"messages": [{"role": "system", "content": "x"}]}), "messages"),
        (
            Op::Responses,
            json!({"input": [{"type": "item_reference", "id": "msg_1"}]}),
            "input[0].type",
        ),
        (
            Op::Responses,
            json!({"tools": [{"type": "web_search", "external_web_access": false}]}),
            "tools[0].external_web_access",
        ),
        (
            Op::Responses,
            json!({"tools": [{"type": "web_search", "filters": {"allowed_domains": ["e.com"]}}]}),
            "tools[0]",
        ),
    ];
    for (op, more, field) in cases {
        let mut body = op.body(GEMINI);
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let refused = user.post(op.path(), &body).await.expect(400);
        let (message, _) = op.error_of(&refused.json());
        assert!(message.starts_with(field), "{more}: {message}");
    }
    assert!(mock.requests().is_empty());
}

#[tokio::test]
async fn a_refusal_of_googles_is_told_in_the_words_of_the_surface() {
    let (app, mock) = start().await;
    let user = app.user("a@example.com").await;
    for (op, model, kind) in [
        (Op::Messages, GEMINI, "rate_limit_error"),
        (Op::Chat, GEMINI, "rate_limit_exceeded"),
        (Op::Responses, GEMINI, "rate_limit_exceeded"),
        // As it comes for Claude, too, when it is Google that refuses.
        (Op::Messages, "vertex/claude-opus-4-6", "rate_limit_error"),
    ] {
        let mock = MockLlm::start(TOKEN);
        let app = with_vertex(&mock).start().await;
        let user = app.user("a@example.com").await;
        let told = json!([{"error": {"code": 429, "message": "Resource exhausted. Please try again later.",
            "status": "RESOURCE_EXHAUSTED"}}]);
        mock.enqueue(Reply::json(429, &told));
        let refused = ask(&user, op, model).await.expect(429);
        let (message, code) = op.error_of(&refused.json());
        assert_eq!(
            (message.as_str(), code.as_str()),
            ("Resource exhausted. Please try again later.", kind),
            "{op:?}"
        );
    }
    // In the middle of a stream.
    for op in Op::ALL {
        mock.enqueue(Script::model("mock-midstream-error"));
        let broken = stream(&user, op, GEMINI).await;
        assert!(broken.text().contains("The server had an error"), "{}", broken.text());
    }
}

#[tokio::test]
async fn without_a_project_it_is_not_configured_and_says_what_is_missing() {
    let app = Setup::default().set("LOOM_SERVER_VERTEX_SERVICE_ACCOUNT", TOKEN).start().await;
    let user = app.user("a@example.com").await;
    let body = json!({"model": GEMINI, "messages": [{"role": "user", "content": "Hi"}]});
    let refused = user.post("/proxy/vertex/complete", &body).await.expect(503);
    assert!(refused.text.contains("LOOM_SERVER_VERTEX_PROJECT"), "{}", refused.text);
}

#[tokio::test]
async fn the_configured_models_are_listed() {
    let (app, _mock) = start().await;
    let user = app.user("a@example.com").await;
    let list = user.get("/v1/models").await.expect(200).json();
    let ids: Vec<_> = list["data"].as_array().unwrap().iter().map(|model| &model["id"]).collect();
    assert!(ids.contains(&&json!(GEMINI)) && ids.contains(&&json!(FLASH)), "{ids:?}");
    let one = user.get(&format!("/v1/models/{GEMINI}")).await.expect(200).json();
    assert_eq!(one["owned_by"], "vertex");
}
