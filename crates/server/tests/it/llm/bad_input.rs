//! Requests that are refused: told in the wire's own shape, sent to nobody, in no account.

use std::{
    io::{Read, Write},
    net::TcpStream,
};

use http::Method;
use loom_core::principal::Scope;
use loom_testkit::TestApp;
use serde_json::Value;

use super::{Op, ask, post};

const PATHS: [&str; 5] = [
    "/v1/messages",
    "/v1/messages/count_tokens",
    "/v1/chat/completions",
    "/v1/responses",
    "/v1/embeddings",
];

/// The wire of a path; chat stands for all of OpenAI's.
fn wire(path: &str) -> Op {
    let anthropic = path.starts_with("/anthropic") || path.starts_with("/v1/messages");
    if anthropic { Op::Messages } else { Op::Chat }
}

/// The code that a wire gives with a status.
fn code(op: Op, anthropic: &'static str, openai: &'static str) -> &'static str {
    if op == Op::Messages { anthropic } else { openai }
}

async fn nothing_happened(app: &TestApp) {
    assert!(app.mock.requests().is_empty(), "{:?}", app.mock.requests());
    assert!(app.rows("SELECT 1 FROM llm_requests").await.is_empty());
}

#[tokio::test]
async fn bodies_that_are_no_request_are_a_400() {
    let app = TestApp::start().await;
    let user = app.user("a@example.com").await;
    let bodies: [(&[u8], &str); 16] = [
        (b"", "JSON"),
        (b"{", "JSON"),
        (b"{\"model\":\"m\",}", "JSON"),
        (b"{\"model\":\"m\"} {}", "JSON"),
        (b"model=m", "JSON"),
        (b"null", "JSON"),
        (b"\"m\"", "JSON"),
        (b"[{\"model\":\"m\"}]", "JSON"),
        (b"{\"model\":\"\xff\"}", "UTF-8"),
        (b"{}", "`model`"),
        (b"{\"model\":null}", "`model`"),
        (b"{\"model\":42}", "`model`"),
        (b"{\"model\":\"\"}", "`model`"),
        (b"{\"model\":[\"m\"]}", "`model`"),
        (b"{\"model\":\"m\",\"stream\":\"true\"}", "`stream`"),
        (b"{\"model\":\"m\",\"stream\":1}", "`stream`"),
    ];
    for path in PATHS {
        for (body, what) in bodies {
            let reply = post(&user, path, body).await;
            let told = String::from_utf8_lossy(body);
            assert_eq!(reply.status, 400, "{path} {told}");
            let op = wire(path);
            let (message, kind) = op.error_of(&serde_json::from_slice(&reply.body).unwrap());
            assert_eq!(kind, code(op, "invalid_request_error", "invalid_request"), "{path} {told}");
            assert!(message.contains(what), "{path} {told}: {message}");
        }
    }
    nothing_happened(&app).await;
}

#[tokio::test]
async fn members_of_the_same_name_are_refused_and_not_chosen_from() {
    let app = TestApp::start().await;
    let user = app.user("a@example.com").await;
    let body = "{\"model\":\"gpt-4o\",\"model\":\"o1\",\"messages\":[]}";
    assert_eq!(post(&user, "/v1/chat/completions", body).await.status, 400);
    nothing_happened(&app).await;
}

