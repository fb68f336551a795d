//! What becomes of events.

use std::time::Duration;

use loom_testkit::{Setup, TestApp, User, eventually};
use serde_json::{Value, json};

pub(crate) struct World {
    pub(crate) app: TestApp,
    pub(crate) ada: User,
    project: Value,
}

impl World {
    pub(crate) async fn of(app: TestApp) -> Self {
        let ada = app.user("ada@example.com").await;
        let new = json!({"name": "Shop"});
        let project = ada.post("/api/crash/projects", &new).await.expect(201).json();
        Self { app, ada, project }
    }

    pub(crate) async fn new() -> Self {
        Self::of(TestApp::start().await).await
    }

    fn key(&self) -> String {
        let dsn = self.project["dsn"].as_str().unwrap();
        dsn.split("://").nth(1).unwrap().split('@').next().unwrap().to_owned()
    }

    pub(crate) async fn capture(&self, event: Value) -> Value {
        let mut event = event;
        event["project_id"] = "shop".into();
        self.ada.post("/api/crash/capture", &event).await.expect(200).json()
    }

    pub(crate) async fn issue(&self, captured: &Value) -> Value {
        let id = captured["issue_id"].as_str().unwrap();
        let query = format!("SELECT * FROM crash_issues WHERE id = '{id}'");
        self.app.rows(&query).await.remove(0)
    }
}

/// Waits for what comes true by itself.
pub(crate) async fn until(_what: &str, is_so: impl AsyncFn() -> bool) {
    eventually(async || is_so().await.then_some(())).await;
}

pub(crate) fn fault(kind: &str, function: &str) -> Value {
    json!({"exception_type": kind, "exception_value": "it broke", "platform": "python",
        "stacktrace": {"frames": [{"function": function, "module": "shop.cart", "in_app": true,
            "filename": "shop/cart.py", "lineno": 7}]}})
}

#[expect(clippy::needless_pass_by_value, reason = "called with what json! makes")]
pub(crate) fn with(mut event: Value, more: Value) -> Value {
    for (key, value) in more.as_object().unwrap() {
        event[key] = value.clone();
    }
    event
}

#[tokio::test]
async fn a_captured_event_is_grouped_before_the_answer() {
    let world = World::new().await;
    let first = world.capture(fault("KeyError", "total")).await;
    assert_eq!(first["short_id"], "SHOP-1");
    assert_eq!(first["is_new_issue"], true);
    assert_eq!(first["is_regression"], false);
    let second = world.capture(fault("KeyError", "total")).await;
    assert_eq!(second["issue_id"], first["issue_id"]);
    assert_eq!(second["is_new_issue"], false);
    let other = world.capture(fault("ValueError", "checkout")).await;
    assert_eq!(other["short_id"], "SHOP-2");
    let issue = world.issue(&first).await;
    assert_eq!(issue["event_count"], 2);
    assert_eq!(issue["status"], "unresolved");
    assert!(issue["title"].as_str().unwrap().contains("KeyError"), "{issue}");
    let events = world.app.rows("SELECT * FROM crash_events").await;
    assert_eq!(events.len(), 3);
    assert_eq!(world.app.rows("SELECT * FROM crash_queue").await.len(), 0);
}

#[tokio::test]
async fn an_event_that_is_sent_again_counts_once() {
    let world = World::new().await;
    let id = "a3f1c2d4-0000-4000-8000-000000000001";
    let event = with(fault("KeyError", "total"), json!({"event_id": id}));
    let first = world.capture(event.clone()).await;
    let again = world.capture(event).await;
    assert_eq!(again["issue_id"], first["issue_id"]);
    assert_eq!(world.issue(&first).await["event_count"], 1);
    until("the repeat is gone", async || {
        world.app.rows("SELECT event_id FROM crash_raw").await.len() == 1
            && world.app.rows("SELECT id FROM crash_queue").await.is_empty()
    })
    .await;
}

