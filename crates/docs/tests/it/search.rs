//! What is found, and what comes first.

use loom_docs::Docs;

use crate::{BROWSER, Guide};

fn first(docs: &Docs, q: &str) -> Option<String> {
    docs.search(q, None, 50).into_iter().next().map(|hit| hit.path)
}

#[track_caller]
fn assert_first(docs: &Docs, table: &[(&str, &str)]) {
    for (q, path) in table {
        let hits = docs.search(q, None, 5);
        let scores: Vec<_> = hits.iter().map(|hit| (&hit.path, hit.score)).collect();
        assert_eq!(hits.first().map(|hit| hit.path.as_str()), Some(*path), "{q}: {scores:?}");
    }
}

#[test]
fn the_page_that_answers_comes_first() {
    let table = [
        ("architecture", "architecture"),
        ("keys", "access"),
        ("key", "access"),
        ("keys and scopes", "access"),
        ("how do I add a migration", "contributing"),
        ("metrics", "operations"),
        ("backup", "backup"),
        ("version conflict", "threads"),
        ("append messages", "threads"),
        ("stream usage", "llm-usage"),
        ("anthropic provider", "llm"),
        ("audit", "access"),
        ("isolation", "security"),
        ("changelog", "changelog"),
    ];
    assert_first(&Docs::new(), &table);
}

#[test]
fn identifiers_are_found_whole_in_parts_and_by_their_beginning() {
    let table = [
        ("LOOM_SERVER_ANTHROPIC_API_KEY", "llm"),
        ("loom_server_database_direct_url", "operations"),
        ("LOOM_SERVER_ANTHR", "llm"),
        ("expected_last_seq", "threads"),
        ("x-loom-tags", "llm"),
        ("JobScheduler", "architecture"),
        ("direct url", "operations"),
        // No page has this one: its parts lead there.
        ("LOOM_SERVER_DATABASE_POOLER", "operations"),
    ];
    assert_first(&Docs::new(), &table);
}

#[test]
fn a_mistyped_word_and_the_beginning_of_one_are_enough() {
    let table = [
        ("thraed", "threads"),
        ("architeture", "architecture"),
        ("archtiectrue", "architecture"),
        ("migratoin add", "contributing"),
        ("metr", "operations"),
        ("archi", "architecture"),
        ("version confl", "threads"),
    ];
    let docs = Docs::new();
    assert_first(&docs, &table);
    // Too short to be mistyped, too far away, only the last word may be unfinished.
    for q in ["zey", "qqqqqqqq", "archi xyzzyx", "???"] {
        assert_eq!(first(&docs, q), None, "{q}");
    }
}

#[test]
fn a_phrase_is_a_condition() {
    let docs = Docs::new();
    assert_eq!(first(&docs, "\"waiting_for_user_input\"").as_deref(), Some("threads"));
    let with = |q: &str| docs.search(q, None, 50).len();
    assert!(with("\"master key\"") > 0);
    assert!(with("\"master key\"") < with("master key"), "the words alone are in more pages");
    assert_eq!(with("\"key master\""), 0);
    assert_eq!(with("architecture \"key master\""), 0);
    for hit in docs.search("\"master key\"", None, 50) {
        assert!(hit.snippet.contains("<mark>"), "{hit:?}");
    }
}

#[test]
fn the_snippet_shows_the_place_and_its_section() {
    let docs = Docs::new();
    let hit = docs.search("version_conflict server_version", None, 1).remove(0);
    assert_eq!(hit.path, "threads");
    assert_eq!(hit.section.as_deref(), Some("versions-and-conflicts"));
    assert!(hit.snippet.contains("<mark>version_conflict</mark>"), "{}", hit.snippet);
    assert!(hit.snippet.contains("<mark>server_version</mark>"), "{}", hit.snippet);
    assert!(hit.snippet.len() < 600);
}

#[tokio::test]
async fn a_category_and_a_limit_hold() {
    let guide = Guide::new();
    let all = guide.find("q=key&limit=50").await;
    let some = guide.find("q=key&category=guide").await;
    assert!(!some.is_empty() && some.len() < all.len(), "{some:?} of {all:?}");
    let hits = guide.get("/docs/search?q=key&category=guide").await.json();
    assert!(hits["hits"].as_array().unwrap().iter().all(|hit| hit["category"] == "guide"));
    assert_eq!(guide.find("q=key&limit=2").await, all[..2]);
    // Nothing asked: everything, in the order of the navigation.
    let pages = guide.find("q=&limit=50").await;
    assert_eq!(pages.len(), loom_docs::PAGES.len().min(50));
    assert_eq!(pages, guide.find("limit=50").await);
    assert_eq!(pages.first().unwrap(), "llm");
    assert_eq!(guide.find("q=&category=").await, guide.find("").await);
}

#[tokio::test]
async fn what_is_out_of_bounds_is_told() {
    let guide = Guide::new();
    let long = "x".repeat(201);
    for (query, path) in [
        (format!("q={long}"), "q"),
        ("q=a&limit=51".to_owned(), "limit"),
        ("q=a&limit=0".to_owned(), "limit"),
        ("q=a&limit=-1".to_owned(), "limit"),
        ("q=a&limit=many".to_owned(), "limit"),
        ("q=a&category=nothing".to_owned(), "category"),
    ] {
        let path_asked = format!("/docs/search?{query}");
        let problem = guide.get(&path_asked).await.expect(422).json();
        assert_eq!(problem["errors"][0]["path"], path, "{problem}");
        let page = guide.get_with(&path_asked, &[BROWSER]).await.expect(422);
        assert!(page.header("content-type").starts_with("text/html"));
    }
    guide.get(&format!("/docs/search?q={}", "x".repeat(200))).await.expect(200);
    guide.get("/docs/search?q=%ff%00%22%22%22").await;
}

#[tokio::test]
async fn a_browser_gets_a_page_and_a_program_json() {
    let guide = Guide::new();
    let page = guide.get_with("/docs/search?q=thraed", &[BROWSER]).await.expect(200);
    assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
    assert!(page.text.contains("href=\"/docs/threads"), "{}", page.text);
    assert!(page.text.contains("value=\"thraed\""), "the form keeps what was asked");
    for accept in ["application/json", "*/*"] {
        let answer = guide.get_with("/docs/search?q=thraed", &[("accept", accept)]).await;
        assert_eq!(answer.header("content-type"), "application/json");
        let hit = &answer.json()["hits"][0];
        for field in ["path", "title", "summary", "category", "snippet"] {
            assert!(hit[field].as_str().is_some_and(|text| !text.is_empty()), "{field}: {hit}");
        }
        assert!(hit["score"].as_f64().unwrap() > 0.0 && hit["tags"].is_array());
    }
}
