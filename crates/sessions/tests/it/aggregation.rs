//! Sums are what the sessions say: whatever the order, however often, wherever the job was.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use loom_core::port::{ReleaseHealth, SessionSink};
use rand::{Rng, RngExt, SeedableRng, rngs::StdRng, seq::SliceRandom};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::{Rig, rfc};

const STATES: [&str; 5] = ["ok", "exited", "unhandled", "abnormal", "crashed"];

/// An update of one of a few sessions.
#[derive(Clone, Debug)]
struct Update {
    session: usize,
    status: &'static str,
    errors: i64,
}

/// What all updates of a session come to, counted in the plainest way.
fn class(updates: &[&Update]) -> usize {
    updates
        .iter()
        .map(|update| match update.status {
            "crashed" => 4,
            "abnormal" => 3,
            "unhandled" => 2,
            _ => usize::from(update.errors > 0),
        })
        .max()
        .unwrap()
}

struct Plan {
    started: Vec<DateTime<Utc>>,
    users: Vec<usize>,
    releases: Vec<usize>,
    updates: Vec<Update>,
}

fn plan(random: &mut impl Rng, now: DateTime<Utc>) -> Plan {
    let sessions = random.random_range(1..25);
    let started =
        (0..sessions).map(|_| now - TimeDelta::minutes(random.random_range(0..300))).collect();
    let users = (0..sessions).map(|_| random.random_range(0..8)).collect();
    let releases = (0..sessions).map(|_| random.random_range(0..3)).collect();
    let updates = (0..random.random_range(sessions..sessions * 4))
        .enumerate()
        .map(|(n, _)| Update {
            session: if n < sessions { n } else { random.random_range(0..sessions) },
            status: STATES[random.random_range(0..STATES.len())],
            errors: random.random_range(0..2),
        })
        .collect();
    Plan { started, users, releases, updates }
}

/// By release: counts, users, users who met a crash.
type Expected = BTreeMap<usize, ([i64; 5], BTreeSet<usize>, BTreeSet<usize>)>;

fn expected(plan: &Plan) -> Expected {
    let mut expected = Expected::new();
    for session in 0..plan.started.len() {
        let of_it: Vec<&Update> =
            plan.updates.iter().filter(|update| update.session == session).collect();
        let class = class(&of_it);
        let (counts, users, crashed) = expected.entry(plan.releases[session]).or_default();
        counts[class] += 1;
        users.insert(plan.users[session]);
        if class == 4 {
            crashed.insert(plan.users[session]);
        }
    }
    expected
}

async fn check(rig: &Rig, slug: &str, expected: &Expected, what: &str) {
    let list = rig.get(&format!("/api/app-sessions/releases?project={slug}&limit=200")).await;
    let mut found = BTreeMap::new();
    for release in list["releases"].as_array().unwrap() {
        let counts = ["healthy", "errored", "unhandled", "abnormal", "crashed"]
            .map(|class| release[class].as_i64().unwrap());
        let users =
            (release["users"].as_i64().unwrap(), release["crashed_users"].as_i64().unwrap());
        found.insert(release["version"].as_str().unwrap().to_owned(), (counts, users));
    }
    let wanted: BTreeMap<String, _> = expected
        .iter()
        .map(|(release, (counts, users, crashed))| {
            (release.to_string(), (*counts, (users.len() as i64, crashed.len() as i64)))
        })
        .collect();
    assert_eq!(found, wanted, "{what}");
    let total: i64 = expected.values().map(|(counts, ..)| counts.iter().sum::<i64>()).sum();
    let users: BTreeSet<_> = expected.values().flat_map(|(_, users, _)| users).collect();
    for (field, wanted) in [("sessions", total as f64), ("users", users.len() as f64)] {
        let path = format!("/api/app-sessions/series?project={slug}&interval=3d&field={field}");
        let series = rig.get(&path).await;
        let told: f64 = series["points"]
            .as_array()
            .unwrap()
            .iter()
            .map(|point| point["value"].as_f64().unwrap())
            .sum();
        assert_eq!(told, wanted, "{field}, {what}: {series}");
        assert_eq!(series["exact"], true);
    }
}

