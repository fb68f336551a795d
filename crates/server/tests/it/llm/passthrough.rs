//! Bytes and headers pass as they are, in both directions.

use http::Method;
use loom_testkit::{TestApp, app::UPSTREAM_KEY};
use serde_json::{Value, json};

use super::{GPT, Op, SONNET, post, post_directly, receive};

/// A body that no serializer would write: spacing, order, unknown fields, numbers, escapes.
fn odd(op: Op, streams: bool) -> String {
    let said = r#""gr\u00fc\u00DF \ud83d\udc4b \/ é	""#.replace('\t', "\\t");
    let (model, middle) = match op {
        Op::Messages => (SONNET, format!(r#""messages":[{{"role":"user","content":{said}}}]"#)),
        Op::Chat => (GPT, format!(r#""messages" : [ {{"content":{said},"role":"user"}} ]"#)),
        Op::Responses => (GPT, format!(r#""input":{said}"#)),
    };
    let options =
        if op == Op::Chat { r#""stream_options" : {"include_usage" : true} ,"# } else { "" };
    format!(
        " {{ \"zzz_unknown\" :{{\"b\":1.0,\"a\":1e2, \"a\":null}},\r\n\t\"max_tokens\":1024, {middle}\n,\
         \"temperature\":1.0,\"stream\":  {streams},{} \"model\": \"{model}\" }}\n",
        if streams { options } else { "" }
    )
}

#[tokio::test]
async fn requests_arrive_and_replies_come_back_byte_for_byte() {
    let app = TestApp::start().await;
    let user = app.user("a@example.com").await;
    for op in Op::ALL {
        for streams in [false, true] {
            let sent = odd(op, streams);
            let direct = post_directly(&app, op.path(), sent.clone()).await;
            let through = post(&user, op.path(), sent.clone()).await;
            assert_eq!(direct.status, 200, "{op:?}");
            assert_eq!(app.mock.requests()[0].body, sent, "{op:?} {streams}");
            assert_eq!(through.body, direct.body, "{op:?} {streams}");
            assert!(!through.broke_off);
        }
    }
}

#[tokio::test]
async fn thinking_and_tool_calls_come_back_byte_for_byte() {
    let app = TestApp::start().await;
    let user = app.user("a@example.com").await;
    let schema = json!({"type": "object", "properties": {"city": {"type": "string"}}});
    let function = json!({"name": "weather", "parameters": schema});
    for (op, field, value, tool) in [
        (
            Op::Messages,
            "thinking",
            json!({"type": "enabled", "budget_tokens": 1024}),
            json!({"name": "weather", "input_schema": schema}),
        ),
        (
            Op::Chat,
            "reasoning_effort",
            json!("high"),
            json!({"type": "function", "function": function}),
        ),
        (
            Op::Responses,
            "reasoning",
            json!({"effort": "high"}),
            json!({"type": "function", "name": "weather", "parameters": schema}),
        ),
    ] {
        let mut body = op.stream_body(op.priced_model());
        body[field] = value;
        body["tools"] = json!([tool]);
        let direct = post_directly(&app, op.path(), body.to_string()).await;
        let through = post(&user, op.path(), body.to_string()).await;
        assert!(through.text().contains("weather"), "{op:?}");
        assert_eq!(through.body, direct.body, "{op:?}");
    }
}

#[tokio::test]
async fn only_the_usage_option_is_added_to_a_chat_stream_that_does_not_ask_for_it() {
    let app = TestApp::start().await;
    let user = app.user("a@example.com").await;
    let sent = format!(r#"{{ "model":"{GPT}","stream":true, "x" :1.0,"messages":[]}} "#);
    post(&user, Op::Chat.path(), sent.clone()).await;
    let added = r#"{"stream_options":{"include_usage":true},"#;
    assert_eq!(app.mock.requests()[0].body, sent.replacen('{', added, 1));
}

#[tokio::test]
async fn the_providers_headers_come_back_and_those_of_its_connection_do_not() {
    let app = TestApp::start().await;
    let user = app.user("a@example.com").await;
    for op in Op::ALL {
        for streams in [false, true] {
            let body = if streams {
                op.stream_body(op.priced_model())
            } else {
                op.body(op.priced_model())
            };
            let direct = post_directly(&app, op.path(), body.to_string()).await;
            let through = post(&user, op.path(), body.to_string()).await;
            for (name, value) in &direct.headers {
                if !["connection", "date", "server", "transfer-encoding"].contains(&name.as_str()) {
                    assert_eq!(through.headers.get(name), Some(value), "{op:?} {name}");
                }
            }
            assert!(direct.headers.contains_key("server"));
            assert!(!through.headers.contains_key("server"));
            assert_eq!(through.headers["x-vendor-new"], "1");
            let (id, left) = if op == Op::Messages {
                ("request-id", "anthropic-ratelimit-requests-remaining")
            } else {
                ("x-request-id", "x-ratelimit-remaining-requests")
            };
            assert!(through.headers[id].to_str().unwrap().starts_with("req_mock"), "{op:?}");
            assert!(through.headers.contains_key(left));
            assert!(through.headers.contains_key("x-loom-request-id"));
        }
    }
}

#[tokio::test]
async fn beta_version_unknown_headers_and_the_query_go_to_the_provider() {
    let app = TestApp::start().await;
    let user = app.user("a@example.com").await;
    let caller = user
        .with("anthropic-beta", "context-1m-2025-08-07,oauth-2025-04-20")
        .with("anthropic-version", "2099-01-01")
        .with("x-stainless-lang", "python")
        .with("user-agent", "claude-cli/2.0");
    let body = Op::Messages.body(SONNET);
    caller.post("/v1/messages?beta=true&x=a%20b", &body).await.expect(200);
    let seen = app.mock.wait_for_request(1).await;
    assert_eq!(seen.path, "/v1/messages?beta=true&x=a%20b");
    assert_eq!(seen.header("anthropic-beta"), Some("context-1m-2025-08-07,oauth-2025-04-20"));
    assert_eq!(seen.header("anthropic-version"), Some("2099-01-01"));
    assert_eq!(seen.header("x-stainless-lang"), Some("python"));
    assert_eq!(seen.header("user-agent"), Some("claude-cli/2.0"));
    // Not sent by a bare client, and wanted by the provider.
    user.post("/v1/messages", &body).await.expect(200);
    assert_eq!(app.mock.wait_for_request(2).await.header("anthropic-version"), Some("2023-06-01"));
}

#[tokio::test]
async fn what_is_between_client_and_loom_does_not_go_to_the_provider() {
    let app = TestApp::start().await;
    let user = app.user("a@example.com").await;
    let key = user.key.clone().unwrap();
    for header in ["authorization", "x-api-key"] {
        for op in Op::ALL {
            app.mock.clear();
            let mut caller = app.anonymous();
            let value = if header == "x-api-key" { key.clone() } else { format!("Bearer {key}") };
            caller = caller
                .with(header, &value)
                .with("cookie", "loom_session=abc")
                .with("x-loom-tags", "secret-project")
                .with("x-forwarded-for", "10.1.2.3")
                .with("openai-organization", "org-other")
                .with("origin", "http://app.example.com");
            caller
                .post(
                    &format!("{}?org={}&beta=true", op.path(), user.org.0),
                    &op.body(op.priced_model()),
                )
                .await
                .expect(200);
            let seen = app.mock.wait_for_request(1).await;
            assert!(seen.path.ends_with("?beta=true"), "{}", seen.path);
            let all = format!("{:?}", seen.headers);
            for not in [
                key.as_str(),
                "loom_session",
                "secret-project",
                "10.1.2.3",
                "org-other",
                "app.example.com",
                &user.org.0.to_string(),
            ] {
                assert!(!all.contains(not), "{op:?} sent on {not}: {all}");
            }
            let credential = if op == Op::Messages { "x-api-key" } else { "authorization" };
            assert!(seen.header(credential).unwrap().ends_with(UPSTREAM_KEY));
        }
    }
}

#[tokio::test]
async fn neither_key_is_in_any_reply_or_in_the_account() {
    let app = TestApp::start().await;
    let user = app.user("a@example.com").await;
    let key = user.key.clone().unwrap();
    let mut count = 0;
    for op in Op::ALL {
        for model in [
            op.priced_model(),
            "mock-error-401",
            "mock-error-403",
            "mock-error-429",
            "mock-error-500",
        ] {
            for body in [op.body(model), op.stream_body(model)] {
                let reply = post(&user, op.path(), body.to_string()).await;
                let all = format!("{:?}\n{}", reply.headers, reply.text());
                assert!(!all.contains(UPSTREAM_KEY) && !all.contains(&key), "{all}");
                count += 1;
            }
        }
    }
    for path in ["/v1/models", "/health", "/metrics", "/api/openapi.json"] {
        let reply = user.get(path).await;
        assert!(!format!("{reply:?}").contains(UPSTREAM_KEY), "{path}");
    }
    let rows = format!("{:?}", app.llm_requests(count).await);
    assert!(!rows.contains(UPSTREAM_KEY) && !rows.contains(&key), "{rows}");
}

#[tokio::test]
async fn each_wire_is_also_under_a_base_of_its_own() {
    let app = TestApp::start().await;
    let user = app.user("a@example.com").await;
    for op in Op::ALL {
        let base = if op == Op::Messages { "/anthropic" } else { "/openai" };
        let direct =
            post_directly(&app, op.path(), op.stream_body(op.priced_model()).to_string()).await;
        let through = post(
            &user,
            &format!("{base}{}", op.path()),
            op.stream_body(op.priced_model()).to_string(),
        )
        .await;
        assert_eq!(through.body, direct.body, "{op:?}");
    }
    let counted = json!({"model": SONNET, "messages": []});
    let answer = user.post("/anthropic/v1/messages/count_tokens", &counted).await.expect(200);
    assert_eq!(answer.json()["input_tokens"], 5700);
    let embedded = json!({"model": "text-embedding-3-small", "input": "a", "dimensions": 3});
    user.post("/openai/v1/embeddings", &embedded).await.expect(200);
    let openai = user.get("/openai/v1/models").await.expect(200).json();
    assert_eq!(openai["object"], "list");
    let anthropic = user.get("/anthropic/v1/models").await.expect(200).json();
    assert_eq!(anthropic["has_more"], false);
}

#[tokio::test]
async fn token_counts_and_embeddings_pass_as_they_are() {
    let app = TestApp::start().await;
    let user = app.user("a@example.com").await;
    for (path, body) in [
        ("/v1/messages/count_tokens", format!(r#"{{"model" : "{SONNET}","messages":[] }}"#)),
        (
            "/v1/embeddings",
            r#"{"input" : ["a","b"],"model":"text-embedding-3-small","dimensions":4}"#.to_owned(),
        ),
        (
            "/v1/embeddings",
            r#"{"encoding_format":"base64","input":"a","model":"text-embedding-3-small"}"#
                .to_owned(),
        ),
    ] {
        let direct = post_directly(&app, path, body.clone()).await;
        let through = post(&user, path, body.clone()).await;
        assert_eq!(through.status, 200);
        assert_eq!(app.mock.requests()[0].body, body);
        assert_eq!(through.body, direct.body, "{path}");
    }
}

#[tokio::test]
async fn the_models_are_listed_in_the_shape_of_the_wire_that_asks() {
    let app = TestApp::start().await;
    let user = app.user("a@example.com").await;
    let openai = user.get("/v1/models").await.expect(200).json();
    assert_eq!(openai["object"], "list");
    let find = |list: &Value, id: &str| {
        let found = list["data"].as_array().unwrap().iter().find(|model| model["id"] == id);
        found.unwrap_or_else(|| panic!("no {id} in {list}")).clone()
    };
    assert_eq!(find(&openai, GPT)["owned_by"], "system");
    let claude = find(&openai, SONNET);
    assert_eq!((&claude["object"], &claude["owned_by"]), (&json!("model"), &json!("anthropic")));
    assert!(claude["created"].as_i64().unwrap() > 0);
    let caller = user.with("anthropic-version", "2023-06-01");
    let anthropic = caller.get("/v1/models").await.expect(200).json();
    assert_eq!(find(&anthropic, SONNET)["type"], "model");
    assert_eq!(anthropic["first_id"], anthropic["data"][0]["id"]);
    let gpt = find(&anthropic, GPT);
    assert_eq!((&gpt["type"], &gpt["display_name"]), (&json!("model"), &json!(GPT)));
    assert!(gpt["created_at"].as_str().unwrap().ends_with('Z'));
    // Reading a list is not a request to a model.
    assert_eq!(app.rows("SELECT 1 FROM llm_requests").await.len(), 0);
}

#[tokio::test]
async fn a_model_is_found_by_its_id_also_by_one_with_slashes() {
    let app = TestApp::start().await;
    let user = app.user("a@example.com").await;
    for path in [
        "/v1/models/gpt-4o",
        "/openai/v1/models/gpt-4o",
        "/v1/models/openai/gpt-4o",
        "/v1/models/openai%2Fgpt-4o",
        "/openai/v1/models/openai/gpt-4o",
    ] {
        let model = user.get(path).await.expect(200).json();
        assert_eq!(model["id"], GPT, "{path}");
        assert_eq!(model["object"], "model", "{path}");
    }
    let caller = user.with("anthropic-version", "2023-06-01");
    assert_eq!(
        caller.get(&format!("/v1/models/{SONNET}")).await.expect(200).json()["type"],
        "model"
    );
    // Each in the form of the wire that asks, whoever serves it.
    let claude = user.get(&format!("/v1/models/{SONNET}")).await.expect(200).json();
    assert_eq!((&claude["object"], &claude["id"]), (&json!("model"), &json!(SONNET)));
    let gpt = caller.get("/v1/models/openai/gpt-4o").await.expect(200).json();
    assert_eq!((&gpt["type"], &gpt["id"]), (&json!("model"), &json!("openai/gpt-4o")));
    let unknown = caller.get("/v1/models/gpt-of-tomorrow").await.expect(404);
    assert_eq!(unknown.json()["error"]["type"], "not_found_error");
    // Not ours to know: the provider is asked, and its answer passes.
    app.mock.clear();
    let unknown = user.get("/v1/models/meta-llama/Llama-3.3/70B").await.expect(404);
    assert_eq!(unknown.json()["error"]["code"], "model_not_found");
    assert_eq!(app.mock.requests()[0].path, "/v1/models/meta-llama%2FLlama-3.3%2F70B");
}

#[tokio::test]
async fn replies_are_never_compressed_on_the_way() {
    let app = TestApp::start().await;
    let user = app.user("a@example.com").await;
    let caller = user.with("accept-encoding", "gzip, br");
    let request = caller.request(Method::POST, Op::Chat.path()).json(&Op::Chat.stream_body(GPT));
    let reply = receive(request.send().await.unwrap()).await;
    assert!(!reply.headers.contains_key("content-encoding"));
    assert!(reply.text().ends_with("data: [DONE]\n\n"));
    assert_eq!(app.mock.requests()[0].header("accept-encoding"), Some("identity"));
}
