//! Monitors, followed live.

use futures::StreamExt;
use loom_testkit::Caller;
use reqwest::Method;
use serde_json::json;

use crate::support::{monitor, ping, ping_path, world};

/// Reads until the stream has said all of these words.
async fn read_until(
    caller: &Caller,
    path: &str,
    act: impl AsyncFnOnce(),
    words: &[&str],
) -> String {
    let answer = caller.request(Method::GET, path).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let mut pieces = answer.bytes_stream();
    let mut text = String::new();
    let reading = async {
        while !text.contains("event: init") {
            text.push_str(std::str::from_utf8(&pieces.next().await.unwrap().unwrap()).unwrap());
        }
        act().await;
        while !words.iter().all(|word| text.contains(word)) {
            text.push_str(std::str::from_utf8(&pieces.next().await.unwrap().unwrap()).unwrap());
        }
    };
    let limit = std::time::Duration::from_secs(30);
    tokio::time::timeout(limit, reading).await.expect("all of it is told");
    text
}

#[tokio::test]
async fn runs_and_incidents_are_told_on_every_server_and_to_nobody_else() {
    let (app, ada) = world().await;
    let other = app.replica().await;
    let bob = app.user("bob@example.com").await;
    let path = ping_path(&monitor(&ada, "backup", json!({})).await);
    let theirs = ping_path(&monitor(&bob, "other", json!({})).await);
    let watcher = ada.caller.at(&other);
    let act = async || {
        ping(&app, &theirs).await.expect(200);
        ping(&app, &format!("{path}/start")).await.expect(200);
        ping(&app, &format!("{path}/fail")).await.expect(200);
        ping(&app, &path).await.expect(200);
    };
    let words =
        ["checkin.started", "checkin.error", "monitor.failing", "checkin.ok", "monitor.recovered"];
    let text = read_until(&watcher, "/api/crons/stream", act, &words).await;
    assert!(!text.contains("\"other\""), "{text}");
    other.shut_down().await;
}
