//! What anybody who has a DSN can make rows of has an end, and goes when it is old.

use std::time::Duration;

use loom_testkit::Setup;
use serde_json::{Value, json};

use crate::pipeline::{World, fault, until, with};

const DAY: u64 = 86_400;

/// One event for each of these, in batches.
async fn send(world: &World, more: Vec<Value>) {
    for some in more.chunks(100) {
        let events: Vec<_> = some
            .iter()
            .map(|more| {
                let event = with(fault("KeyError", "total"), json!({"project_id": "shop"}));
                with(event, more.clone())
            })
            .collect();
        world.ada.post("/api/crash/batch", &json!({"events": events})).await.expect(200);
    }
}

async fn count(world: &World, from: &str) -> i64 {
    let rows = world.app.rows(&format!("SELECT count(*) AS n FROM {from}")).await;
    rows[0]["n"].as_i64().unwrap()
}

#[tokio::test]
async fn an_issue_counts_tags_of_so_many_names_and_always_those_of_the_event_itself() {
    let world = World::new().await;
    let tags = |from: usize| {
        let tags: serde_json::Map<_, _> =
            (from..from + 40).map(|n| (format!("key-{n:03}"), json!("1"))).collect();
        json!({"tags": tags})
    };
    for from in [0, 40, 80, 120] {
        send(&world, vec![tags(from)]).await;
    }
    let own = "'level', 'environment', 'release', 'dist', 'user', 'handled', 'mechanism'";
    let counted = format!("(SELECT DISTINCT key FROM crash_issue_tags WHERE key NOT IN ({own})) k");
    assert_eq!(count(&world, &counted).await, 100);
    // Known ones go on, and what every event has comes still.
    send(&world, vec![tags(0), json!({"environment": "late", "user": {"id": "7"}})]).await;
    assert_eq!(count(&world, &counted).await, 100);
    let rows = world
        .app
        .rows("SELECT key, events FROM crash_issue_tags WHERE key IN ('key-000', 'environment', 'user') ORDER BY 1")
        .await;
    assert_eq!(
        rows,
        [
            json!({"key": "environment", "events": 1}),
            json!({"key": "key-000", "events": 2}),
            json!({"key": "user", "events": 1})
        ]
    );
}

#[tokio::test]
async fn environments_beyond_a_number_are_counted_as_one() {
    let world = World::new().await;
    send(&world, (0..130).map(|n| json!({"environment": format!("pr-{n}")})).collect()).await;
    let known = "SELECT environment = '(other)' AS other, count(DISTINCT environment), sum(events)::bigint AS events
                   FROM crash_issue_hours GROUP BY 1 ORDER BY 1";
    let expected = [
        json!({"other": false, "count": 100, "events": 100}),
        json!({"other": true, "count": 1, "events": 30}),
    ];
    assert_eq!(world.app.rows(known).await, expected);
    // The events say still which it was.
    assert_eq!(count(&world, "(SELECT DISTINCT environment FROM crash_events) e").await, 130);
    // To process them again counts nothing twice.
    let path = "/api/crash/projects/shop/issues/SHOP-1/reprocess";
    world.ada.post(path, &json!({})).await.expect(202);
    until("they are processed", async || count(&world, "crash_queue").await == 0).await;
    assert_eq!(world.app.rows(known).await, expected);
}

#[tokio::test]
async fn events_make_so_many_releases_in_an_hour_and_whoever_names_one_more_makes_it() {
    let world = World::of(Setup::default().manual_clock().start().await).await;
    send(&world, (0..130).map(|n| json!({"release": format!("shop@1.{n}.0")})).collect()).await;
    assert_eq!(count(&world, "crash_releases").await, 100);
    assert_eq!(count(&world, "(SELECT DISTINCT release FROM crash_events) e").await, 130);
    let rest = "(SELECT release FROM crash_events EXCEPT SELECT version FROM crash_releases) r";
    assert_eq!(count(&world, rest).await, 30);
    let mine = json!({"version": "shop@2.0.0"});
    world.ada.post("/api/crash/projects/shop/releases", &mine).await.expect(201);
    send(&world, vec![json!({"release": "shop@2.0.0"})]).await;
    let named = "crash_releases WHERE version = 'shop@2.0.0' AND events = 1";
    assert_eq!(count(&world, named).await, 1);
    // In the next hour there is room again.
    world.app.clock.advance(Duration::from_secs(3600));
    send(&world, vec![json!({"release": "shop@3.0.0"})]).await;
    assert_eq!(count(&world, "crash_releases WHERE version = 'shop@3.0.0'").await, 1);
}

#[tokio::test]
async fn of_missing_files_those_are_remembered_that_were_wanted_last() {
    let world = World::new().await;
    let frames = |from: usize| {
        let frames: Vec<_> = (from..from + 40)
            .map(|n| {
                json!({"abs_path": format!("https://shop.example/{n:05}.min.js"), "function": "f",
                "filename": format!("/{n:05}.min.js"), "lineno": 1, "colno": 10, "in_app": true})
            })
            .collect();
        json!({"platform": "javascript", "fingerprint": ["one"], "release": "shop@1.0.0", "stacktrace": {"frames": frames}})
    };
    for from in (0..640).step_by(40) {
        send(&world, vec![frames(from)]).await;
    }
    let events = count(&world, "crash_issues").await;
    assert_eq!(events, 1);
    assert_eq!(count(&world, "crash_missing_files").await, 500);
    let newest = "crash_missing_files WHERE wanted LIKE '%/00639.min.js%'";
    assert_eq!(count(&world, newest).await, 1);
    let oldest = "crash_missing_files WHERE wanted LIKE '%/00000.min.js%'";
    assert_eq!(count(&world, oldest).await, 0);
}

