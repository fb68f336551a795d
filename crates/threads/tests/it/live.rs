//! Messages written piece by piece, and watched while they are.

use loom_core::id::{ThreadId, new_uuid};
use loom_testkit::{
    TestApp,
    app::{Answer, Caller},
    eventually,
};
use serde_json::{Value, json};

use crate::follow::Follower;

async fn new_thread(app: &TestApp, ann: &Caller) -> String {
    let path = format!("/api/threads/{}", ThreadId(new_uuid(app.clock.now())));
    let messages = json!([{ "id": "q", "role": "user", "content": "Why?" }]);
    ann.put(&path, &json!({ "messages": messages })).await.expect(201);
    path
}

async fn piece(ann: &Caller, path: &str, offset: usize, text: &str) -> Answer {
    let piece = json!({ "id": "a", "offset": offset, "text": text });
    ann.post(&format!("{path}/deltas"), &piece).await
}

async fn message(ann: &Caller, path: &str) -> Value {
    ann.get(&format!("{path}/messages/2")).await.expect(200).json()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_text_is_seen_on_another_server_while_it_is_written_and_stored_at_its_end() {
    let app = TestApp::start().await;
    let other = app.replica().await;
    let ann = app.user("ann@example.com").await;
    let path = new_thread(&app, &ann).await;
    let (mut follower, _) = Follower::start(&ann.at(&other), &format!("{path}/events"), None).await;
    let words: Vec<String> = (0..200).map(|n| format!("wörd {n} ")).collect();
    let mut length = 0;
    for word in &words {
        let taken = piece(&ann, &path, length, word).await.expect(200).json();
        length += word.len();
        assert_eq!((&taken["seq"], &taken["length"]), (&json!(2), &json!(length)));
    }
    let end = json!({
        "id": "a", "offset": length, "text": "end", "done": true,
        "tool_calls": [{ "id": "c1" }], "usage": { "output_tokens": 7 },
    });
    let taken = ann.post(&format!("{path}/deltas"), &end).await.expect(200).json();
    assert_eq!(taken["stored_length"], taken["length"]);
    let text = words.concat() + "end";
    let stored = message(&ann, &path).await;
    assert_eq!((&stored["content"], &stored["role"]), (&json!(text), &json!("assistant")));
    assert_eq!(stored["tool_calls"], json!([{ "id": "c1" }]));
    let mut seen = String::new();
    while seen.len() < text.len() {
        let delta = follower.next_of(&["delta"]).await;
        assert_eq!(delta.id, None);
        assert_eq!(delta.data["offset"], seen.len());
        seen.push_str(delta.data["text"].as_str().unwrap());
    }
    assert_eq!(seen, text);
    // Far fewer revisions than pieces.
    let version = ann.get(&path).await.expect(200).json()["version"].as_i64().unwrap();
    assert!((3..100).contains(&version), "{version}");
    other.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_text_that_grows_is_stored_before_its_end() {
    let app = TestApp::start().await;
    let ann = app.user("ann@example.com").await;
    let path = new_thread(&app, &ann).await;
    let first = piece(&ann, &path, 0, "one ").await.expect(200).json();
    assert_eq!(first["stored_length"], 4);
    let second = piece(&ann, &path, 4, "two ").await.expect(200).json();
    assert_eq!((&second["length"], &second["stored_length"]), (&json!(8), &json!(4)));
    eventually(async || (message(&ann, &path).await["content"] == "one two ").then_some(())).await;
    // And when the server goes down.
    piece(&ann, &path, 8, "three").await.expect(200);
    let database = app.stop().await;
    let content: String =
        sqlx::query_scalar("SELECT content #>> '{}' FROM thread_messages WHERE id = 'a'")
            .fetch_one(database.pool())
            .await
            .unwrap();
    assert_eq!(content, "one two three");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_goes_on_at_the_wrong_place_is_told_the_right_one() {
    let app = TestApp::start().await;
    let other = app.replica().await;
    let ann = app.user("ann@example.com").await;
    let path = new_thread(&app, &ann).await;
    piece(&ann, &path, 0, "one ").await.expect(200);
    let refused = piece(&ann, &path, 9, "x").await.expect(409);
    assert_eq!(
        (refused.code().as_str(), &refused.json()["length"]),
        ("offset_conflict", &json!(4))
    );
    // A repetition, alone or with more, is none.
    piece(&ann, &path, 0, "one ").await.expect(200);
    let taken = piece(&ann, &path, 2, "e two ").await.expect(200).json();
    assert_eq!(taken["length"], 8);
    piece(&ann, &path, 0, "other").await.expect(409);
    // Another server goes on from what is stored, and then this one's own text is worth nothing.
    eventually(async || (message(&ann, &path).await["content"] == "one two ").then_some(())).await;
    let there = ann.at(&other);
    let end = json!({ "id": "a", "offset": 8, "text": "three", "done": true });
    there.post(&format!("{path}/deltas"), &end).await.expect(200);
    let stale = json!({ "id": "a", "offset": 8, "text": "four", "done": true });
    let refused = ann.post(&format!("{path}/deltas"), &stale).await.expect(409);
    assert_eq!(refused.json()["length"], 13);
    assert_eq!(message(&ann, &path).await["content"], "one two three");
    // The repetition of an end whose answer was lost.
    ann.post(&format!("{path}/deltas"), &end).await.expect(200);
    assert_eq!(message(&ann, &path).await["content"], "one two three");
    other.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_an_assistants_text_of_ones_own_is_gone_on_with() {
    let app = TestApp::start().await;
    let ann = app.user("ann@example.com").await;
    let path = new_thread(&app, &ann).await;
    let deltas = format!("{path}/deltas");
    let other = json!({ "id": "q", "offset": 4, "text": "!" });
    assert_eq!(ann.post(&deltas, &other).await.expect(409).code(), "not_a_text");
    piece(&ann, &path, 0, "mine").await.expect(200);
    let bob = app.user("bob@example.com").await;
    piece(&bob, &path, 4, "his").await.expect(404);
    ann.patch(&path, &json!({ "visibility": "public" })).await.expect(200);
    piece(&bob, &path, 4, "his").await;
    assert_eq!(message(&ann, &path).await["content"], "mine");
    for wrong in [
        json!({ "id": "", "offset": 0, "text": "x" }),
        json!({ "id": "b", "offset": 0, "text": "x", "usage": {} }),
        json!({ "id": "b", "offset": 0, "text": "x", "done": true, "usage": 7 }),
    ] {
        ann.post(&deltas, &wrong).await.expect(422);
    }
    ann.delete(&path).await.expect(204);
    let end = json!({ "id": "a", "offset": 4, "text": "!", "done": true });
    ann.post(&deltas, &end).await.expect(404);
}