#[tokio::test]
async fn a_body_over_the_limit_is_a_413_that_a_client_that_still_sends_can_read() {
    let app = TestApp::start().await;
    let user = app.user("a@example.com").await;
    let large = format!("{{\"model\":\"m\",\"x\":\"{}\"}}", "x".repeat(33 << 20));
    for path in ["/v1/messages", "/v1/chat/completions"] {
        let reply = post(&user, path, large.clone()).await;
        assert_eq!(reply.status, 413, "{path}");
        let op = wire(path);
        let (message, kind) = op.error_of(&serde_json::from_slice(&reply.body).unwrap());
        assert_eq!(kind, code(op, "request_too_large", "payload_too_large"), "{message}");
        assert!(message.contains("33554432"), "{message}");
    }
    nothing_happened(&app).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_413_is_read_by_a_client_that_sends_all_of_its_body_before_it_reads() {
    let app = TestApp::start().await;
    let user = app.user("a@example.com").await;
    let key = user.key.clone().unwrap();
    let address = app.running.address;
    let sent = tokio::task::spawn_blocking(move || {
        let mut socket = TcpStream::connect(address).unwrap();
        let length = 34 << 20;
        write!(socket, "POST /v1/messages HTTP/1.1\r\nhost: loom\r\nx-api-key: {key}\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n").unwrap();
        let piece = vec![b'x'; 64 << 10];
        for _ in 0..length / piece.len() {
            socket.write_all(&piece).unwrap();
        }
        let mut reply = String::new();
        socket.read_to_string(&mut reply).unwrap();
        reply
    });
    let reply = sent.await.unwrap();
    assert!(reply.starts_with("HTTP/1.1 413 "), "{reply}");
    let body: Value = serde_json::from_str(reply.split("\r\n\r\n").nth(1).unwrap()).unwrap();
    assert_eq!(Op::Messages.error_of(&body).1, "request_too_large");
    nothing_happened(&app).await;
}

#[tokio::test]
async fn a_body_just_under_the_limit_goes_through() {
    let app = TestApp::start().await;
    let user = app.user("a@example.com").await;
    let head = "{\"model\":\"claude-sonnet-4-5\",\"x\":\"";
    let body = format!("{head}{}\"}}", "x".repeat((32 << 20) - head.len() - 2));
    assert_eq!(body.len(), 32 << 20);
    let reply = post(&user, "/v1/messages", body.clone()).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert!(app.mock.requests()[0].body == body);
}

#[tokio::test]
async fn unknown_routes_are_a_404_in_the_wires_shape() {
    let app = TestApp::start().await;
    let user = app.user("a@example.com").await;
    for path in [
        "/v1/nothing",
        "/v1/chat/nothing",
        "/v1/messages/batches",
        "/anthropic/v1/nothing",
        "/openai/v1/nothing",
        "/anthropic/v1/chat/completions",
        "/openai/v1/messages",
    ] {
        for method in [Method::GET, Method::POST] {
            let answer = user.send(user.request(method, path).body("{}")).await.expect(404);
            let op = wire(path);
            let (message, kind) = op.error_of(&answer.json());
            assert_eq!(kind, code(op, "not_found_error", "not_found"), "{path}");
            assert!(message.contains(path), "{message}");
            assert!(answer.header("x-request-id").is_some());
        }
    }
    nothing_happened(&app).await;
}

#[tokio::test]
async fn a_wrong_method_is_a_405_in_the_wires_shape_and_names_the_right_one() {
    let app = TestApp::start().await;
    let user = app.user("a@example.com").await;
    for path in PATHS.into_iter().chain(["/anthropic/v1/messages", "/openai/v1/chat/completions"]) {
        for method in [Method::GET, Method::PUT, Method::DELETE] {
            let answer = user.send(user.request(method.clone(), path)).await.expect(405);
            let op = wire(path);
            let (_, kind) = op.error_of(&answer.json());
            assert_eq!(kind, code(op, "invalid_request_error", "method_not_allowed"), "{path}");
            assert_eq!(answer.header("allow"), Some("POST"), "{method} {path}");
        }
    }
    nothing_happened(&app).await;
}

#[tokio::test]
async fn a_key_without_the_scope_is_a_403_in_the_wires_shape() {
    let app = TestApp::start().await;
    let user = app.user("a@example.com").await;
    let caller = app.with_scopes(&user, &[Scope::ThreadsRead, Scope::ThreadsWrite]).await;
    for path in PATHS {
        let op = wire(path);
        let answer = caller.post(path, &op.body("m")).await.expect(403);
        let (message, kind) = op.error_of(&answer.json());
        assert_eq!(kind, code(op, "permission_error", "forbidden"), "{path}");
        assert!(message.contains("llm:use"), "{message}");
    }
    caller.get("/v1/models").await.expect(403);
    caller.get("/v1/models/gpt-4o").await.expect(403);
    nothing_happened(&app).await;
    let caller = app.with_scopes(&user, &[Scope::LlmUse]).await;
    ask(&caller, Op::Chat, "gpt-4o").await.expect(200);
}

#[tokio::test]
async fn no_credential_and_a_wrong_one_are_a_401_in_the_wires_shape() {
    let app = TestApp::start().await;
    let user = app.user("a@example.com").await;
    let mut almost = user.key.clone().unwrap();
    almost.pop();
    let anonymous = app.anonymous();
    let callers = [
        anonymous.clone(),
        anonymous.with("authorization", "Bearer sk-something-else"),
        anonymous.with("authorization", &format!("Bearer {almost}")),
        anonymous.with("authorization", "Basic dXNlcjpwYXNz"),
        anonymous.with("x-api-key", "sk-ant-something"),
        anonymous.with("x-api-key", &almost),
    ];
    for path in PATHS {
        let op = wire(path);
        for caller in &callers {
            let answer = caller.post(path, &op.body("m")).await.expect(401);
            let (message, kind) = op.error_of(&answer.json());
            assert_eq!(kind, code(op, "authentication_error", "invalid_api_key"), "{path}");
            assert!(!message.contains(&almost) && !message.contains("sk-something-else"));
        }
    }
    for caller in &callers {
        caller.get("/v1/models").await.expect(401);
    }
    // Who is nobody learns nothing of the routes either, and sends no large body.
    assert_eq!(post(&anonymous, "/v1/messages", "{").await.status, 401);
    nothing_happened(&app).await;
}

#[tokio::test]
async fn a_key_is_taken_from_either_header() {
    let app = TestApp::start().await;
    let user = app.user("a@example.com").await;
    let key = user.key.clone().unwrap();
    for op in Op::ALL {
        let bearer = app.anonymous().with("authorization", &format!("Bearer {key}"));
        ask(&bearer, op, op.priced_model()).await.expect(200);
        let api_key = app.anonymous().with("x-api-key", &key);
        ask(&api_key, op, op.priced_model()).await.expect(200);
    }
}
