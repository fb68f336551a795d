//! Health: each component is broken, and seen to turn.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use loom_core::principal::Scope;
use loom_testkit::{Setup, TestApp, TestDatabase, User, chaos::TcpProxy, eventually};
use serde_json::{Value, json};
use sqlx::Connection;

/// A server and an admin who looks at its health.
struct World {
    app: TestApp,
    admin: User,
}

impl World {
    async fn new(setup: Setup) -> Self {
        Self::on(setup, TestDatabase::new().await).await
    }

    async fn on(setup: Setup, database: TestDatabase) -> Self {
        let app = setup.start_on(database).await;
        let admin = app.admin("ada@example.com").await;
        Self { app, admin }
    }

    async fn component(&self, name: &str) -> Value {
        let path = "/api/admin/health?force=1";
        let report = self.admin.get(path).await.expect(200).json();
        report["components"][name].clone()
    }

    /// Until the component has this code, "" for none, and how it looks then.
    async fn turns(&self, name: &str, code: &str) -> Value {
        eventually(async || {
            let component = self.component(name).await;
            (component["code"].as_str().unwrap_or_default() == code).then_some(component)
        })
        .await
    }

    /// The component `clock` when the server's clock, which stands still, is set.
    async fn clock_is_right(&self) -> Value {
        eventually(async || {
            let behind = loom_core::Clock::system().now() - self.app.clock.now();
            self.app.clock.advance(behind.to_std().unwrap_or_default());
            let clock = self.component("clock").await;
            clock["code"].is_null().then_some(clock)
        })
        .await
    }

    async fn execute(&self, sql: &'static str) {
        sqlx::query(sql).execute(self.app.database.pool()).await.unwrap();
    }
}

/// A server whose way to the database can be cut. Admins are authenticated by the database, so that
/// what is seen while it is away is what everybody sees.
async fn behind_proxy() -> (World, TcpProxy) {
    let database = TestDatabase::new().await;
    let (proxy, url) = database.proxied().await;
    (World::on(Setup::default().set("DATABASE_URL", url), database).await, proxy)
}

#[track_caller]
fn assert_told(component: &Value, status: &str) {
    assert_eq!(component["status"], status, "{component}");
    for name in ["error", "advice", "since", "checked_at"] {
        assert!(
            component[name].as_str().is_some_and(|text| text.len() > 15),
            "{name}: {component}"
        );
    }
}

#[tokio::test]
async fn a_sound_server_is_healthy_live_and_ready() {
    let app = TestApp::start().await;
    app.running.features.hub.connected().await;
    let caller = app.anonymous();
    // A machine that is very busy may answer a single probe late.
    let health = eventually(async || {
        let health = caller.get("/health").await.expect(200).json();
        (health["status"] == "healthy").then_some(health)
    })
    .await;
    let healthy = ["database", "listener", "clock", "disk", "configuration", "jobs", "docs_index"];
    for name in healthy {
        assert_eq!(health["components"][name]["status"], "healthy", "{health}");
    }
    assert_eq!(health["components"]["llm_providers"]["providers"]["openai"]["status"], "healthy");
    assert!(health["version"]["git_sha"].is_string());
    caller.get("/health/live").await.expect(204);
    caller.get("/health/ready").await.expect(200);
}

#[tokio::test]
async fn admins_see_what_others_do_not() {
    // More than there is, on whatever disk.
    let mib = (1_u64 << 40).to_string();
    let world = World::new(Setup::default().set("LOOM_SERVER_HEALTH_DISK_FREE_MIB", mib)).await;
    let disk = world.turns("disk", "DISK_LOW").await;
    assert_told(&disk, "unhealthy");
    assert!(disk["free_bytes"].is_u64() && disk["detail"].is_string(), "{disk}");
    let public = world.app.anonymous().get("/health").await.expect(200).json();
    assert_eq!(public["status"], "degraded", "not critical: the database is elsewhere");
    let public = &public["components"]["disk"];
    let keys: Vec<_> = public.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(keys, ["error", "latency_ms", "status"]);

    let path = "/api/admin/health";
    world.app.anonymous().get(path).await.expect(401);
    world.app.user("bob@example.com").await.get(path).await.expect(403);
    let narrow = world.app.with_scopes(&world.admin, &[Scope::ThreadsRead]).await;
    narrow.get(path).await.expect(403);
    let reader = world.app.with_scopes(&world.admin, &[Scope::AdminRead]).await;
    reader.get(path).await.expect(200);
    reader.get("/api/admin/health?force=yes").await.expect(400);
}

