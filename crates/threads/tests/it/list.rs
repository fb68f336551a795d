//! Lists: order, pages, filters.

use http::StatusCode;
use loom_core::principal::OrgRole;
use serde_json::{Value, json};

use crate::harness::{App, Person, thread};

#[tokio::test]
async fn the_newest_activity_comes_first() {
    let app = App::start().await;
    let ann = app.somebody().await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(ann.creates(&thread(&["a"])).await);
        app.advance(10);
    }
    assert_eq!(ann.lists("").await, [&*ids[2], &*ids[1], &*ids[0]]);
    ann.append(&ids[0], &thread(&["b"])).await.expect(StatusCode::OK);
    app.advance(10);
    // A new title is no activity.
    ann.patch(&ids[1], &json!({ "title": "x" })).await.expect(StatusCode::OK);
    assert_eq!(ann.lists("").await, [&*ids[0], &*ids[2], &*ids[1]]);
    let page = ann.get("/api/threads").await;
    let first = &page.body["threads"][0];
    assert_eq!((&first["message_count"], &first["last_seq"]), (&json!(2), &json!(2)));
    assert_eq!((first.get("messages"), first.get("extra")), (None, None));
    assert_eq!(page.body["next_cursor"], json!(null));
}

#[tokio::test]
async fn pages_hold_each_thread_once() {
    let app = App::start().await;
    let ann = app.somebody().await;
    let bob = app.member(ann.org(), OrgRole::Member).await;
    let mut expected = Vec::new();
    for n in 0..25 {
        // Several in the same millisecond, and of two owners.
        if n % 3 == 0 {
            app.advance(1);
        }
        let by = if n % 2 == 0 { &ann } else { &bob };
        expected.push(by.creates(&json!({ "visibility": "organization", "messages": [] })).await);
    }
    let mut found = Vec::new();
    let mut query = "?limit=4".to_owned();
    loop {
        let page = ann.get(&format!("/api/threads{query}")).await.expect(StatusCode::OK);
        let threads = page.body["threads"].as_array().unwrap();
        assert!(threads.len() <= 4);
        found.extend(threads.iter().map(|t| t["id"].as_str().unwrap().to_owned()));
        let Some(cursor) = page.body["next_cursor"].as_str() else { break };
        query = format!("?limit=4&cursor={cursor}");
    }
    assert_eq!(found, ann.lists("").await);
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
}

#[tokio::test]
async fn a_cursor_is_for_the_list_that_gave_it() {
    let app = App::start().await;
    let ann = app.somebody().await;
    for _ in 0..3 {
        ann.creates(&json!({ "tags": ["x"], "messages": [] })).await;
    }
    let page = ann.get("/api/threads?limit=1&tag=x").await;
    let cursor = page.body["next_cursor"].as_str().unwrap();
    assert_eq!(ann.lists(&format!("?limit=2&tag=x&cursor={cursor}")).await.len(), 2);
    for query in
        [format!("cursor={cursor}"), format!("tag=y&cursor={cursor}"), "cursor=x".to_owned()]
    {
        let problem = ann.get(&format!("/api/threads?{query}")).await;
        problem.expect_problem(StatusCode::BAD_REQUEST, "invalid_cursor");
    }
    for limit in ["0", "201"] {
        ann.get(&format!("/api/threads?limit={limit}")).await.expect_invalid(&["limit"]);
    }
}

async fn make(person: &Person<'_>, part: Value) -> String {
    let mut body = part;
    body["messages"] = json!([]);
    person.creates(&body).await
}

#[tokio::test]
async fn each_filter_finds_its_own() {
    let app = App::start().await;
    let ann = app.somebody().await;
    let bob = app.member(ann.org(), OrgRole::Member).await;
    make(&ann, json!({})).await;
    let workspace = make(&ann, json!({ "workspace": { "root": "/src/app" } })).await;
    let git = make(
        &ann,
        json!({ "git": {
            "remote_url": "git@git.example.com:o/r.git", "branch": "topic", "initial_commit": "1111111aaa",
            "current_commit": "2222222bbb", "commits": ["3333333CCC"],
        } }),
    )
    .await;
    let state = make(&ann, json!({ "agent_state": { "kind": "executing_tools" } })).await;
    let tags = make(&ann, json!({ "tags": ["x", "y z"] })).await;
    let pinned = make(&ann, json!({ "is_pinned": true })).await;
    let bobs = make(&bob, json!({ "visibility": "organization" })).await;
    app.advance(5000);
    ann.patch(&tags, &json!({ "title": "later" })).await.expect(StatusCode::OK);
    let bob_id = bob.user_id();
    for (query, found) in [
        ("workspace=/src/app", &workspace),
        ("repo=git.example.com/o/r", &git),
        ("repo=https%3A%2F%2Fu%3Ap%40git.example.com%2Fo%2Fr.git", &git),
        ("branch=topic", &git),
        ("commit=3333333", &git),
        ("commit=3333333cCc", &git),
        ("commit=1111111", &git),
        ("commit=2222222bbb", &git),
        ("repo=git.example.com/o/r&branch=topic&commit=3333333", &git),
        ("state=executing_tools", &state),
        ("tag=y%20z", &tags),
        ("pinned=true", &pinned),
        (&format!("owner={bob_id}"), &bobs),
        ("updated_after=2030-03-17T17:46:44.999Z", &tags),
    ] {
        assert_eq!(ann.lists(&format!("?{query}")).await, [found.as_str()], "{query}");
    }
    for query in [
        "branch=main",
        "commit=3333334",
        "repo=git.example.com/o/r&branch=main",
        "tag=z",
        "workspace=/src",
    ] {
        assert_eq!(ann.lists(&format!("?{query}")).await, Vec::<String>::new(), "{query}");
    }
    assert_eq!(ann.lists("?pinned=false").await.len(), 6);
    assert_eq!(ann.lists("?owner=me").await.len(), 6);
    assert_eq!(bob.lists("?owner=me").await, [bobs]);
}

#[tokio::test]
async fn a_filter_that_cannot_be_is_refused() {
    let app = App::start().await;
    let ann = app.somebody().await;
    for (query, path) in [
        ("commit=abc123", "commit"),
        ("commit=abcdefg", "commit"),
        ("branch=", "branch"),
        ("owner=bob", "owner"),
        ("updated_after=%2B200000-01-01T00:00:00Z", "updated_after"),
    ] {
        ann.get(&format!("/api/threads?{query}")).await.expect_invalid(&[path]);
    }
    for query in ["state=busy", "pinned=maybe", "updated_after=yesterday", "tag=%00"] {
        let problem = ann.get(&format!("/api/threads?{query}")).await;
        problem.expect_problem(StatusCode::BAD_REQUEST, "invalid_query");
    }
    app.service(ann.org()).get("/api/threads?owner=me").await.expect_invalid(&["owner"]);
}
