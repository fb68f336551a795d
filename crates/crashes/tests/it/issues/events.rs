//! What is shown of an issue and of its events.

use serde_json::json;

use super::{New, World};

#[tokio::test]
async fn an_issue_is_shown_with_why_when_and_what_its_events_have_in_common() {
    let world = World::new().await;
    let made = world
        .issue(New {
            events: &[1, 2, 90, 60 * 24 * 3],
            tags: &[("release", "1.0"), ("environment", "prod")],
            users: &["id:1", "id:2", "id:1", "id:3"],
            ..New::default()
        })
        .await;
    let issue = world.get(&made).await;
    assert_eq!(
        world.ada.get(&format!("{}/issues/web-1", world.path)).await.expect(200).json(),
        issue
    );
    assert_eq!(issue["short_id"], "WEB-1");
    assert_eq!((&issue["event_count"], &issue["user_count"]), (&json!(4), &json!(3)));
    assert_eq!(issue["grouping"][0]["hash"], json!(made.hash));
    assert_eq!(issue["grouping"][0]["algorithm"], "loom-1");
    assert!(issue["grouping"][0]["components"]["exceptions"].is_array());
    let sum = |name: &str| -> i64 {
        issue[name].as_array().unwrap().iter().map(|point| point["events"].as_i64().unwrap()).sum()
    };
    assert_eq!((sum("last_24_hours"), sum("last_30_days")), (3, 4));
    assert_eq!(issue["last_24_hours"].as_array().unwrap().len(), 24);
    assert_eq!(issue["last_30_days"].as_array().unwrap().len(), 30);
    let keys: Vec<_> = issue["tags"].as_array().unwrap().iter().map(|tag| &tag["key"]).collect();
    assert_eq!(keys, ["environment", "release", "user"]);
    let user = format!("{}/issues/{}/tags/user", world.path, made.id);
    let user = world.ada.get(&user).await.expect(200).json();
    assert_eq!((&user["events"], &user["values_count"]), (&json!(4), &json!(3)));
    assert_eq!(user["values"][0]["value"], "id:1");
    assert_eq!(user["values"][0]["share"], json!(50.0));
    world.ada.get(&format!("{}/issues/{}/tags/none", world.path, made.id)).await.expect(404);
    let tags = format!("{}/issues/{}/tags", world.path, made.id);
    assert_eq!(world.ada.get(&tags).await.expect(200).json()["tags"], issue["tags"]);
    for path in [
        format!("{}/issues/{}/series", world.path, made.id),
        format!("{}/series", world.path),
        "/api/crash/series".to_owned(),
    ] {
        let days = world.ada.get(&format!("{path}?interval=day")).await.expect(200).json();
        assert_eq!(days["points"], issue["last_30_days"]);
        let prod = world.ada.get(&format!("{path}?environment=none")).await.expect(200).json();
        assert!(prod["points"].as_array().unwrap().iter().all(|point| point["events"] == 0));
        let long = format!("{path}?from=2001-01-01T00:00:00Z");
        world.ada.get(&long).await.expect(422);
        world
            .ada
            .get(&format!("{path}?from=2030-01-01T00:00:00Z&to=2029-01-01T00:00:00Z"))
            .await
            .expect(422);
    }
    for missing in ["WEB-9", "API-1", "WEB--1", "0199aaaa-0000-7000-8000-00000000dead", "x"] {
        world.ada.get(&format!("{}/issues/{missing}", world.path)).await.expect(404);
    }
}

#[tokio::test]
async fn events_are_read_one_after_the_other_and_each_of_them_whole() {
    let world = World::new().await;
    let made = world.issue(New { events: &[30, 20, 10], ..New::default() }).await;
    let other = world.issue(New { title: "Other", ..New::default() }).await;
    let [oldest, middle, latest] = made.events.as_slice() else { panic!() };
    assert_eq!(world.events_of(&made).await, [&**latest, &**middle, &**oldest]);
    let path = format!("{}/issues/{}/events", world.path, made.short_id);
    let first = world.ada.get(&format!("{path}?limit=2")).await.expect(200).json();
    let next = first["next_cursor"].as_str().unwrap();
    let rest = world.ada.get(&format!("{path}?limit=2&cursor={next}")).await.expect(200).json();
    assert_eq!(rest["events"][0]["id"], json!(oldest));
    assert_eq!(rest["next_cursor"], json!(null));
    let event = world.ada.get(&format!("{path}/{middle}")).await.expect(200).json();
    assert_eq!(event["previous_event_id"], json!(oldest));
    assert_eq!(event["next_event_id"], json!(latest));
    assert_eq!(event["exceptions"][0]["type"], "TypeError");
    assert_eq!(event["exceptions"][0]["frames"][0]["function"], "pay");
    assert_eq!(event["exceptions"][0]["raw_frames"][0]["function"], "a");
    assert_eq!(event["breadcrumbs"][0]["message"], "clicked");
    assert_eq!(event["contexts"]["os"]["name"], "Linux");
    assert_eq!(event["user"]["id"], "7");
    assert_eq!(event["session_id"], "s1");
    assert_eq!(event["raw"]["event_id"], json!(middle));
    assert_eq!(event["issue"]["short_id"], "WEB-1");
    for (name, expected) in [("latest", latest), ("oldest", oldest)] {
        let event = world.ada.get(&format!("{path}/{name}")).await.expect(200).json();
        assert_eq!(event["id"], json!(expected));
    }
    let alone = format!("{}/events/{}", world.path, middle.replace('-', ""));
    assert_eq!(world.ada.get(&alone).await.expect(200).json(), event);
    world.ada.get(&format!("{path}/{}", other.events[0])).await.expect(404);
    world.ada.get(&format!("{}/events/nothing", world.path)).await.expect(404);
}

#[tokio::test]
async fn the_thread_of_an_event_is_shown_to_those_who_may_see_it() {
    let world = World::new().await;
    let made = world.issue(New::default()).await;
    let thread = loom_core::id::new_uuid(world.now());
    let document = json!({ "title": "Fixing it", "messages": [], "visibility": "private" });
    world.ada.put(&format!("/api/threads/T-{thread}"), &document).await.expect(201);
    sqlx::query("UPDATE crash_events SET thread_id = $1")
        .bind(thread)
        .execute(world.app.database.pool())
        .await
        .unwrap();
    let path = format!("{}/issues/{}/events/latest", world.path, made.id);
    let event = world.ada.get(&path).await.expect(200).json();
    assert_eq!(event["thread"]["title"], "Fixing it");
    let bob = world.app.user("bob@example.com").await;
    world.app.join(bob.id, world.ada.org, loom_core::principal::OrgRole::Member).await;
    let bob = bob.with("x-loom-org", &world.ada.org.to_string());
    assert_eq!(bob.get(&path).await.expect(200).json()["thread"], json!(null));
}