#[tokio::test]
async fn without_the_database_the_whole_is_unhealthy_and_not_ready_until_it_is_back() {
    let (world, proxy) = behind_proxy().await;
    let caller = world.app.anonymous();
    caller.get("/health/ready").await.expect(200);
    proxy.refuse().await;
    proxy.cut();
    let health = eventually(async || {
        let answer = caller.get("/health").await;
        let health = answer.json();
        let away = health["components"]["database"]["status"] == "unhealthy"
            && health["components"]["clock"]["status"] == "degraded";
        away.then(|| assert_eq!(answer.status, 503)).map(|()| health)
    })
    .await;
    assert_eq!(health["components"]["database"]["status"], "unhealthy");
    assert_eq!(health["components"]["database"]["error"], "the database does not answer");
    assert_eq!(health["components"]["clock"]["status"], "degraded");
    assert_eq!(caller.get("/health/ready").await.expect(503).code(), "unavailable");
    caller.get("/health/live").await.expect(204);
    proxy.resume().unwrap();
    eventually(async || (caller.get("/health").await.json()["status"] == "healthy").then_some(()))
        .await;
    caller.get("/health/ready").await.expect(200);
}

#[tokio::test]
async fn a_database_that_answers_late_is_slow_and_one_that_hangs_is_away() {
    let (world, proxy) = behind_proxy().await;
    world.turns("database", "").await;
    proxy.delay(Duration::from_millis(30));
    assert_told(&world.turns("database", "DB_SLOW").await, "degraded");
    proxy.delay(Duration::ZERO);
    world.turns("database", "").await;
    proxy.freeze();
    eventually(async || {
        let answer = world.app.anonymous().get("/health").await;
        let away = answer.json()["components"]["database"]["status"] == "unhealthy";
        away.then(|| assert_eq!(answer.status, 503))
    })
    .await;
    proxy.thaw();
    world.turns("database", "").await;
}

#[tokio::test]
async fn a_probe_with_a_credential_does_not_wait_for_the_database() {
    let (world, proxy) = behind_proxy().await;
    // Who has not asked yet: to know them is a question to the database.
    let bob = world.app.user("bob@example.com").await;
    proxy.freeze();
    for path in ["/health/live", "/health/ready", "/health", "/metrics"] {
        let (me, probe) = (bob.get("/auth/me"), bob.get(path));
        tokio::select! {
            biased;
            answer = me => panic!("{path}: {answer:?} came first"),
            answer = probe => assert!(answer.status != 401, "{path}"),
        }
    }
}

#[tokio::test]
async fn what_cannot_be_read_from_a_database_that_hangs_is_told_as_that() {
    let (world, proxy) = behind_proxy().await;
    proxy.freeze();
    let health = eventually(async || {
        let health = world.app.anonymous().get("/health").await.json();
        let away = health["components"]["database"]["status"] == "unhealthy";
        away.then_some(health)
    })
    .await;
    let jobs = &health["components"]["jobs"];
    assert_eq!(jobs["error"], "the database does not answer", "{jobs}");
    let smtp = &health["components"]["smtp"];
    assert_eq!(smtp["status"], "degraded", "{smtp}");
    assert_eq!(smtp["error"], "the database does not say what waits to be sent", "{smtp}");
}

