//! Requests that are refused: a problem document, sent to nobody, in no account.

use http::Method;
use loom_core::principal::Scope;
use loom_testkit::{Answer, Caller, Setup, TestApp};
use serde_json::{Value, json};

use super::{Anthropic, OpenAi, Wire, hi, weather, with, with_user};

async fn nothing_happened(app: &TestApp) {
    assert!(app.mock.requests().is_empty(), "{:?}", app.mock.requests());
    // A row that is to be written is so within a few of these.
    tokio::time::sleep(std::time::Duration::from_millis(150)).await;
    assert!(app.rows("SELECT 1 FROM llm_requests").await.is_empty());
}

async fn post(caller: &Caller, path: &str, body: impl Into<reqwest::Body>) -> Answer {
    let request = caller.request(Method::POST, path).header("content-type", "application/json");
    caller.send(request.body(body)).await
}

/// The paths of the members that are at fault, and what is said of them.
#[track_caller]
fn faults(answer: &Answer) -> Vec<(String, String)> {
    assert_eq!(answer.status, 422, "{}", answer.text);
    answer.code();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let errors = answer.json()["errors"].clone();
    let errors = errors.as_array().unwrap();
    errors.iter().map(|error| (text(&error["path"]), text(&error["message"]))).collect()
}

#[tokio::test]
async fn an_unknown_provider_is_a_404_that_names_those_there_are() {
    let (app, user) = with_user().await;
    for name in ["nobody", "demo", "vertexx", "Anthropic", "anthropic%20", "a%2Fb"] {
        for path in [format!("/proxy/{name}/complete"), format!("/proxy/{name}/stream")] {
            let answer = user.post(&path, &hi("m")).await.expect(404);
            assert_eq!(answer.code(), "not_found", "{path}");
            assert!(answer.text.contains("anthropic, openai"), "{}", answer.text);
        }
    }
    for path in ["/proxy/openai", "/proxy/openai/nothing", "/proxy/openai/complete/more"] {
        assert_eq!(user.post(path, &hi("m")).await.expect(404).code(), "not_found");
    }
    for path in Wire::ALL.iter().flat_map(|wire| wire.both()) {
        let answer = user.get(&path).await.expect(405);
        assert_eq!(answer.code(), "method_not_allowed");
        assert_eq!(answer.header("allow"), Some("POST"));
    }
    nothing_happened(&app).await;
}

#[tokio::test]
async fn a_provider_without_a_key_is_a_503_that_says_what_to_set() {
    let app = Setup::default().set("LOOM_SERVER_ANTHROPIC_API_KEY", "").start().await;
    let user = app.user("a@example.com").await;
    for path in Anthropic.both() {
        let answer = user.post(&path, &hi("m")).await.expect(503);
        assert_eq!(answer.code(), "feature_disabled");
        assert!(answer.text.contains("LOOM_SERVER_ANTHROPIC_API_KEY"), "{}", answer.text);
    }
    nothing_happened(&app).await;
    user.post(&OpenAi.complete(), &hi("m")).await.expect(200);
}

#[tokio::test]
async fn what_is_not_json_is_a_400() {
    let (app, user) = with_user().await;
    let bodies: [&[u8]; 9] = [
        b"",
        b"{",
        b"model=m",
        b"{\"model\":\"m\",}",
        b"{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}]} {}",
        b"{\"model\":\"\xff\"}",
        b"{\"model\":\"a\nb\"}",
        b"{\"model\":\"\0\"}",
        b"\xef\xbb\xbf{}",
    ];
    for wire in Wire::ALL {
        for path in wire.both() {
            for body in bodies {
                let answer = post(&user, &path, body).await;
                assert_eq!(answer.status, 400, "{:?}", String::from_utf8_lossy(body));
                assert_eq!(answer.code(), "malformed_json");
            }
        }
    }
    nothing_happened(&app).await;
}