#[tokio::test]
async fn hours_tags_users_and_releases_are_counted() {
    let world = World::new().await;
    for (user, release) in [("1", "shop@1.0.0"), ("2", "shop@1.0.0"), ("1", "shop@1.1.0")] {
        let more = json!({"user": {"id": user}, "release": release, "environment": "production",
            "tags": {"browser": "firefox"}});
        world.capture(with(fault("KeyError", "total"), more)).await;
    }
    let captured = world.capture(fault("KeyError", "total")).await;
    let issue = world.issue(&captured).await;
    assert_eq!(issue["event_count"], 4);
    assert_eq!(issue["user_count"], 2);
    assert_eq!(issue["first_release"], "shop@1.0.0");
    assert_eq!(issue["last_release"], "shop@1.1.0");
    let hours = world
        .app
        .rows("SELECT environment, sum(events)::bigint AS events FROM crash_issue_hours GROUP BY 1 ORDER BY 1")
        .await;
    assert_eq!(
        hours,
        [
            json!({"environment": "", "events": 1}),
            json!({"environment": "production", "events": 3})
        ]
    );
    let tags = world
        .app
        .rows("SELECT value, events FROM crash_issue_tags WHERE key = 'release' ORDER BY 1")
        .await;
    assert_eq!(
        tags,
        [json!({"value": "shop@1.0.0", "events": 2}), json!({"value": "shop@1.1.0", "events": 1})]
    );
    let releases =
        world.app.rows("SELECT version, events FROM crash_releases ORDER BY sort_key").await;
    assert_eq!(
        releases,
        [
            json!({"version": "shop@1.0.0", "events": 2}),
            json!({"version": "shop@1.1.0", "events": 1})
        ]
    );
}

#[tokio::test]
async fn values_of_a_tag_are_counted_up_to_a_number() {
    let world = World::new().await;
    for n in 0..6 {
        let events: Vec<_> = (0..50)
            .map(|m| {
                let tags = json!({"order": format!("{n}-{m}")});
                with(fault("KeyError", "total"), json!({"tags": tags, "project_id": "shop"}))
            })
            .collect();
        world.ada.post("/api/crash/batch", &json!({"events": events})).await.expect(200);
    }
    let counted = world
        .app
        .rows(
            "SELECT value = '(other)' AS other, count(*), sum(events)::bigint AS events
                 FROM crash_issue_tags WHERE key = 'order' GROUP BY 1 ORDER BY 1",
        )
        .await;
    assert_eq!(
        counted,
        [
            json!({"other": false, "count": 200, "events": 200}),
            json!({"other": true, "count": 1, "events": 100})
        ]
    );
    let events = world.app.rows("SELECT event_id FROM crash_events").await.len();
    assert_eq!(events, 300);
}

#[tokio::test]
async fn a_resolved_issue_comes_back_unless_the_release_is_older() {
    let world = World::new().await;
    let event = |release: &str| with(fault("KeyError", "total"), json!({"release": release}));
    let first = world.capture(event("shop@1.2.0")).await;
    let id = first["issue_id"].as_str().unwrap().to_owned();
    let resolve = format!(
        "UPDATE crash_issues SET status = 'resolved', resolved_at = now() - interval '1 minute',
                resolved_in_release = 'shop@1.10.0' WHERE id = '{id}'"
    );
    let resolve = async || {
        sqlx::query(sqlx::AssertSqlSafe(resolve.clone()))
            .execute(world.app.database.pool())
            .await
            .unwrap();
    };
    resolve().await;
    let older = world.capture(event("shop@1.9.3")).await;
    assert_eq!(older["is_regression"], false);
    assert_eq!(world.issue(&first).await["status"], "resolved");
    let newer = world.capture(event("shop@1.10.0")).await;
    assert_eq!(newer["is_regression"], true);
    let issue = world.issue(&first).await;
    assert_eq!(issue["status"], "regressed");
    assert_eq!(issue["times_regressed"], 1);
    assert_eq!(issue["regressed_in_release"], "shop@1.10.0");
    assert_eq!(issue["event_count"], 3);
    // It is back: it does not come back again.
    assert_eq!(world.capture(event("shop@1.10.1")).await["is_regression"], false);
    resolve().await;
    sqlx::query("UPDATE crash_issues SET status = 'ignored', ignored_until = NULL")
        .execute(world.app.database.pool())
        .await
        .unwrap();
    assert_eq!(world.capture(event("shop@2.0.0")).await["is_regression"], false);
    assert_eq!(world.issue(&first).await["status"], "ignored");
    sqlx::query("UPDATE crash_issues SET ignored_until = now() - interval '1 second'")
        .execute(world.app.database.pool())
        .await
        .unwrap();
    world.capture(event("shop@2.0.0")).await;
    assert_eq!(world.issue(&first).await["status"], "unresolved");
}

