//! What is missing is said at the start, and in the health.

use futures::FutureExt as _;
use serde_json::Value;

use crate::support::World;

/// Why a further server does not start.
async fn refusal(world: &World) -> String {
    let started = std::panic::AssertUnwindSafe(world.app.replica()).catch_unwind().await;
    let panic = started.err().expect("it does not start");
    panic.downcast_ref::<String>().cloned().unwrap_or_default()
}

async fn component(world: &World) -> Value {
    let admin = world.app.admin("root@example.com").await;
    let health = admin.get("/api/admin/health").await.json();
    health["components"]["kubernetes"].clone()
}

#[tokio::test]
async fn a_server_without_a_permission_does_not_start_and_names_it() {
    let world = World::start().await;
    for (verb, resource) in
        [("create", "pods"), ("get", "pods/exec"), ("create", "secrets"), ("watch", "events")]
    {
        world.cluster.deny(verb, resource);
        let why = refusal(&world).await;
        assert!(why.contains(&format!("{verb} {resource}")), "{why}");
        assert!(why.contains("deploy/kubernetes"), "{why}");
        world.cluster.allow(verb, resource);
    }
}

#[tokio::test]
async fn a_server_without_its_namespace_does_not_start() {
    let world = World::start().await;
    let config = |setup: loom_testkit::Setup| {
        setup.weavers(&world.cluster).set("LOOM_SERVER_WEAVER_K8S_NAMESPACE", "elsewhere")
    };
    let start = config(loom_testkit::Setup::default()).start();
    let panic = std::panic::AssertUnwindSafe(start).catch_unwind().await.err().unwrap();
    let why = panic.downcast_ref::<String>().unwrap();
    assert!(why.contains("elsewhere"), "{why}");
}

#[tokio::test]
async fn a_cluster_that_is_away_does_not_keep_the_server_from_starting() {
    let world = World::start().await;
    world.cluster.gone().await;
    let second = world.app.replica().await;
    world.cluster.back();
    let id = world.weaver("fake/agent").await;
    world.row_in(&id, "running").await;
    second.shut_down().await;
}

#[tokio::test]
async fn health_tells_what_is_missing_and_that_the_cluster_is_away() {
    let world = World::start().await;
    assert_eq!(component(&world).await["status"], "healthy");
    world.cluster.gone().await;
    let away = loom_testkit::eventually(async || {
        let health = world.app.anonymous().get("/health").await.json();
        let kubernetes = health["components"]["kubernetes"].clone();
        (kubernetes["status"] == "unhealthy").then_some(health)
    })
    .await;
    assert_eq!(away["status"], "unhealthy");
    assert_eq!(away["components"]["kubernetes"]["reachable"], false);
}
