//! Maintenance: few packs, nothing lost, one at a time.

use std::time::Duration;

use loom_testkit::{Setup, eventually};
use serde_json::{Value, json};

use crate::harness::{World, git, noise};

fn maintenance(repository: &Value) -> String {
    format!("/api/repos/{}/maintenance", repository["id"].as_str().unwrap())
}

impl World {
    /// Asks for maintenance and waits until it is done.
    async fn maintain(&self, repository: &Value) -> Value {
        let path = maintenance(repository);
        let run = self.ada.post(&path, &Value::Null).await.expect(202).json();
        assert_eq!(run["status"], "running");
        eventually(async || {
            let runs = self.ada.get(&path).await.expect(200).json();
            let same =
                runs["runs"].as_array().unwrap().iter().find(|r| r["id"] == run["id"]).cloned();
            same.filter(|run| run["status"] != "running")
        })
        .await
    }

    async fn sweep(&self) -> Value {
        let admin = self.app.admin("chief@example.com").await;
        let begun =
            admin.post("/api/admin/maintenance/sweep", &Value::Null).await.expect(202).json();
        eventually(async || {
            let runs = admin.get("/api/admin/jobs/scm-maintenance/history").await.json();
            let run =
                runs["runs"].as_array().unwrap().iter().find(|run| run["id"] == begun["run_id"]);
            run.cloned().filter(|run| run["status"] != "running")
        })
        .await
    }
}

fn packs(bare: &std::path::Path) -> usize {
    let files = std::fs::read_dir(bare.join("objects/pack")).unwrap().flatten();
    files.filter(|file| file.path().extension().is_some_and(|kind| kind == "pack")).count()
}

#[tokio::test]
async fn after_many_pushes_there_are_few_packs_and_all_that_was_pushed() {
    let world = World::new().await;
    let made = world.create("engine").await;
    let bare = world.bare(&made);
    world.work("first", &world.own("engine.git")).await;
    for round in 0..20 {
        world.commit("first", "a.txt", &noise(2000, round)).await;
        world.git("first", &["push", "-q", "origin", "main"]).await.expect();
    }
    assert!(packs(&bare) >= 20);
    let head = world.git("first", &["rev-parse", "HEAD"]).await.expect();
    let run = world.maintain(&made).await;
    assert_eq!(run["status"], "succeeded", "{run}");
    assert_eq!((&run["packs_before"], &run["packs_after"]), (&json!(20), &json!(1)), "{run}");
    assert!(run["bytes_after"].as_i64() < run["bytes_before"].as_i64(), "{run}");
    assert_eq!(run["reclaimed"], true);
    assert_eq!(packs(&bare), 1);
    assert_eq!(git(&bare, &["fsck", "--full", "--strict"]).await.expect(), "");
    assert_eq!(git(&bare, &["rev-parse", "main"]).await.expect(), head);
    assert_eq!(git(&bare, &["rev-list", "--count", "main"]).await.expect(), "21");
    let acts =
        world.app.rows("SELECT details FROM audit_log WHERE action = 'repository.maintain'").await;
    assert_eq!(acts[0]["details"]["run_id"], run["id"]);
}

#[tokio::test]
async fn pushes_beside_maintenance_lose_nothing() {
    let world = World::new().await;
    let made = world.create("engine").await;
    let bare = world.bare(&made);
    let url = world.own("engine.git");
    for dir in ["one", "two"] {
        world.work(dir, &url).await;
    }
    let push = async |dir: &str| {
        let mut heads = Vec::new();
        for round in 0..12_u64 {
            let content = noise(50_000, round + 100 * dir.len() as u64 + u64::from(dir == "two"));
            let head = world.commit(dir, "a.txt", &content).await;
            // Branches come, are written over, and go, so that there is garbage too.
            let target = format!("+HEAD:refs/heads/{dir}-{}", round % 3);
            world.git(dir, &["push", "-q", "origin", &target]).await.expect();
            heads.push(head);
        }
        heads
    };
    let done = std::sync::atomic::AtomicBool::new(false);
    let pushes = async {
        let heads = futures::future::join(push("one"), push("two")).await;
        done.store(true, std::sync::atomic::Ordering::SeqCst);
        heads
    };
    let maintaining = async {
        let mut runs = Vec::new();
        while !done.load(std::sync::atomic::Ordering::SeqCst) {
            runs.push(world.maintain(&made).await);
        }
        runs
    };
    let ((one, two), runs) = futures::future::join(pushes, maintaining).await;
    assert!(runs.len() > 1 && runs.iter().all(|run| run["status"] == "succeeded"), "{runs:?}");
    assert_eq!(git(&bare, &["fsck", "--full", "--no-dangling"]).await.expect(), "");
    let refs = git(&bare, &["for-each-ref", "--format=%(objectname)"]).await.expect();
    for heads in [one, two] {
        for head in &heads[9..] {
            assert!(refs.contains(head), "{head} of {refs}");
        }
        // Also what no branch names any more: it is not two weeks old.
        for head in &heads {
            git(&bare, &["cat-file", "-e", head]).await.expect();
        }
    }
    let last = world.maintain(&made).await;
    assert!(last["packs_after"].as_i64().unwrap() <= 2, "{last}");
    world.git("", &["clone", "-q", &url, "-b", "one-2", "again"]).await.expect();
}

