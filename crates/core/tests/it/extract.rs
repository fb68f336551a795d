//! Bodies, paths and queries: what is wrong with them, in problem documents.

use axum::{
    Extension, Router,
    body::Body as HttpBody,
    extract::Request,
    routing::{get, post},
};
use bytes::Bytes;
use futures::stream;
use http_body_util::BodyExt;
use loom_core::{
    Error, Json, Path, Query,
    extract::{Body, BodyLimit, parse_json},
    id::ThreadId,
};
use serde::Deserialize;
use tower::ServiceExt;

#[derive(Debug, Deserialize)]
struct Order {
    items: Vec<Item>,
}

#[derive(Debug, Deserialize)]
struct Item {
    name: String,
    count: u8,
}

#[derive(Deserialize)]
struct Ask {
    q: Option<String>,
    n: Option<u8>,
}

fn app() -> Router {
    let order = |Json(order): Json<Order>| async move {
        order.items.iter().map(|item| format!("{}×{};", item.name, item.count)).collect::<String>()
    };
    Router::new()
        .route("/orders", post(order))
        .route("/bytes", post(|Body(bytes): Body| async move { bytes.len().to_string() }))
        .layer(Extension(BodyLimit(100)))
        .route("/threads/{id}", get(|Path(id): Path<ThreadId>| async move { id.to_string() }))
        .route(
            "/ask",
            get(|Query(ask): Query<Ask>| async move { format!("{:?} {:?}", ask.q, ask.n) }),
        )
}

async fn send(request: Request) -> (u16, String) {
    let response = app().oneshot(request).await.unwrap();
    let status = response.status().as_u16();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(bytes.to_vec()).unwrap())
}

fn code(text: &str) -> String {
    serde_json::from_str::<serde_json::Value>(text).unwrap()["code"].as_str().unwrap().to_owned()
}

fn chunks(sizes: &[usize]) -> HttpBody {
    let frames: Vec<_> =
        sizes.iter().map(|size| Ok::<_, std::io::Error>(Bytes::from(vec![b'x'; *size]))).collect();
    HttpBody::from_stream(stream::iter(frames))
}

#[tokio::test]
async fn a_body_within_the_limit_arrives_whole_however_it_is_cut() {
    for sizes in [vec![], vec![100], vec![1, 98, 1], vec![50, 0, 50], vec![0, 0]] {
        let total: usize = sizes.iter().sum();
        let request = Request::post("/bytes").body(chunks(&sizes)).unwrap();
        assert_eq!(send(request).await, (200, total.to_string()), "{sizes:?}");
    }
}

#[tokio::test]
async fn a_body_over_the_limit_is_a_413_that_names_the_limit() {
    for sizes in [vec![101], vec![100, 1], vec![60, 60, 1], vec![60, 60, 100, 200], vec![5000]] {
        let request = Request::post("/bytes").body(chunks(&sizes)).unwrap();
        let (status, text) = send(request).await;
        assert_eq!((status, code(&text).as_str()), (413, "payload_too_large"), "{sizes:?}");
        assert!(text.contains("100 bytes"), "{text}");
    }
}

#[tokio::test]
async fn an_endless_body_is_not_read_for_ever() {
    let endless = stream::repeat_with(|| Ok::<_, std::io::Error>(Bytes::from_static(&[b'x'; 64])));
    let request = Request::post("/bytes").body(HttpBody::from_stream(endless)).unwrap();
    assert_eq!(send(request).await.0, 413);
}

#[tokio::test]
async fn a_body_that_breaks_off_is_a_400() {
    let frames = [Ok(Bytes::from_static(b"half")), Err(std::io::Error::other("reset"))];
    let body = HttpBody::from_stream(stream::iter(frames));
    let (status, text) = send(Request::post("/bytes").body(body).unwrap()).await;
    assert_eq!((status, code(&text).as_str()), (400, "incomplete_body"));
}

