//! The server as a process of its own, and many clients at once that write down what they were told.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use loom_core::{Clock, id::ThreadId, id::new_uuid};
use loom_testkit::{
    TestDatabase,
    app::{UPSTREAM_KEY, install_crypto},
    chaos::{Comparison, Ledger, Process},
    eventually,
    llm::MockLlm,
};
use serde_json::{Value, json};
use tokio::task::{JoinHandle, JoinSet};

use super::Op;

pub(super) const WORKERS: usize = 200;
/// Several workers write to the same thread.
const THREADS: usize = 20;
const PROGRAM: &str = env!("CARGO_BIN_EXE_loom-server");

/// All that one server needs to be started again and again.
pub(super) struct Rig {
    database: TestDatabase,
    _mock: MockLlm,
    data_dir: tempfile::TempDir,
    env: BTreeMap<&'static str, String>,
    url: String,
    key: String,
}

impl Rig {
    pub(super) async fn new(database: TestDatabase) -> Self {
        let url = database.url().expose().to_owned();
        Self::behind(database, &url).await
    }

    /// The server reaches the database under this URL.
    pub(super) async fn behind(database: TestDatabase, database_url: &str) -> Self {
        install_crypto();
        let data_dir = tempfile::tempdir().unwrap();
        let mock = MockLlm::start(UPSTREAM_KEY);
        let port = free_port();
        let env = BTreeMap::from([
            ("DATABASE_URL", database_url.to_owned()),
            ("LOOM_SERVER_HOST", "127.0.0.1".to_owned()),
            ("LOOM_SERVER_PORT", port.to_string()),
            ("LOOM_SERVER_DATA_DIR", data_dir.path().display().to_string()),
            ("LOOM_SERVER_ANTHROPIC_API_KEY", UPSTREAM_KEY.to_owned()),
            ("LOOM_SERVER_ANTHROPIC_BASE_URL", mock.url()),
            ("LOOM_SERVER_OPENAI_API_KEY", UPSTREAM_KEY.to_owned()),
            ("LOOM_SERVER_OPENAI_BASE_URL", format!("{}/v1", mock.url())),
            ("LOOM_SERVER_LOG_LEVEL", "warn".to_owned()),
            ("RUST_LOG", String::new()),
        ]);
        let output = tokio::process::Command::new(PROGRAM)
            .args(["admin", "create", "chaos@example.com"])
            .envs(&env)
            .output()
            .await
            .unwrap();
        let key = String::from_utf8(output.stdout).unwrap().trim().to_owned();
        assert!(output.status.success() && !key.is_empty(), "{:?}", output.stderr);
        let url = format!("http://127.0.0.1:{port}");
        Self { database, _mock: mock, data_dir, env, url, key }
    }

    /// Resolves when the server is ready.
    pub(super) async fn start(&self) -> Process {
        let log = self.data_dir.path().join("server.log");
        let env = self.env.iter().map(|(name, value)| (*name, value.as_str()));
        let mut process = Process::spawn(Path::new(PROGRAM), &["serve"], env, &log).unwrap();
        let ready = format!("{}/health/ready", self.url);
        process.wait_ready(&ready, Duration::from_secs(30)).await.unwrap();
        process
    }

    /// The ids of the requests in the account, and how often each is there.
    pub(super) async fn accounted(&self) -> BTreeMap<String, usize> {
        let ids: Vec<String> = sqlx::query_scalar("SELECT request_id FROM llm_requests")
            .fetch_all(self.database.pool())
            .await
            .unwrap();
        let mut rows = BTreeMap::new();
        for id in ids {
            *rows.entry(id).or_default() += 1;
        }
        rows
    }
}