#[tokio::test]
async fn nothing_is_removed_while_a_push_is_under_way_and_no_push_begins_meanwhile() {
    let world = World::new().await;
    let made = world.create("engine").await;
    world.work("first", &world.own("engine.git")).await;
    world.git("first", &["push", "-q", "origin", "main"]).await.expect();
    let id = made["id"].as_str().unwrap();
    let run = async |sql: &str| {
        sqlx::query(sqlx::AssertSqlSafe(sql.to_owned()))
            .execute(world.app.database.pool())
            .await
            .unwrap();
    };
    run(&format!(
        "INSERT INTO repository_pushes (id, org_id, repository_id, lease_until)
         VALUES (gen_random_uuid(), '{}', '{id}', now() + interval '1 hour')",
        world.ada.org
    ))
    .await;
    let result = world.maintain(&made).await;
    assert_eq!((&result["status"], &result["reclaimed"]), (&json!("succeeded"), &json!(false)));
    // One whose server died stands in the way no longer than its lease.
    run("UPDATE repository_pushes SET lease_until = now()").await;
    assert_eq!(world.maintain(&made).await["reclaimed"], true);

    run("UPDATE repositories SET reclaiming_until = now() + interval '1 hour'").await;
    world.commit("first", "b.txt", b"two").await;
    let pushed = world.git("first", &["push", "-q", "origin", "main"]);
    let freed = async {
        // The push waits; a clone does not.
        world.git("", &["clone", "-q", &world.own("engine.git"), "beside"]).await.expect();
        assert!(world.app.rows("SELECT 1 FROM repository_pushes").await.is_empty());
        run("UPDATE repositories SET reclaiming_until = NULL").await;
    };
    let (pushed, ()) = futures::future::join(pushed, freed).await;
    pushed.expect();
}

#[tokio::test]
async fn what_nothing_refers_to_goes_after_two_weeks() {
    let world = World::new().await;
    let made = world.create("engine").await;
    let bare = world.bare(&made);
    world.work("first", &world.own("engine.git")).await;
    world.git("first", &["push", "-q", "origin", "main"]).await.expect();
    let gone = world.commit("first", "big.bin", &noise(500_000, 1)).await;
    world.git("first", &["push", "-q", "origin", "main:side"]).await.expect();
    world.git("first", &["push", "-q", "origin", ":side"]).await.expect();
    let run = world.maintain(&made).await;
    assert!(run["bytes_after"].as_i64().unwrap() > 500_000, "{run}");
    git(&bare, &["cat-file", "-e", &gone]).await.expect();
    // Three weeks later, as git tells the age of an object.
    let aged = std::time::SystemTime::now() - Duration::from_secs(21 * 86_400);
    for file in std::fs::read_dir(bare.join("objects/pack")).unwrap().flatten() {
        let path = file.path();
        if path.extension().is_some_and(|kind| kind == "mtimes") {
            std::fs::remove_file(&path).unwrap();
        } else {
            std::fs::File::options().read(true).open(&path).unwrap().set_modified(aged).unwrap();
        }
    }
    let run = world.maintain(&made).await;
    assert!(run["bytes_after"].as_i64().unwrap() < 200_000, "{run}");
    assert!(!git(&bare, &["cat-file", "-e", &gone]).await.ok);
    assert_eq!(git(&bare, &["fsck", "--full", "--strict"]).await.expect(), "");
}