#[tokio::test]
async fn too_many_new_issues_are_folded_into_one_and_their_events_kept() {
    let world = World::new().await;
    let patch = json!({"new_issues_per_hour": 3});
    world.ada.patch("/api/crash/projects/shop", &patch).await.expect(200);
    let mut issues = Vec::new();
    for n in 0..7 {
        let captured =
            world.capture(fault("KeyError", &format!("function_{}", "x".repeat(n + 1)))).await;
        issues.push(captured["issue_id"].as_str().unwrap().to_owned());
    }
    let notice = issues[3].clone();
    assert!(issues[3..].iter().all(|issue| *issue == notice), "{issues:?}");
    let rows =
        world.app.rows("SELECT id, title, event_count FROM crash_issues ORDER BY number").await;
    assert_eq!(rows.len(), 4);
    assert_eq!(rows[3]["event_count"], 4);
    assert!(rows[3]["title"].as_str().unwrap().starts_with("More new issues"), "{rows:?}");
    assert_eq!(world.app.rows("SELECT event_id FROM crash_events").await.len(), 7);
}

#[tokio::test]
async fn the_key_of_a_project_lets_its_events_in_and_nothing_else() {
    let world = World::new().await;
    let event = fault("KeyError", "total");
    let anyone = world.app.anonymous();
    anyone.post("/api/crash/capture", &event).await.expect(401);
    let key = anyone.with("x-crash-api-key", &world.key());
    let captured = key.post("/api/crash/capture", &event).await.expect(200).json();
    assert_eq!(captured["short_id"], "SHOP-1");
    key.get("/api/crash/projects/shop").await.expect(401);
    let foreign = with(event.clone(), json!({"project_id": "other"}));
    key.post("/api/crash/capture", &foreign).await.expect(403);
    let bad = anyone.with("x-crash-api-key", "00000000000000000000000000000000");
    bad.post("/api/crash/capture", &event).await.expect(401);

    let patch = json!({"allowed_origins": ["https://shop.example"]});
    world.ada.patch("/api/crash/projects/shop", &patch).await.expect(200);
    let page = key.with("origin", "https://shop.example");
    page.post("/api/crash/capture", &event).await.expect(200);
    let page = key.with("origin", "https://evil.example");
    page.post("/api/crash/capture", &event).await.expect(403);

    let keys = world.ada.get("/api/crash/projects/shop/keys").await.expect(200).json();
    let path = format!("/api/crash/projects/shop/keys/{}", keys["keys"][0]["id"].as_str().unwrap());
    world.ada.patch(&path, &json!({"enabled": false})).await.expect(200);
    key.post("/api/crash/capture", &event).await.expect(403);
}

#[tokio::test]
async fn a_batch_is_answered_one_by_one() {
    let world = World::new().await;
    let good = with(fault("KeyError", "total"), json!({"project_id": "shop"}));
    let bad = json!({"project_id": "shop", "level": "terrible", "exception_type": "X"});
    let foreign = with(fault("KeyError", "total"), json!({"project_id": "nobodys"}));
    let batch = json!({"events": [good, bad, foreign, good]});
    let answer = world.ada.post("/api/crash/batch", &batch).await.expect(200).json();
    let results = answer["results"].as_array().unwrap();
    assert_eq!(results[0]["short_id"], "SHOP-1");
    assert_eq!(results[1]["error"]["status"], 422);
    assert_eq!(results[2]["error"]["status"], 404);
    assert_eq!(results[3]["issue_id"], results[0]["issue_id"]);
    let many = json!({"events": vec![good; 101]});
    world.ada.post("/api/crash/batch", &many).await.expect(422);
}

