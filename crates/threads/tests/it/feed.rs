//! Nothing that happens to threads is missed or told twice, whatever goes on.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::future::join_all;
use loom_core::id::{OrgId, ThreadId, new_uuid};
use loom_testkit::{
    TestDatabase,
    app::{Caller, Setup},
};
use serde_json::json;
use sqlx::PgPool;
use tokio::time::sleep;

use crate::follow::Follower;

const ALL: &str = "/api/threads/events";
const WRITERS: usize = 50;
const THREADS: usize = 20;
const WRITES: usize = 20;
const READERS: usize = 20;

/// Numbers without a pattern, the same in each run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, most: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % most
    }
}

/// Writes as the feature does, with pauses where a server may hang: takes its turn at the thread, writes,
/// commits.
async fn write(pool: &PgPool, org: OrgId, thread: ThreadId, dice: &mut Dice) -> sqlx::Result<()> {
    let mut tx = loom_db::begin(pool).await?;
    let turn = "WITH turn AS MATERIALIZED (SELECT pg_advisory_xact_lock(hashtextextended($1::uuid::text, 0)))
        SELECT version FROM turn, threads WHERE id = $1 FOR UPDATE OF threads";
    let version: i64 = sqlx::query_scalar(turn).bind(thread).fetch_one(&mut *tx).await?;
    sleep(Duration::from_millis(dice.below(4))).await;
    sqlx::query("UPDATE threads SET version = $2 WHERE id = $1")
        .bind(thread)
        .bind(version + 1)
        .execute(&mut *tx)
        .await?;
    let data = json!({ "thread_id": thread, "version": version + 1 });
    sqlx::query("INSERT INTO thread_events (org_id, thread_id, kind, data) VALUES ($1, $2, 'updated', $3::text::json)")
        .bind(org)
        .bind(thread)
        .bind(data.to_string())
        .execute(&mut *tx)
        .await?;
    sleep(Duration::from_millis(dice.below(20))).await;
    if dice.below(10) == 0 { tx.rollback().await } else { tx.commit().await }
}