#[tokio::test]
async fn a_member_of_the_wrong_form_is_a_422_with_its_path() {
    let (app, user) = with_user().await;
    let user_says =
        |content: Value| json!({"model": "m", "messages": [{"role": "user", "content": content}]});
    let cases = [
        (json!({"messages": []}), "", "model"),
        (json!({"model": "m"}), "", "messages"),
        (json!([]), "", ""),
        (json!("hi"), "", ""),
        (json!(null), "", ""),
        (json!({"model": 42, "messages": []}), "model", ""),
        (json!({"model": null, "messages": []}), "model", ""),
        (json!({"model": "m", "messages": "Hi"}), "messages", ""),
        (json!({"model": "m", "messages": [42]}), "messages[0]", ""),
        (json!({"model": "m", "messages": [{"content": "Hi"}]}), "messages[0]", "role"),
        (
            json!({"model": "m", "messages": [{"role": "robot", "content": "Hi"}]}),
            "messages[0].role",
            "user",
        ),
        (user_says(json!(42)), "messages[0].content", ""),
        (user_says(json!([{"type": "video"}])), "messages[0].content[0].type", "image"),
        (user_says(json!([{"text": "x"}])), "messages[0].content[0]", "type"),
        (with(hi("m"), json!({"max_tokens": -1})), "max_tokens", ""),
        (with(hi("m"), json!({"max_tokens": 1.5})), "max_tokens", ""),
        (with(hi("m"), json!({"max_tokens": 5_000_000_000_u64})), "max_tokens", ""),
        (with(hi("m"), json!({"temperature": "hot"})), "temperature", ""),
        (with(hi("m"), json!({"stop": "END"})), "stop", ""),
        (with(hi("m"), json!({"system": ["x"]})), "system", ""),
        (with(hi("m"), json!({"tools": [{"name": "f"}]})), "tools[0]", "input_schema"),
        (with(hi("m"), json!({"tool_choice": "maybe"})), "tool_choice", "required"),
        (with(hi("m"), json!({"tool_choice": {"name": "f"}})), "tool_choice", "tool_name"),
        (with(hi("m"), json!({"thinking": {"effort": "extreme"}})), "thinking.effort", "medium"),
        (with(hi("m"), json!({"thinking": true})), "thinking", ""),
    ];
    for wire in Wire::ALL {
        for path in wire.both() {
            for (body, at, what) in &cases {
                let faults = faults(&user.post(&path, body).await);
                assert_eq!(faults.len(), 1, "{body}");
                assert_eq!(faults[0].0, *at, "{body}: {}", faults[0].1);
                assert!(faults[0].1.contains(what), "{body}: {}", faults[0].1);
            }
        }
    }
    nothing_happened(&app).await;
}

#[tokio::test]
async fn what_makes_no_sense_is_a_422_with_all_its_paths() {
    let (app, user) = with_user().await;
    let cases = [
        (json!({"model": "", "messages": []}), vec!["model", "messages"]),
        (
            with(
                hi("m"),
                json!({"max_tokens": 0, "temperature": 2.5, "top_p": -0.1, "stop": ["a", ""]}),
            ),
            vec!["max_tokens", "temperature", "top_p", "stop[1]"],
        ),
        (with(hi("m"), json!({"tool_choice": "required"})), vec!["tool_choice"]),
        (
            with(hi("m"), json!({"tools": [weather()], "tool_choice": {"tool_name": "time"}})),
            vec!["tool_choice.tool_name"],
        ),
        (
            with(hi("m"), json!({"tools": [{"name": "a b", "input_schema": []}]})),
            vec!["tools[0].name", "tools[0].input_schema"],
        ),
        (
            json!({"model": "m", "messages": [
                {"role": "user", "content": ""},
                {"role": "user", "content": []},
                {"role": "user"},
                {"role": "tool", "content": "x"},
                {"role": "user", "content": "x", "tool_calls": [{"id": "", "tool_name": "", "arguments_json": {}}]},
                {"role": "assistant", "content": [{"type": "image"}]},
                {"role": "user", "content": [{"type": "thinking", "thinking": "x"}]},
            ]}),
            vec![
                "messages[0].content",
                "messages[1].content",
                "messages[2].content",
                "messages[3].tool_call_id",
                "messages[4].tool_calls",
                "messages[4].tool_calls[0].id",
                "messages[4].tool_calls[0].tool_name",
                "messages[5].content[0].type",
                "messages[6].content[0].type",
            ],
        ),
        (
            json!({"model": "m", "messages": [{"role": "user", "content": [
                {"type": "image"},
                {"type": "image", "source": {"type": "base64", "media_type": "text/plain", "data": "eA=="}},
                {"type": "image", "source": {"type": "url", "url": "file:///etc/passwd"}},
                {"type": "image", "source": {"type": "text", "data": "x"}},
                {"type": "document", "source": {"type": "base64", "media_type": "application/zip"}},
                {"type": "tool_result", "content": "x"},
                {"type": "text"},
            ]}]}),
            vec![
                "messages[0].content[0].source",
                "messages[0].content[1].source.media_type",
                "messages[0].content[2].source.url",
                "messages[0].content[3].source.type",
                "messages[0].content[4].source.data",
                "messages[0].content[4].source.media_type",
                "messages[0].content[5].tool_call_id",
                "messages[0].content[6].text",
            ],
        ),
    ];
    for wire in Wire::ALL {
        for path in wire.both() {
            for (body, expected) in &cases {
                let answer = user.post(&path, body).await;
                let paths: Vec<_> = faults(&answer).into_iter().map(|fault| fault.0).collect();
                assert_eq!(paths, *expected, "{body}");
            }
        }
    }
    nothing_happened(&app).await;
}

