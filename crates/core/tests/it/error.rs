//! The problem document, and what stays inside.

use std::time::Duration;

use axum::response::IntoResponse;
use http::{StatusCode, header};
use http_body_util::BodyExt;
use loom_core::{Error, principal::Scope};
use serde_json::Value;

async fn shown(error: Error) -> (http::response::Parts, Value) {
    let (parts, body) = error.respond("req-1").into_parts();
    let bytes = body.collect().await.unwrap().to_bytes();
    (parts, serde_json::from_slice(&bytes).unwrap())
}

#[tokio::test]
async fn an_error_is_a_problem_document_with_all_its_members() {
    let error = Error::conflict("version_conflict", "read it again").with("server_version", 7);
    let (parts, problem) = shown(error).await;
    assert_eq!(parts.status, StatusCode::CONFLICT);
    assert_eq!(parts.headers[header::CONTENT_TYPE], "application/problem+json");
    assert_eq!(parts.headers[header::CACHE_CONTROL], "no-store");
    let expected = serde_json::json!({
        "type": "urn:loom:problem:version_conflict",
        "title": "Conflict",
        "status": 409,
        "detail": "read it again",
        "code": "version_conflict",
        "request_id": "req-1",
        "server_version": 7,
    });
    assert_eq!(problem, expected);
}

#[tokio::test]
async fn the_cause_goes_to_the_log_with_all_that_is_behind_it_and_never_to_the_client() {
    let io = std::io::Error::other("password hunter2 is wrong");
    let (_, problem) = shown(Error::internal(io)).await;
    assert_eq!(problem["code"], "internal");
    assert!(!problem.to_string().contains("hunter2"), "{problem}");

    let error = Error::from(sqlx::Error::Io(std::io::Error::other("10.0.0.7 is gone")));
    assert_eq!((error.status().as_u16(), error.code()), (503, "unavailable"));
    assert!(error.cause().unwrap().contains("10.0.0.7 is gone"), "{error:?}");
    let (parts, problem) = shown(error).await;
    assert!(!problem.to_string().contains("10.0.0.7"), "{problem}");
    assert_eq!(parts.headers[header::RETRY_AFTER], "1");
}

#[tokio::test]
async fn a_401_says_how_to_authenticate() {
    let (parts, _) = shown(Error::unauthenticated("no key")).await;
    assert_eq!(parts.status, StatusCode::UNAUTHORIZED);
    assert_eq!(parts.headers[header::WWW_AUTHENTICATE], "Bearer realm=\"loom\"");
    let (parts, _) = shown(Error::unauthenticated("a revoked key").invalid_token()).await;
    let challenge = "Bearer realm=\"loom\", error=\"invalid_token\"";
    assert_eq!(parts.headers[header::WWW_AUTHENTICATE], challenge);
    let (parts, problem) = shown(Error::insufficient_scope(Scope::ThreadsRead)).await;
    let challenge = "Bearer realm=\"loom\", error=\"insufficient_scope\", scope=\"threads:read\"";
    assert_eq!(parts.headers[header::WWW_AUTHENTICATE], challenge);
    assert_eq!((&problem["status"], &problem["code"]), (&403.into(), &"forbidden".into()));
    let (parts, _) = shown(Error::forbidden("no role")).await;
    assert!(!parts.headers.contains_key(header::WWW_AUTHENTICATE));
}

#[tokio::test]
async fn retry_after_is_in_whole_seconds_and_rounded_up() {
    for (after, secs) in [(1, "1"), (1000, "1"), (1001, "2"), (0, "0")] {
        let error = Error::overloaded("queue").retry_after(Duration::from_millis(after));
        let (parts, _) = shown(error).await;
        assert_eq!(parts.headers[header::RETRY_AFTER], secs, "{after} ms");
        assert_eq!(parts.status, StatusCode::TOO_MANY_REQUESTS);
    }
}

#[tokio::test]
async fn wrong_fields_are_listed_each_with_its_path() {
    let (parts, problem) = shown(Error::invalid("a[3].b", "is a number")).await;
    assert_eq!(parts.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(problem["detail"], "a[3].b: is a number");
    assert_eq!(problem["errors"][0]["path"], "a[3].b");
    assert_eq!(problem["errors"][0]["message"], "is a number");
}

#[test]
fn the_error_rides_along_with_its_response_for_the_log() {
    let response = Error::not_found("thread").into_response();
    assert_eq!(response.extensions().get::<Error>().unwrap().code(), "not_found");
}

#[test]
fn a_closed_or_exhausted_pool_is_a_503_and_a_mistake_of_ours_a_500() {
    for error in [sqlx::Error::PoolTimedOut, sqlx::Error::PoolClosed] {
        assert_eq!(Error::from(error).status(), 503);
    }
    for error in [sqlx::Error::RowNotFound, sqlx::Error::ColumnNotFound("x".to_owned())] {
        assert_eq!(Error::from(error).status(), 500);
    }
}
