//! What surrounds every route: problem documents, limits, ids, CORS, compression.

use bytes::Bytes;
use loom_testkit::{Caller, Setup, TestApp};
use reqwest::{Method, header};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const NEW_ORG: &str = r#"{"slug":"engines","name":"Engines"}"#;

async fn post_raw(caller: &Caller, body: impl Into<reqwest::Body>) -> loom_testkit::Answer {
    let request = caller.request(Method::POST, "/api/orgs");
    caller.send(request.header("content-type", "application/json").body(body)).await
}

#[tokio::test]
async fn a_route_that_is_none_is_a_404_in_a_problem_document() {
    let app = TestApp::start().await;
    let ada = app.user("ada@example.com").await;
    for path in ["/", "/nowhere", "/api/nowhere", "/auth/me/", "/api/orgs/", "/health/x"] {
        for caller in [&ada.caller, &app.anonymous()] {
            let answer = caller.get(path).await.expect(404);
            assert_eq!(answer.code(), "not_found", "{path}");
            let problem = answer.json();
            assert_eq!(problem["type"], "urn:loom:problem:not_found");
            assert_eq!(problem["title"], "Not Found");
        }
    }
}

#[tokio::test]
async fn another_method_is_a_405_that_names_the_ones_there_are() {
    let app = TestApp::start().await;
    let ada = app.user("ada@example.com").await;
    for (method, path, allowed) in [
        (Method::DELETE, "/auth/me", "GET,HEAD"),
        (Method::POST, "/health", "GET,HEAD"),
        (Method::PUT, "/api/orgs", "GET,HEAD,POST"),
        (Method::POST, "/api/threads/T-0199aaaa-0000-7000-8000-000000000000", "GET,HEAD,PUT"),
    ] {
        let answer = ada.send(ada.request(method.clone(), path)).await.expect(405);
        assert_eq!(answer.code(), "method_not_allowed", "{method} {path}");
        let allow = answer.header("allow").unwrap_or_default().to_owned();
        for method in allowed.split(',') {
            assert!(allow.split(',').any(|m| m.trim() == method), "{path}: {allow:?}");
        }
    }
}

#[tokio::test]
async fn a_body_over_2_mib_is_a_413_and_one_of_2_mib_is_read() {
    let app = TestApp::start().await;
    let ada = app.user("ada@example.com").await;
    let padded = |size: usize| format!("{NEW_ORG}{}", " ".repeat(size - NEW_ORG.len()));
    let answer = post_raw(&ada, padded((2 << 20) + 1)).await.expect(413);
    assert_eq!(answer.code(), "payload_too_large");
    assert!(answer.text.contains("2097152"), "{}", answer.text);
    // Also when the size is not announced.
    let chunk = || Ok::<_, std::io::Error>(Bytes::from(vec![b' '; 1 << 20]));
    let body = reqwest::Body::wrap_stream(futures::stream::iter([chunk(), chunk(), chunk()]));
    assert_eq!(post_raw(&ada, body).await.expect(413).code(), "payload_too_large");
    post_raw(&ada, padded(2 << 20)).await.expect(201);
}

#[tokio::test]
async fn a_thread_may_be_larger_than_2_mib() {
    let app = TestApp::start().await;
    let ada = app.user("ada@example.com").await;
    let thread = json!({"messages": [{"role": "user", "content": "x".repeat(3 << 20)}]});
    let path = "/api/threads/T-0199aaaa-0000-7000-8000-000000000000";
    ada.put(path, &thread).await.expect(201);
}

