//! From the row to the pod, and back.

use std::time::Duration;

use loom_testkit::{eventually, kubernetes::Fault};
use serde_json::{Value, json};

use crate::support::{World, pod};

#[tokio::test]
async fn a_weaver_gets_one_pod_runs_and_leaves_nothing() {
    let world = World::start().await;
    let id = world.weaver("fake/agent").await;
    let row = world.row_in(&id, "running").await;
    assert_eq!(world.cluster.pods().len(), 1);
    let seen = world.cluster.pod(&pod(&id)).unwrap();
    assert_eq!(row["pod_uid"], seen["metadata"]["uid"]);
    assert!(row["started_at"].is_string() && row["ready_at"].is_string(), "{row}");
    let secret = &world.cluster.objects("secrets")[0];
    eventually(async || {
        let secret = world.cluster.objects("secrets").remove(0);
        (secret["metadata"]["ownerReferences"][0]["uid"] == seen["metadata"]["uid"]).then_some(())
    })
    .await;
    assert_eq!(secret["metadata"]["name"], *pod(&id));

    world.delete(&id).await;
    let row = world.row_in(&id, "deleted").await;
    assert!(row["ended_at"].is_string());
    world.is_gone(&id).await;
    let steps = world.steps(&id).await;
    assert_eq!(steps[0], "queued");
    for step in ["scheduled", "started", "ready"] {
        assert!(steps.iter().any(|it| it == step), "{steps:?}");
    }
    assert!(steps.last().unwrap().starts_with("ended"), "{steps:?}");
    let tokens = world.app.rows("SELECT * FROM weaver_tokens").await;
    assert!(tokens.is_empty(), "{tokens:?}");
}

#[tokio::test]
async fn sealed_values_stay_sealed_until_the_end_for_who_masks_the_log_next() {
    let world = World::start().await;
    let env = json!({"DB_PASSWORD": "correct horse battery"});
    let id = world.weaver_with(json!({"image": "fake/agent", "env": env})).await;
    let row = world.row_in(&id, "running").await;
    assert!(row["sealed_env"].is_string(), "{row}");
    world.delete(&id).await;
    let row = world.row_in(&id, "deleted").await;
    assert!(row["sealed_env"].is_null(), "{row}");
}

#[tokio::test]
async fn answers_that_are_lost_make_no_second_pod() {
    let world = World::start().await;
    world.cluster.fault(Fault::lose("create", "secrets").times(1));
    world.cluster.fault(Fault::lose("create", "pods").times(2));
    let id = world.weaver("fake/agent").await;
    world.row_in(&id, "running").await;
    assert_eq!(world.cluster.pods().len(), 1);
    assert_eq!(world.cluster.objects("secrets").len(), 1);
}

#[tokio::test]
async fn what_runs_is_taken_over_by_the_next_server_and_what_ended_meanwhile_is_known() {
    let world = World::start().await;
    let (stays, ends) = (world.weaver("fake/agent").await, world.weaver("fake/agent").await);
    let before = world.row_in(&stays, "running").await;
    world.row_in(&ends, "running").await;
    let second = world.app.replica().await;
    world.app.running.features.weavers.close().await;
    world.cluster.exit(&pod(&ends), 3);
    let row = world.row_in(&ends, "failed").await;
    assert_eq!(
        (row["reason_code"].as_str(), row["exit_code"].as_i64()),
        (Some("crashed"), Some(3))
    );
    let after = world.row(&stays).await;
    assert_eq!((&after["status"], &after["pod_uid"]), (&json!("running"), &before["pod_uid"]));
    let leases = world.app.rows("SELECT term FROM weaver_leases").await;
    assert_eq!(leases, [json!({"term": 2})]);
    second.shut_down().await;
}

#[tokio::test]
async fn pods_of_weavers_that_are_over_go_and_those_of_nobody_after_a_while() {
    let world = World::with(loom_testkit::Setup::manual_clock).await;
    let id = world.weaver("fake/agent").await;
    world.row_in(&id, "running").await;
    let mut copy = world.cluster.pod(&pod(&id)).unwrap();
    let (stranger, foreign) = (uuid::Uuid::now_v7().to_string(), uuid::Uuid::now_v7().to_string());
    for (name, installation) in [(&stranger, None), (&foreign, Some("0000000000000000"))] {
        copy["metadata"]["name"] = json!(pod(name));
        copy["metadata"]["labels"]["loom.dev/weaver-id"] = json!(name);
        if let Some(installation) = installation {
            copy["metadata"]["labels"]["loom.dev/installation"] = json!(installation);
        }
        copy["metadata"].as_object_mut().unwrap().remove("uid");
        world.cluster.put("pods", copy.clone());
    }
    // It is seen, and left alone for now.
    let other = world.weaver("fake/agent").await;
    world.row_in(&other, "running").await;
    assert!(world.cluster.pod(&pod(&stranger)).is_some());
    eventually(async || {
        world.app.clock.advance(Duration::from_secs(60));
        world.cluster.pod(&pod(&stranger)).is_none().then_some(())
    })
    .await;
    assert!(world.cluster.pod(&pod(&foreign)).is_some(), "it is of another installation");
    assert_eq!(world.row(&id).await["status"], "running");
}

