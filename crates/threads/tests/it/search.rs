//! Search: what is found, in which order, how it is shown, by filters and facets, and that it is always
//! what is there.

use http::StatusCode;
use loom_core::principal::OrgRole;
use serde_json::{Value, json};

use crate::harness::{Answer, App, Person};

/// A query's text in a URL.
pub(crate) fn encoded(q: &str) -> String {
    q.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

impl Person<'_> {
    pub(crate) async fn search(&self, q: &str, more: &str) -> Answer {
        let path = format!("/api/threads/search?q={}{more}", encoded(q));
        self.get(&path).await.expect(StatusCode::OK)
    }

    /// The ids of the threads that are found.
    pub(crate) async fn finds(&self, q: &str, more: &str) -> Vec<String> {
        let page = self.search(q, more).await;
        let hits = page.body["hits"].as_array().unwrap();
        hits.iter().map(|hit| hit["thread"]["id"].as_str().unwrap().to_owned()).collect()
    }
}

pub(crate) fn says(text: &str) -> Value {
    json!({ "messages": [{ "id": "a", "role": "user", "content": text }] })
}

#[tokio::test]
async fn a_hit_shows_the_message_and_marks_what_was_found() {
    let app = App::start().await;
    let ann = app.somebody().await;
    let id = ann
        .creates(&json!({ "title": "Login", "messages": [
            { "id": "a", "role": "user", "content": "nothing of it here" },
            { "id": "b", "role": "assistant", "content": [
                { "type": "text", "text": "<b>Look</b> at parseUserInput & go" },
            ]},
        ]}))
        .await;
    let page = ann.search("parse_user_input", "").await;
    let hit = &page.body["hits"][0];
    assert_eq!(hit["thread"]["id"], id.as_str());
    assert_eq!(hit["thread"]["title"], "Login");
    assert_eq!(hit["snippet"], "&lt;b&gt;Look&lt;/b&gt; at <mark>parseUserInput</mark> &amp; go");
    assert_eq!((&hit["message_seq"], &hit["role"]), (&json!(2), &json!("assistant")));
    assert!(hit["score"].as_f64().unwrap() > 0.0);
    assert_eq!(page.body["total"], 1);
    assert_eq!(page.body["total_is_partial"], false);
    assert_eq!(page.body["next_cursor"], json!(null));
    // The thread itself is found by its title.
    let page = ann.search("login", "").await;
    let hit = &page.body["hits"][0];
    assert_eq!(hit["snippet"], "<mark>Login</mark>");
    assert_eq!((&hit["message_seq"], &hit["role"]), (&json!(null), &json!(null)));
}

#[tokio::test]
async fn each_write_is_found_at_once_and_what_it_took_away_is_not() {
    let app = App::start().await;
    let ann = app.somebody().await;
    let id = ann
        .creates(&json!({ "title": "apricot", "messages": [
            { "id": "a", "role": "user", "content": "banana" },
            { "id": "b", "role": "user", "content": "cherry" },
        ]}))
        .await;
    let here = [id.clone()];
    let nowhere: [String; 0] = [];
    for word in ["apricot", "banana", "cherry"] {
        assert_eq!(ann.finds(word, "").await, here, "{word}");
    }
    ann.append(
        &id,
        &json!({ "messages": [{ "id": "c", "role": "tool", "tool_name": "damson_knife",
        "content": "elderberry" }], "title": "fig" }),
    )
    .await
    .expect(StatusCode::OK);
    for word in ["damson", "elderberry", "fig"] {
        assert_eq!(ann.finds(word, "").await, here, "{word}");
    }
    assert_eq!(ann.finds("apricot", "").await, nowhere);
    ann.patch(&id, &json!({ "tags": ["grape"], "git": { "branch": "huckleberry" } })).await;
    for word in ["grape", "huckleberry"] {
        assert_eq!(ann.finds(word, "").await, here, "{word}");
    }
    // One message changed, those after it gone.
    ann.put(&id, &json!({ "messages": [{ "id": "a", "role": "user", "content": "imbe" }] }))
        .if_match("*")
        .await
        .expect(StatusCode::OK);
    assert_eq!(ann.finds("imbe", "").await, here);
    for word in ["banana", "cherry", "elderberry", "fig", "grape", "huckleberry"] {
        assert_eq!(ann.finds(word, "").await, nowhere, "{word}");
    }
    ann.delete(&id).await.expect(StatusCode::NO_CONTENT);
    assert_eq!(ann.finds("imbe", "").await, nowhere);
    let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM thread_search")
        .fetch_one(app.pool())
        .await
        .unwrap();
    assert_eq!(rows, 0);
}

