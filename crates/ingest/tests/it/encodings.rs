//! Bodies in every encoding, whole, cut and far too large.

use loom_ingest::Config;
use reqwest::Method;

use crate::harness::{Bare, EVENT, encoded, one_event, reply};

const ENCODINGS: [&str; 6] = ["gzip", "x-gzip", "deflate", "br", "zstd", "identity"];
const PATH: &str = "/api/42/envelope/?sentry_key=0123456789abcdef0123456789abcdef";

#[tokio::test]
async fn every_encoding_is_read_with_and_without_a_length() {
    let bare = Bare::start().await;
    for encoding in ENCODINGS {
        for chunked in [false, true] {
            let body = encoded(encoding, one_event().as_bytes()).await;
            let request = bare
                .request(Method::POST, PATH)
                .header("content-encoding", encoding.to_uppercase());
            let request = if chunked {
                let parts: Vec<_> =
                    body.chunks(7).map(|part| Ok::<_, std::io::Error>(part.to_vec())).collect();
                request.body(reqwest::Body::wrap_stream(futures::stream::iter(parts)))
            } else {
                request.body(body)
            };
            let reply = reply(request).await.expect(200);
            assert_eq!(reply.json()["id"], EVENT, "{encoding} {chunked}");
            let given = bare.given();
            assert_eq!(given.len(), 1, "{encoding} {chunked}");
            assert_eq!(given[0].json()["message"], "hello");
        }
    }
}

#[tokio::test]
async fn a_body_that_grows_too_large_while_it_is_decoded_is_a_413_and_its_memory_is_given_back() {
    let bare = Bare::with(Config { envelope_bytes: 8 << 20, ..Config::default() }).await;
    let mut large = format!(
        "{{\"event_id\":\"{EVENT}\"}}\n{{\"type\":\"attachment\",\"length\":{}}}\n",
        40 << 20
    )
    .into_bytes();
    large.resize(large.len() + (40 << 20), b'0');
    for encoding in ["gzip", "deflate", "br", "zstd"] {
        let bomb = encoded(encoding, &large).await;
        assert!(bomb.len() < 1 << 20, "{encoding}");
        let request =
            bare.request(Method::POST, PATH).header("content-encoding", encoding).body(bomb);
        let reply = reply(request).await.refused(413);
        assert!(reply.text.contains("8 MiB"), "{encoding}: {reply:?}");
        assert!(bare.given().is_empty());
    }
    let component = (bare.ingest.health().probe)().await;
    assert_eq!(component.inside["memory_bytes"], 0);
    assert_eq!(component.inside["rejected"], 4);
}

#[tokio::test]
async fn a_body_that_is_cut_or_not_what_it_says_is_a_400_and_an_unknown_encoding_a_415() {
    let bare = Bare::start().await;
    for encoding in ["gzip", "deflate", "br", "zstd"] {
        let body = encoded(encoding, one_event().repeat(20).as_bytes()).await;
        let cut = body[..body.len() / 2].to_vec();
        for body in [cut, b"\xff\xfe this is not it".to_vec()] {
            let request = bare.request(Method::POST, PATH).header("content-encoding", encoding);
            reply(request.body(body)).await.refused(400);
        }
    }
    let request = bare.request(Method::POST, PATH).header("content-encoding", "compress");
    reply(request.body(one_event())).await.refused(415);
    assert!(bare.given().is_empty());
}

#[tokio::test]
async fn without_memory_for_a_body_the_client_is_to_come_back() {
    let bare = Bare::with(Config { memory_bytes: 1 << 20, ..Config::default() }).await;
    let large = format!("{{}}\n{{\"type\":\"log\"}}\n{}", "x".repeat(2 << 20));
    let reply = bare.envelope(large).await.refused(503);
    assert_eq!(reply.header("retry-after"), Some("5"));
    bare.envelope(one_event()).await.expect(200);
    let component = (bare.ingest.health().probe)().await;
    assert_eq!(component.finding.unwrap().code, "INGEST_NO_ROOM");
    bare.clock.advance(std::time::Duration::from_secs(61));
    assert!((bare.ingest.health().probe)().await.finding.is_none());
}