#[tokio::test]
async fn a_cluster_that_is_gone_for_a_while_loses_nothing() {
    let world = World::start().await;
    let running = world.weaver("fake/agent").await;
    world.row_in(&running, "running").await;
    world.cluster.gone().await;
    let (asked, doomed) = (world.weaver("fake/agent").await, world.weaver("fake/agent").await);
    let row = world.row_when(&asked, |row| row["trouble"].is_object()).await;
    assert_eq!(row["trouble"]["code"], "kubernetes_unavailable");
    world.delete(&doomed).await;
    assert_eq!(world.row(&doomed).await["status"], "terminating");
    assert_eq!(world.row(&running).await["status"], "running");
    world.cluster.back();
    world.row_in(&asked, "running").await;
    world.row_in(&doomed, "deleted").await;
    world.is_gone(&doomed).await;
    assert_eq!(world.row(&running).await["status"], "running");
    assert_eq!(world.cluster.pods().len(), 2);
}

#[tokio::test]
async fn watches_that_end_repeat_or_are_too_old_change_nothing() {
    let world = World::start().await;
    world.cluster.repeat_events(true);
    let mut ids = Vec::new();
    for round in 0..4 {
        if round % 2 == 0 {
            world.cluster.compact();
        }
        world.cluster.end_watches();
        ids.push(world.weaver("fake/agent").await);
    }
    for id in &ids {
        world.row_in(id, "running").await;
    }
    assert_eq!(world.cluster.pods().len(), ids.len());
    for id in &ids {
        let steps = world.steps(id).await;
        let mut once = steps.clone();
        once.sort();
        once.dedup();
        assert_eq!(once.len(), steps.len(), "{steps:?}");
    }
}

#[tokio::test]
async fn time_that_is_over_ends_a_weaver_and_it_was_warned() {
    let world = World::with(loom_testkit::Setup::manual_clock).await;
    let id = world.weaver_with(json!({"image": "fake/agent", "lifetime_hours": 1})).await;
    world.row_in(&id, "running").await;
    world.app.clock.advance(Duration::from_secs(55 * 60 + 1));
    let warned = world.row_when(&id, |row| row["warned_at"].is_string()).await;
    assert_eq!(warned["status"], "running");
    // With more time it is warned once more.
    let path = format!("/api/weaver/{id}");
    world.user.patch(&path, &json!({"lifetime_hours": 2})).await.expect(200);
    world.app.clock.advance(Duration::from_secs(60 * 60));
    let again =
        |row: &Value| row["warned_at"].is_string() && row["warned_at"] != warned["warned_at"];
    world.row_when(&id, again).await;
    world.app.clock.advance(Duration::from_secs(5 * 60));
    let row = world.row_in(&id, "expired").await;
    assert_eq!(row["reason_code"], "expired");
    world.is_gone(&id).await;
    let steps = world.steps(&id).await;
    let warnings = steps.iter().filter(|step| *step == "warning:expiring");
    assert_eq!(warnings.count(), 2, "{steps:?}");
}

#[tokio::test]
async fn the_clean_up_ends_what_is_due_also_on_a_server_that_does_not_watch() {
    let world = World::with(loom_testkit::Setup::manual_clock).await;
    let id = world.weaver_with(json!({"image": "fake/agent", "lifetime_hours": 1})).await;
    world.row_in(&id, "running").await;
    world.cluster.gone().await;
    world.app.clock.advance(Duration::from_secs(3601));
    let run = world.app.running.features.jobs.run_now("weaver-cleanup").await.unwrap();
    let _ = run;
    let row = world.row_when(&id, |row| row["ending"] == "expired").await;
    assert_eq!(row["status"], "terminating");
    world.cluster.back();
    world.row_in(&id, "expired").await;
    world.is_gone(&id).await;
}

#[tokio::test]
async fn policies_that_somebody_takes_away_come_back_also_when_no_pod_is_made() {
    let world = World::start().await;
    let id = world.weaver("fake/agent").await;
    world.row_in(&id, "running").await;
    for policy in world.cluster.objects("networkpolicies") {
        world.cluster.remove("networkpolicies", policy["metadata"]["name"].as_str().unwrap());
    }
    world.app.running.features.jobs.run_now("weaver-cleanup").await.unwrap();
    assert_eq!(world.cluster.objects("networkpolicies").len(), 4);
}

#[tokio::test]
async fn records_are_kept_for_their_time_and_then_go_with_all_that_is_theirs() {
    let world = World::with(loom_testkit::Setup::manual_clock).await;
    let id = world.weaver("fake/exit-0").await;
    world.row_in(&id, "succeeded").await;
    let jobs = &world.app.running.features.jobs;
    world.app.clock.advance(Duration::from_secs(29 * 24 * 3600));
    jobs.run_now("weaver-retention").await.unwrap();
    assert!(world.row(&id).await.is_object());
    world.app.clock.advance(Duration::from_secs(2 * 24 * 3600));
    let outcome = jobs.run_now("weaver-retention").await.unwrap();
    assert_eq!(format!("{:?}", outcome.status), "Succeeded", "{outcome:?}");
    eventually(async || world.row(&id).await.is_null().then_some(())).await;
    assert!(world.app.rows("SELECT 1 AS one FROM weaver_events").await.is_empty());
}