/// Follows everything, leaves now and then, and comes back; until it has seen the marker of each thread.
async fn follow(caller: Caller, start: String, number: usize) -> Vec<(String, i64)> {
    let mut dice = Dice(number as u64 * 77 + 1);
    let (mut last, mut seen, mut ids) = (start, Vec::new(), BTreeSet::new());
    let mut done = BTreeSet::new();
    while done.len() < THREADS {
        let Some(mut follower) = Follower::try_start(&caller, ALL, Some(&last)).await else {
            sleep(Duration::from_millis(50)).await;
            continue;
        };
        for _ in 0..dice.below(150) {
            let Some(told) = follower.next().await else { break };
            assert_ne!(told.kind, "reset");
            if let (Some(id), "updated") = (told.id, told.kind.as_str()) {
                assert!(ids.insert(id.clone()), "{id} came twice");
                last = id;
                let thread = told.data["thread_id"].as_str().unwrap().to_owned();
                if told.data["title"] == "end" {
                    done.insert(thread.clone());
                }
                seen.push((thread, told.data["version"].as_i64().unwrap()));
            }
            if done.len() == THREADS {
                break;
            }
        }
    }
    seen
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn chaos_each_reader_sees_each_event_once_and_in_order_over_late_commits_breaks_and_a_crash_of_postgresql()
 {
    let app = Setup::default().start_on(TestDatabase::on_its_own().await).await;
    let other = app.replica().await;
    let ann = app.user("ann@example.com").await;
    let mut threads = Vec::new();
    for _ in 0..THREADS {
        let id = ThreadId(new_uuid(app.clock.now()));
        ann.put(&format!("/api/threads/{id}"), &json!({ "messages": [] })).await.expect(201);
        threads.push(id);
    }
    let (_, start) = Follower::start(&ann, ALL, None).await;
    let start = start.id.unwrap();
    let readers: Vec<_> = (0..READERS)
        .map(|number| {
            let caller = if number.is_multiple_of(2) { ann.caller.clone() } else { ann.at(&other) };
            tokio::spawn(follow(caller, start.clone(), number))
        })
        .collect();
    let options = app.database.pool().connect_options().as_ref().clone();
    let pool = sqlx::postgres::PgPoolOptions::new()
        .max_connections(25)
        .connect_with(options)
        .await
        .unwrap();
    let written = Arc::new(AtomicUsize::new(0));
    let writers: Vec<_> = (0..WRITERS)
        .map(|number| {
            let (pool, threads, org) = (pool.clone(), threads.clone(), ann.org);
            let written = Arc::clone(&written);
            tokio::spawn(async move {
                let mut dice = Dice(number as u64 + 12345);
                for _ in 0..WRITES {
                    let thread = threads[usize::try_from(dice.below(THREADS as u64)).unwrap()];
                    // Whether it was committed when PostgreSQL went away, its tables tell in the end.
                    let _ = write(&pool, org, thread, &mut dice).await;
                    written.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    // In the middle of it PostgreSQL ends without a goodbye, and comes back.
    loom_testkit::eventually(async || {
        (written.load(Ordering::Relaxed) > WRITERS * WRITES / 3).then_some(())
    })
    .await;
    app.database.crash().await;
    for writer in writers {
        writer.await.unwrap();
    }
    // The last of each thread, as the servers write it.
    loom_testkit::eventually(async || (ann.get("/api/threads").await.status == 200).then_some(()))
        .await;
    let mut expected = BTreeMap::new();
    for thread in &threads {
        let path = format!("/api/threads/{thread}");
        let last = ann.patch(&path, &json!({ "title": "end" })).await.expect(200).json();
        expected.insert(thread.to_string(), last["version"].as_i64().unwrap());
    }
    // The order in which everybody is to see it.
    let order: Vec<(ThreadId, i64)> = sqlx::query_as(
        "SELECT thread_id, (data ->> 'version')::bigint FROM thread_events
         WHERE kind = 'updated' AND (data ->> 'version')::bigint > 1 ORDER BY xid, id",
    )
    .fetch_all(app.database.pool())
    .await
    .unwrap();
    let order: Vec<(String, i64)> =
        order.into_iter().map(|(thread, version)| (thread.to_string(), version)).collect();
    for seen in join_all(readers).await {
        let mut seen = seen.unwrap();
        // Their creation is before or behind where they began.
        seen.retain(|(_, version)| *version > 1);
        assert!(seen == order, "{} of {}", seen.len(), order.len());
        let mut versions: BTreeMap<String, i64> = BTreeMap::new();
        for (thread, version) in seen {
            let before = versions.insert(thread, version).unwrap_or(1);
            assert_eq!(version, before + 1);
        }
        for (thread, last) in &expected {
            assert_eq!(versions.get(thread).unwrap_or(&1), last, "{thread}");
        }
    }
    other.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_who_write_to_one_thread_on_two_servers_each_is_told_once_and_in_turn() {
    let app = loom_testkit::TestApp::start().await;
    let other = app.replica().await;
    let ann = app.user("ann@example.com").await;
    let path = format!("/api/threads/{}", ThreadId(new_uuid(app.clock.now())));
    ann.put(&path, &json!({ "messages": [] })).await.expect(201);
    let (mut follower, _) = Follower::start(&ann, &format!("{path}/events"), None).await;
    let writers = (0..16).map(async |writer: usize| {
        let caller = if writer.is_multiple_of(2) { ann.caller.clone() } else { ann.at(&other) };
        for turn in 0..10 {
            let message =
                json!({ "id": format!("{writer}-{turn}"), "role": "user", "content": "x" });
            let append = json!({ "messages": [message] });
            caller.post(&format!("{path}/messages"), &append).await.expect(200);
            caller.post(&format!("{path}/messages"), &append).await.expect(200);
        }
    });
    join_all(writers).await;
    for number in 1..=160 {
        let told = follower.next().await.unwrap();
        assert_eq!(
            (
                told.kind.as_str(),
                &told.data["version"],
                &told.data["from_seq"],
                &told.data["to_seq"]
            ),
            ("message", &json!(number + 1), &json!(number), &json!(number))
        );
    }
    other.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_is_committed_late_is_told_before_those_that_overtook_it() {
    let app = loom_testkit::TestApp::start().await;
    let ann = app.user("ann@example.com").await;
    let mut threads = Vec::new();
    for _ in 0..2 {
        let id = ThreadId(new_uuid(app.clock.now()));
        ann.put(&format!("/api/threads/{id}"), &json!({ "messages": [] })).await.expect(201);
        threads.push(id);
    }
    let (mut follower, _) = Follower::start(&ann, ALL, None).await;
    // The late one has the lower number and, as it happens, the higher id.
    let mut late = loom_db::begin(app.database.pool()).await.unwrap();
    sqlx::query("SELECT FROM threads WHERE id = $1 FOR UPDATE")
        .bind(threads[0])
        .execute(&mut *late)
        .await
        .unwrap();
    ann.patch(&format!("/api/threads/{}", threads[1]), &json!({ "title": "fast" }))
        .await
        .expect(200);
    loom_testkit::eventually(async || {
        let health = ann.get("/health").await.json();
        (health["components"]["thread_feed"]["lag_ms"].as_u64()? > 0).then_some(())
    })
    .await;
    let event = json!({ "thread_id": threads[0], "version": 2 });
    sqlx::query("INSERT INTO thread_events (org_id, thread_id, kind, data) VALUES ($1, $2, 'updated', $3::text::json)")
        .bind(ann.org)
        .bind(threads[0])
        .bind(event.to_string())
        .execute(&mut *late)
        .await
        .unwrap();
    late.commit().await.unwrap();
    assert_eq!(follower.next().await.unwrap().data["thread_id"], json!(threads[0]));
    assert_eq!(follower.next().await.unwrap().data["title"], "fast");
}