#[tokio::test]
async fn what_a_wire_cannot_express_is_a_422_there_alone() {
    let (app, user) = with_user().await;
    let document =
        json!({"type": "document", "source": {"type": "url", "url": "https://example.com/a.pdf"}});
    let image =
        json!({"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}});
    let system = json!({"role": "system", "content": "x"});
    let bad_text = json!({"type": "document", "source": {"type": "base64", "media_type": "text/plain", "data": "!"}});
    let both = [Anthropic, OpenAi];
    for (body, refuses, at) in [
        (with(hi("m"), json!({"temperature": 1.5})), &both[..1], "temperature"),
        (with(hi("m"), json!({"messages": [system]})), &both[..1], "messages"),
        (
            with(hi("m"), json!({"thinking": {"budget_tokens": 1000}})),
            &both[..1],
            "thinking.budget_tokens",
        ),
        (with(hi("m"), json!({"thinking": {}, "max_tokens": 1000})), &both[..1], "max_tokens"),
        (
            with(hi("m"), json!({"messages": [{"role": "user", "content": [document]}]})),
            &both[1..],
            "messages[0].content[0].source.type",
        ),
        (
            with(
                hi("m"),
                json!({"messages": [{"role": "tool", "tool_call_id": "c", "content": [image]}]}),
            ),
            &both[1..],
            "messages[0].content[0].type",
        ),
        (
            with(hi("m"), json!({"messages": [{"role": "user", "content": [bad_text]}]})),
            &both[..],
            "messages[0].content[0].source.data",
        ),
    ] {
        for wire in refuses {
            for path in wire.both() {
                let faults = faults(&user.post(&path, &body).await);
                assert_eq!(faults.len(), 1, "{faults:?}");
                assert_eq!(faults[0].0, at, "{path}");
            }
        }
    }
    nothing_happened(&app).await;
}

#[tokio::test]
async fn a_nul_and_half_a_surrogate_pair_are_a_422() {
    let (app, user) = with_user().await;
    for escape in ["\\u0000", "\\ud800", "\\ud83d\\n"] {
        let body = format!(
            "{{\"model\":\"m\",\"messages\":[{{\"role\":\"user\",\"content\":\"a{escape}b\"}}]}}"
        );
        for path in Wire::ALL.iter().flat_map(|wire| wire.both()) {
            let answer = post(&user, &path, body.clone()).await;
            assert_eq!(faults(&answer).len(), 1, "{escape}");
        }
    }
    nothing_happened(&app).await;
}

#[tokio::test]
async fn a_body_of_33_mib_is_a_413_and_one_of_31_goes_through() {
    let (app, user) = with_user().await;
    let body = |size: usize| {
        format!(
            "{{\"model\":\"m\",\"messages\":[{{\"role\":\"user\",\"content\":\"{}\"}}]}}",
            "x".repeat(size)
        )
    };
    for path in Wire::ALL.iter().flat_map(|wire| wire.both()) {
        let answer = post(&user, &path, body(33 << 20)).await.expect(413);
        assert_eq!(answer.code(), "payload_too_large");
        assert!(answer.text.contains("33554432"), "{}", answer.text);
    }
    nothing_happened(&app).await;
    for wire in Wire::ALL {
        post(&user, &wire.complete(), body(31 << 20)).await.expect(200);
    }
    let sizes: Vec<_> = app.mock.requests().iter().map(|sent| sent.body.len() >> 20).collect();
    assert_eq!(sizes, [31, 31]);
}

#[tokio::test]
async fn another_content_type_is_a_415() {
    let (app, user) = with_user().await;
    for path in Wire::ALL.iter().flat_map(|wire| wire.both()) {
        for kind in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"] {
            let request = user.request(Method::POST, &path).header("content-type", kind);
            let answer = user.send(request.body(hi("m").to_string())).await.expect(415);
            assert_eq!(answer.code(), "unsupported_media_type");
        }
    }
    nothing_happened(&app).await;
}

#[tokio::test]
async fn without_the_scope_it_is_a_403_and_without_a_key_a_401() {
    let (app, user) = with_user().await;
    let reader = app.with_scopes(&user, &[Scope::ThreadsRead, Scope::AdminWrite]).await;
    let mut almost = user.key.clone().unwrap();
    almost.pop();
    let nobody = app.anonymous();
    for path in Wire::ALL.iter().flat_map(|wire| wire.both()) {
        let answer = reader.post(&path, &hi("m")).await.expect(403);
        assert_eq!(answer.code(), "forbidden");
        assert!(answer.text.contains("llm:use"), "{}", answer.text);
        for caller in [
            nobody.clone(),
            nobody.with_key(&almost),
            nobody.with("x-api-key", "sk-ant-something"),
            nobody.with("authorization", "Basic dXNlcjpwYXNz"),
        ] {
            let answer = caller.post(&path, &hi("m")).await.expect(401);
            assert_eq!(answer.code(), "unauthenticated");
            assert!(answer.header("www-authenticate").is_some());
            assert!(!answer.text.contains(&almost));
        }
        // Who is nobody learns nothing of what is there, or of what is wrong with a body.
        post(&nobody, &path, "{").await.expect(401);
        nobody.post("/proxy/nobody/complete", &json!({})).await.expect(401);
    }
    nothing_happened(&app).await;
    let caller = app.with_scopes(&user, &[Scope::LlmUse]).await;
    caller.post(&OpenAi.complete(), &hi("m")).await.expect(200);
    let by_header = nobody.with("x-api-key", user.key.as_deref().unwrap());
    by_header.post(&Anthropic.complete(), &hi("m")).await.expect(200);
}
