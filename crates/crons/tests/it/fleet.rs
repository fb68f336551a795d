//! Many monitors, pings with loss: each missed run is found, in the right minute, and none that was not.

use std::{collections::BTreeSet, time::Duration};

use chrono::{DateTime, Utc};
use loom_testkit::Setup;
use serde_json::{Value, json};

use crate::support::{sweep, world_of};

/// Small steps of a generator with a seed: the same fleet in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

/// Schedules in minutes; monitors stagger over them.
const EVERY: [u64; 4] = [5, 10, 15, 30];
const MARGIN: u64 = 2;

async fn simulate(count: usize, minutes: u64, seed: u64, down: Option<(u64, u64)>) {
    let setup = Setup::default().set("LOOM_SERVER_CRONS_MAX_MONITORS", "1000000");
    let (app, ada) = world_of(setup).await;
    let start = app.clock.now();
    // By SQL: making them one by one is not what is tested.
    let template =
        json!({"slug": "template", "schedule": {"type": "crontab", "expression": "0 0 1 1 *"}});
    ada.post("/api/crons/monitors", &template).await.expect(201);
    for (kind, every) in EVERY.iter().enumerate() {
        let schedule = json!({"type": "crontab", "expression": format!("*/{every} * * * *")});
        sqlx::query(
            "INSERT INTO cron_monitors SELECT (jsonb_populate_record(m, jsonb_build_object(
                 'id', gen_random_uuid(), 'slug', 'job-' || n, 'name', 'job-' || n, 'schedule', $1::jsonb,
                 'margin_secs', $2::int, 'ping_key', md5('job-' || n)::uuid, 'badge_key', 'badge-' || n,
                 'alerts', '{}'::jsonb))).*
               FROM cron_monitors m, generate_series($3::int, $4::int - 1, $5::int) n WHERE m.slug = 'template'",
        )
        .bind(schedule)
        .bind(MARGIN as i32 * 60)
        .bind(kind as i32)
        .bind(count as i32)
        .bind(EVERY.len() as i32)
        .execute(app.database.pool())
        .await
        .unwrap();
    }
    sqlx::query(
        "INSERT INTO cron_environments (monitor_id, name, org_id, expected_at, due_at)
         SELECT id, 'production', org_id, $1 + (substr(schedule->>'expression', 3, strpos(schedule->>'expression', ' ') - 3) || ' min')::interval,
                $1 + (substr(schedule->>'expression', 3, strpos(schedule->>'expression', ' ') - 3) || ' min')::interval
                   + make_interval(secs => margin_secs)
           FROM cron_monitors WHERE slug LIKE 'job-%'",
    )
    .bind(start)
    .execute(app.database.pool())
    .await
    .unwrap();
    let keys: Vec<uuid::Uuid> =
        sqlx::query_scalar("SELECT md5('job-' || n)::uuid FROM generate_series(0, $1 - 1) n")
            .bind(count as i32)
            .fetch_all(app.database.pool())
            .await
            .unwrap();
    let mut dice = Dice(seed);
    let mut lost = BTreeSet::new();
    for minute in 1..=minutes {
        app.clock.advance(Duration::from_secs(60));
        if down.is_some_and(|(from, to)| minute >= from && minute < to) {
            continue;
        }
        // What runs now or a minute ago pings, but for one in twenty.
        let mut paths = Vec::new();
        for (n, key) in keys.iter().enumerate() {
            let every = EVERY[n % EVERY.len()];
            if minute % every == 0 {
                if dice.roll(20) == 0 {
                    lost.insert((n, minute));
                } else {
                    paths.push(format!("/ping/{key}"));
                }
            }
        }
        let anybody = app.anonymous();
        futures::future::join_all(paths.iter().map(|path| anybody.get(path)))
            .await
            .into_iter()
            .for_each(|answer| assert_eq!(answer.text, "OK"));
        sweep(&app).await;
    }
    let found: Vec<Value> = app
        .rows(
            "SELECT m.slug, c.at, c.received_at FROM cron_checkins c JOIN cron_monitors m ON m.id = c.monitor_id
              WHERE c.status = 'missed'",
        )
        .await;
    let mut missed = BTreeSet::new();
    for row in found {
        let n: usize = row["slug"].as_str().unwrap()["job-".len()..].parse().unwrap();
        let time = |name: &str| row[name].as_str().unwrap().parse::<DateTime<Utc>>().unwrap();
        let minute = (time("at") - start).num_minutes() as u64;
        let after = (time("received_at") - time("at")).num_minutes() as u64;
        // What was due right before the outage is found right after it.
        let in_time = after <= MARGIN + 1
            || down.is_some_and(|(from, to)| minute < from && minute + after == to);
        assert!(in_time, "seed {seed}: job-{n} at {minute} was found after {after} minutes");
        assert!(missed.insert((n, minute)), "job-{n} at {minute} was found twice");
    }
    // What was due so late that its margin is not over is not known yet; what the outage touches never is.
    let is_known = |(_, minute): &(usize, u64)| {
        minute + MARGIN < minutes
            // What was due within a minute before the outage may be found, or be unknown.
            && down.is_none_or(|(from, to)| minute + MARGIN + 1 < from || *minute > to)
    };
    let expected: BTreeSet<_> = lost.iter().copied().filter(is_known).collect();
    let missed: BTreeSet<_> = missed.into_iter().filter(|one| one.1 + MARGIN < minutes).collect();
    let (false_alarms, unseen) = (
        missed.difference(&lost).collect::<Vec<_>>(),
        expected.difference(&missed).collect::<Vec<_>>(),
    );
    assert!(!expected.is_empty());
    assert!(
        false_alarms.is_empty() && unseen.is_empty(),
        "seed {seed}: false {false_alarms:?}, unseen {unseen:?}"
    );
}

