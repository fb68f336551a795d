//! Many streams over one connection.

use std::time::Duration;

use loom_testkit::{Caller, TestApp};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};

use crate::log_events::{Event, Events};

const THREADS: &str = "/api/threads/events";

/// The next event of this stream of this kind, and its data.
async fn next_of(events: &mut Events, of: &str, kind: &str) -> (Event, Value) {
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        let event = timeout_at(end, events.next()).await.expect("it comes within half a minute");
        let event = event.expect("the connection stays");
        if event.data["of"] == of && event.data["event"] == kind {
            let data = serde_json::from_str(event.data["data"].as_str().unwrap()).unwrap();
            return (event, data);
        }
    }
}

async fn thread(caller: &Caller) -> String {
    let id = format!("T-{}", uuid::Uuid::from_u128(rand::random()));
    caller
        .put(
            &format!("/api/threads/{id}"),
            &json!({"messages": [{"role": "user", "content": "Hello"}]}),
        )
        .await
        .expect(201);
    id
}

#[tokio::test]
async fn several_streams_come_over_one_connection_and_each_goes_on_where_it_was() {
    let app = TestApp::start().await;
    let ada = app.user("ada@example.com").await;
    let path = format!("/api/live?of=/api/crons/stream&of={THREADS}");
    let mut events = Events::at(&ada, &path, None).await;
    next_of(&mut events, "/api/crons/stream", "init").await;
    next_of(&mut events, THREADS, "ready").await;
    let first = thread(&ada).await;
    let (seen, data) = next_of(&mut events, THREADS, "message").await;
    assert_eq!(data["thread_id"], first);
    drop(events);
    let second = thread(&ada).await;
    // By the header, as a browser does by itself, and by the address, as a page that chose others does.
    let asked = format!(
        "{path}&last_event_id={}",
        seen.id.replace('%', "%25").replace('&', "%26").replace('=', "%3D")
    );
    for (path, after) in [(&path, Some(&*seen.id)), (&asked, None)] {
        let mut events = Events::at(&ada, path, after).await;
        let (_, data) = next_of(&mut events, THREADS, "message").await;
        assert_eq!(data["thread_id"], second, "what was seen is not told again");
    }
    app.stop().await;
}

#[tokio::test]
async fn a_stream_that_is_refused_says_so_and_the_others_go_on() {
    let app = TestApp::start().await;
    let ada = app.user("ada@example.com").await;
    let path = format!("/api/live?of=/api/admin/logs/stream&of={THREADS}");
    let mut events = Events::at(&ada, &path, None).await;
    let (_, problem) = next_of(&mut events, "/api/admin/logs/stream", "refused").await;
    assert_eq!(problem["status"], 403);
    let made = thread(&ada).await;
    let (_, data) = next_of(&mut events, THREADS, "message").await;
    assert_eq!(data["thread_id"], made);
    app.stop().await;
}

#[tokio::test]
async fn what_is_no_stream_and_more_than_sixteen_are_refused() {
    let app = TestApp::start().await;
    let ada = app.user("ada@example.com").await;
    let many: Vec<_> = (0..17).map(|number| format!("of={THREADS}?limit={number}")).collect();
    for query in [
        String::new(),
        "of=/api/threads".to_owned(),
        "of=/api/live".to_owned(),
        "of=https://example.com/stream".to_owned(),
        "of=/v1/stream".to_owned(),
        "of=/api/crons/stream&other=1".to_owned(),
        "of=/api/crons/stream?org=acme".to_owned(),
        many.join("&"),
    ] {
        let refused = ada.get(&format!("/api/live?{query}")).await.expect(422);
        assert_eq!(refused.code(), "invalid_request", "{query}");
    }
    app.anonymous().get(&format!("/api/live?of={THREADS}")).await.expect(401);
    app.stop().await;
}
