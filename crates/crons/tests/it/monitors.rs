//! Monitors: made, found, changed, forgotten.

use serde_json::json;

use crate::support::{minutes, monitor, ping, ping_path, read, world};

#[tokio::test]
async fn the_next_runs_are_shown_before_anything_is_saved() {
    let (app, _ada) = world().await;
    let request = json!({
        "schedule": {"type": "crontab", "expression": "30 2 * * *"}, "timezone": "Europe/Berlin",
        "from": "2026-03-27T12:00:00Z", "count": 3,
    });
    let shown = app.anonymous().post("/api/crons/preview", &request).await.expect(200).json();
    let local: Vec<_> = shown["runs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|run| run["local"].as_str().unwrap())
        .collect();
    // The clock leaves out 02:30 on the 29th: that run is at the next time it shows.
    assert_eq!(
        local,
        ["2026-03-28T02:30:00+01:00", "2026-03-29T03:00:00+02:00", "2026-03-30T02:30:00+02:00"]
    );
    let never = json!({"schedule": {"type": "crontab", "expression": "0 0 30 2 *"}});
    let answer = app.anonymous().post("/api/crons/preview", &never).await.expect(422);
    assert!(answer.json()["detail"].as_str().unwrap().contains("never"), "{}", answer.text);
}

#[tokio::test]
async fn monitors_are_listed_filtered_and_in_pages() {
    let (_app, ada) = world().await;
    for n in 0..5 {
        let more = json!({"tags": [if n % 2 == 0 { "even" } else { "odd" }]});
        monitor(&ada, &format!("job-{n}"), more).await;
    }
    let slugs = async |query: &str| {
        let page = ada.get(&format!("/api/crons/monitors{query}")).await.expect(200).json();
        let slugs: Vec<_> = page["monitors"]
            .as_array()
            .unwrap()
            .iter()
            .map(|m| m["slug"].as_str().unwrap().to_owned())
            .collect();
        (slugs, page["next_cursor"].as_str().map(str::to_owned))
    };
    let (first, cursor) = slugs("?limit=3").await;
    let (second, end) = slugs(&format!("?limit=3&cursor={}", cursor.unwrap())).await;
    assert_eq!((first.len(), second.len(), end), (3, 2, None));
    assert_eq!(slugs("?tag=odd").await.0.len(), 2);
    assert_eq!(slugs("?q=JOB-4").await.0, ["job-4"]);
    assert_eq!(slugs("?health=missed").await.0.len(), 0);
    ada.post(
        "/api/crons/monitors",
        &json!({"slug": "job-1", "schedule": {"type": "crontab", "expression": "@daily"}}),
    )
    .await
    .expect(409);
}

#[tokio::test]
async fn a_change_of_schedule_is_waited_for_at_once_and_environments_come_and_go() {
    let (app, ada) = world().await;
    let path = ping_path(&monitor(&ada, "backup", json!({})).await);
    ping(&app, &format!("{path}/fail?env=staging")).await.expect(200);
    let patch = json!({
        "schedule": {"type": "crontab", "expression": "15 * * * *"}, "description": "of the shop",
        "environments": ["production", "test"],
    });
    let changed = ada.patch("/api/crons/monitors/backup", &patch).await.expect(200).json();
    assert_eq!(changed["next_expected_at"], "2027-01-15T08:15:00.000Z");
    let names: Vec<_> =
        changed["environments"].as_array().unwrap().iter().map(|e| &e["name"]).collect();
    assert_eq!(names, ["production", "test"]);
    minutes(&app, 22).await;
    assert_eq!(read(&ada, "backup").await["health"], "missed");
    let cleared = ada.patch("/api/crons/monitors/backup", &json!({"description": null})).await;
    assert!(cleared.expect(200).json()["description"].is_null());
    ada.delete("/api/crons/monitors/backup").await.expect(204);
    ada.get("/api/crons/monitors/backup").await.expect(404);
    assert_eq!(ping(&app, &path).await.expect(404).text, "not found");
    minutes(&app, 1).await;
}