#[tokio::test]
async fn any_order_any_repetition_and_a_job_at_any_moment_give_the_same_sums() {
    let rig = Rig::start().await;
    for seed in 0..25 {
        let mut random = StdRng::seed_from_u64(seed);
        let plan = plan(&mut random, rig.now());
        let expected = expected(&plan);
        let slug = format!("p{seed}");
        let project = rig.project(&slug).await;
        let mut told = plan.updates.clone();
        told.extend(plan.updates.iter().filter(|_| random.random_bool(0.3)).cloned());
        told.shuffle(&mut random);
        let sids: Vec<Uuid> =
            plan.started.iter().map(|_| Uuid::from_u128(random.random())).collect();
        let delivery = rig.delivery_of(&project);
        let send = async |update: &Update| {
            let n = update.session;
            let item = json!({"sid": sids[n], "did": format!("user {}", plan.users[n]),
                "started": rfc(plan.started[n]), "status": update.status, "errors": update.errors,
                "attrs": {"release": plan.releases[n].to_string(), "environment": "production"}});
            rig.sessions().session(&delivery, Bytes::from(item.to_string())).await.unwrap();
        };
        // Some one after the other, the job somewhere between, the rest all at once.
        let (some, rest) = told.split_at(random.random_range(0..=told.len()));
        for update in some {
            send(update).await;
            if random.random_bool(0.1) {
                rig.run("session-aggregation").await;
            }
        }
        futures::future::join_all(rest.iter().map(send)).await;
        check(&rig, &slug, &expected, &format!("seed {seed}, as it came")).await;
        for pass in 0..2 {
            rig.run("session-aggregation").await;
            check(&rig, &slug, &expected, &format!("seed {seed}, added up {pass}")).await;
        }
        // All of it once more.
        for update in &told {
            send(update).await;
        }
        check(&rig, &slug, &expected, &format!("seed {seed}, repeated")).await;
    }
}

#[tokio::test]
async fn a_run_that_is_killed_half_way_changes_nothing() {
    let rig = Rig::start().await;
    for n in 0..30 {
        rig.one("1.0", if n % 3 == 0 { "crashed" } else { "exited" }).await;
    }
    rig.run("session-aggregation").await;
    for _ in 0..10 {
        rig.one("1.0", "exited").await;
    }
    let before = snapshot(&rig).await;
    // What the sums are written to is held, so that the run stands in the middle; then its connection dies.
    let mut hold = loom_db::begin(rig.app.database.pool()).await.unwrap();
    sqlx::query("LOCK TABLE app_session_releases IN ACCESS EXCLUSIVE MODE")
        .execute(&mut *hold)
        .await
        .unwrap();
    let job = rig.app.running.features.jobs.run_now("session-aggregation");
    let kill = async {
        loom_testkit::eventually(async || {
            sqlx::query_scalar::<_, bool>(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                  WHERE datname = current_database() AND wait_event_type = 'Lock'
                    AND query LIKE '%app_session_releases%' AND pid <> pg_backend_pid()",
            )
            .fetch_optional(rig.app.database.pool())
            .await
            .unwrap()
        })
        .await;
    };
    let (outcome, ()) = tokio::join!(job, kill);
    assert!(outcome.unwrap().error.is_some());
    hold.rollback().await.unwrap();
    assert_eq!(snapshot(&rig).await, before);
    rig.run("session-aggregation").await;
    assert_eq!(snapshot(&rig).await, before);
    assert_eq!(rig.app.rows("SELECT * FROM app_session_marks").await.len(), 0);
}

