//! A fixed corpus, and what 40 queries must find first in it.

use serde_json::{Value, json};

use crate::harness::App;

/// Each thread's name, title, and messages with their roles.
fn corpus() -> Vec<(&'static str, Value)> {
    let thread = |title: &str, rest: Value, messages: &[(&str, &str)]| {
        let mut thread = rest;
        thread["title"] = json!(title);
        thread["messages"] = messages
            .iter()
            .map(|(role, content)| json!({ "role": role, "content": content }))
            .collect();
        thread
    };
    vec![
        (
            "login",
            thread(
                "Fix the flaky login test",
                json!({ "tags": ["ci"] }),
                &[
                    ("user", "The test `login_with_expired_token` fails now and then. Why?"),
                    (
                        "assistant",
                        "It races with SessionStore::evictExpired, which runs in the background.",
                    ),
                    (
                        "tool",
                        "test auth::login_with_expired_token ... FAILED at src/auth/session_store.rs:214",
                    ),
                ],
            ),
        ),
        (
            "parser",
            thread(
                "Parser for user input",
                json!({}),
                &[
                    (
                        "user",
                        "parseUserInput() must accept quoted strings, see crates/parser/src/lib.rs",
                    ),
                    ("assistant", "I changed parse_quoted and added a property test."),
                    (
                        "tool",
                        "running 12 tests\nerror[E0308]: mismatched types in crates/parser/src/quote.rs",
                    ),
                ],
            ),
        ),
        (
            "deploy",
            thread(
                "Deploy to the staging cluster",
                json!({ "git": { "branch": "release/2.4",
            "remote_url": "git@git.example.com:infra/cluster.git",
            "commits": ["deadbee1234567890abcdef1234567890abcdef1"] } }),
                &[
                    (
                        "user",
                        "kubectl apply fails: ImagePullBackOff for registry.example.com/app:2.4.1",
                    ),
                    ("assistant", "The pull secret is missing in namespace staging-eu."),
                ],
            ),
        ),
        (
            "database",
            thread(
                "Slow database queries",
                json!({ "git": { "branch": "perf/db-index" } }),
                &[
                    ("user", "SELECT over orders takes 4 s since we passed ten million rows"),
                    (
                        "assistant",
                        "A partial index on orders (customer_id) WHERE shipped_at IS NULL makes it 3 ms.",
                    ),
                    ("tool", "Seq Scan on orders (cost=0.00..431205.00 rows=9800112)"),
                ],
            ),
        ),
        (
            "cafe",
            thread(
                "Menu of the Café Übermut",
                json!({}),
                &[
                    ("user", "Translate the menu: crème brûlée, jalapeño poppers, smørrebrød"),
                    ("assistant", "Burnt cream, stuffed chillies, open sandwiches"),
                ],
            ),
        ),
        (
            "japanese",
            thread(
                "全文検索の実装",
                json!({}),
                &[
                    (
                        "user",
                        "日本語の全文検索を実装してください。形態素解析は使わないでください。",
                    ),
                    ("assistant", "バイグラムで索引を作ります。東京都庁のような語も見つかります。"),
                ],
            ),
        ),
        (
            "chinese",
            thread("数据库迁移", json!({}), &[("user", "请把用户表迁移到新的数据库，不要停机。")]),
        ),
        (
            "korean",
            thread("한국어 번역", json!({}), &[("user", "오류 메시지를 한국어로 번역해 주세요")]),
        ),
        (
            "arabic",
            thread(
                "ترجمة الواجهة",
                json!({}),
                &[("user", "الرجاء ترجمة رسائل الخطأ إلى اللغة العَرَبِيَّة")],
            ),
        ),
        (
            "russian",
            thread(
                "Ошибка сборки",
                json!({}),
                &[("user", "Сборка падает с ошибкой компоновщика ёлка")],
            ),
        ),
        (
            "emoji",
            thread(
                "Release party",
                json!({}),
                &[("user", "We shipped it 🎉🚀 and nobody was paged")],
            ),
        ),
        (
            "http",
            thread(
                "HTTP client timeouts",
                json!({}),
                &[
                    ("user", "HTTPClient.sendRequest hangs when the proxy closes the connection"),
                    (
                        "assistant",
                        "Set connectTimeoutMillis and readTimeoutMillis in client.config.yaml",
                    ),
                ],
            ),
        ),
        (
            "docs",
            thread(
                "Write the contributing guide",
                json!({}),
                &[
                    ("user", "Describe how to run the test suite and how to add a migration"),
                    (
                        "assistant",
                        "I wrote docs/contributing.md. The test section comes first, then the user section.",
                    ),
                ],
            ),
        ),
        (
            "noise",
            thread(
                "Miscellaneous",
                json!({}),
                &[(
                    "user",
                    "test login user input database query release deploy search timeout index error client",
                )],
            ),
        ),
        (
            "unicode",
            thread(
                "Handle C++ and C# projects",
                json!({}),
                &[(
                    "user",
                    "The scanner ignores main.cpp, Program.cs and fooBarBaz42.h; don't skip them",
                )],
            ),
        ),
    ]
}