#[tokio::test]
async fn each_lost_run_of_a_fleet_is_found_in_its_minute_and_no_other() {
    Box::pin(simulate(2_000, 34, 1, None)).await;
}

#[tokio::test]
async fn a_fleet_raises_no_false_alarm_after_the_server_was_down_for_47_minutes() {
    Box::pin(simulate(400, 110, 2, Some((33, 80)))).await;
}

/// The statement in a function of the store, as it is.
fn statement(function: &str) -> &'static str {
    let store = include_str!("../../src/store/states.rs");
    let body = &store[store.find(&format!("async fn {function}(")).unwrap()..];
    let text = &body[body.find("\"SELECT").unwrap() + 1..];
    &text[..text.find("\",").unwrap()]
}

#[tokio::test]
async fn what_is_due_is_found_by_an_index_however_many_monitors_there_are() {
    let (app, ada) = world_of(Setup::default()).await;
    let template =
        json!({"slug": "template", "schedule": {"type": "interval", "value": 1, "unit": "day"}});
    ada.post("/api/crons/monitors", &template).await.expect(201);
    let many = [
        "INSERT INTO cron_environments (monitor_id, name, org_id, expected_at, due_at)
         SELECT monitor_id, 'env-' || n, org_id, due_at, due_at + make_interval(secs => n)
           FROM cron_environments, generate_series(1, 20000) n",
        "INSERT INTO cron_runs (monitor_id, environment, run_key, given, checkin_id, checkin_at, seen_at, deadline_at)
         SELECT monitor_id, name, gen_random_uuid(), true, gen_random_uuid(), due_at, due_at, due_at
           FROM cron_environments",
        "ANALYZE cron_environments, cron_runs",
    ];
    for sql in many {
        sqlx::query(sql).execute(app.database.pool()).await.unwrap();
    }
    for (function, index) in
        [("lock_due", "cron_environments_due_idx"), ("overdue_runs", "cron_runs_due_idx")]
    {
        let explain = format!("EXPLAIN {}", statement(function));
        let plan: Vec<String> = sqlx::query_scalar(sqlx::AssertSqlSafe(explain))
            .bind(app.clock.now())
            .bind(500_i64)
            .fetch_all(app.database.pool())
            .await
            .unwrap();
        let plan = plan.join("\n");
        assert!(plan.contains(index) && !plan.contains("Seq Scan"), "{function}:\n{plan}");
    }
}