#[tokio::test]
async fn a_write_that_is_refused_leaves_the_index_alone() {
    let app = App::start().await;
    let ann = app.somebody().await;
    let id = ann.creates(&says("apricot")).await;
    let put = ann.put(&id, &says("banana")).if_match("\"7\"").await;
    put.expect_problem(StatusCode::CONFLICT, "version_conflict");
    let more =
        json!({ "expected_last_seq": 9, "messages": [{ "role": "user", "content": "banana" }] });
    ann.append(&id, &more).await.expect_problem(StatusCode::CONFLICT, "version_conflict");
    assert!(ann.finds("banana", "").await.is_empty());
    assert_eq!(ann.finds("apricot", "").await, [id]);
}

#[tokio::test]
async fn the_newer_and_the_titled_come_first() {
    let app = App::start().await;
    let ann = app.somebody().await;
    let old = ann.creates(&says("quince in a pie")).await;
    app.advance(40 * 86_400_000);
    let new = ann.creates(&says("quince in a pie")).await;
    assert_eq!(ann.finds("quince", "").await, [&*new, &*old]);
    let titled = ann.creates(&json!({ "title": "Quince", "messages": [] })).await;
    assert_eq!(ann.finds("quince", "").await, [&*titled, &*new, &*old]);
    let tool = ann
        .creates(&json!({ "messages": [{ "role": "tool", "content": "quince in a pie" }] }))
        .await;
    assert_eq!(ann.finds("quince pie", "").await, [&*new, &*old, &*tool]);
}

#[tokio::test]
async fn pages_hold_each_thread_once_and_a_cursor_is_for_its_own_search() {
    let app = App::start().await;
    let ann = app.somebody().await;
    let mut expected = Vec::new();
    for n in 0..23 {
        expected.push(ann.creates(&says(&format!("medlar {}", "x ".repeat(n)))).await);
        app.advance(3_600_000);
    }
    let (mut found, mut more) = (Vec::new(), "&limit=5".to_owned());
    loop {
        let page = ann.search("medlar", &more).await;
        assert_eq!(page.body["total"], 23);
        let hits = page.body["hits"].as_array().unwrap();
        found.extend(hits.iter().map(|hit| hit["thread"]["id"].as_str().unwrap().to_owned()));
        let Some(cursor) = page.body["next_cursor"].as_str() else { break };
        more = format!("&limit=5&cursor={cursor}");
        app.advance(86_400_000);
    }
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
    for (q, query) in [
        ("medlars", more.as_str()),
        ("medlar", "&cursor=x"),
        ("medlar", &format!("{more}&state=error")),
    ] {
        let path = format!("/api/threads/search?q={q}{query}");
        ann.get(&path).await.expect_problem(StatusCode::BAD_REQUEST, "invalid_cursor");
    }
    for limit in ["0", "51"] {
        ann.get(&format!("/api/threads/search?q=x&limit={limit}")).await.expect_invalid(&["limit"]);
    }
}