/// Below the ports that the kernel gives to outgoing connections, so that it is still free when the
/// server comes back.
fn free_port() -> u16 {
    let from = 10_000 + std::process::id() % 20_000;
    (from..32_000)
        .filter_map(|port| u16::try_from(port).ok())
        .find(|port| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .unwrap()
}

/// Clients at work.
pub(super) struct Load {
    /// The ids of the messages whose append was acknowledged.
    pub(super) appended: Ledger<String>,
    client: Arc<Client>,
    workers: Mutex<JoinSet<()>>,
}

struct Client {
    http: reqwest::Client,
    url: String,
    key: String,
    /// Of this load; message ids and request ids begin with it.
    name: String,
    threads: Vec<ThreadId>,
    appended: Ledger<String>,
    /// The requests to models that were answered in full, and when.
    asked: Mutex<Vec<(String, Instant)>>,
    failures: AtomicUsize,
    stop: AtomicBool,
}

impl Load {
    /// Each worker asks a model and appends a message, in turn, until it is stopped.
    pub(super) async fn start(rig: &Rig, workers: usize) -> Self {
        let now = Clock::system().now();
        let appended = Ledger::new();
        let client = Arc::new(Client {
            http: reqwest::Client::builder().no_proxy().build().unwrap(),
            url: rig.url.clone(),
            key: rig.key.clone(),
            name: new_uuid(now).simple().to_string(),
            threads: (0..THREADS).map(|_| ThreadId(new_uuid(now))).collect(),
            appended: appended.clone(),
            asked: Mutex::default(),
            failures: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
        });
        for thread in &client.threads {
            let request = client.http.put(format!("{}/api/threads/{thread}", client.url));
            let request = request.bearer_auth(&client.key).json(&json!({"messages": []}));
            assert_eq!(request.send().await.unwrap().status(), 201);
        }
        let mut set = JoinSet::new();
        for worker in 0..workers {
            set.spawn(Arc::clone(&client).work(worker));
        }
        Self { appended, client, workers: Mutex::new(set) }
    }

    pub(super) fn failures(&self) -> usize {
        self.client.failures.load(Ordering::Relaxed)
    }

    /// Resolves when so many appends were acknowledged.
    pub(super) async fn reach(&self, appends: usize) {
        eventually(async || (self.appended.len() >= appends).then_some(())).await;
    }

    /// Lets all workers finish what they are at.
    pub(super) async fn end(&self) {
        self.client.stop.store(true, Ordering::Relaxed);
        let workers = std::mem::take(&mut *self.workers.lock().unwrap());
        workers.join_all().await;
    }

    /// A stream of 50 pieces that has begun when this resolves, and all of it when that does.
    pub(super) async fn long_stream(&self, n: usize) -> JoinHandle<String> {
        let id = format!("{}-stream-{n}", self.client.name);
        let request = self.client.request(&id, Op::Chat, &Op::Chat.stream_body("mock-paced-40"));
        let mut response = request.send().await.unwrap();
        let first = response.chunk().await.unwrap().unwrap();
        let client = Arc::clone(&self.client);
        tokio::spawn(async move {
            let mut all = first.to_vec();
            while let Ok(Some(chunk)) = response.chunk().await {
                all.extend_from_slice(&chunk);
            }
            client.asked.lock().unwrap().push((id, Instant::now()));
            String::from_utf8(all).unwrap()
        })
    }

    /// The messages that were acknowledged against those that are there.
    pub(super) async fn compare_messages(&self, rig: &Rig) -> Comparison<String> {
        let ids: Vec<String> =
            sqlx::query_scalar("SELECT id FROM thread_messages WHERE id LIKE $1")
                .bind(format!("{}-%", self.client.name))
                .fetch_all(rig.database.pool())
                .await
                .unwrap();
        self.appended.compare(ids)
    }

    /// Of the requests that were answered before `until`: those without a row, and how many there were.
    pub(super) fn unaccounted(
        &self,
        rows: &BTreeMap<String, usize>,
        until: Instant,
    ) -> (Vec<String>, usize) {
        let asked = self.client.asked.lock().unwrap();
        let before: Vec<_> = asked.iter().filter(|(_, at)| *at < until).collect();
        let missing = before.iter().filter(|(id, _)| !rows.contains_key(id));
        (missing.map(|(id, at)| format!("{id} ({:?} before)", until - *at)).collect(), before.len())
    }

    pub(super) fn each_is_accounted_once(&self, rows: &BTreeMap<String, usize>) {
        let often: Vec<_> = rows
            .iter()
            .filter(|(id, count)| id.starts_with(&self.client.name) && **count > 1)
            .collect();
        assert!(often.is_empty(), "{often:?}");
    }
}

impl Client {
    async fn work(self: Arc<Self>, worker: usize) {
        let thread = self.threads[worker % THREADS];
        for n in 0.. {
            let id = format!("{}-{worker}-{n}", self.name);
            self.ask(&id, Op::ALL[n % 3], n % 2 == 0).await;
            // A client sends a message again, under the same id, until it is told that it is there.
            while !self.append(thread, &id).await {
                if self.stop.load(Ordering::Relaxed) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
        }
    }

    fn request(&self, id: &str, op: Op, body: &Value) -> reqwest::RequestBuilder {
        let request = self.http.post(format!("{}{}", self.url, op.path()));
        request.bearer_auth(&self.key).header("x-request-id", id).json(body)
    }

    async fn ask(&self, id: &str, op: Op, streams: bool) {
        let model = op.priced_model();
        let body = if streams { op.stream_body(model) } else { op.body(model) };
        let answer = async {
            let answer = self.request(id, op, &body).send().await?.error_for_status()?;
            answer.text().await
        };
        match answer.await {
            // With what a whole answer ends with, as a stream can also end with an error event.
            Ok(text) if text.contains("\"error\":{") => {
                self.failures.fetch_add(1, Ordering::Relaxed);
            }
            Ok(_) => self.asked.lock().unwrap().push((id.to_owned(), Instant::now())),
            Err(_) => {
                self.failures.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    async fn append(&self, thread: ThreadId, id: &str) -> bool {
        let request = self.http.post(format!("{}/api/threads/{thread}/messages", self.url));
        let message = json!({"id": id, "role": "user", "content": "something"});
        let request = request.bearer_auth(&self.key).json(&json!({"messages": [message]}));
        let done = request.send().await.is_ok_and(|answer| answer.status() == 200);
        if done {
            self.appended.acknowledge(id.to_owned());
        } else {
            self.failures.fetch_add(1, Ordering::Relaxed);
        }
        done
    }
}