#[tokio::test]
async fn a_pool_without_a_free_connection_is_degraded_and_the_server_stays_ready() {
    let world = World::new(Setup::default().set("LOOM_SERVER_DATABASE_MAX_CONNECTIONS", "3")).await;
    world.turns("database", "").await;
    let pool = world.app.running.database().pool();
    let held = [
        pool.acquire().await.unwrap(),
        pool.acquire().await.unwrap(),
        pool.acquire().await.unwrap(),
    ];
    // Nobody is authenticated without a connection.
    let health = eventually(async || {
        let health = world.app.anonymous().get("/health").await.expect(200).json();
        (health["components"]["database"]["status"] == "degraded").then_some(health)
    })
    .await;
    let database = &health["components"]["database"];
    assert_eq!(database["error"], "no connection became free in time");
    assert_eq!((&database["connections"], &database["idle_connections"]), (&json!(3), &json!(0)));
    world.app.anonymous().get("/health/ready").await.expect(200);
    drop(held);
    world.turns("database", "").await;
}

#[tokio::test]
async fn an_open_transaction_that_is_too_old_is_told_with_its_pid() {
    let world = World::new(Setup::default().set("LOOM_SERVER_HEALTH_TRANSACTION_SECS", "1")).await;
    let mut other = sqlx::PgConnection::connect(world.app.database.url().expose()).await.unwrap();
    let mut transaction = other.begin().await.unwrap();
    let pid: i32 =
        sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut *transaction).await.unwrap();
    let database = world.turns("database", "DB_OLD_TRANSACTION").await;
    assert_told(&database, "degraded");
    assert!(database["detail"].as_str().unwrap().starts_with(&format!("pid {pid},")), "{database}");
    transaction.rollback().await.unwrap();
    world.turns("database", "").await;
}

