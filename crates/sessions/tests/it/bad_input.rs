//! Items that no SDK should send, and one that all do.

use chrono::TimeDelta;
use loom_core::port::Taken;
use serde_json::{Value, json};

use crate::harness::{Rig, rfc};

#[tokio::test]
async fn what_cannot_be_kept_is_refused_with_a_reason_and_harms_nobody() {
    let rig = Rig::start().await;
    let now = rig.now();
    let good = json!({"sid": "33333333-3333-4333-8333-333333333333", "started": rfc(now), "status": "exited",
        "attrs": {"release": "1.0"}});
    let with = |path: &str, value: Value| {
        let mut item = good.clone();
        *item.pointer_mut(path).unwrap() = value;
        item
    };
    let long = "x".repeat(10_000);
    let refused = [
        (json!(null), "no JSON object"),
        (json!([1]), "no JSON object"),
        (json!({}), "release is missing"),
        (with("/attrs", json!({})), "release is missing"),
        (with("/attrs/release", json!("  ")), "release is missing"),
        (with("/attrs/release", json!(long)), "1 to 250 bytes"),
        (with("/attrs/release", json!("a\nb")), "one line"),
        (with("/attrs/release", json!("a\u{0}b")), "one line"),
        (with("/sid", json!(long)), "1 to 200 bytes"),
        (with("/sid", json!("00000000-0000-0000-0000-000000000000")), "nil"),
        (with("/started", json!("1970-01-01T00:00:00Z")), "5 days"),
        (with("/started", json!("2100-01-01T00:00:00Z")), "future"),
        (with("/started", json!(4_102_444_800_u64)), "future"),
        (with("/started", json!(1e300)), "no time"),
        (with("/started", json!("yesterday")), "no time"),
        (with("/started", json!(rfc(now - TimeDelta::days(6)))), "5 days"),
    ];
    for (item, reason) in refused {
        match rig.send(&item).await {
            Taken::Rejected(told) => assert!(told.contains(reason), "{told} for {item}"),
            Taken::Stored => panic!("{item} was stored"),
        }
    }
    let refused = [
        (json!({"attrs": {"release": "1.0"}}), "missing"),
        (
            json!({"aggregates": vec![json!({"started": rfc(now), "exited": 1}); 101], "attrs": {"release": "1.0"}}),
            "100",
        ),
        (
            json!({"aggregates": [{"started": "1970-01-01T00:00:00Z", "exited": 1}], "attrs": {"release": "1.0"}}),
            "5 days",
        ),
    ];
    for (item, reason) in refused {
        match rig.send_counts(&item).await {
            Taken::Rejected(told) => assert!(told.contains(reason), "{told} for {item}"),
            Taken::Stored => panic!("{item} was stored"),
        }
    }
    assert_eq!(rig.get("/api/app-sessions?project=shop").await["sessions"], json!([]));
    assert_eq!(rig.send(&good).await, Taken::Stored);
    assert_eq!(rig.counts("1.0").await, [1, 0, 0, 0, 0]);
}

#[tokio::test]
async fn what_is_odd_but_clear_is_taken() {
    let rig = Rig::start().await;
    let now = rig.now();
    let base = json!({"started": rfc(now), "status": "exited", "attrs": {"release": "1.0"}});
    let odd = [
        json!({"sid": "not a uuid"}),
        json!({"sid": "AAAAAAAAAAAA4AAA8AAAAAAAAAAAAAAA"}),
        json!({"sid": null}),
        json!({"sid": "c1", "duration": -5.0}),
        json!({"sid": "c2", "duration": 1e300}),
        json!({"sid": "c3", "duration": "long"}),
        json!({"sid": "c4", "did": "x".repeat(10_000)}),
        json!({"sid": "c5", "errors": 1e12}),
        json!({"sid": "c6", "started": now.timestamp()}),
        json!({"sid": "c7", "started": rfc(now + TimeDelta::minutes(40))}),
        json!({"sid": "c8", "attrs": {"release": "1.0", "environment": "e".repeat(10_000)}}),
        json!({"sid": "c9", "attrs": {"release": "1.0", "environment": null}, "unknown": {"a": [1]}}),
    ];
    for members in &odd {
        let mut item = base.clone();
        item.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
        for _ in 0..2 {
            assert_eq!(rig.send(&item).await, Taken::Stored, "{members}");
        }
    }
    let counts = rig.counts("1.0").await;
    assert_eq!(counts.iter().sum::<i64>(), odd.len() as i64);
    assert_eq!(counts[1], 1);
    let list = rig.get("/api/app-sessions?project=shop").await;
    for session in list["sessions"].as_array().unwrap() {
        assert_eq!(session["duration_ms"], Value::Null);
        assert!(session["started_at"].as_str().unwrap() <= "2027-01-15T08:00:00.000Z");
        assert!(session["environment"].as_str().unwrap().len() <= 64);
    }
}
