//! What is kept, and for how long.

use std::time::Duration;

use crate::harness::Rig;

#[tokio::test]
async fn single_sessions_go_after_their_time_and_what_they_came_to_stays() {
    let rig = Rig::start().await;
    rig.run("app-session-partitions").await;
    for n in 0..40 {
        rig.one("1.0", if n == 0 { "crashed" } else { "exited" }).await;
    }
    rig.run("session-aggregation").await;
    let series = "/api/app-sessions/series?project=shop&interval=1d&from=2027-01-15T00:00:00Z&to=2027-01-16T00:00:00Z";
    let before: Vec<_> =
        [rig.get(series).await, rig.get(&format!("{series}&field=users")).await].into();
    rig.app.clock.advance(Duration::from_secs(32 * 86_400));
    rig.run("app-session-cleanup").await;
    let list = rig.get("/api/app-sessions?project=shop").await;
    assert_eq!(list["sessions"].as_array().unwrap().len(), 0);
    assert_eq!(rig.app.rows("SELECT * FROM app_session_ids").await.len(), 0);
    assert_eq!(
        rig.app.rows("SELECT * FROM app_session_sets WHERE users IS NOT NULL").await.len(),
        0
    );
    let after: Vec<_> =
        [rig.get(series).await, rig.get(&format!("{series}&field=users")).await].into();
    assert_eq!(after, before);
    let detail = rig.get("/api/app-sessions/releases/1.0?project=shop").await;
    assert_eq!((&detail["sessions"], &detail["users"]), (&40.into(), &40.into()));
    assert_eq!(detail["crash_free_sessions"], 97.5);
    assert!(detail["adoption"].is_null(), "nobody uses anything any more");
    // A mark of what is gone, as one that stood in a backup, does not wipe the sums.
    sqlx::query(
        "INSERT INTO app_session_marks (org_id, project_id, at, marked_at)
         SELECT org_id, project_id, at, now() FROM app_session_counts",
    )
    .execute(rig.app.database.pool())
    .await
    .unwrap();
    rig.run("session-aggregation").await;
    assert_eq!(rig.get(series).await, before[0]);
}

#[tokio::test]
async fn many_users_become_a_sketch_that_is_within_two_per_cent() {
    let rig = Rig::start().await;
    rig.one("1.0", "exited").await;
    rig.run("session-aggregation").await;
    sqlx::query(
        "UPDATE app_session_sets SET users = ARRAY(
             SELECT ('x' || substr(md5(n::text), 1, 16))::bit(64)::bigint FROM generate_series(1, 20000) n)",
    )
    .execute(rig.app.database.pool())
    .await
    .unwrap();
    let path = "/api/app-sessions/series?project=shop&interval=1d&field=users&from=2027-01-15T00:00:00Z&to=2027-01-16T00:00:00Z";
    let exact = rig.get(path).await;
    assert_eq!((&exact["points"][0]["value"], &exact["exact"]), (&20_000.0.into(), &true.into()));
    rig.app.clock.advance(Duration::from_secs(31 * 86_400));
    rig.run("app-session-cleanup").await;
    let sketched = rig.get(path).await;
    assert_eq!(sketched["exact"], false);
    let told = sketched["points"][0]["value"].as_f64().unwrap();
    assert!((told - 20_000.0).abs() <= 400.0, "{told}");
}