/// A build of an archive has the revision from a variable, and git has nothing to say there. Whoever commits
/// while this runs has another head than what was built.
#[tokio::test]
async fn the_revision_is_that_of_the_checkout() {
    let app = TestApp::start().await;
    let ready = app.anonymous().get("/health/ready").await.expect(200).json();
    let health = app.anonymous().get("/health").await.json();
    assert_eq!(health["version"], ready);
    let sha = ready["git_sha"].as_str().unwrap();
    assert!(!sha.is_empty() && sha != "unknown", "{ready}");
    let git = std::process::Command::new("git")
        .args(["log", "-1", "--format=%H %cI"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output();
    let Some(said) = git.ok().filter(|said| said.status.success()) else { return };
    let said = String::from_utf8(said.stdout).unwrap();
    let (head, committed) = said.trim().split_once(' ').unwrap();
    let time = |text: &str| chrono::DateTime::parse_from_rfc3339(text).unwrap();
    if time(committed) < time(ready["built_at"].as_str().unwrap()) {
        assert_eq!(sha, head);
    }
}

#[tokio::test]
async fn a_schema_that_is_not_that_of_this_server_is_told() {
    let world = World::new(Setup::default()).await;
    let current = world.component("database").await["migration"].clone();
    assert!(current.as_i64().is_some_and(|version| version > 0));
    let insert =
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
                  VALUES (99999, 'the future', true, '\\x00', 1)";
    world.execute(insert).await;
    assert_told(&world.turns("database", "DB_MIGRATION_NEWER").await, "degraded");
    let contract = "UPDATE _sqlx_migrations SET description = 'contract 99998 drop titles'
                     WHERE version = 99999";
    world.execute(contract).await;
    assert_told(&world.turns("database", "DB_MIGRATION_BEYOND").await, "unhealthy");
    world
        .execute(
            "UPDATE _sqlx_migrations SET description = 'x', success = false WHERE version = 99999",
        )
        .await;
    assert_told(&world.turns("database", "DB_MIGRATION_DIRTY").await, "degraded");
    world.execute("DELETE FROM _sqlx_migrations WHERE version = 99999").await;
    world.turns("database", "").await;
    world.execute("UPDATE _sqlx_migrations SET checksum = '\\x00' WHERE version = 1").await;
    assert_told(&world.turns("database", "DB_MIGRATION_EDITED").await, "degraded");
    world.execute("DELETE FROM _sqlx_migrations WHERE version = 1").await;
    assert_told(&world.turns("database", "DB_MIGRATION_PENDING").await, "unhealthy");
    world.app.anonymous().get("/health/ready").await.expect(503);
}

#[tokio::test]
async fn a_listener_that_is_cut_off_is_told_and_comes_back() {
    let database = TestDatabase::new().await;
    let (proxy, url) = database.proxied().await;
    let setup = Setup::default().set("LOOM_SERVER_DATABASE_DIRECT_URL", url);
    let world = World::on(setup, database).await;
    world.app.running.features.hub.connected().await;
    let listener = world.turns("listener", "").await;
    assert!(listener["lag_ms"].is_f64(), "{listener}");
    proxy.refuse().await;
    proxy.cut();
    let listener = world.turns("listener", "LISTENER_DISCONNECTED").await;
    assert_told(&listener, "degraded");
    world.app.anonymous().get("/health").await.expect(200);
    proxy.resume().unwrap();
    world.app.running.features.hub.connected().await;
    world.turns("listener", "").await;
    // A connection that is there and over which nothing comes.
    proxy.cut();
    proxy.freeze();
    world.turns("listener", "LISTENER_DISCONNECTED").await;
    proxy.thaw();
    world.turns("listener", "").await;
}

#[tokio::test]
async fn a_connection_over_which_no_word_comes_is_told() {
    let database = TestDatabase::new().await;
    let (proxy, url) = database.proxied().await;
    let setup = Setup::default().set("LOOM_SERVER_DATABASE_DIRECT_URL", url);
    let world = World::on(setup, database).await;
    world.app.running.features.hub.connected().await;
    // Before the first look, whose good news would be kept for a while.
    proxy.freeze();
    assert_told(&world.turns("listener", "LISTENER_DEAF").await, "degraded");
    proxy.thaw();
    world.turns("listener", "").await;
}

#[tokio::test]
async fn a_clock_that_is_off_is_told() {
    let clock = loom_core::Clock::manual(loom_core::Clock::system().now());
    let world = World::new(Setup::default().clock(clock)).await;
    world.clock_is_right().await;
    world.app.clock.advance(Duration::from_secs(4 * 60));
    let clock = world.turns("clock", "CLOCK_SKEW").await;
    assert_told(&clock, "unhealthy");
    assert!(clock["skew_ms"].as_f64().unwrap() > 60e3, "{clock}");
    let health = world.app.anonymous().get("/health").await.expect(200).json();
    assert_eq!(health["status"], "degraded");
}

#[tokio::test]
async fn memory_that_runs_short_is_told() {
    let world = World::new(Setup::default().set("LOOM_SERVER_HEALTH_MEMORY_PERCENT", "1")).await;
    let memory = world.turns("memory", "MEMORY_LOW").await;
    assert_told(&memory, "degraded");
    for name in ["used_bytes", "limit_bytes", "resident_bytes"] {
        assert!(memory[name].as_u64().is_some_and(|bytes| bytes > 1 << 20), "{memory}");
    }
}

#[tokio::test]
async fn a_job_that_fails_and_one_that_nobody_begins_are_told() {
    let world = World::new(Setup::default()).await;
    world.turns("jobs", "").await;
    let run = async || {
        let path = "/api/admin/jobs/llm-request-cleanup/run";
        eventually(async || (world.admin.post(path, &json!({})).await.status == 202).then_some(()))
            .await;
    };
    world.execute("ALTER TABLE llm_requests RENAME TO elsewhere").await;
    run().await;
    assert_told(&world.turns("jobs", "JOBS_BEGIN_TO_FAIL").await, "degraded");
    run().await;
    run().await;
    let jobs = world.turns("jobs", "JOBS_FAILING").await;
    assert_told(&jobs, "unhealthy");
    assert!(jobs["detail"].as_str().unwrap().contains("llm-request-cleanup"), "{jobs}");
    let health = world.app.anonymous().get("/health").await.expect(503).json();
    assert_eq!(health["components"]["jobs"]["failing"][0]["id"], "llm-request-cleanup");
    world.execute("ALTER TABLE elsewhere RENAME TO llm_requests").await;
    run().await;
    world.turns("jobs", "").await;
    // As if all servers had been blind to it: the clockwork does not read what it knows again so soon.
    world
        .execute("UPDATE jobs SET last_slot = now() - interval '3 days' WHERE id = 'job-history-cleanup'")
        .await;
    let jobs = world.turns("jobs", "JOBS_LATE").await;
    assert_told(&jobs, "degraded");
    // Since the first slot that nobody took, however new the newest is.
    assert!(jobs["lag_secs"].as_i64().unwrap() >= 2 * 24 * 3600, "{jobs}");
}

#[tokio::test]
async fn a_provider_that_answers_badly_is_told() {
    // Nobody is there.
    let setup = Setup::default().set("LOOM_SERVER_OPENAI_BASE_URL", "http://127.0.0.1:9/v1");
    let world = World::new(setup).await;
    world.turns("llm_providers", "").await;
    let body = json!({"model": "gpt-5.4-mini", "messages": [{"role": "user", "content": "Hi"}]});
    world.admin.post("/v1/chat/completions", &body).await.expect(502);
    let providers = world.turns("llm_providers", "LLM_PROVIDER_FAILING").await;
    assert_told(&providers, "degraded");
    assert_eq!(providers["detail"], "openai");
}

#[tokio::test]
async fn settings_that_are_unwise_are_told() {
    let setup = Setup::default()
        .set("LOOM_SERVER_ENV", "production")
        .set("LOOM_SERVER_BASE_URL", "http://loom.example.com");
    let world = World::new(setup).await;
    let component = world.turns("configuration", "CONFIG_UNWISE").await;
    assert_told(&component, "degraded");
    assert!(component["detail"].as_str().unwrap().contains("LOOM_SERVER_BASE_URL"), "{component}");
}

#[tokio::test]
async fn a_component_tells_since_when_it_is_as_it_is() {
    let clock = loom_core::Clock::manual(loom_core::Clock::system().now());
    let world = World::new(Setup::default().clock(clock)).await;
    let began = world.clock_is_right().await["since"].clone();
    world.app.clock.advance(Duration::from_secs(600));
    let turned = world.turns("clock", "CLOCK_SKEW").await["since"].clone();
    assert_ne!(began, turned);
    world.app.clock.advance(Duration::from_secs(600));
    let later = eventually(async || {
        let clock = world.component("clock").await;
        (clock["skew_ms"].as_f64().unwrap() > 800e3).then_some(clock)
    })
    .await;
    assert_eq!(later["since"], turned);
    assert_ne!(later["checked_at"], turned);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_of_a_thousand_probes_costs_one_round() {
    let app = TestApp::start().await;
    app.running.features.hub.connected().await;
    app.anonymous().get("/health").await.expect(200);
    let started = Instant::now();
    let storm = (0..1_000).map(|_| {
        let caller = app.anonymous();
        tokio::spawn(async move { caller.get("/health").await.expect(200).json() })
    });
    let mut rounds = BTreeSet::new();
    for answer in storm.collect::<Vec<_>>() {
        let health = answer.await.unwrap();
        rounds.insert(health["components"]["database"]["latency_ms"].to_string());
    }
    // Each round of probes has a latency of its own; an answer is kept for a second.
    let seconds = usize::try_from(started.elapsed().as_secs()).unwrap();
    assert!(rounds.len() <= seconds + 2, "{} rounds in {seconds} s", rounds.len());
}
