//! The whole server: what was sent is in the database, and its own layers are not in the way.

use std::time::Duration;

use loom_testkit::{Answer, Caller, Setup, TestApp, User, eventually};
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::EVENT;

/// A project, its number and its key.
struct Shop {
    id: String,
    number: i64,
    key: String,
}

async fn shop(user: &User, slug: &str) -> Shop {
    let project = json!({"name": slug, "slug": slug});
    let project = user.post("/api/crash/projects", &project).await.expect(201).json();
    let dsn = project["dsn"].as_str().unwrap();
    let (_, rest) = dsn.split_once("://").unwrap();
    let (key, rest) = rest.split_once('@').unwrap();
    let (_, number) = rest.rsplit_once('/').unwrap();
    Shop {
        id: project["id"].as_str().unwrap().to_owned(),
        number: number.parse().unwrap(),
        key: key.to_owned(),
    }
}

impl Shop {
    fn path(&self, route: &str) -> String {
        format!("/api/{}/{route}?sentry_key={}", self.number, self.key)
    }

    async fn send(&self, caller: &Caller, body: impl Into<String>) -> Answer {
        let request = caller.request(Method::POST, &self.path("envelope/")).body(body.into());
        caller.send(request).await
    }
}

fn event(id: &str) -> String {
    format!(
        "{{\"event_id\":\"{id}\"}}\n{{\"type\":\"event\"}}\n{{\"message\":\"it broke\",\"release\":\"a@1\"}}\n"
    )
}

fn report(category: &str, reason: &str, quantity: i64) -> String {
    let lost = json!({"discarded_events": [{"reason": reason, "category": category, "quantity": quantity}]});
    format!("{{}}\n{{\"type\":\"client_report\"}}\n{lost}\n")
}

#[tokio::test]
async fn an_event_that_was_answered_with_200_is_in_the_database_and_becomes_an_issue() {
    let app = TestApp::start().await;
    let user = app.user("ada@example.com").await;
    let shop = shop(&user, "shop").await;
    let sent = shop.send(&app.anonymous(), event(EVENT)).await.expect(200);
    assert_eq!(sent.json(), json!({"id": EVENT}));
    let raw = app.rows("SELECT event_id, project_id, delivery FROM crash_raw").await;
    assert_eq!(raw.len(), 1);
    assert_eq!(raw[0]["event_id"].as_str().unwrap().replace('-', ""), EVENT);
    assert_eq!(raw[0]["project_id"], shop.id);
    let issues = eventually(async || {
        let issues = app.rows("SELECT title, event_count FROM crash_issues").await;
        (!issues.is_empty()).then_some(issues)
    })
    .await;
    assert_eq!(issues[0]["event_count"], 1);
}

#[tokio::test]
async fn keys_of_projects_are_no_credentials_of_ours_and_wrong_ones_bar_nobody() {
    let app = TestApp::start().await;
    let user = app.user("ada@example.com").await;
    let shop = shop(&user, "shop").await;
    // More than an address may guess at tokens in a minute.
    for n in 0..150_u128 {
        let unknown = format!("{n:032x}");
        let caller = app.anonymous().with("authorization", &basic(&unknown));
        let request = caller.request(Method::POST, &format!("/api/{}/envelope/", shop.number));
        let answer = caller.send(request.body(event(EVENT))).await.expect(403);
        assert!(answer.json()["detail"].is_string());
    }
    for value in [basic(&shop.key), format!("Sentry sentry_key={}", shop.key)] {
        let caller = app.anonymous().with("authorization", &value);
        let request = caller.request(Method::POST, &format!("/api/{}/envelope/", shop.number));
        caller.send(request.body(event(EVENT))).await.expect(200);
    }
    let stranger = app.anonymous().with("authorization", "Bearer loom_pat_nobody");
    assert_eq!(stranger.get("/api/threads").await.expect(401).code(), "unauthenticated");
    user.get("/api/threads").await.expect(200);
}

fn basic(user: &str) -> String {
    use base64::{Engine, engine::general_purpose::STANDARD};
    format!("Basic {}", STANDARD.encode(format!("{user}:")))
}