#[tokio::test]
async fn filters_narrow_and_facets_count() {
    let app = App::start().await;
    let ann = app.somebody().await;
    let bob = app.member(ann.org(), OrgRole::Member).await;
    let thread = |repo: &str, branch: &str, role: &str, state: &str| {
        json!({
            "visibility": "organization", "tags": ["t"], "workspace": { "root": "/src" },
            "git": { "remote_url": format!("https://git.example.com/{repo}"), "branch": branch },
            "agent_state": { "kind": state },
            "messages": [{ "role": role, "content": "sorbus" }, { "role": "user", "content": "sorbus too" }],
        })
    };
    let one = ann.creates(&thread("o/one", "main", "user", "error")).await;
    let two = ann.creates(&thread("o/two", "main", "tool", "calling_llm")).await;
    let three = bob.creates(&thread("o/two", "topic", "assistant", "error")).await;
    ann.creates(&says("another word")).await;
    let page = ann.search("sorbus", "").await;
    let values = |facet: &str| -> Vec<(String, u64)> {
        let values = page.body["facets"][facet].as_array().unwrap().iter();
        values
            .map(|v| (v["value"].as_str().unwrap().to_owned(), v["count"].as_u64().unwrap()))
            .collect()
    };
    let counts = |pairs: &[(&str, u64)]| -> Vec<(String, u64)> {
        pairs.iter().map(|(value, count)| ((*value).to_owned(), *count)).collect()
    };
    assert_eq!(
        values("repo"),
        counts(&[("git.example.com/o/two", 2), ("git.example.com/o/one", 1)])
    );
    assert_eq!(values("branch"), counts(&[("main", 2), ("topic", 1)]));
    assert_eq!(values("state"), counts(&[("error", 2), ("calling_llm", 1)]));
    assert_eq!(values("role"), counts(&[("user", 3), ("assistant", 1), ("tool", 1)]));
    assert_eq!(values("owner"), counts(&[(&ann.user_id(), 2), (&bob.user_id(), 1)]));
    for (more, expected) in [
        ("&repo=git.example.com/o/one".to_owned(), vec![&one]),
        ("&branch=topic".to_owned(), vec![&three]),
        ("&state=calling_llm".to_owned(), vec![&two]),
        ("&role=tool".to_owned(), vec![&two]),
        (format!("&owner={}", bob.user_id()), vec![&three]),
        ("&repo=git.example.com/o/two&owner=me".to_owned(), vec![&two]),
        ("&tag=u".to_owned(), vec![]),
        ("&workspace=/src&state=error&branch=main".to_owned(), vec![&one]),
    ] {
        let found = ann.finds("sorbus", &more).await;
        assert_eq!(found.iter().collect::<Vec<_>>(), expected, "{more}");
    }
}

#[tokio::test]
async fn the_newest_of_very_many_matches_are_looked_at() {
    let app = App::start().await;
    let ann = app.somebody().await;
    let many = |from: usize| -> Vec<Value> {
        (from..from + 1_100)
            .map(|n| json!({ "role": "user", "content": format!("common {n}") }))
            .collect()
    };
    let old = ann.creates(&json!({ "messages": many(0) })).await;
    app.advance(1_000);
    let middle = ann.creates(&json!({ "messages": many(2_000) })).await;
    app.advance(1_000);
    let new = ann.creates(&json!({ "messages": many(4_000) })).await;
    let page = ann.search("common ", "").await;
    assert_eq!((&page.body["total"], &page.body["total_is_partial"]), (&json!(2), &json!(true)));
    let found = ann.finds("common ", "").await;
    assert!(found.contains(&middle) && found.contains(&new) && !found.contains(&old));
    assert_eq!(ann.finds("common 7", "").await, [old]);
}

#[tokio::test]
async fn branches_are_remembered_and_listed_by_last_activity() {
    let app = App::start().await;
    let ann = app.somebody().await;
    let on = |branch: &str| json!({ "git": { "branch": branch }, "messages": [] });
    let moved = ann.creates(&on("topic")).await;
    app.advance(1_000);
    let stayed = ann.creates(&on("topic")).await;
    app.advance(1_000);
    let began = ann
        .creates(&json!({ "git": { "branch": "x", "initial_branch": "topic" }, "messages": [] }))
        .await;
    app.advance(1_000);
    ann.patch(&moved, &json!({ "git": { "branch": "main" } })).await.expect(StatusCode::OK);
    ann.append(&moved, &says("later")).await.expect(StatusCode::OK);
    assert_eq!(ann.lists("?branch=topic").await, [&*moved, &*began, &*stayed]);
    assert_eq!(ann.lists("?branch=main").await, [&*moved]);
    assert_eq!(ann.finds("later", "&branch=topic").await, [moved]);
}

