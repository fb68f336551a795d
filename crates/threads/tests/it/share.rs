//! Links to threads: what they show, how they end, and what is said before one is made.

use http::StatusCode;
use loom_core::principal::{OrgRole, Scope};
use serde_json::{Value, json};

use crate::harness::{App, Person, message, thread};

const TOKEN: &str = "ghp_abcdefghijklmnopqrstuvwxyz0123456789";

async fn share(person: &Person<'_>, id: &str, new: Value) -> (String, Value) {
    let path = format!("/api/threads/{id}/share");
    let made =
        person.request(http::Method::POST, &path).json(&new).await.expect(StatusCode::CREATED);
    (made.body["token"].as_str().unwrap().to_owned(), made.body)
}

fn shared(token: &str) -> String {
    format!("/api/threads/shared/{token}")
}

fn ids(body: &Value) -> Vec<&str> {
    let messages = body["messages"].as_array().unwrap();
    messages.iter().map(|message| message["id"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_link_shows_the_thread_of_now_and_nothing_of_whose_it_is() {
    let app = App::start().await;
    let ann = app.somebody().await;
    let mut document = thread(&["a", "b"]);
    document["title"] = json!("Plans");
    document["workspace"] = json!({"root": "/home/ann/secret-project", "hostname": "ann-laptop"});
    document["extra"] = json!({"mine": true});
    document["messages"][0]["usage"] = json!({"input_tokens": 3});
    let id = ann.creates(&document).await;
    let (token, made) = share(&ann, &id, json!({})).await;
    assert_eq!(token.len(), 48);
    assert_eq!(made["url"], format!("{}{}", "", shared(&token)));
    assert_eq!((&made["live"], &made["through_seq"]), (&json!(false), &json!(2)));

    ann.append(&id, &json!({"messages": [message("c")]})).await.expect(StatusCode::OK);
    let nobody = app.anonymous();
    let seen = nobody.get(&shared(&token)).await.expect(StatusCode::OK);
    assert_eq!(ids(&seen.body), ["a", "b"], "it ends where it ended when it was shared");
    assert_eq!(seen.body["title"], "Plans");
    assert_eq!(seen.body["is_frozen"], true);
    for private in ["ann-laptop", "secret-project", "mine", "input_tokens", &ann.user_id(), &id] {
        assert!(!seen.text.contains(private), "{private}: {}", seen.text);
    }
    assert!(seen.header("x-robots-tag").contains("noindex"));
    assert_eq!(seen.header("referrer-policy"), "no-referrer");
    assert!(seen.header("cache-control").contains("no-store"));
}

#[tokio::test]
async fn a_live_link_goes_on_with_the_thread() {
    let app = App::start().await;
    let ann = app.somebody().await;
    let id = ann.creates(&thread(&["a"])).await;
    let (token, _) = share(&ann, &id, json!({"live": true})).await;
    ann.append(&id, &json!({"messages": [message("b")]})).await.expect(StatusCode::OK);
    let seen = ann.get(&shared(&token)).await.expect(StatusCode::OK);
    assert_eq!(ids(&seen.body), ["a", "b"]);
}

#[tokio::test]
async fn a_browser_gets_a_page_without_script_where_text_is_text() {
    let app = App::start().await;
    let ann = app.somebody().await;
    let text = "<script>alert(1)</script> & more";
    let document = json!({"title": "<b>T</b>", "messages": [
        {"id": "a", "role": "user", "content": text},
        {"id": "b", "role": "assistant", "content": null, "tool_calls": [{"id": "c", "name": "run<x>"}]},
        {"id": "c", "role": "tool", "content": [{"type": "text", "text": "<i>out</i>"}, {"type": "image", "data": "x"}]},
    ]});
    let id = ann.creates(&document).await;
    let (token, _) = share(&ann, &id, json!({})).await;
    let page = ann.get(&shared(&token)).header("accept", "text/html,*/*").await;
    let page = page.expect(StatusCode::OK);
    assert!(page.header("content-type").starts_with("text/html"));
    assert!(page.header("content-security-policy").starts_with("default-src 'none'"));
    for escaped in ["&lt;script&gt;alert(1)", "&lt;i&gt;out", "&lt;b&gt;T", "run&lt;x&gt;"] {
        assert!(page.text.contains(escaped), "{escaped}: {}", page.text);
    }
    assert!(!page.text.contains("<script") && !page.text.contains("<i>"), "{}", page.text);
}

#[tokio::test]
async fn a_link_ends_when_it_is_withdrawn_replaced_or_over_and_with_the_thread() {
    let app = App::start().await;
    let ann = app.somebody().await;
    let id = ann.creates(&thread(&["a"])).await;
    let path = format!("/api/threads/{id}/share");
    let gone = async |token: &str| {
        let answer = ann.get(&shared(token)).await;
        answer.expect_problem(StatusCode::NOT_FOUND, "not_found");
    };

    let (first, _) = share(&ann, &id, json!({})).await;
    let (second, _) = share(&ann, &id, json!({})).await;
    gone(&first).await;
    ann.get(&shared(&second)).await.expect(StatusCode::OK);
    ann.request(http::Method::DELETE, &path).await.expect(StatusCode::NO_CONTENT);
    gone(&second).await;
    ann.request(http::Method::DELETE, &path).await.expect(StatusCode::NO_CONTENT);

    let end = app.clock.now() + chrono::TimeDelta::hours(1);
    let (third, _) = share(&ann, &id, json!({"expires_at": end})).await;
    ann.get(&shared(&third)).await.expect(StatusCode::OK);
    app.advance(3_600_000);
    gone(&third).await;

    let (fourth, _) = share(&ann, &id, json!({})).await;
    ann.delete(&id).await.expect(StatusCode::NO_CONTENT);
    gone(&fourth).await;
    for never in ["", "0", &"g".repeat(48), &"0".repeat(48), &"A".repeat(48)] {
        if never.is_empty() {
            continue;
        }
        gone(never).await;
    }
}

#[tokio::test]
async fn who_may_not_change_a_thread_makes_no_link_to_it() {
    let app = App::start().await;
    let org = app.organisation().await;
    let ann = app.member(org, OrgRole::Member).await;
    let bob = app.member(org, OrgRole::Member).await;
    let eve = app.somebody().await;
    let mut document = thread(&["a"]);
    document["visibility"] = json!("organization");
    let id = ann.creates(&document).await;
    let path = format!("/api/threads/{id}/share");
    for (person, status) in [(&bob, StatusCode::FORBIDDEN), (&eve, StatusCode::NOT_FOUND)] {
        for method in [http::Method::POST, http::Method::GET, http::Method::DELETE] {
            let call = person.request(method.clone(), &path);
            let call = if method == http::Method::POST { call.json(&json!({})) } else { call };
            call.await.expect(status);
        }
    }
    let reader = ann.with_scopes(&[Scope::ThreadsRead]);
    let call = reader.request(http::Method::POST, &path).json(&json!({}));
    call.await.expect(StatusCode::FORBIDDEN);
    let call =
        ann.request(http::Method::POST, &path).json(&json!({"expires_at": "2020-01-01T00:00:00Z"}));
    call.await.expect_invalid(&["expires_at"]);
}

#[tokio::test]
async fn what_looks_like_a_secret_is_told_before_and_masked_in_the_link() {
    let app = App::start().await;
    let ann = app.somebody().await;
    let document = json!({"title": format!("key {TOKEN}"), "messages": [
        {"id": "a", "role": "user", "content": "plain"},
        {"id": "b", "role": "tool", "tool_call_id": "c", "content": format!("export TOKEN={TOKEN}")},
    ]});
    let id = ann.creates(&document).await;
    let path = format!("/api/threads/{id}/share");
    let preview = ann.get(&path).await.expect(StatusCode::OK).body;
    assert_eq!((&preview["messages"], &preview["tool_messages"]), (&json!(2), &json!(1)));
    assert_eq!(preview["visibility"], "private");
    assert_eq!(preview["share"], Value::Null);
    assert_eq!(preview["findings"].as_array().unwrap().len(), 1);
    assert_eq!(preview["findings"][0]["seq"], 2);
    assert_eq!(preview["secrets"]["github-token"], 2, "in the title, too");
    assert!(!preview["findings"].to_string().contains("ghp_"));

    let (token, _) = share(&ann, &id, json!({})).await;
    let seen = ann.get(&shared(&token)).await.expect(StatusCode::OK);
    assert!(!seen.text.contains("ghp_") && seen.text.contains("[redacted:github-token]"));
    assert!(ann.read(&id).await.text.contains(TOKEN), "the thread itself is as it was");
    let (token, _) = share(&ann, &id, json!({"redact": false})).await;
    assert!(ann.get(&shared(&token)).await.text.contains(TOKEN));
    let preview = ann.get(&path).await.expect(StatusCode::OK).body;
    assert_eq!(preview["share"]["redact"], false);
    assert!(preview["share"].get("token").is_none());
}

#[tokio::test]
async fn an_organisation_may_have_secrets_masked_before_they_are_stored() {
    let app = App::start().await;
    let org = app.organisation().await;
    let boss = app.member(org, OrgRole::Owner).await;
    let ann = app.member(org, OrgRole::Member).await;
    let settings = format!("/api/orgs/{org}/threads/settings");
    let on = json!({"redact_secrets": true});
    ann.request(http::Method::PUT, &settings).json(&on).await.expect(StatusCode::FORBIDDEN);
    assert_eq!(ann.get(&settings).await.expect(StatusCode::OK).body["redact_secrets"], false);
    boss.request(http::Method::PUT, &settings).json(&on).await.expect(StatusCode::OK);
    assert_eq!(ann.get(&settings).await.expect(StatusCode::OK).body["redact_secrets"], true);

    let secret = |id: &str| json!({"id": id, "role": "user", "content": format!("use {TOKEN}")});
    let mut document = json!({"messages": [secret("a")], "title": TOKEN, "tags": [TOKEN]});
    document["extra"] = json!({"api_key": "tulip-and-rose-42"});
    let id = ann.creates(&document).await;
    let append = json!({"messages": [secret("b")], "tags": ["ci", TOKEN], "extra": {TOKEN: 1}});
    ann.append(&id, &append).await.expect(StatusCode::OK);
    ann.patch(&id, &json!({"agent_state": {"kind": "error", "last_error": TOKEN}}))
        .await
        .expect(StatusCode::OK);
    let read = ann.read(&id).await.expect(StatusCode::OK);
    for secret in ["ghp_", "tulip"] {
        assert!(!read.text.contains(secret), "{}", read.text);
    }
    assert_eq!(read.body["messages"][1]["content"], "use [redacted:github-token]");
    // The same again is no change: what is compared is what is stored.
    let again = json!({"messages": [secret("a"), secret("b")]});
    let tag = format!("\"{}\"", read.version());
    let put = ann.put(&id, &again).if_match(&tag).await.expect(StatusCode::OK);
    assert_eq!(put.places(), read.places());

    let stored: Vec<String> = sqlx::query_scalar(
        "SELECT t::text FROM thread_messages t UNION ALL SELECT t::text FROM threads t",
    )
    .fetch_all(app.pool())
    .await
    .unwrap();
    assert!(stored.iter().all(|row| !row.contains("ghp_")));
}

#[tokio::test]
async fn a_deleted_thread_comes_back_within_thirty_days() {
    let app = App::start().await;
    let org = app.organisation().await;
    let ann = app.member(org, OrgRole::Member).await;
    let bob = app.member(org, OrgRole::Member).await;
    let id = ann.creates(&thread(&["a", "b"])).await;
    let restore = format!("/api/threads/{id}/restore");
    ann.delete(&id).await.expect(StatusCode::NO_CONTENT);
    assert_eq!(ann.lists("").await, Vec::<String>::new());
    assert_eq!(ann.lists("?deleted=true").await, [id.as_str()]);
    assert_eq!(bob.lists("?deleted=true").await, Vec::<String>::new());
    bob.request(http::Method::POST, &restore).await.expect(StatusCode::NOT_FOUND);
    let back = ann.request(http::Method::POST, &restore).await.expect(StatusCode::OK);
    assert_eq!(back.version(), 3);
    assert_eq!(ann.read(&id).await.expect(StatusCode::OK).places().len(), 2);
    // Again is no change.
    let again = ann.request(http::Method::POST, &restore).await.expect(StatusCode::OK);
    assert_eq!(again.version(), 3);

    ann.delete(&id).await.expect(StatusCode::NO_CONTENT);
    app.advance(30 * 24 * 3_600_000);
    ann.request(http::Method::POST, &restore).await.expect(StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_link_ends_with_its_thread_and_does_not_come_back_with_it() {
    let app = App::start().await;
    let ann = app.somebody().await;
    let id = ann.creates(&thread(&["a"])).await;
    let (token, _) = share(&ann, &id, json!({})).await;
    ann.delete(&id).await.expect(StatusCode::NO_CONTENT);
    ann.get(&shared(&token)).await.expect(StatusCode::NOT_FOUND);
    let restore = format!("/api/threads/{id}/restore");
    ann.request(http::Method::POST, &restore).await.expect(StatusCode::OK);
    ann.get(&shared(&token)).await.expect(StatusCode::NOT_FOUND);
    let preview = ann.get(&format!("/api/threads/{id}/share")).await.expect(StatusCode::OK);
    assert_eq!(preview.body["share"], Value::Null);
}

#[tokio::test]
async fn the_preview_counts_secrets_that_only_a_wider_visibility_shows() {
    let app = App::start().await;
    let ann = app.somebody().await;
    let document = json!({"messages": [], "tags": [TOKEN], "extra": {"note": TOKEN}});
    let id = ann.creates(&document).await;
    let preview = ann.get(&format!("/api/threads/{id}/share")).await.expect(StatusCode::OK);
    assert_eq!(preview.body["secrets"], json!({"github-token": 2}));
}