#[tokio::test]
async fn what_is_left_of_events_that_are_gone_goes_with_them() {
    let world = World::of(Setup::default().manual_clock().start().await).await;
    let patch = json!({"retention_days": 7});
    world.ada.patch("/api/crash/projects/shop", &patch).await.expect(200);
    let event = |release: &str, environment: &str| {
        json!({"release": release, "environment": environment,
            "tags": {"order": release}, "platform": "python"})
    };
    send(&world, vec![event("shop@1.0.0", "old"), event("shop@1.0.1", "old")]).await;
    let dying = with(fault("ValueError", "checkout"), event("shop@1.0.0", "old"));
    let dying = world.capture(dying).await;
    // Somebody has said something of it.
    let url = json!({"url": "https://shop.example/1.0.1"});
    world.ada.patch("/api/crash/projects/shop/releases/shop@1.0.1", &url).await.expect(200);
    world.app.clock.advance(Duration::from_secs(5 * DAY));
    send(&world, vec![event("shop@1.1.0", "new")]).await;
    world.app.clock.advance(Duration::from_secs(3 * DAY));
    world.app.running.features.jobs.run_now("crash-event-cleanup").await.unwrap();

    let path = format!("/api/crash/projects/shop/issues/{}", dying["issue_id"].as_str().unwrap());
    world.ada.get(&path).await.expect(404);
    let rows = async |query: &str| world.app.rows(query).await;
    assert_eq!(rows("SELECT number FROM crash_issues").await, [json!({"number": 1})]);
    assert_eq!(
        rows("SELECT environment FROM crash_issue_hours").await,
        [json!({"environment": "new"})]
    );
    assert_eq!(
        rows("SELECT value FROM crash_issue_tags WHERE key = 'order'").await,
        [json!({"value": "shop@1.1.0"})]
    );
    assert_eq!(rows("SELECT name FROM crash_environments").await, [json!({"name": "new"})]);
    assert_eq!(
        rows("SELECT version FROM crash_releases ORDER BY 1").await,
        [json!({"version": "shop@1.0.1"}), json!({"version": "shop@1.1.0"})]
    );
}

/// Three issues, and a notice that four events are folded into.
async fn flooded() -> (World, Vec<String>) {
    let world = World::of(Setup::default().manual_clock().start().await).await;
    let patch = json!({"new_issues_per_hour": 3});
    world.ada.patch("/api/crash/projects/shop", &patch).await.expect(200);
    let mut issues = Vec::new();
    for n in 0..7 {
        let captured =
            world.capture(fault("KeyError", &format!("function_{}", "x".repeat(n + 1)))).await;
        issues.push(captured["issue_id"].as_str().unwrap().to_owned());
    }
    (world, issues)
}

async fn upkeep(world: &World) {
    world.app.running.features.jobs.run_now("crash-issue-upkeep").await.unwrap();
}

#[tokio::test]
async fn folded_events_follow_their_notice_into_another_issue_and_back() {
    let (world, issues) = flooded().await;
    let (into, notice) = (&issues[0], &issues[3]);
    let path = |issue: &str| format!("/api/crash/projects/shop/issues/{issue}");
    let with = json!({"issues": [notice]});
    world.ada.post(&format!("{}/merge", path(into)), &with).await.expect(200);
    upkeep(&world).await;
    let here = async |issue: &str| {
        let page = world.ada.get(&format!("{}/events", path(issue))).await.expect(200).json();
        page["events"].as_array().unwrap().len()
    };
    assert_eq!(here(into).await, 5);
    assert_eq!(count(&world, &format!("crash_events WHERE issue_id = '{notice}'")).await, 0);
    world.ada.post(&format!("{}/unmerge", path(into)), &with).await.expect(200);
    upkeep(&world).await;
    assert_eq!((here(into).await, here(notice).await), (1, 4));
}

#[tokio::test]
async fn folded_events_are_deleted_with_their_notice() {
    let (world, issues) = flooded().await;
    let path = format!("/api/crash/projects/shop/issues/{}", issues[3]);
    world.ada.delete(&path).await.expect(204);
    upkeep(&world).await;
    assert_eq!(count(&world, "crash_events").await, 3);
    assert_eq!(count(&world, "crash_raw").await, 3);
}

#[tokio::test]
async fn folded_events_that_are_processed_again_get_issues_of_their_own_when_there_is_room() {
    let (world, issues) = flooded().await;
    let path = format!("/api/crash/projects/shop/issues/{}/reprocess", issues[3]);
    let counts = "SELECT event_count AS n, count(*) FROM crash_issues GROUP BY 1 ORDER BY 1";
    let before = world.app.rows(counts).await;
    // There is none yet: they stay.
    world.ada.post(&path, &json!({})).await.expect(202);
    until("they are processed", async || count(&world, "crash_queue").await == 0).await;
    assert_eq!(world.app.rows(counts).await, before);
    let title = format!("SELECT title FROM crash_issues WHERE id = '{}'", issues[3]);
    let title = world.app.rows(&title).await[0]["title"].clone();
    assert!(title.as_str().unwrap().starts_with("More new issues"), "{title}");
    world.app.clock.advance(Duration::from_secs(3600));
    world.ada.post(&path, &json!({})).await.expect(202);
    until("they are processed", async || count(&world, "crash_queue").await == 0).await;
    // Three of the four.
    assert_eq!(world.app.rows(counts).await, [json!({"n": 1, "count": 7})]);
}