#[tokio::test]
async fn an_event_that_cannot_be_processed_is_put_aside_and_its_neighbours_pass() {
    let world = World::new().await;
    let pool = world.app.database.pool();
    // One that no longer is what was stored, among others.
    let count = if loom_testkit::chaos::is_long() { 10_000 } else { 500 };
    let template = world.capture(fault("KeyError", "total")).await;
    let event = template["event_id"].as_str().unwrap();
    let copies = format!(
        "WITH raw AS (
             INSERT INTO crash_raw
             SELECT org_id, project_id, gen_random_uuid(), received_at,
                    CASE WHEN n = {} THEN '\\x00'::bytea ELSE payload END, delivery
               FROM crash_raw, generate_series(1, {count}) n WHERE event_id = '{event}'
             RETURNING org_id, project_id, event_id, received_at)
         INSERT INTO crash_queue (org_id, project_id, event_id, received_at)
         SELECT org_id, project_id, event_id, received_at FROM raw",
        count / 2
    );
    sqlx::query(sqlx::AssertSqlSafe(copies)).execute(pool).await.unwrap();
    sqlx::query("SELECT pg_notify('loom_crashes', 'queue')").execute(pool).await.unwrap();
    until("all but one are processed", async || {
        world.issue(&template).await["event_count"] == count
    })
    .await;
    // What failed rests between the attempts; the test does not.
    until("it is put aside", async || {
        sqlx::query("UPDATE crash_queue SET claimed_until = now() WHERE claimed_until IS NOT NULL AND parked_at IS NULL")
            .execute(pool)
            .await
            .unwrap();
        let parked = world.ada.get("/api/crash/projects/shop/parked").await.expect(200).json();
        parked["events"].as_array().unwrap().len() == 1
    })
    .await;
    let parked = world.ada.get("/api/crash/projects/shop/parked").await.expect(200).json();
    assert_eq!(parked["events"][0]["attempts"], 5);
    assert!(parked["events"][0]["reason"].as_str().unwrap().contains("decompressed"), "{parked}");
    // Mended, it passes.
    let mend = format!(
        "UPDATE crash_raw SET payload = (SELECT payload FROM crash_raw WHERE event_id = '{event}')
          WHERE octet_length(payload) = 1"
    );
    sqlx::query(sqlx::AssertSqlSafe(mend)).execute(pool).await.unwrap();
    let retried =
        world.ada.post("/api/crash/projects/shop/parked/retry", &json!({})).await.expect(202);
    assert_eq!(retried.json()["events"], 1);
    until("it is processed, too", async || {
        world.issue(&template).await["event_count"] == count + 1
    })
    .await;
}

#[tokio::test]
async fn two_servers_process_each_event_once() {
    let world = World::new().await;
    let replica = world.app.replica().await;
    let here = world.ada.caller.clone();
    let there = world.ada.caller.at(&replica);
    let send = |caller: loom_testkit::Caller, from: usize| async move {
        for n in 0..10 {
            let events: Vec<_> = (0..40)
                .map(|m| {
                    let function = "f".repeat((from + n * 40 + m) % 7 + 1);
                    with(fault("KeyError", &function), json!({"project_id": "shop"}))
                })
                .collect();
            let answer = caller.post("/api/crash/batch", &json!({"events": events})).await;
            let answer = answer.expect(200).json();
            for result in answer["results"].as_array().unwrap() {
                assert!(result["event_id"].is_string(), "{result}");
            }
        }
    };
    tokio::join!(send(here, 0), send(there, 3));
    until("the queue is empty", async || {
        world.app.rows("SELECT id FROM crash_queue").await.is_empty()
    })
    .await;
    let sums = world
        .app
        .rows(
            "SELECT (SELECT count(*) FROM crash_events) AS events,
                    (SELECT count(DISTINCT event_id) FROM crash_events) AS ids,
                    (SELECT sum(event_count)::bigint FROM crash_issues) AS counted,
                    (SELECT count(*) FROM crash_issues) AS issues,
                    (SELECT count(DISTINCT number) FROM crash_issues) AS numbers,
                    (SELECT sum(events)::bigint FROM crash_issue_hours) AS hours",
        )
        .await;
    assert_eq!(
        sums[0],
        json!({"events": 800, "ids": 800, "counted": 800, "issues": 7, "numbers": 7, "hours": 800})
    );
    replica.shut_down().await;
}

