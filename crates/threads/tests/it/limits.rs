//! How large is too large.

use http::StatusCode;
use serde_json::{Value, json};

use crate::harness::{App, thread};

const MIB: usize = 1024 * 1024;

fn of_size(id: &str, bytes: usize) -> Value {
    json!({ "id": id, "role": "user", "content": "x".repeat(bytes) })
}

#[tokio::test]
async fn a_message_has_at_most_4_mib() {
    let app = App::start().await;
    let ann = app.somebody().await;
    let id = ann.creates(&thread(&[])).await;
    let just_fits = json!({ "messages": [of_size("a", 4 * MIB - 6)] });
    let too_large = json!({ "messages": [of_size("b", 4 * MIB - 5)] });
    ann.append(&id, &just_fits).await.expect(StatusCode::OK);
    for call in [ann.append(&id, &too_large), ann.put(&id, &too_large).if_match("*")] {
        let problem = call.await.expect_problem(StatusCode::PAYLOAD_TOO_LARGE, "payload_too_large");
        assert!(problem.text.contains("messages[0]"), "{}", problem.text);
    }
    assert_eq!(ann.read(&id).await.places().len(), 1);
}

#[tokio::test]
async fn a_thread_has_at_most_32_mib() {
    let app = App::start().await;
    let ann = app.somebody().await;
    let id = ann.creates(&thread(&[])).await;
    for n in 0..8 {
        let append = json!({ "messages": [of_size(&format!("m{n}"), 4 * MIB - 6)] });
        ann.append(&id, &append).await.expect(StatusCode::OK);
    }
    let problem = ann.append(&id, &thread(&["one more"])).await;
    problem.expect_problem(StatusCode::PAYLOAD_TOO_LARGE, "payload_too_large");
    assert_eq!(ann.read(&id).await.expect(StatusCode::OK).places().len(), 8);

    let body = json!({ "messages": [], "extra": { "x": "x".repeat(33 * MIB) } });
    let problem = ann.put(&app.new_thread_id(), &body).await;
    problem.expect_problem(StatusCode::PAYLOAD_TOO_LARGE, "payload_too_large");
    let body = json!({ "messages": [], "extra": { "x": "x".repeat(2 * MIB) } });
    let problem = ann.put(&app.new_thread_id(), &body).await;
    problem.expect_problem(StatusCode::PAYLOAD_TOO_LARGE, "payload_too_large");
}

#[tokio::test]
async fn a_thread_has_at_most_100_000_messages() {
    let app = App::start().await;
    let ann = app.somebody().await;
    let many = |count: usize| json!({ "messages": vec![json!({ "role": "user", "content": "x" }); count] });
    ann.put(&app.new_thread_id(), &many(100_001)).await.expect_invalid(&["messages"]);
    let id = ann.creates(&many(100_000)).await;
    ann.append(&id, &thread(&["one more"])).await.expect_invalid(&["messages"]);
    assert_eq!(ann.get("/api/threads").await.body["threads"][0]["message_count"], 100_000);
}

#[tokio::test]
async fn a_thread_remembers_at_most_10_000_commits() {
    let app = App::start().await;
    let ann = app.somebody().await;
    let id = ann.creates(&thread(&[])).await;
    let commits = |numbers: std::ops::Range<u32>| {
        let commits: Vec<_> = numbers.map(|n| format!("{n:040x}")).collect();
        json!({ "git": { "commits": commits } })
    };
    ann.patch(&id, &commits(0..9_999)).await.expect(StatusCode::OK);
    ann.patch(&id, &commits(0..10_000)).await.expect(StatusCode::OK);
    ann.patch(&id, &commits(10_000..10_001)).await.expect_invalid(&["git.commits"]);
    let passed = json!({ "git": { "current_commit": format!("{:040x}", 10_001) } });
    let read = ann.patch(&id, &passed).await.expect(StatusCode::OK);
    assert_eq!(read.body["git"]["commits"].as_array().unwrap().len(), 10_000);
}