#[tokio::test]
async fn json_is_taken_under_each_of_its_names_and_nothing_else() {
    let order = r#"{"items":[{"name":"tea","count":2}]}"#;
    let ask = async |kind: Option<&str>| {
        let mut request = Request::post("/orders");
        if let Some(kind) = kind {
            request = request.header("content-type", kind);
        }
        send(request.body(order.into()).unwrap()).await
    };
    for kind in [
        None,
        Some("application/json"),
        Some("APPLICATION/JSON; charset=utf-8"),
        Some("application/merge-patch+json"),
    ] {
        assert_eq!(ask(kind).await, (200, "tea×2;".to_owned()), "{kind:?}");
    }
    for kind in ["text/plain", "application/x-www-form-urlencoded", "application/jsonx", ""] {
        let (status, text) = ask(Some(kind)).await;
        assert_eq!((status, code(&text).as_str()), (415, "unsupported_media_type"), "{kind}");
    }
}

fn refused(json: &str) -> Error {
    parse_json::<Order>(json.as_bytes()).unwrap_err()
}

#[test]
fn json_that_is_none_is_a_400() {
    for json in
        ["", "{", "nonsense", r#"{"items":[]} x"#, "{'items':[]}", "{\"items\":[]}\0", "\u{feff}{}"]
    {
        let error = refused(json);
        assert_eq!((error.status().as_u16(), error.code()), (400, "malformed_json"), "{json:?}");
    }
    let error = parse_json::<Order>(b"{\"items\":[{\"name\":\"\xff\",\"count\":1}]}").unwrap_err();
    assert_eq!(error.status(), 400);
}

#[test]
fn json_of_the_wrong_shape_is_a_422_with_the_path_of_the_field() {
    for (json, path) in [
        (r#"{"items":[{"name":"tea","count":2},{"name":"milk","count":-1}]}"#, "items[1].count"),
        (r#"{"items":[{"name":"tea","count":"two"}]}"#, "items[0].count"),
        (r#"{"items":[{"name":"tea"}]}"#, "items[0]"),
        (r#"{"items":{}}"#, "items"),
        (r"{}", ""),
        ("[1]", "[0]"),
        ("null", ""),
    ] {
        let error = refused(json);
        assert_eq!((error.status().as_u16(), error.code()), (422, "invalid_request"), "{json}");
        let problem = error.problem("");
        assert_eq!(problem.errors[0].path, path, "{json}");
        assert!(!problem.errors[0].message.contains(" at line "), "{problem:?}");
    }
}

#[test]
fn text_that_postgres_cannot_store_is_a_422_and_an_escaped_backslash_is_no_nul() {
    for name in
        [r"\u0000", r"a\u0000b", r"\\\u0000", r"\ud800", r"\udc00", r"\ud800\ud800", r"\ud83dx"]
    {
        let error = refused(&format!(r#"{{"items":[{{"name":"{name}","count":1}}]}}"#));
        assert_eq!(error.status(), 422, "{name}: {error:?}");
    }
    for name in [r"\\u0000", r"\\\\u0000", r"\u00000", r"\ud83d\ude00"] {
        let json = format!(r#"{{"items":[{{"name":"{name}","count":1}}]}}"#);
        let error = parse_json::<Order>(json.as_bytes()).err();
        assert_eq!(error.is_some(), name == r"\u00000", "{name}: {error:?}");
    }
}

#[tokio::test]
async fn a_path_that_cannot_name_anything_is_a_404() {
    for path in ["/threads/nonsense", "/threads/T-1", "/threads/%00", "/threads/%ff"] {
        let (status, text) = send(Request::get(path).body(HttpBody::empty()).unwrap()).await;
        assert_eq!((status, code(&text).as_str()), (404, "not_found"), "{path}");
    }
}

#[tokio::test]
async fn a_query_that_does_not_parse_or_holds_a_nul_is_a_400() {
    let ask = async |query: &str| {
        send(Request::get(format!("/ask?{query}")).body(HttpBody::empty()).unwrap()).await
    };
    assert_eq!(ask("q=a%20b&n=7&further=1").await, (200, "Some(\"a b\") Some(7)".to_owned()));
    assert_eq!(ask("q=%2500").await, (200, "Some(\"%00\") None".to_owned()));
    for query in ["n=256", "n=x", "n=1&n=2", "q=%00", "q=a%00b", "q%00=1"] {
        let (status, text) = ask(query).await;
        assert_eq!((status, code(&text).as_str()), (400, "invalid_query"), "{query}");
    }
}
