//! How long a stream goes on.

use axum::body::Body;
use http::Request;
use http_body_util::BodyExt;
use loom_core::{Error, principal::Authentication};
use loom_logs::Form;
use tokio::time::{Duration, Instant};
use tower::ServiceExt;

use crate::world::{World, admin};

/// All of a stream on which nothing happens, and how long it was. Time moves by itself whenever
/// everybody waits.
async fn silent_stream(again: Authentication) -> (String, Duration) {
    let app = World::new(Form::Json).app(again);
    let request = Request::get("/api/admin/logs/stream").body(Body::empty()).unwrap();
    let start = Instant::now();
    let answer = app.oneshot(request).await.unwrap();
    assert_eq!(answer.status(), 200);
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    (String::from_utf8(body.to_vec()).unwrap(), start.elapsed())
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_kept_alive_and_ends_after_an_hour() {
    let (text, elapsed) = silent_stream(Authentication::Known(admin())).await;
    assert_eq!(elapsed.as_secs(), 3600);
    let pings = text.matches(": ping\n\n").count();
    assert!((230..=240).contains(&pings), "{pings}");
    assert!(text.ends_with("\n\nevent: bye\ndata: {\"reason\":\"max_duration\"}\n\n"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_stream_ends_within_ten_seconds_of_its_credential() {
    let (text, elapsed) =
        silent_stream(Authentication::Refused(Error::unauthenticated("revoked"))).await;
    assert_eq!(elapsed.as_secs(), 10);
    assert!(text.ends_with("event: bye\ndata: {\"reason\":\"revoked\"}\n\n"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_stream_goes_on_while_nobody_can_be_asked_about_its_credential() {
    let away = Error::unavailable("the database is out of reach just now; try again");
    let (text, elapsed) = silent_stream(Authentication::Refused(away)).await;
    assert_eq!(elapsed.as_secs(), 3600);
    assert!(text.ends_with("event: bye\ndata: {\"reason\":\"max_duration\"}\n\n"), "{text}");
}
