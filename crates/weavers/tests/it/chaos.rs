//! Servers that are killed anywhere between the row and the pod, a cluster that is gone, answers that are lost,
//! words that come twice, two servers at once: in the end there are as many pods as weavers, and they are the same.

use std::{collections::BTreeSet, time::Duration};

use loom_testkit::{Running, chaos, kubernetes::Fault};
use serde_json::json;

use crate::support::{World, pod};

/// Rounds of each part; there are four.
const SHORT: u64 = 2;
const LONG: u64 = 50;

/// A server that can be killed: all that it does is in a runtime of its own.
struct Victim {
    runtime: tokio::runtime::Runtime,
    running: Running,
}

impl Victim {
    fn start(world: &World) -> Self {
        tokio::task::block_in_place(|| {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()
                .unwrap();
            let running = runtime.block_on(async {
                let app = &world.app;
                // The first one's own tasks stay where they are; only settings and database are shared.
                app.replica().await
            });
            Self { runtime, running }
        })
    }

    /// As SIGKILL does: nothing more is said or written.
    fn kill(self) {
        let handle = self.runtime.handle().clone();
        self.runtime.shutdown_background();
        let _inside = handle.enter();
        drop(self.running);
    }
}

/// Numbers that follow from a seed (splitmix64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (x ^ (x >> 31)) % limit
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chaos_in_the_end_pods_are_rows() {
    rounds(0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chaos_in_the_end_pods_are_rows_second_part() {
    rounds(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chaos_in_the_end_pods_are_rows_third_part() {
    rounds(2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chaos_in_the_end_pods_are_rows_fourth_part() {
    rounds(3).await;
}

/// Two hundred in the long form, each with what follows from its seed.
async fn rounds(part: u64) {
    let world = World::start().await;
    // It serves the test, and keeps out of the way of those that are killed.
    world.app.running.features.weavers.close().await;
    let rounds = if chaos::is_long() { LONG } else { SHORT };
    let mut victim = Victim::start(&world);
    for seed in part * rounds..(part + 1) * rounds {
        let mut dice = Dice(seed);
        let next = Victim::start(&world);
        let wanted = round(&world, &victim, &mut dice).await;
        victim.kill();
        world.cluster.clear_faults();
        world.cluster.back();
        // The lease runs out: ten seconds that nobody here wants to wait.
        sqlx::raw_sql("UPDATE weaver_leases SET until = '-infinity'; SELECT pg_notify('loom_weavers', 'lease')")
            .execute(world.app.database.pool())
            .await
            .unwrap();
        settle(&world, &wanted, seed).await;
        for id in &wanted {
            delete(&world, &next, id).await;
        }
        settle(&world, &BTreeSet::new(), seed).await;
        victim = next;
    }
    victim.kill();
}

/// Asks for weavers and deletes some, while things go wrong; gives those that were promised and not deleted.
async fn round(world: &World, victim: &Victim, dice: &mut Dice) -> BTreeSet<String> {
    let cluster = &world.cluster;
    cluster.repeat_events(dice.below(2) == 0);
    let places = [
        ("create", "secrets"),
        ("create", "pods"),
        ("patch", "secrets"),
        ("delete", "pods"),
        ("get", "pods"),
    ];
    for _ in 0..dice.below(4) {
        let (verb, resource) = places[usize::try_from(dice.below(5)).unwrap()];
        let fault = match dice.below(4) {
            0 => Fault::lose(verb, resource),
            1 => Fault::cut(verb, resource),
            2 => Fault::refuse(verb, resource, 500, "InternalError", "etcd is slow"),
            _ => Fault::delay(verb, resource, Duration::from_millis(dice.below(200))),
        };
        cluster.fault(fault.times(usize::try_from(dice.below(3)).unwrap() + 1));
    }
    let mut wanted = BTreeSet::new();
    for number in 0..3 + dice.below(3) {
        let body = json!({"image": "fake/agent", "wait": false});
        let asked = world.user.at(&victim.running).post("/api/weaver", &body).await;
        let weaver = asked.expect(202).json();
        let id = weaver["id"].as_str().unwrap().to_owned();
        if dice.below(4) == 0 {
            delete(world, victim, &id).await;
        } else {
            wanted.insert(id);
        }
        match dice.below(8) {
            0 => cluster.end_watches(),
            1 => cluster.compact(),
            2 if number > 0 => cluster.gone().await,
            _ => {}
        }
    }
    // Somewhere between the row and the pod.
    tokio::time::sleep(Duration::from_millis(dice.below(120))).await;
    wanted
}

async fn delete(world: &World, server: &Victim, id: &str) {
    let caller = world.user.at(&server.running);
    caller.delete(&format!("/api/weaver/{id}")).await.expect(204);
}

/// Waits until exactly these run, and nothing else is there.
async fn settle(world: &World, wanted: &BTreeSet<String>, seed: u64) {
    let pods: BTreeSet<String> = wanted.iter().map(|id| pod(id)).collect();
    let names = |kind: &str| -> BTreeSet<String> {
        let objects = world.cluster.objects(kind);
        objects
            .iter()
            .map(|object| object["metadata"]["name"].as_str().unwrap().to_owned())
            .collect()
    };
    let settled = tokio::time::timeout(Duration::from_secs(90), async {
        loop {
            let query = "SELECT id FROM weavers WHERE ended_at IS NULL AND status = 'running'";
            let running = world.app.rows(query).await;
            let all = world.app.rows("SELECT id FROM weavers WHERE ended_at IS NULL").await;
            let running: BTreeSet<String> =
                running.iter().map(|row| row["id"].as_str().unwrap().to_owned()).collect();
            let is_so = running == *wanted
                && all.len() == wanted.len()
                && names("pods") == pods
                && names("secrets") == pods;
            if is_so {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    assert!(
        settled.await.is_ok(),
        "seed {seed}: wanted {pods:?}, pods {:?}, secrets {:?}, rows {:?}",
        names("pods"),
        names("secrets"),
        world
            .app
            .rows("SELECT id, status, ending, trouble FROM weavers WHERE ended_at IS NULL")
            .await
    );
    let lost = world.app.rows("SELECT id FROM weavers WHERE status IN ('lost', 'failed')").await;
    assert!(lost.is_empty(), "seed {seed}: {lost:?}");
}