#[tokio::test]
async fn a_repository_is_looked_after_by_one_at_a_time() {
    let world = World::new().await;
    let made = world.create("engine").await;
    world.work("first", &world.own("engine.git")).await;
    world.git("first", &["push", "-q", "origin", "main"]).await.expect();
    // As if another server had it.
    let held = |until: &str| {
        let sql = format!(
            "WITH held AS (UPDATE repositories SET maintenance_id = gen_random_uuid(), maintenance_until = now() + interval '{until}'
                           RETURNING id, org_id, maintenance_id)
             INSERT INTO repository_maintenance (id, org_id, repository_id, trigger, status, started_at)
             SELECT maintenance_id, org_id, id, 'schedule', 'running', now() - interval '1 hour' FROM held"
        );
        sqlx::query(sqlx::AssertSqlSafe(sql)).execute(world.app.database.pool())
    };
    held("1 hour").await.unwrap();
    let refused = world.ada.post(&maintenance(&made), &Value::Null).await.expect(409);
    assert_eq!(refused.code(), "maintenance_running");
    assert_eq!(world.sweep().await["items_handled"], 0);
    // It died: its lease has ended, and its run is shown as what it is.
    sqlx::query("UPDATE repositories SET maintenance_until = now()")
        .execute(world.app.database.pool())
        .await
        .unwrap();
    assert_eq!(world.maintain(&made).await["status"], "succeeded");
    let runs = world.ada.get(&maintenance(&made)).await.json();
    let statuses: Vec<_> = runs["runs"].as_array().unwrap().iter().map(|r| &r["status"]).collect();
    assert_eq!(statuses, ["succeeded", "abandoned"]);
}

#[tokio::test]
async fn a_sweep_looks_after_what_was_pushed_to_and_nothing_else() {
    let world = World::new().await;
    let (pushed, idle) = (world.create("pushed").await, world.create("idle").await);
    world.work("first", &world.own("pushed.git")).await;
    world.git("first", &["push", "-q", "origin", "main"]).await.expect();
    let job = world.sweep().await;
    assert_eq!((&job["status"], &job["items_handled"]), (&json!("succeeded"), &json!(1)), "{job}");
    let runs = async |repository: &Value| {
        let runs = world.ada.get(&maintenance(repository)).await.expect(200).json()["runs"].clone();
        runs.as_array().unwrap().clone()
    };
    assert_eq!(runs(&pushed).await[0]["trigger"], "schedule");
    assert_eq!(runs(&idle).await, Vec::<Value>::new());
    let acts = world.app.rows("SELECT 1 FROM audit_log WHERE action = 'repository.sweep'").await;
    assert_eq!(acts.len(), 1);
    let again = world.running_sweep().await;
    assert_eq!(again["items_handled"], 0, "{again}");
}

impl World {
    /// As [`World::sweep`], by the scheduler itself.
    async fn running_sweep(&self) -> Value {
        let run = self.app.running.features.jobs.run_now("scm-maintenance").await.unwrap();
        json!({"items_handled": run.items_handled, "status": run.status.as_str(), "error": run.error})
    }
}

#[tokio::test]
async fn what_fails_says_why_and_is_tried_again_by_the_next_sweep() {
    let world = World::new().await;
    let made = world.create("engine").await;
    let bare = world.bare(&made);
    world.work("first", &world.own("engine.git")).await;
    world.git("first", &["push", "-q", "origin", "main"]).await.expect();
    let lost =
        std::fs::read_dir(bare.join("objects/pack")).unwrap().flatten().map(|file| file.path());
    let lost: Vec<_> = lost.collect();
    for file in &lost {
        std::fs::rename(file, bare.join(file.file_name().unwrap())).unwrap();
    }
    let job = world.running_sweep().await;
    assert_eq!(job["status"], "failed", "{job}");
    let run = world.ada.get(&maintenance(&made)).await.json()["runs"][0].clone();
    assert_eq!(run["status"], "failed", "{run}");
    assert!(!run["error"].as_str().unwrap().is_empty(), "{run}");
    for file in &lost {
        std::fs::rename(bare.join(file.file_name().unwrap()), file).unwrap();
    }
    let job = world.running_sweep().await;
    assert_eq!((&job["status"], &job["items_handled"]), (&json!("succeeded"), &json!(1)), "{job}");
}

#[tokio::test]
async fn a_deleted_repository_leaves_the_disk_after_thirty_days() {
    let world = World::with(Setup::default().manual_clock()).await;
    let made = world.create("engine").await;
    let path = format!("/api/repos/{}", made["id"].as_str().unwrap());
    world.ada.delete(&path).await.expect(204);
    world.running_sweep().await;
    assert!(world.bare(&made).exists());
    world.app.clock.advance(Duration::from_secs(30 * 86_400 + 1));
    assert_eq!(world.running_sweep().await["items_handled"], 1);
    assert!(!world.bare(&made).exists());
    assert!(world.app.rows("SELECT 1 FROM repositories").await.is_empty());
}
