//! What the parts of the threads owe each other: what is imported, brought back, masked or large is found,
//! told and shown as all else is.

use futures::future::join_all;
use loom_core::id::new_uuid;
use loom_jobs::RunStatus;
use loom_testkit::{Setup, TestApp, User};
use serde_json::{Value, json};

const TOKEN: &str = "ghp_abcdefghijklmnopqrstuvwxyz0123456789";

fn new_id(app: &TestApp) -> String {
    format!("T-{}", new_uuid(app.clock.now()))
}

fn says(content: &str) -> Value {
    json!({ "messages": [{ "id": "a", "role": "tool", "content": content }] })
}

async fn creates(app: &TestApp, by: &User, thread: &Value) -> String {
    let id = new_id(app);
    by.put(&format!("/api/threads/{id}"), thread).await.expect(201);
    id
}

async fn total(by: &User, q: &str) -> u64 {
    let page = by.get(&format!("/api/threads/search?q={q}")).await.expect(200);
    page.json()["total"].as_u64().unwrap()
}

/// What was written down for those who follow a thread.
async fn told(app: &TestApp, id: &str) -> Vec<String> {
    let id = id.trim_start_matches("T-");
    sqlx::query_scalar("SELECT kind FROM thread_events WHERE thread_id::text = $1 ORDER BY xid, id")
        .bind(id)
        .fetch_all(app.database.pool())
        .await
        .unwrap()
}

async fn masks(by: &User) {
    let path = format!("/api/orgs/{}/threads/settings", by.org);
    by.put(&path, &json!({ "redact_secrets": true })).await.expect(200);
}

async fn handled(app: &TestApp, job: &str) -> u64 {
    let ended = app.running.features.jobs.run_now(job).await.unwrap();
    assert_eq!(ended.status, RunStatus::Succeeded, "{ended:?}");
    ended.items_handled
}

