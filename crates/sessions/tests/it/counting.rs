//! What sequences of items that SDKs send come to.

use bytes::Bytes;
use chrono::TimeDelta;
use loom_core::port::{SessionSink, Taken};
use serde_json::{Value, json};

use crate::harness::{Rig, rfc};

/// A step of a sequence; each sequence has a release of its own.
enum Step {
    /// A `session` item with these members beside `started` and `attrs`; the sid is that of the letter.
    S(&'static str, Value),
    /// A `sessions` item, its buckets; `started` is now.
    C(Value),
    /// An event says that its session crashed.
    X(&'static str),
    /// So much later, in seconds.
    Wait(i64),
}
use Step::{C, S, Wait, X};

fn sid(letter: &str, row: usize) -> String {
    format!("00000000-0000-4000-8000-{row:06}{:06x}", letter.as_bytes()[0])
}

fn table() -> Vec<(&'static str, Vec<Step>, [i64; 5])> {
    let ok = || json!({"init": true, "status": "ok", "errors": 0});
    vec![
        (
            "python, a whole application",
            vec![S("a", json!({"init": true, "status": "exited", "errors": 0, "duration": 3.5}))],
            [1, 0, 0, 0, 0],
        ),
        (
            "python, with an error",
            vec![S("a", json!({"init": true, "status": "exited", "errors": 2}))],
            [0, 1, 0, 0, 0],
        ),
        (
            "browser: errored at once, and never ended",
            vec![S("a", json!({"init": true, "status": "ok", "errors": 1}))],
            [0, 1, 0, 0, 0],
        ),
        ("browser: begun, and never ended", vec![S("a", ok())], [1, 0, 0, 0, 0]),
        (
            "begun and ended",
            vec![S("a", ok()), S("a", json!({"status": "exited"}))],
            [1, 0, 0, 0, 0],
        ),
        (
            "ended before begun",
            vec![S("a", json!({"status": "exited"})), S("a", ok())],
            [1, 0, 0, 0, 0],
        ),
        ("init is missing", vec![S("a", json!({"status": "exited", "seq": 4}))], [1, 0, 0, 0, 0]),
        ("init came twice", vec![S("a", ok()), S("a", ok())], [1, 0, 0, 0, 0]),
        (
            "the end came twice",
            vec![S("a", json!({"status": "exited"})), S("a", json!({"status": "exited"}))],
            [1, 0, 0, 0, 0],
        ),
        ("crashed", vec![S("a", ok()), S("a", json!({"status": "crashed"}))], [0, 0, 0, 0, 1]),
        (
            "crashed, then said to have exited",
            vec![S("a", json!({"status": "crashed"})), S("a", json!({"status": "exited"}))],
            [0, 0, 0, 0, 1],
        ),
        (
            "an error is not unsaid",
            vec![
                S("a", json!({"status": "ok", "errors": 1})),
                S("a", json!({"status": "exited", "errors": 0})),
            ],
            [0, 1, 0, 0, 0],
        ),
        (
            "errored, then crashed",
            vec![S("a", json!({"status": "errored"})), S("a", json!({"status": "crashed"}))],
            [0, 0, 0, 0, 1],
        ),
        (
            "crashed, then errored",
            vec![S("a", json!({"status": "crashed"})), S("a", json!({"status": "errored"}))],
            [0, 0, 0, 0, 1],
        ),
        (
            "unhandled rejection",
            vec![S("a", ok()), S("a", json!({"status": "unhandled", "errors": 1}))],
            [0, 0, 1, 0, 0],
        ),
        (
            "unhandled, then exited",
            vec![S("a", json!({"status": "unhandled"})), S("a", json!({"status": "exited"}))],
            [0, 0, 1, 0, 0],
        ),
        (
            "abnormal end",
            vec![
                S("a", ok()),
                S("a", json!({"status": "abnormal", "abnormal_mechanism": "anr_foreground"})),
            ],
            [0, 0, 0, 1, 0],
        ),
        (
            "unhandled, then abnormal",
            vec![S("a", json!({"status": "unhandled"})), S("a", json!({"status": "abnormal"}))],
            [0, 0, 0, 1, 0],
        ),
        (
            "abnormal, then unhandled",
            vec![S("a", json!({"status": "abnormal"})), S("a", json!({"status": "unhandled"}))],
            [0, 0, 0, 1, 0],
        ),
        (
            "abnormal, then crashed",
            vec![S("a", json!({"status": "abnormal"})), S("a", json!({"status": "crashed"}))],
            [0, 0, 0, 0, 1],
        ),
        (
            "an unknown state is no good end",
            vec![S("a", json!({"status": "evaporated"}))],
            [0, 1, 0, 0, 0],
        ),
        ("no state at all", vec![S("a", json!({}))], [1, 0, 0, 0, 0]),
        ("the state is null", vec![S("a", json!({"status": null, "errors": 0}))], [1, 0, 0, 0, 0]),
        (
            "errors as a word",
            vec![S("a", json!({"status": "ok", "errors": "many"}))],
            [1, 0, 0, 0, 0],
        ),
        (
            "errors as a truth",
            vec![S("a", json!({"status": "ok", "errors": true}))],
            [0, 1, 0, 0, 0],
        ),
        ("errors below zero", vec![S("a", json!({"status": "ok", "errors": -3}))], [1, 0, 0, 0, 0]),
        (
            "seq 0 with each update",
            vec![
                S("a", json!({"seq": 0, "status": "ok"})),
                S("a", json!({"seq": 0, "status": "crashed"})),
            ],
            [0, 0, 0, 0, 1],
        ),
        (
            "an old seq after a new one",
            vec![
                S("a", json!({"seq": 9, "status": "crashed"})),
                S("a", json!({"seq": 1, "status": "ok"})),
            ],
            [0, 0, 0, 0, 1],
        ),
        (
            "the nil user",
            vec![S(
                "a",
                json!({"did": "00000000-0000-0000-0000-000000000000", "status": "exited"}),
            )],
            [1, 0, 0, 0, 0],
        ),
        ("a number as user", vec![S("a", json!({"did": 42, "status": "exited"}))], [1, 0, 0, 0, 0]),
        ("two sessions", vec![S("a", ok()), S("b", json!({"status": "crashed"}))], [1, 0, 0, 0, 1]),
        (
            "two, their updates mixed",
            vec![
                S("a", ok()),
                S("b", ok()),
                S("b", json!({"status": "crashed"})),
                S("a", json!({"status": "exited"})),
            ],
            [1, 0, 0, 0, 1],
        ),
        (
            "an update a day later",
            vec![S("a", ok()), Wait(86_400), S("a", json!({"status": "crashed"}))],
            [0, 0, 0, 0, 1],
        ),
        ("an event marks its session", vec![S("a", ok()), X("a")], [0, 0, 0, 0, 1]),
        (
            "the event is there before its session",
            vec![X("a"), S("a", json!({"status": "exited"}))],
            [0, 0, 0, 0, 1],
        ),
        ("an event of a session that nobody told of", vec![X("a")], [0, 0, 0, 0, 1]),
        (
            "two events of one session",
            vec![X("a"), X("a"), S("a", json!({"status": "crashed"}))],
            [0, 0, 0, 0, 1],
        ),
        (
            "counts",
            vec![C(
                json!([{"exited": 10, "errored": 3, "crashed": 1, "abnormal": 2, "unhandled": 4}]),
            )],
            [10, 3, 4, 2, 1],
        ),
        (
            "counts that are sent again",
            vec![C(json!([{"exited": 10}])), Wait(5), C(json!([{"exited": 10}]))],
            [10, 0, 0, 0, 0],
        ),
        (
            "the same counts minutes later",
            vec![C(json!([{"exited": 10}])), Wait(300), C(json!([{"exited": 10}]))],
            [20, 0, 0, 0, 0],
        ),
        ("counts of nothing", vec![C(json!([{"exited": 0, "errored": null}]))], [0, 0, 0, 0, 0]),
        (
            "counts and single ones",
            vec![C(json!([{"exited": 2, "did": "u"}])), S("a", json!({"status": "crashed"}))],
            [2, 0, 0, 0, 1],
        ),
    ]
}

#[tokio::test]
async fn forty_sequences_of_items_come_to_what_they_should() {
    let rig = Rig::start().await;
    let table = table();
    assert!(table.len() >= 40);
    for (row, (name, steps, _)) in table.iter().enumerate() {
        let release = format!("app@{row}");
        let attrs = json!({"release": release, "environment": "production"});
        // When its sessions began: the same in each update, as SDKs do.
        let started = rfc(rig.now());
        for step in steps {
            match step {
                S(letter, members) => {
                    let mut item =
                        json!({"sid": sid(letter, row), "started": started, "attrs": attrs});
                    item.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
                    assert_eq!(rig.send(&item).await, Taken::Stored, "{name}");
                }
                C(buckets) => {
                    let mut buckets = buckets.clone();
                    for bucket in buckets.as_array_mut().unwrap() {
                        bucket["started"] = started.clone().into();
                    }
                    let item = json!({"aggregates": buckets, "attrs": attrs});
                    assert_eq!(rig.send_counts(&item).await, Taken::Stored, "{name}");
                }
                X(letter) => {
                    let delivery = rig.delivery();
                    let at = rig.now();
                    let taken = rig
                        .sessions()
                        .crashed(&delivery, &sid(letter, row), &release, "production", at)
                        .await;
                    assert_eq!(taken.unwrap(), Taken::Stored, "{name}");
                }
                Wait(secs) => {
                    rig.app.clock.advance(std::time::Duration::from_secs(secs.unsigned_abs()));
                }
            }
        }
    }
    for pass in ["before they are added up", "after"] {
        for (row, (name, _, expected)) in table.iter().enumerate() {
            let counts = rig.counts(&format!("app@{row}")).await;
            assert_eq!(counts, *expected, "{row} {name}, {pass}");
        }
        rig.run("session-aggregation").await;
    }
}

#[tokio::test]
async fn a_crash_that_comes_first_moves_to_when_its_session_began() {
    let rig = Rig::start().await;
    let began = rig.now();
    rig.app.clock.advance(std::time::Duration::from_secs(3 * 3600));
    let sid = "11111111-1111-4111-8111-111111111111";
    let delivery = rig.delivery();
    rig.sessions().crashed(&delivery, sid, "1.0", "production", rig.now()).await.unwrap();
    rig.run("session-aggregation").await;
    let item = json!({"sid": sid, "started": rfc(began), "status": "ok",
        "attrs": {"release": "1.0", "environment": "production"}});
    rig.send(&item).await;
    let series = "/api/app-sessions/series?project=shop&interval=1h&from=2027-01-15T08:00:00Z&to=2027-01-15T12:00:00Z";
    for _ in 0..2 {
        let points = rig.get(series).await["points"].clone();
        let values: Vec<f64> =
            points.as_array().unwrap().iter().map(|p| p["value"].as_f64().unwrap()).collect();
        assert_eq!(values, [1.0, 0.0, 0.0, 0.0], "{points}");
        rig.run("session-aggregation").await;
    }
}

#[tokio::test]
async fn a_clock_that_is_wrong_by_hours_is_set_right() {
    let rig = Rig::start().await;
    let mut delivery = rig.delivery();
    let theirs = rig.now() - TimeDelta::days(400);
    delivery.sent_at = Some(theirs);
    let item = json!({"sid": "22222222-2222-4222-8222-222222222222", "status": "exited",
        "started": rfc(theirs - TimeDelta::minutes(10)), "attrs": {"release": "1.0"}});
    let payload = Bytes::from(item.to_string());
    let taken = rig.sessions().session(&delivery, payload.clone()).await.unwrap();
    assert_eq!(taken, Taken::Stored);
    // Sent again a little later: the drift is not quite the same, the session is.
    rig.app.clock.advance(std::time::Duration::from_millis(1500));
    delivery.received_at = rig.now();
    assert_eq!(rig.sessions().session(&delivery, payload).await.unwrap(), Taken::Stored);
    assert_eq!(rig.counts("1.0").await, [1, 0, 0, 0, 0]);
    let list = rig.get("/api/app-sessions?project=shop").await;
    assert_eq!(list["sessions"].as_array().unwrap().len(), 1);
    assert_eq!(list["sessions"][0]["started_at"], "2027-01-15T07:50:00.000Z");
}

#[tokio::test]
async fn where_few_are_kept_those_that_crashed_are_and_the_rest_stands_for_more() {
    let setup = loom_testkit::Setup::default()
        .manual_clock()
        .set("LOOM_SERVER_SESSIONS_SAMPLE_RATE", "0.25");
    let rig = Rig::with(setup).await;
    let buckets = 400;
    for _ in 0..buckets {
        rig.one("1.0", "exited").await;
    }
    for _ in 0..20 {
        rig.one("1.0", "crashed").await;
    }
    for _ in 0..2 {
        let counts = rig.counts("1.0").await;
        assert_eq!(counts[4], 20);
        // Three standard deviations of what chance leaves.
        assert!((counts[0] - buckets).abs() <= 3 * 35, "{counts:?}");
        assert_eq!(counts[0] % 4, 0, "each stands for four");
        rig.run("session-aggregation").await;
    }
}