#[tokio::test]
async fn the_413_reaches_a_client_that_does_not_listen_before_it_has_sent_all() {
    let app = TestApp::start().await;
    let ada = app.user("ada@example.com").await;
    let size = 7 << 20;
    let mut stream = TcpStream::connect(app.running.address).await.unwrap();
    let head = format!(
        "POST /api/orgs HTTP/1.1\r\nhost: loom\r\nauthorization: Bearer {}\r\n\
         content-type: application/json\r\ncontent-length: {size}\r\nconnection: close\r\n\r\n",
        ada.key.as_deref().unwrap()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    for _ in 0..7 {
        stream.write_all(&vec![b' '; 1 << 20]).await.unwrap();
    }
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    assert!(answer.contains("\"payload_too_large\""), "{answer}");
}

#[tokio::test]
async fn a_body_that_is_no_json_is_a_415_or_a_400() {
    let app = TestApp::start().await;
    let ada = app.user("ada@example.com").await;
    for kind in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"] {
        let request = ada.request(Method::POST, "/api/orgs").header("content-type", kind);
        let answer = ada.send(request.body(NEW_ORG)).await.expect(415);
        assert_eq!(answer.code(), "unsupported_media_type", "{kind}");
    }
    for body in ["", "{", "slug=engines", &format!("{NEW_ORG}{{}}")] {
        assert_eq!(
            post_raw(&ada, body.to_owned()).await.expect(400).code(),
            "malformed_json",
            "{body}"
        );
    }
    assert_eq!(post_raw(&ada, vec![b'"', 0xff, b'"']).await.expect(400).code(), "malformed_json");
}