#[tokio::test]
async fn two_servers_that_add_up_at_once_and_one_that_writes_come_to_the_same() {
    let rig = Rig::start().await;
    let other = rig.app.replica().await;
    let writes = async {
        for n in 0..120 {
            rig.one(if n % 2 == 0 { "1.0" } else { "2.0" }, "exited").await;
        }
    };
    let here = async {
        for _ in 0..10 {
            // Whoever comes second finds somebody at work, or nothing to do.
            let _ = rig.app.running.features.jobs.run_now("session-aggregation").await;
        }
    };
    let there = async {
        for _ in 0..10 {
            let _ = other.features.jobs.run_now("session-aggregation").await;
        }
    };
    tokio::join!(writes, here, there);
    assert_eq!(rig.counts("1.0").await, [60, 0, 0, 0, 0]);
    rig.run("session-aggregation").await;
    assert_eq!(rig.counts("2.0").await, [60, 0, 0, 0, 0]);
    other.shut_down().await;
}

async fn snapshot(rig: &Rig) -> Value {
    let mut all = Vec::new();
    for path in [
        "/api/app-sessions/releases?project=shop",
        "/api/app-sessions/series?project=shop&interval=1h",
        "/api/app-sessions/series?project=shop&interval=1h&field=users",
        "/api/app-sessions/releases/1.0?project=shop",
    ] {
        all.push(rig.get(path).await);
    }
    Value::from(all)
}

#[tokio::test]
async fn releases_are_compared_and_rates_are_null_without_sessions() {
    let rig = Rig::start().await;
    rig.ada.get("/api/app-sessions/releases/1.0?project=shop").await.expect(404);
    let empty = rig.get("/api/app-sessions/series?project=shop&field=crash_free_sessions").await;
    assert!(empty["points"].as_array().unwrap().iter().all(|point| point["value"].is_null()));
    for n in 0..200 {
        rig.one("1.0", if n < 2 { "crashed" } else { "exited" }).await;
    }
    rig.app.clock.advance(std::time::Duration::from_secs(3600));
    rig.run("session-aggregation").await;
    for n in 0..100 {
        rig.one("2.0", if n < 20 { "crashed" } else { "exited" }).await;
    }
    let detail = rig.get("/api/app-sessions/releases/2.0?project=shop").await;
    assert_eq!(detail["sessions"], 100);
    assert_eq!(detail["crash_free_sessions"], 80.0);
    assert_eq!(detail["crash_free_users"], 80.0);
    assert_eq!(detail["stage"], "growing");
    assert!((detail["adoption"].as_f64().unwrap() - 100.0 / 3.0).abs() < 1e-9);
    let comparison = &detail["comparison"];
    assert_eq!(comparison["version"], "1.0");
    assert_eq!(comparison["verdict"], "worse");
    assert!(comparison["confidence_worse"].as_f64().unwrap() > 99.9);
    assert!((comparison["crash_free_sessions_change"].as_f64().unwrap() + 19.0).abs() < 1e-9);
    let list = rig.get("/api/app-sessions/releases?project=shop&limit=1").await;
    assert_eq!(list["releases"][0]["version"], "2.0");
    assert_eq!(list["releases"][0]["previous"], "1.0");
    assert_eq!(list["top"][0]["version"], "1.0");
    let cursor = list["next_cursor"].as_str().unwrap();
    let next =
        rig.get(&format!("/api/app-sessions/releases?project=shop&limit=1&cursor={cursor}")).await;
    assert_eq!(next["releases"][0]["version"], "1.0");
    assert_eq!(next["next_cursor"], Value::Null);

    let versions = ["1.0".to_owned(), "2.0".to_owned(), "3.0".to_owned()];
    let rates = rig.sessions().rates(&rig.project, &versions).await.unwrap();
    assert_eq!(rates.len(), 2);
    assert_eq!(rates["1.0"].crash_free_sessions, Some(99.0));
    let (from, to) = (rig.now() - TimeDelta::hours(1), rig.now() + TimeDelta::hours(1));
    let health: &dyn ReleaseHealth = rig.sessions();
    assert_eq!(health.sessions(&rig.project, None, from, to).await.unwrap(), 300);
    assert_eq!(health.sessions(&rig.project, Some("staging"), from, to).await.unwrap(), 0);
}