#[tokio::test]
async fn any_text_is_a_query_or_told_to_have_no_word() {
    let app = App::start().await;
    let ann = app.somebody().await;
    ann.creates(&says("a <-> b it's \\ 'quoted' & | ! ( ) :* :ABCD")).await;
    for q in [
        "a <-> b",
        "a:*",
        "a & b",
        "!(a | b",
        "it's",
        "it''s",
        "\\",
        "a\\",
        "'a'",
        "'",
        "a'':*B",
        "<5>",
        "((((((a",
        "a | | b",
        "\"a",
        "a\" b\"",
        "or a or",
        "a or -b",
        "%00a",
        "a\u{feff}b",
        "\u{10ffff}a",
        "-a b",
        "'; DROP TABLE threads; --",
        "e\u{301}\u{301}\u{301}",
        "ﷺ",
        "👨‍👩‍👧 a",
        "a\r\n\tb",
        "NULL",
        "$1",
    ] {
        let answer = ann.get(&format!("/api/threads/search?q={}", encoded(q))).await;
        assert!(matches!(answer.status.as_u16(), 200 | 422), "{q}: {}", answer.text);
    }
    for q in ["", " ", "-a", "\"\"", "&|!()", "or", "'", &"x".repeat(1_001)] {
        ann.get(&format!("/api/threads/search?q={}", encoded(q))).await.expect_invalid(&["q"]);
    }
    let nul = ann.get("/api/threads/search?q=a%00b").await;
    nul.expect_problem(StatusCode::BAD_REQUEST, "invalid_query");
    ann.get("/api/threads/search").await.expect_invalid(&["q"]);
    let deep = "(".repeat(900);
    ann.get(&format!("/api/threads/search?q={deep}")).await.expect_invalid(&["q"]);
    let words = "ab ".repeat(330);
    ann.search(&words, "").await;
}

#[tokio::test]
async fn texts_of_any_kind_and_length_are_stored_and_searched() {
    let app = App::start().await;
    let ann = app.somebody().await;
    let unlike: String =
        (0..300_000_u32).filter_map(|n| char::from_u32(0x4e00 + n * 7 % 20_000)).collect();
    let random: String =
        (0..40_000_u64).map(|n| format!("{:x} ", n.wrapping_mul(0x9e37_79b9_7f4a_7c15))).collect();
    let base64 = "aGVsbG8gd29ybGQgMTIzNDU2Nzg5MA".repeat(20_000);
    let quotes = r"\' '' \\ ':1A 'x':99999999 ".repeat(5_000);
    for text in [unlike, random, base64, quotes, "\u{1}\u{2}\u{fffe}\u{202e}".repeat(9)] {
        let id = ann.creates(&says(&format!("kumquat {text}"))).await;
        assert_eq!(ann.finds("kumquat", "").await, std::slice::from_ref(&id));
        ann.delete(&id).await.expect(StatusCode::NO_CONTENT);
    }
}

#[tokio::test]
async fn a_search_that_takes_too_long_says_so_and_so_does_one_too_many() {
    let app = App::start().await;
    let ann = app.somebody().await;
    ann.creates(&says("apricot")).await;
    let mut lock = loom_db::begin(app.pool()).await.unwrap();
    sqlx::query("LOCK TABLE thread_search IN ACCESS EXCLUSIVE MODE")
        .execute(&mut *lock)
        .await
        .unwrap();
    let searches = (0..5).map(|_| async { ann.get("/api/threads/search?q=apricot").await });
    let answers = futures::future::join_all(searches).await;
    for answer in answers {
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{}", answer.text);
        assert!(matches!(answer.body["code"].as_str(), Some("search_timeout" | "unavailable")));
        assert!(!answer.header("retry-after").is_empty());
    }
    lock.rollback().await.unwrap();
    assert_eq!(ann.finds("apricot", "").await.len(), 1);
}