#[tokio::test]
async fn a_body_of_the_wrong_shape_is_a_422_with_the_path_of_the_field() {
    let app = TestApp::start().await;
    let ada = app.user("ada@example.com").await;
    for (body, path) in [
        (r#"{"slug":7,"name":"Engines"}"#, "slug"),
        (r#"{"slug":"engines"}"#, ""),
        ("[]", ""),
        ("null", ""),
        (r#"{"slug":"engines","name":"a\u0000b"}"#, ""),
        (r#"{"slug":"engines","name":"\ud800"}"#, ""),
        (r#"{"slug":"engines","name":"\ud800\u0041"}"#, ""),
    ] {
        let answer = post_raw(&ada, body).await.expect(422);
        assert_eq!(answer.code(), "invalid_request", "{body}");
        assert_eq!(answer.json()["errors"][0]["path"], path, "{body}: {}", answer.text);
        assert!(answer.json()["errors"][0]["message"].as_str().unwrap().len() > 5);
    }
    // What is not known is not minded.
    let body = r#"{"slug":"engines","name":"Engines","colour":"red"}"#;
    post_raw(&ada, body).await.expect(201);
}

#[tokio::test]
async fn a_query_or_cursor_that_we_did_not_give_out_is_a_400_and_a_limit_out_of_bounds_a_422() {
    let app = TestApp::start().await;
    let ada = app.user("ada@example.com").await;
    for path in ["/api/threads".to_owned(), format!("/api/orgs/{}/api-keys", ada.org)] {
        for (query, status, code) in [
            ("limit=x", 400, "invalid_query"),
            ("limit=-1", 400, "invalid_query"),
            ("limit=70000", 400, "invalid_query"),
            ("limit=1&limit=2", 400, "invalid_query"),
            ("cursor=%00", 400, "invalid_query"),
            ("cursor=nonsense", 400, "invalid_cursor"),
            ("cursor=", 400, "invalid_cursor"),
            // `["threads",null]`, which is well-formed
            ("cursor=WyJ0aHJlYWRzIixudWxsXQ", 400, "invalid_cursor"),
            ("limit=0", 422, "invalid_request"),
            ("limit=201", 422, "invalid_request"),
        ] {
            let answer = ada.get(&format!("{path}?{query}")).await.expect(status);
            assert_eq!(answer.code(), code, "{path}?{query}");
        }
        ada.get(&format!("{path}?limit=200&further=1")).await.expect(200);
    }
    for path in [
        "/api/crash/projects/a%00b/issues",
        "/api/crons/monitors/a%00",
        "/api/crons/badge/a%00.svg",
    ] {
        ada.get(path).await.expect(404);
    }
    for query in ["workspace=%00", "tag=a%00", "branch=%00", "repo=%00"] {
        let answer = ada.get(&format!("/api/threads?{query}")).await.expect(400);
        assert_eq!(answer.code(), "invalid_query");
    }
}

#[tokio::test]
async fn the_clients_request_id_comes_back_when_it_is_sane_and_a_new_one_otherwise() {
    let app = TestApp::start().await;
    let caller = app.anonymous();
    let longest = "x".repeat(128);
    for id in ["req-7", "0af7651916cd43dd8448eb211c80319c", "a/b:c?d=e", &longest] {
        for path in ["/health", "/nowhere", "/auth/me", "/v1/models"] {
            let answer = caller.with("x-request-id", id).get(path).await;
            assert_eq!(answer.header("x-request-id"), Some(id), "{path}");
            if answer.header("content-type") == Some("application/problem+json") {
                assert_eq!(answer.json()["request_id"], id, "{path}");
            }
        }
    }
    let mut given = std::collections::BTreeSet::new();
    for id in ["", "two words", "t\tab", &"x".repeat(129)] {
        let answer = caller.with("x-request-id", id).get("/health/live").await;
        let new = answer.header("x-request-id").unwrap().to_owned();
        assert_eq!(new.parse::<uuid::Uuid>().unwrap().get_version_num(), 7, "{id:?}");
        assert!(given.insert(new), "an id was given twice");
    }
}

async fn preflight(app: &TestApp, origin: &str) -> loom_testkit::Answer {
    let caller =
        app.anonymous().with("origin", origin).with("access-control-request-method", "PATCH").with(
            "access-control-request-headers",
            "authorization,content-type,traceparent,x-loom-org",
        );
    caller.send(caller.request(Method::OPTIONS, "/api/threads")).await.expect(200)
}

#[tokio::test]
async fn in_development_a_page_of_any_origin_may_call_with_a_key() {
    let app = TestApp::start().await;
    let answer = preflight(&app, "http://localhost:3000").await;
    assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
    // `*` does not cover `authorization`, by the Fetch standard: it has to be named.
    let headers = answer.header("access-control-allow-headers").unwrap();
    for name in ["authorization", "content-type", "traceparent", "x-loom-org"] {
        assert!(headers.split(',').any(|header| header.trim() == name), "{headers}");
    }
    let methods = answer.header("access-control-allow-methods").unwrap();
    assert!(methods == "*" || methods.contains("PATCH"), "{methods}");
    // No cookie goes with it.
    assert_eq!(answer.header("access-control-allow-credentials"), None);
    // An error can be read by the page too.
    let page = app.anonymous().with("origin", "http://localhost:3000");
    for (path, status) in [("/health", 200), ("/auth/me", 401), ("/nowhere", 404)] {
        let answer = page.get(path).await.expect(status);
        assert_eq!(answer.header("access-control-allow-origin"), Some("*"), "{path}");
        assert_eq!(answer.header("access-control-expose-headers"), Some("*"), "{path}");
    }
}

#[tokio::test]
async fn in_production_only_a_listed_origin_is_let_in() {
    let production = || Setup::default().set("LOOM_SERVER_ENV", "production");
    let none = production().start().await;
    let (ours, other) = ("https://app.example.com", "https://attacker.example");
    let listed = format!("https://www.example.com, {ours}");
    let some = production().set("LOOM_SERVER_CORS_ORIGINS", listed).start().await;
    for (app, origin, allowed) in [
        (&none, ours, None),
        (&none, other, None),
        (&some, ours, Some(ours)),
        (&some, other, None),
        (&some, "http://app.example.com", None),
        (&some, "https://app.example.com.attacker.example", None),
    ] {
        let header = "access-control-allow-origin";
        assert_eq!(preflight(app, origin).await.header(header), allowed, "{origin}");
        let answer = app.anonymous().with("origin", origin).get("/auth/me").await.expect(401);
        assert_eq!(answer.header(header), allowed, "{origin}");
        // Or a cache gives one origin the answer of another.
        let mut vary = answer.headers.get_all("vary").iter().map(|value| value.to_str().unwrap());
        assert!(vary.any(|value| value.contains("origin")), "{answer:?}");
    }
}

/// Asks with `accept-encoding: gzip`; the raw bytes with the encoding that they say they have.
async fn zipped(
    caller: &Caller,
    method: Method,
    path: &str,
    body: Option<Value>,
) -> (u16, bool, Bytes) {
    let mut request = caller.request(method, path).header(header::ACCEPT_ENCODING, "gzip");
    if let Some(body) = body {
        request = request.json(&body);
    }
    let answer = request.send().await.unwrap();
    let encoding = answer.headers().get(header::CONTENT_ENCODING).cloned();
    assert!(encoding.as_ref().is_none_or(|encoding| encoding == "gzip"));
    (answer.status().as_u16(), encoding.is_some(), answer.bytes().await.unwrap())
}

#[tokio::test]
async fn json_is_compressed_for_those_who_take_it_and_replies_of_models_never() {
    let app = TestApp::start().await;
    let ada = app.user("ada@example.com").await;
    let (status, is_zipped, bytes) = zipped(&ada, Method::GET, "/api/openapi.json", None).await;
    assert_eq!((status, is_zipped), (200, true));
    assert!(bytes.starts_with(&[0x1f, 0x8b]));
    let plain = ada.get("/api/openapi.json").await.expect(200);
    assert_eq!(plain.header("content-encoding"), None);
    assert!(bytes.len() < plain.text.len() / 4);
    for stream in [true, false] {
        let body = json!({"model": "gpt-4o-mini", "stream": stream, "messages": [{"role": "user", "content": "Hello"}]});
        let (status, is_zipped, bytes) =
            zipped(&ada, Method::POST, "/v1/chat/completions", Some(body)).await;
        assert_eq!((status, is_zipped), (200, false), "stream: {stream}");
        assert!(std::str::from_utf8(&bytes).unwrap().contains("chat.completion"));
    }
}

#[tokio::test]
async fn an_error_can_be_read_by_a_client_that_takes_gzip() {
    let app = TestApp::start().await;
    let ada = app.user("ada@example.com").await;
    for (path, status) in [
        ("/auth/me?org=nowhere", 404),
        ("/api/threads?limit=0", 422),
        ("/nowhere", 404),
        ("/v1/models/nothing", 404),
    ] {
        let (got, is_zipped, bytes) = zipped(&ada, Method::GET, path, None).await;
        assert_eq!(got, status, "{path}");
        assert_eq!(is_zipped, bytes.starts_with(&[0x1f, 0x8b]), "{path} says it is what it is not");
        if !is_zipped {
            serde_json::from_slice::<Value>(&bytes).unwrap();
        }
    }
}

/// Reads one answer with `content-length` off a connection; gives its status line.
async fn read_answer(stream: &mut tokio::io::BufReader<TcpStream>) -> String {
    use tokio::io::{AsyncBufReadExt, AsyncReadExt};
    let (mut status, mut length) = (String::new(), 0);
    stream.read_line(&mut status).await.unwrap();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await.unwrap();
        if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if line.trim().is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.unwrap();
    status.trim().to_owned()
}

#[tokio::test]
async fn an_answer_that_needs_no_body_leaves_the_connection_usable_for_a_client_that_is_still_sending()
 {
    use tokio::io::AsyncWriteExt;
    let app = TestApp::start().await;
    let stream = TcpStream::connect(app.running.address).await.unwrap();
    let mut stream = tokio::io::BufReader::new(stream);
    for path in ["/v1/messages", "/api/threads/nonsense", "/no/such/route", "/v1/messages"] {
        let half = vec![b'x'; 500_000];
        let head = format!("POST {path} HTTP/1.1\r\nhost: loom\r\ncontent-length: 1000000\r\n\r\n");
        stream.get_mut().write_all(head.as_bytes()).await.unwrap();
        stream.get_mut().write_all(&half).await.unwrap();
        stream.get_mut().write_all(&half).await.unwrap();
        let status = read_answer(&mut stream).await;
        assert!(status.starts_with("HTTP/1.1 40"), "{path}: {status}");
    }
}