#[tokio::test]
async fn a_key_that_is_switched_off_or_limited_is_so_for_who_sends() {
    let app = TestApp::start().await;
    let user = app.user("ada@example.com").await;
    let shop = shop(&user, "shop").await;
    let keys = format!("/api/crash/projects/{}/keys", shop.id);
    let key =
        user.get(&keys).await.expect(200).json()["keys"][0]["id"].as_str().unwrap().to_owned();
    let one = format!("{keys}/{key}");
    user.patch(&one, &json!({"limit": {"count": 1, "window_secs": 3600}})).await.expect(200);
    let caller = app.anonymous();
    eventually(async || {
        let answer = shop.send(&caller, event(EVENT)).await;
        (answer.status == 429).then_some(answer)
    })
    .await;
    let answer = shop.send(&caller, event(EVENT)).await.expect(429);
    assert!(answer.header("x-sentry-rate-limits").unwrap().contains(":error:key:"));
    assert!(answer.header("retry-after").is_some());
    user.patch(&one, &json!({"enabled": false})).await.expect(200);
    eventually(async || (shop.send(&caller, event(EVENT)).await.status == 403).then_some(())).await;
}

#[tokio::test]
async fn words_lead_to_our_own_api_and_numbers_to_sentrys() {
    let app = TestApp::start().await;
    let user = app.user("ada@example.com").await;
    for path in ["/api/threads/envelope", "/api/crash/envelope/", "/api/none/store/"] {
        let answer = user.post(path, &json!({})).await;
        assert!([404, 405].contains(&answer.status.as_u16()), "{path}: {answer:?}");
        answer.code();
        assert_eq!(answer.header("x-sentry-error"), None);
    }
    let answer = app.anonymous().post("/api/1/envelope/", &json!({})).await.expect(401);
    assert!(answer.header("x-sentry-error").is_some());
}

#[tokio::test]
async fn what_clients_did_not_send_is_counted_by_day_and_shown_to_who_may_see_the_project() {
    let app = Setup::default().manual_clock().start().await;
    let user = app.user("ada@example.com").await;
    let shop = shop(&user, "shop").await;
    let caller = app.anonymous();
    shop.send(&caller, report("error", "queue_overflow", 3)).await.expect(200);
    shop.send(&caller, report("error", "queue_overflow", 4)).await.expect(200);
    shop.send(&caller, report("stars", "made up", 1)).await.expect(200);
    app.clock.advance(Duration::from_secs(24 * 3600));
    shop.send(&caller, report("session", "network_error", 2)).await.expect(200);

    let path = format!("/api/crash/projects/{}/discarded", shop.id);
    let today = app.clock.now().date_naive();
    let yesterday = today.pred_opt().unwrap();
    let row = |day: chrono::NaiveDate, category: &str, reason: &str, quantity: i64| json!({"day": day.to_string(), "category": category, "reason": reason, "quantity": quantity});
    let all = user.get(&path).await.expect(200).json();
    let expected = [
        row(today, "session", "network_error", 2),
        row(yesterday, "error", "queue_overflow", 7),
        row(yesterday, "other", "other", 1),
    ];
    assert_eq!(all["discarded"], json!(expected));
    let newest = user.get(&format!("{path}?days=1")).await.expect(200).json();
    assert_eq!(newest["discarded"], json!(expected[..1]));
    user.get(&format!("{path}?days=0")).await.expect(422);
    user.get(&format!("{path}?days=91")).await.expect(422);
    let stranger = app.user("eve@example.com").await;
    stranger.get(&path).await.expect(404);

    app.clock.advance(Duration::from_secs(90 * 24 * 3600));
    let jobs = &app.running.features.jobs;
    jobs.run_now("client-report-cleanup").await.unwrap();
    let kept = app.rows("SELECT day, quantity FROM ingest_client_reports").await;
    let expected: Vec<Value> = vec![json!({"day": today.to_string(), "quantity": 2})];
    assert_eq!(kept, expected);
}

#[tokio::test]
async fn items_are_counted_by_category_and_what_became_of_them() {
    let app = TestApp::start().await;
    let user = app.user("ada@example.com").await;
    let shop = shop(&user, "shop").await;
    let caller = app.anonymous();
    let mixed = format!(
        "{}{{\"type\":\"replay_event\"}}\n{{}}\n{{\"type\":\"event\"}}\nbad\n",
        event(EVENT)
    );
    shop.send(&caller, mixed).await.expect(200);
    shop.send(&caller, "nonsense").await.expect(400);
    let metrics = caller.get("/metrics").await.expect(200).text;
    for line in [
        "loom_ingest_items_total{category=\"error\",outcome=\"accepted\"}",
        "loom_ingest_items_total{category=\"error\",outcome=\"rejected\"}",
        "loom_ingest_items_total{category=\"replay\",outcome=\"dropped\"}",
        "loom_ingest_rejected_total{status=\"400\"}",
    ] {
        assert!(metrics.contains(line), "{line}");
    }
}