const QUERIES: [(&str, &str); 46] = [
    // Words and titles.
    ("flaky login", "login"),
    ("slow queries", "database"),
    ("staging cluster", "deploy"),
    ("contributing guide", "docs"),
    // Identifiers, in any way to write them.
    ("login_with_expired_token", "login"),
    ("evictExpired", "login"),
    ("SessionStore", "login"),
    ("session store", "login"),
    ("parseUserInput", "parser"),
    ("parse_user_input", "parser"),
    ("parse-quoted", "parser"),
    ("sendRequest", "http"),
    ("HTTPClient", "http"),
    ("http client send", "http"),
    ("readTimeoutMillis", "http"),
    ("customer_id", "database"),
    ("E0308", "parser"),
    ("ImagePullBackOff", "deploy"),
    ("foobarbaz42", "unicode"),
    // Paths and names of files.
    ("session_store.rs", "login"),
    ("crates/parser/src/lib.rs", "parser"),
    ("quote.rs", "parser"),
    ("client.config.yaml", "http"),
    ("contributing.md", "docs"),
    ("main.cpp", "unicode"),
    ("registry.example.com/app:2.4.1", "deploy"),
    // Phrases, alternatives, what is not to be there.
    ("\"the test suite\"", "docs"),
    ("\"partial index\"", "database"),
    ("kubectl or unheard", "deploy"),
    ("test -login -migration", "parser"),
    // The last word goes on.
    ("brul", "cafe"),
    ("expired tok", "login"),
    // Branches, repositories, commits.
    ("release/2.4", "deploy"),
    ("infra/cluster", "deploy"),
    ("perf/db-index", "database"),
    ("deadbee", "deploy"),
    ("DEADBEE1234567", "deploy"),
    // Misspelt.
    ("databse", "database"),
    ("parseUserInptu", "parser"),
    ("contribting", "docs"),
    // Accents, other scripts, emoji.
    ("creme brulee", "cafe"),
    ("全文検索", "japanese"),
    ("東京都", "japanese"),
    ("العربية", "arabic"),
    ("🎉", "emoji"),
    ("don't", "unicode"),
];

const MORE: [(&str, &str); 6] = [
    ("数据库", "chinese"),
    ("번역", "korean"),
    ("сборка елка", "russian"),
    ("الخطا", "arabic"),
    ("ubermut", "cafe"),
    ("バイグラム", "japanese"),
];

#[tokio::test]
async fn each_query_finds_first_what_is_meant() {
    let app = App::start().await;
    let ann = app.somebody().await;
    let mut ids = Vec::new();
    for (name, thread) in corpus() {
        ids.push((ann.creates(&thread).await, name));
        app.advance(60_000);
    }
    let mut wrong = Vec::new();
    for (q, expected) in QUERIES.into_iter().chain(MORE) {
        let found = ann.finds(q, "").await;
        let first = found.first().and_then(|first| ids.iter().find(|(id, _)| id == first));
        let first = first.map_or("nothing", |(_, name)| name);
        if first != expected {
            wrong.push(format!("{q}: {first}, not {expected}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn what_was_misspelt_is_told_and_what_nobody_meant_is_not_found() {
    let app = App::start().await;
    let ann = app.somebody().await;
    for (_, thread) in corpus() {
        ann.creates(&thread).await;
    }
    let page = ann.search("slow databse", "").await;
    assert_eq!(page.body["corrected"], "slow database");
    let found = ann.search("database", "").await;
    assert_eq!(found.body["corrected"], json!(null));
    // Both are said, only not together: neither is misspelt.
    let page = ann.search("kubectl client", "").await;
    assert_eq!((&page.body["total"], &page.body["corrected"]), (&json!(0), &json!(null)));
    let page = ann.search("xylophone zebra", "").await;
    assert_eq!((&page.body["total"], &page.body["corrected"]), (&json!(0), &json!(null)));
}
