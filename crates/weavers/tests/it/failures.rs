//! Each way in which a weaver fails has its own word, and comes in its time.

use std::time::Duration;

use loom_testkit::{
    Setup, eventually,
    kubernetes::{Fault, Step},
};
use serde_json::json;

use crate::support::{World, pod};

#[tokio::test]
async fn each_cause_is_told_in_plain_words_and_leaves_no_pod() {
    let world = World::with(Setup::manual_clock).await;
    // A registry's first word stands for a while before there is only the waiting.
    world.cluster.pace(Duration::from_millis(200));
    let cases = [
        ("fake/exit-0", "succeeded", "exited", "ended"),
        ("fake/exit-3", "failed", "crashed", "status 3"),
        ("fake/oom", "failed", "out_of_memory", "more memory"),
        ("fake/evicted", "lost", "evicted", "ephemeral-storage"),
        ("fake/deadline", "failed", "deadline", "longer"),
        ("fake/bad-image", "failed", "image_pull", "not found"),
        ("fake/private-image", "failed", "image_pull", "401 Unauthorized"),
        ("fake/no-image", "failed", "image_missing", "not on the node"),
        ("fake/bad-config", "failed", "start", "secret \"missing\" not found"),
        ("fake/bad-command", "failed", "start", "executable file not found"),
        ("fake/unschedulable", "failed", "unschedulable", "not enough memory"),
        ("fake/node-lost", "lost", "node_lost", "node"),
    ];
    let mut ids = Vec::new();
    for (image, ..) in cases {
        ids.push(world.weaver(image).await);
    }
    let cloned = json!({"image": "fake/init-fails", "repo": "https://git.example.com/a/b.git"});
    ids.push(world.weaver_with(cloned).await);
    let clone_failed = [("fake/init-fails", "failed", "clone_failed", "git ended with status 128")];
    for ((image, status, code, words), id) in cases.into_iter().chain(clone_failed).zip(&ids) {
        let row = eventually(async || {
            world.app.clock.advance(Duration::from_secs(5));
            Some(world.row(id).await).filter(|row| row["ended_at"].is_string())
        })
        .await;
        assert_eq!(row["status"], status, "{image}: {row}");
        assert_eq!(row["reason_code"], code, "{image}: {row}");
        assert!(row["reason"].as_str().unwrap().contains(words), "{image}: {row}");
        world.is_gone(id).await;
    }
    assert!(world.cluster.pods().is_empty());
}

#[tokio::test]
async fn a_pod_that_somebody_deletes_is_lost_and_says_so() {
    let world = World::start().await;
    let (removed, drained) = (world.weaver("fake/agent").await, world.weaver("fake/agent").await);
    world.row_in(&removed, "running").await;
    world.row_in(&drained, "running").await;
    world.cluster.remove("pods", &pod(&removed));
    world.cluster.drain(&pod(&drained));
    assert_eq!(world.row_in(&removed, "lost").await["reason_code"], "deleted_by_hand");
    assert_eq!(world.row_in(&drained, "lost").await["reason_code"], "evicted");
    world.is_gone(&removed).await;
    assert!(world.cluster.pods().is_empty(), "none is made anew");
}

#[tokio::test]
async fn a_quota_of_the_cluster_is_visible_and_waited_for() {
    let world = World::start().await;
    world.cluster.fault(Fault::quota());
    let id = world.weaver("fake/agent").await;
    let row = world.row_when(&id, |row| row["trouble"].is_object()).await;
    assert_eq!((&row["trouble"]["code"], &row["status"]), (&json!("quota"), &json!("pending")));
    world.cluster.clear_faults();
    let row = world.row_in(&id, "running").await;
    assert!(row["trouble"].is_null());
    assert_eq!(world.cluster.pods().len(), 1);
}

#[tokio::test]
async fn what_the_cluster_will_never_take_fails_at_once() {
    let world = World::start().await;
    let cases = [
        (422, "Invalid", "Pod is invalid: spec.containers[0].image: Required value", "invalid_pod"),
        (403, "Forbidden", "violates PodSecurity \"restricted:latest\"", "refused"),
    ];
    for (status, reason, message, code) in cases {
        world.cluster.fault(Fault::refuse("create", "pods", status, reason, message).times(1));
        let id = world.weaver("fake/agent").await;
        let row = world.row_in(&id, "failed").await;
        assert_eq!(row["reason_code"], code);
        world.is_gone(&id).await;
    }
}

#[tokio::test]
async fn a_pull_that_stumbles_is_forgiven() {
    let world = World::start().await;
    let stumble = Step::Wait("ErrImagePull", "dial tcp: lookup registry: no such host".to_owned());
    let script =
        loom_testkit::kubernetes::Script::new([Step::Schedule, stumble, Step::Hold, Step::Start]);
    world.cluster.script("fake/stumbles", script);
    let id = world.weaver("fake/stumbles").await;
    let row = world.row_when(&id, |row| row["trouble"].is_object()).await;
    assert_eq!(row["trouble"]["code"], "image_pull");
    world.cluster.go_on(&pod(&id));
    assert!(world.row_in(&id, "running").await["trouble"].is_null());
    assert!(world.steps(&id).await.contains(&"warning:image_pull".to_owned()));
}

#[tokio::test]
async fn a_pod_that_does_not_hear_is_taken_down_by_force() {
    let world = World::with(Setup::manual_clock).await;
    let id = world.weaver("fake/stubborn").await;
    world.row_in(&id, "running").await;
    world.delete(&id).await;
    world.cluster.pod_when(&pod(&id), |pod| pod["metadata"]["deletionTimestamp"].is_string()).await;
    eventually(async || {
        world.app.clock.advance(Duration::from_secs(30));
        (world.row(&id).await["status"] == "deleted").then_some(())
    })
    .await;
    world.is_gone(&id).await;
}
