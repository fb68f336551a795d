//! Servers are killed between pings and the look at what is due, and while they look, and their database with
//! them: afterwards each run that failed is found once, and told once.

use std::{collections::BTreeMap, path::Path, time::Duration};

use loom_testkit::{TestDatabase, app::install_crypto, chaos::Process, eventually};
use serde_json::{Value, json};

const PROGRAM: &str = env!("CARGO_BIN_EXE_loom-server");
/// Half of them are not begun, half of them begin and are not heard of again.
const MONITORS: usize = 20;

struct Rig {
    database: TestDatabase,
    data_dir: tempfile::TempDir,
    env: BTreeMap<&'static str, String>,
    ports: [u16; 2],
    http: reqwest::Client,
}

impl Rig {
    async fn new() -> Self {
        install_crypto();
        let database = TestDatabase::on_its_own().await;
        let data_dir = tempfile::tempdir().unwrap();
        let from = 31_000 - u16::try_from(std::process::id() % 20_000).unwrap();
        let mut free = (10_000..from)
            .rev()
            .filter(|port| std::net::TcpListener::bind(format!("127.0.0.1:{port}")).is_ok());
        let ports = [free.next().unwrap(), free.next().unwrap()];
        let env = BTreeMap::from([
            ("DATABASE_URL", database.url().expose().to_owned()),
            ("LOOM_SERVER_HOST", "127.0.0.1".to_owned()),
            ("LOOM_SERVER_DATA_DIR", data_dir.path().display().to_string()),
            ("LOOM_SERVER_LOG_LEVEL", "warn".to_owned()),
            ("RUST_LOG", String::new()),
        ]);
        let http =
            reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(20)).build().unwrap();
        Self { database, data_dir, env, ports, http }
    }

    fn url(&self, server: usize, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.ports[server])
    }

    async fn start(&self, server: usize) -> Process {
        let log = self.data_dir.path().join(format!("server-{server}.log"));
        let port = self.ports[server].to_string();
        let env = self.env.iter().map(|(name, value)| (*name, value.as_str()));
        let env = env.chain([("LOOM_SERVER_PORT", port.as_str())]);
        let mut process = Process::spawn(Path::new(PROGRAM), &["serve"], env, &log).unwrap();
        let ready = self.url(server, "/health/ready");
        process.wait_ready(&ready, Duration::from_secs(60)).await.unwrap();
        process
    }

    async fn admin(&self) -> String {
        let output = tokio::process::Command::new(PROGRAM)
            .args(["admin", "create", "chaos@example.com"])
            .envs(&self.env)
            .output()
            .await
            .unwrap();
        assert!(output.status.success(), "{:?}", output.stderr);
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// Both jobs that look, at that server; one that is running already is as good.
    async fn look(&self, server: usize, key: &str) {
        for job in ["cron-missed", "cron-timeout"] {
            let url = self.url(server, &format!("/api/admin/jobs/{job}/run"));
            let answer = self.http.post(url).bearer_auth(key).send().await.unwrap();
            assert!([202, 409].contains(&answer.status().as_u16()), "{}", answer.status());
        }
    }

    async fn execute(&self, query: &'static str) {
        // The pool's own connections may be of a database that was killed.
        eventually(async || sqlx::query(query).execute(self.database.pool()).await.ok()).await;
    }

    async fn count(&self, query: &'static str) -> i64 {
        let ask = async || sqlx::query_scalar(query).fetch_one(self.database.pool()).await.ok();
        eventually(ask).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn chaos_each_failed_run_is_found_once_and_told_once_when_servers_and_database_are_killed() {
    let rig = Rig::new().await;
    let mut first = rig.start(0).await;
    let key = rig.admin().await;
    let mut pings = Vec::new();
    for n in 0..MONITORS {
        let monitor = json!({
            "slug": format!("job-{n}"), "schedule": {"type": "interval", "value": 1, "unit": "day"},
            "max_runtime_minutes": 600,
        });
        let url = rig.url(0, "/api/crons/monitors");
        let made = rig.http.post(url).bearer_auth(&key).json(&monitor).send().await.unwrap();
        let made: Value = made.json().await.unwrap();
        let ping = made["ping_url"].as_str().unwrap();
        pings.push(ping[ping.find("/ping/").unwrap()..].to_owned());
    }
    // Half of them begin, and the server is gone as soon as it has said that it knows.
    for ping in pings.iter().skip(MONITORS / 2) {
        let answer = rig.http.post(rig.url(0, &format!("{ping}/start"))).send().await.unwrap();
        assert_eq!(answer.status(), 200);
    }
    first.kill9().await.unwrap();
    rig.database.crash().await;
    // Their time was over long before that.
    rig.execute(
        "UPDATE cron_environments SET expected_at = now() - interval '2 h', due_at = now() - interval '1 h'
          WHERE monitor_id IN (SELECT id FROM cron_monitors WHERE slug LIKE 'job-%')
            AND last_checkin_id IS NULL",
    )
    .await;
    rig.execute(
        "UPDATE cron_runs SET seen_at = now() - interval '2 h', deadline_at = now() - interval '1 h'
          WHERE deadline_at IS NOT NULL
            AND monitor_id IN (SELECT id FROM cron_monitors WHERE slug LIKE 'job-%')",
    )
    .await;
    // Two look at once, and one of them is killed while it does.
    let mut first = rig.start(0).await;
    let mut second = rig.start(1).await;
    tokio::join!(rig.look(0, &key), rig.look(1, &key));
    second.kill9().await.unwrap();
    let mut looks = 0;
    loop {
        let open = rig
            .count(
                "SELECT count(*) FROM cron_incidents i JOIN cron_monitors m ON m.id = i.monitor_id
                  WHERE m.slug LIKE 'job-%'",
            )
            .await;
        if open == MONITORS as i64 {
            break;
        }
        assert!(looks < 600, "{open} were found; {}", first.log());
        looks += 1;
        // A run of the server that was killed keeps its lease for a while.
        tokio::time::sleep(Duration::from_millis(200)).await;
        rig.look(0, &key).await;
    }
    // Once more, now that there is nothing to find.
    let mut second = rig.start(1).await;
    tokio::join!(rig.look(0, &key), rig.look(1, &key));
    first.terminate(Duration::from_secs(40)).await.unwrap();
    second.terminate(Duration::from_secs(40)).await.unwrap();
    let half = MONITORS as i64 / 2;
    for (query, expected) in [
        (
            "SELECT count(*) FROM cron_checkins c JOIN cron_monitors m ON m.id = c.monitor_id WHERE m.slug LIKE 'job-%' AND c.status = 'missed'",
            half,
        ),
        (
            "SELECT count(*) FROM cron_checkins c JOIN cron_monitors m ON m.id = c.monitor_id WHERE m.slug LIKE 'job-%' AND c.status = 'timeout'",
            half,
        ),
        (
            "SELECT count(*) FROM cron_checkins c JOIN cron_monitors m ON m.id = c.monitor_id WHERE m.slug LIKE 'job-%'",
            half * 2,
        ),
        (
            "SELECT count(*) FROM cron_incidents i JOIN cron_monitors m ON m.id = i.monitor_id WHERE m.slug LIKE 'job-%'",
            half * 2,
        ),
        (
            "SELECT count(*) FROM deliveries WHERE kind = 'cron.failing' AND channel = 'mail'",
            half * 2,
        ),
        (
            "SELECT count(DISTINCT subject) FROM deliveries WHERE kind = 'cron.failing' AND channel = 'mail'",
            half * 2,
        ),
    ] {
        assert_eq!(rig.count(query).await, expected, "{query}");
    }
}
