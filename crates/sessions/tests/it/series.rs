//! Series in the time zones of the world.

use chrono::{DateTime, TimeDelta, Utc};
use loom_core::{Clock, port::Taken};
use loom_testkit::Setup;
use serde_json::json;
use uuid::Uuid;

use crate::harness::{Rig, rfc};

/// The evening after the night in which clocks of Europe were set forward.
const NOW: &str = "2027-03-28T20:10:00Z";

async fn rig() -> Rig {
    let now: DateTime<Utc> = NOW.parse().unwrap();
    Rig::with(Setup::default().clock(Clock::manual(now))).await
}

async fn at(rig: &Rig, at: &str, user: &str, secs: f64) {
    let item = json!({"sid": Uuid::from_u128(rand::random()), "did": user, "started": at, "status": "exited",
        "duration": secs, "attrs": {"release": "1.0"}});
    assert_eq!(rig.send(&item).await, Taken::Stored);
}

async fn values(rig: &Rig, query: &str) -> Vec<f64> {
    let series = rig.get(&format!("/api/app-sessions/series?project=shop&{query}")).await;
    series["points"].as_array().unwrap().iter().map(|p| p["value"].as_f64().unwrap()).collect()
}

#[tokio::test]
async fn days_are_those_of_the_place() {
    let rig = rig().await;
    // One each hour on the half hour, over two days.
    let first: DateTime<Utc> = "2027-03-26T20:30:00Z".parse().unwrap();
    for hour in 0..48 {
        at(&rig, &rfc(first + TimeDelta::hours(hour)), "ada", 1.0).await;
    }
    for _ in 0..2 {
        let range = "from=2027-03-27T12:00:00Z&to=2027-03-28T12:00:00Z&interval=1d";
        assert_eq!(values(&rig, range).await, [24.0, 20.0], "UTC");
        let berlin = format!("{range}&timezone=Europe/Berlin");
        // The 28th has 23 hours; of them 21 half hours are over.
        assert_eq!(values(&rig, &berlin).await, [24.0, 21.0]);
        // Begins at 18:30 UTC.
        let kolkata = format!("{range}&timezone=Asia/Kolkata");
        assert_eq!(values(&rig, &kolkata).await, [22.0, 24.0]);
        let hours =
            "from=2027-03-27T23:00:00Z&to=2027-03-28T22:00:00Z&interval=1h&timezone=Europe/Berlin";
        assert_eq!(values(&rig, hours).await.len(), 23);
        let half = "from=2027-03-28T10:00:00Z&to=2027-03-28T12:00:00Z&interval=30m";
        assert_eq!(values(&rig, half).await, [0.0, 1.0, 0.0, 1.0]);
        rig.run("session-aggregation").await;
    }
    for wrong in [
        "interval=45m",
        "timezone=Mars/Olympus",
        "from=2027-03-28T00:00:00Z&to=2027-03-01T00:00:00Z",
        "interval=30m&from=2020-01-01T00:00:00Z",
    ] {
        rig.ada.get(&format!("/api/app-sessions/series?project=shop&{wrong}")).await.expect(422);
    }
}

#[tokio::test]
async fn users_are_counted_once_in_any_range_and_durations_have_quantiles() {
    let rig = rig().await;
    let first: DateTime<Utc> = "2027-03-26T00:10:00Z".parse().unwrap();
    for n in 0..60 {
        let user = format!("user {}", n % 7);
        at(&rig, &rfc(first + TimeDelta::minutes(n * 31)), &user, (n + 1) as f64).await;
    }
    let range = "from=2027-03-26T00:00:00Z&to=2027-03-28T00:00:00Z";
    for _ in 0..2 {
        assert_eq!(values(&rig, &format!("{range}&interval=2d&field=users")).await, [7.0]);
        assert_eq!(values(&rig, &format!("{range}&interval=1d&field=users")).await, [7.0, 7.0]);
        let halves = values(&rig, &format!("{range}&interval=30m&field=users")).await;
        assert_eq!(halves.iter().sum::<f64>(), 60.0);
        let path =
            format!("/api/app-sessions/series?project=shop&{range}&interval=2d&field=duration");
        let point = rig.get(&path).await["points"][0].clone();
        assert_eq!(point["value"], 30_500.0);
        for (name, truth) in [("p50", 30_000.0), ("p95", 57_000.0), ("p99", 59_000.0)] {
            let told = point[name].as_f64().unwrap();
            assert!((told - truth).abs() <= truth * 0.04, "{name} {told}");
        }
        rig.run("session-aggregation").await;
    }
}
