//! Releases and environments that are made up.

use loom_testkit::Setup;
use serde_json::json;
use uuid::Uuid;

use crate::harness::{Rig, rfc};

const DAY: std::time::Duration = std::time::Duration::from_secs(86_400);

fn few() -> Setup {
    Setup::default().manual_clock().set("LOOM_SERVER_SESSIONS_NEW_RELEASES_PER_DAY", "3")
}

/// A session of a release in an environment.
async fn told(rig: &Rig, sid: u128, release: &str, environment: &str, status: &str) {
    let sid = Uuid::from_u128(sid + 1);
    rig.send(&json!({"sid": sid, "init": true, "started": rfc(rig.now()), "status": status,
        "attrs": {"release": release, "environment": environment}}))
        .await;
}

#[tokio::test]
async fn releases_beyond_what_a_day_may_bring_are_counted_as_one() {
    let rig = Rig::with(few()).await;
    for n in 0..10 {
        told(&rig, n, &format!("made-up-{n}"), "production", "ok").await;
    }
    for n in 0..3 {
        assert_eq!(rig.counts(&format!("made-up-{n}")).await, [1, 0, 0, 0, 0]);
    }
    assert_eq!(rig.counts("made-up-3").await, [0; 5]);
    assert_eq!(rig.counts("(other)").await, [7, 0, 0, 0, 0], "none is lost");
    // What is told again of one of them is of the same session.
    told(&rig, 9, "made-up-9", "production", "crashed").await;
    assert_eq!(rig.counts("(other)").await, [6, 0, 0, 0, 1]);
    // What is known goes on, and a new environment leaves the release as it is.
    told(&rig, 20, "made-up-0", "production", "ok").await;
    told(&rig, 21, "made-up-0", "staging", "ok").await;
    assert_eq!(rig.counts("made-up-0").await, [3, 0, 0, 0, 0]);
    let list = rig.get("/api/app-sessions?project=shop&release=made-up-0").await;
    assert_eq!(list["sessions"][0]["environment"], "(other)");
    rig.run("session-aggregation").await;
    let releases = rig.get("/api/app-sessions/releases?project=shop").await;
    assert_eq!(releases["releases"].as_array().unwrap().len(), 4);
    // Another day, and another project, have places of their own.
    let other = rig.project("other").await;
    let session = json!({"sid": Uuid::from_u128(30), "init": true, "started": rfc(rig.now()),
        "status": "ok", "attrs": {"release": "x", "environment": "production"}});
    let delivery = rig.delivery_of(&other);
    let payload = bytes::Bytes::from(session.to_string());
    loom_core::port::SessionSink::session(rig.sessions(), &delivery, payload).await.unwrap();
    let found = rig.get("/api/app-sessions/releases?project=other").await;
    assert_eq!(found["releases"][0]["version"], "x");
    rig.app.clock.advance(DAY);
    rig.run("app-session-partitions").await;
    told(&rig, 40, "made-up-3", "production", "ok").await;
    assert_eq!(rig.counts("made-up-3").await, [1, 0, 0, 0, 0]);
}

#[tokio::test]
async fn all_servers_share_the_places_of_a_day_and_know_what_another_has_let_in() {
    let rig = Rig::with(few()).await;
    let other = rig.app.replica().await;
    let far = other.features.sessions.clone();
    for n in 0..6_u128 {
        let release = format!("r{}", n % 5);
        if n % 2 == 0 {
            told(&rig, n, &release, "production", "ok").await;
        } else {
            let session = json!({"sid": Uuid::from_u128(n + 1), "init": true, "started": rfc(rig.now()),
                "status": "ok", "attrs": {"release": release, "environment": "production"}});
            let payload = bytes::Bytes::from(session.to_string());
            let delivery = rig.delivery();
            loom_core::port::SessionSink::session(&far, &delivery, payload).await.unwrap();
        }
    }
    // The first came once more, to the other server.
    assert_eq!(rig.counts("r0").await, [2, 0, 0, 0, 0]);
    assert_eq!(rig.counts("r2").await, [1, 0, 0, 0, 0]);
    assert_eq!(rig.counts("(other)").await, [2, 0, 0, 0, 0]);
    other.shut_down().await;
}