/// A large output, whose last word is said nowhere else.
fn large(last: &str) -> String {
    format!("{}{last}", "line of output\n".repeat(6000))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_thread_is_found_again_and_told() {
    let app = TestApp::start().await;
    let ann = app.user("ann@example.com").await;
    let id = creates(&app, &ann, &says(&large("apricot"))).await;
    ann.delete(&format!("/api/threads/{id}")).await.expect(204);
    assert_eq!(total(&ann, "apricot").await, 0);
    let before = told(&app, &id).await.len();
    ann.post(&format!("/api/threads/{id}/restore"), &json!({})).await.expect(200);
    assert_eq!(total(&ann, "apricot").await, 1);
    assert!(told(&app, &id).await.len() > before);
}

#[tokio::test(flavor = "multi_thread")]
async fn imported_threads_are_found_and_told_in_the_order_they_came() {
    let app = TestApp::start().await;
    let ann = app.user("ann@example.com").await;
    let mut ids = [new_id(&app), new_id(&app), new_id(&app)];
    ids.sort();
    ids.reverse();
    let threads: Vec<_> =
        ids.iter().map(|id| json!({ "id": id, "messages": says("banana")["messages"] })).collect();
    let made = ann.post("/api/threads/import", &json!({ "threads": threads })).await.expect(201);
    let made = made.json();
    let given: Vec<_> = made["threads"].as_array().unwrap().iter().map(|t| &t["id"]).collect();
    assert_eq!(given, ids.iter().collect::<Vec<_>>());
    assert_eq!(total(&ann, "banana").await, 3);
    for id in &ids {
        assert!(told(&app, id).await.contains(&"message".to_owned()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn imports_of_the_same_threads_in_any_order_end_and_one_of_them_wins() {
    let app = TestApp::start().await;
    let ann = app.user("ann@example.com").await;
    let mut ids: Vec<String> = (0..20).map(|_| new_id(&app)).collect();
    let mut bodies = Vec::new();
    for n in 0..6 {
        ids.rotate_left(n * 3);
        ids.reverse();
        let threads: Vec<_> = ids.iter().map(|id| json!({ "id": id, "messages": [] })).collect();
        bodies.push(json!({ "threads": threads }));
    }
    let all = bodies.iter().map(|body| ann.post("/api/threads/import", body));
    let mut statuses: Vec<u16> = Vec::new();
    for answer in join_all(all.map(IntoFuture::into_future)).await {
        statuses.push(answer.status.as_u16());
    }
    statuses.sort_unstable();
    assert_eq!(statuses, [201, 409, 409, 409, 409, 409]);
}

#[tokio::test(flavor = "multi_thread")]
async fn masked_text_is_not_found_however_it_came() {
    let app = TestApp::start().await;
    let ann = app.user("ann@example.com").await;
    masks(&ann).await;
    let id = creates(&app, &ann, &says(&format!("cherry {TOKEN}"))).await;
    let file = json!({ "messages": says(&format!("cherry {TOKEN}"))["messages"] });
    ann.post("/api/threads/import", &file).await.expect(201);
    assert_eq!((total(&ann, "cherry").await, total(&ann, TOKEN).await), (2, 0));
    // Piece by piece, with the secret in two of them, and on two servers.
    let other = app.replica().await;
    let path = format!("/api/threads/{id}/deltas");
    let (first, second, last) =
        (format!("damson {TOKEN} then ghp_abcdefghij"), &TOKEN[14..], " elder");
    let piece = |offset: usize, text: &str, done: bool| json!({ "id": "b", "offset": offset, "text": text, "done": done });
    ann.post(&path, &piece(0, &first, false)).await.expect(200);
    let stored = ann.get(&format!("/api/threads/{id}/messages/2")).await.expect(200).json();
    assert!(!stored["content"].as_str().unwrap().contains("ghp_"), "{stored}");
    // Another server has what is stored of it, and says where in what was sent that ends.
    let all = format!("{first}{second}{last}");
    let far = ann.at(&other);
    let conflict = far.post(&path, &piece(all.len(), "x", false)).await.expect(409).json();
    let from = usize::try_from(conflict["length"].as_u64().unwrap()).unwrap();
    assert!(from <= first.len() && from > TOKEN.len(), "{conflict}");
    let taken = far.post(&path, &piece(from, &all[from..], true)).await.expect(200).json();
    assert_eq!(taken["length"], json!(all.len()));
    let stored = ann.get(&format!("/api/threads/{id}/messages/2")).await.expect(200).json();
    let mark = "[redacted:github-token]";
    assert_eq!(stored["content"], json!(format!("damson {mark} then {mark} elder")));
    assert_eq!((total(&ann, "damson").await, total(&ann, TOKEN).await), (1, 0));
    other.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_shows_a_large_output_whole_and_its_preview_finds_secrets_at_the_end() {
    let app = TestApp::start().await;
    let ann = app.user("ann@example.com").await;
    let id = creates(&app, &ann, &says(&large(&format!("fig {TOKEN} end")))).await;
    let share = format!("/api/threads/{id}/share");
    let preview = ann.get(&share).await.expect(200).json();
    assert_eq!(preview["secrets"], json!({ "github-token": 1 }));
    let made = ann.post(&share, &json!({})).await.expect(201).json();
    let path = format!("/api/threads/shared/{}", made["token"].as_str().unwrap());
    let seen = ann.get(&path).await.expect(200).json();
    assert_eq!(seen["messages"][0]["content"], json!(large("fig [redacted:github-token] end")));
    let file = ann.get(&format!("/api/threads/{id}/export?format=json")).await.expect(200).json();
    assert_eq!(file["messages"][0]["content"], json!(large(&format!("fig {TOKEN} end"))));
}

#[tokio::test]
async fn a_large_output_is_found_by_its_end_after_a_back_fill_and_a_repair() {
    let app = Setup::default().manual_clock().start().await;
    let ann = app.user("ann@example.com").await;
    creates(&app, &ann, &says(&large("grape"))).await;
    let end = "SELECT 1";
    for (damage, job, count) in [
        (
            "DELETE FROM thread_search; UPDATE threads SET search_preparation = 0",
            "search-backfill",
            1,
        ),
        (
            "UPDATE thread_search SET digest = '\\x00', tsv = '' WHERE seq = 1",
            "search-drift-check",
            1,
        ),
        (end, "search-drift-check", 0),
    ] {
        sqlx::raw_sql(damage).execute(app.database.pool()).await.unwrap();
        assert_eq!(total(&ann, "grape").await, u64::from(damage == end));
        assert_eq!(handled(&app, job).await, count, "{job}");
        let page = ann.get("/api/threads/search?q=grape").await.expect(200).json();
        let snippet = page["hits"][0]["snippet"].as_str().unwrap();
        assert!(snippet.contains("<mark>grape</mark>"), "{snippet}");
    }
}