#[tokio::test]
async fn what_a_server_had_taken_that_is_gone_is_processed_by_another() {
    let world = World::new().await;
    let captured = world.capture(fault("KeyError", "total")).await;
    let event = captured["event_id"].as_str().unwrap();
    // As a server leaves it that was killed while it processed.
    let taken = format!(
        "WITH raw AS (
             INSERT INTO crash_raw SELECT org_id, project_id, gen_random_uuid(), received_at, payload, delivery
               FROM crash_raw WHERE event_id = '{event}' RETURNING org_id, project_id, event_id, received_at)
         INSERT INTO crash_queue (org_id, project_id, event_id, received_at, attempts, claimed_until)
         SELECT org_id, project_id, event_id, received_at, 1, now() - interval '1 second' FROM raw"
    );
    sqlx::query(sqlx::AssertSqlSafe(taken)).execute(world.app.database.pool()).await.unwrap();
    until("it is processed", async || world.issue(&captured).await["event_count"] == 2).await;
}

#[tokio::test]
async fn to_process_an_issue_again_changes_nothing_that_is_right_and_follows_new_rules() {
    let world = World::new().await;
    let mut captured = Value::Null;
    for user in ["1", "2", "3"] {
        let more = json!({"user": {"id": user}, "environment": "live"});
        captured = world.capture(with(fault("KeyError", "total"), more)).await;
    }
    let before = world.issue(&captured).await;
    let path = format!(
        "/api/crash/projects/shop/issues/{}/reprocess",
        captured["short_id"].as_str().unwrap()
    );
    for _ in 0..2 {
        let again = world.ada.post(&path, &json!({})).await.expect(202).json();
        assert_eq!(again["events"], 3);
        until("they are processed", async || {
            world.app.rows("SELECT id FROM crash_queue").await.is_empty()
        })
        .await;
    }
    let strip = |mut issue: Value| {
        issue["updated_at"] = Value::Null;
        issue
    };
    assert_eq!(strip(world.issue(&captured).await), strip(before));
    assert_eq!(world.app.rows("SELECT event_id FROM crash_events").await.len(), 3);
    // Grouped otherwise by now: the issue stays what it is.
    sqlx::query("UPDATE crash_grouping_hashes SET hash = '\\x00000000000000000000000000000001'")
        .execute(world.app.database.pool())
        .await
        .unwrap();
    sqlx::query("UPDATE crash_events SET hash = '\\x00000000000000000000000000000001'")
        .execute(world.app.database.pool())
        .await
        .unwrap();
    world.ada.post(&path, &json!({})).await.expect(202);
    until("they are processed", async || {
        world.app.rows("SELECT id FROM crash_queue").await.is_empty()
    })
    .await;
    let issue = world.issue(&captured).await;
    assert_eq!(issue["event_count"], 3);
    let next = world.capture(fault("KeyError", "total")).await;
    assert_eq!(next["issue_id"], captured["issue_id"]);
    world
        .ada
        .post("/api/crash/projects/shop/issues/SHOP-99/reprocess", &json!({}))
        .await
        .expect(404);
}

#[tokio::test]
async fn events_are_deleted_when_their_project_does_not_keep_them_any_more() {
    let world = World::of(Setup::default().manual_clock().start().await).await;
    let patch = json!({"retention_days": 7});
    world.ada.patch("/api/crash/projects/shop", &patch).await.expect(200);
    world.capture(fault("KeyError", "total")).await;
    world.app.clock.advance(Duration::from_secs(5 * 86_400));
    let kept = world.capture(fault("KeyError", "total")).await;
    world.app.clock.advance(Duration::from_secs(3 * 86_400));
    world.app.running.features.jobs.run_now("crash-event-cleanup").await.unwrap();
    for table in ["crash_raw", "crash_events", "crash_event_ids"] {
        let rows = world.app.rows(&format!("SELECT event_id FROM {table}")).await;
        assert_eq!(rows, [json!({"event_id": kept["event_id"]})], "{table}");
    }
    // What was counted stays.
    assert_eq!(world.issue(&kept).await["event_count"], 2);
    world.ada.delete("/api/crash/projects/shop").await.expect(204);
    world.app.running.features.jobs.run_now("crash-project-purge").await.unwrap();
    for table in ["crash_raw", "crash_events", "crash_event_ids", "crash_issues"] {
        assert!(
            world.app.rows(&format!("SELECT 1 AS one FROM {table}")).await.is_empty(),
            "{table}"
        );
    }
    // Loom's own are there.
    let hers = "SELECT 1 AS one FROM crash_projects WHERE slug NOT LIKE 'loom-%'";
    assert!(world.app.rows(hers).await.is_empty());
}
