//! Issues put together, and taken apart.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Made, New, World};

async fn pair(world: &World) -> (Made, Made) {
    let a = world
        .issue(New {
            title: "a",
            events: &[1, 2, 3],
            tags: &[("environment", "prod"), ("release", "2.0")],
            users: &["id:1", "id:2"],
            ..New::default()
        })
        .await;
    let b = world
        .issue(New {
            title: "b",
            events: &[30, 60 * 24 * 2],
            tags: &[("environment", "prod"), ("release", "1.0")],
            users: &["id:2", "id:3"],
            ..New::default()
        })
        .await;
    (a, b)
}

fn counts(issue: &Value) -> (i64, i64) {
    (issue["event_count"].as_i64().unwrap(), issue["user_count"].as_i64().unwrap())
}

fn environment(issue: &Value) -> Value {
    let tags = issue["tags"].as_array().unwrap();
    tags.iter()
        .find(|tag| tag["key"] == "environment")
        .map_or(json!(0), |tag| tag["events"].clone())
}

fn month(issue: &Value) -> i64 {
    let points = issue["last_30_days"].as_array().unwrap();
    points.iter().map(|point| point["events"].as_i64().unwrap()).sum()
}

/// The hash leads here.
async fn leads(world: &World, hash: &str) -> String {
    let query = format!(
        "SELECT issue_id::text AS issue FROM crash_grouping_hashes WHERE hash = decode('{hash}', 'hex')"
    );
    world.app.rows(&query).await[0]["issue"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_merged_issue_counts_for_the_other_and_comes_back_whole() {
    let world = World::new().await;
    let (a, b) = pair(&world).await;
    let (before_a, before_b) = (world.get(&a).await, world.get(&b).await);
    let merged = world.act(&a, "merge", &json!({ "issues": [b.short_id] })).await;
    assert_eq!(counts(&merged), (5, 3));
    assert_eq!(merged["first_seen"], before_b["first_seen"]);
    assert_eq!((&merged["first_release"], &merged["last_release"]), (&json!("1.0"), &json!("2.0")));
    let both = world.get(&a).await;
    assert_eq!((environment(&both), month(&both)), (json!(5), 5));
    assert_eq!(both["merged"][0]["short_id"], json!(b.short_id));
    assert_eq!(world.find("").await, ["a"]);
    let mut all = [a.events.clone(), b.events.clone()].concat();
    all.sort();
    let mut listed = world.events_of(&a).await;
    listed.sort();
    assert_eq!(listed, all);
    assert_eq!(world.events_of(&b).await, [""; 0]);
    assert_eq!(leads(&world, &b.hash).await, a.id);
    assert_eq!(world.get(&b).await["merged_into"], json!(a.id));
    // It is changed where it went.
    let path = format!("{}/issues/{}", world.path, b.id);
    let refused = world.ada.post(&format!("{path}/resolve"), &json!({})).await.expect(409);
    assert_eq!(refused.code(), "issue_merged");
    assert_eq!(refused.json()["merged_into"], json!(a.id));
    // An event knows its issue by now.
    let event = format!("{}/events/{}", world.path, b.events[0]);
    assert_eq!(world.ada.get(&event).await.expect(200).json()["issue"]["id"], json!(a.id));

    let back = world.act(&a, "unmerge", &json!({ "hashes": [b.hash] })).await;
    assert_eq!(counts(&back), (3, 2));
    let (after_a, after_b) = (world.get(&a).await, world.get(&b).await);
    assert_eq!((environment(&after_a), month(&after_a)), (json!(3), 3));
    assert_eq!(counts(&after_b), (2, 2));
    assert_eq!((environment(&after_b), month(&after_b)), (json!(2), 2));
    assert_eq!(after_b["merged_into"], json!(null));
    for (before, after) in [(&before_a, &after_a), (&before_b, &after_b)] {
        assert_eq!(before["last_24_hours"], after["last_24_hours"]);
        assert_eq!(before["event_count"], after["event_count"]);
    }
    assert_eq!(leads(&world, &b.hash).await, b.id);
    let mut listed = world.events_of(&b).await;
    listed.reverse();
    assert_eq!(listed, b.events);
    assert_eq!(world.events_of(&a).await.len(), 3);
    world.app.clock.advance(Duration::from_secs(600));
    world.upkeep().await;
    assert!(world.app.rows("SELECT id FROM crash_event_moves").await.is_empty());
    assert_eq!(world.events_of(&a).await.len(), 3);
    assert_eq!(world.events_of(&b).await.len(), 2);
}

#[tokio::test]
async fn lists_are_right_while_events_are_still_on_their_way() {
    let world = World::new().await;
    let (a, b) = pair(&world).await;
    let c = world.issue(New { title: "c", events: &[7], ..New::default() }).await;
    world.act(&b, "merge", &json!({ "issues": [c.id] })).await;
    world.act(&a, "merge", &json!({ "issues": [b.id] })).await;
    // As if none of them had followed yet.
    for made in [&b, &c] {
        let back = format!(
            "UPDATE crash_events SET issue_id = '{}' WHERE hash = decode('{}', 'hex')",
            made.id, made.hash
        );
        sqlx::raw_sql(sqlx::AssertSqlSafe(back)).execute(world.app.database.pool()).await.unwrap();
    }
    let mut all = [a.events.clone(), b.events.clone(), c.events.clone()].concat();
    all.sort();
    let mut listed = world.events_of(&a).await;
    listed.sort();
    assert_eq!(listed, all);
    assert!(world.events_of(&b).await.is_empty());
    let event = format!("{}/events/{}", world.path, c.events[0]);
    assert_eq!(world.ada.get(&event).await.expect(200).json()["issue"]["id"], json!(a.id));
    // One of them goes back while it is nowhere near.
    world.act(&a, "unmerge", &json!({ "issues": [c.short_id] })).await;
    assert_eq!(world.events_of(&c).await, c.events);
    assert_eq!(world.events_of(&a).await.len(), 5);
    world.upkeep().await;
    world.app.clock.advance(Duration::from_secs(600));
    world.upkeep().await;
    assert_eq!(world.events_of(&c).await, c.events);
    assert_eq!(world.events_of(&a).await.len(), 5);
    let c = world.get(&c).await;
    assert_eq!((counts(&c), &c["merged_into"]), ((1, 0), &json!(null)));
}

#[tokio::test]
async fn what_cannot_be_merged_or_taken_out_is_refused() {
    let world = World::new().await;
    let (a, b) = pair(&world).await;
    let path = format!("{}/issues/{}", world.path, a.id);
    for issues in [json!([]), json!(["WEB-9"]), json!([a.id])] {
        world.ada.post(&format!("{path}/merge"), &json!({ "issues": issues })).await.expect(422);
    }
    for body in [
        json!({}),
        json!({ "hashes": ["x"] }),
        json!({ "hashes": [a.hash] }),
        json!({ "hashes": [b.hash] }),
        json!({ "issues": [b.id] }),
    ] {
        world.ada.post(&format!("{path}/unmerge"), &body).await.expect(422);
    }
    world.act(&a, "merge", &json!({ "issues": [b.id] })).await;
    let again = json!({ "issues": [b.id] });
    assert_eq!(
        world.ada.post(&format!("{path}/merge"), &again).await.expect(409).code(),
        "issue_merged"
    );
    // With all that is in it.
    world.ada.delete(&path).await.expect(204);
    world.upkeep().await;
    for table in
        ["crash_issues", "crash_events", "crash_raw", "crash_grouping_hashes", "crash_issue_tags"]
    {
        let left = world.app.rows(&format!("SELECT 1 AS one FROM {table}")).await;
        assert!(left.is_empty(), "{table}");
    }
}
