//! The whole server on a real socket, with its own database and a mock LLM upstream behind it.

use std::{collections::BTreeMap, sync::Once};

use chrono::{DateTime, Utc};
use loom_core::{
    Clock,
    id::{OrgId, UserId, WeaverId},
    principal::{OrgRole, Scope, Scopes},
};
use loom_server::{
    app::{self, Running},
    config::{self, Config, Overrides},
    logging::Stream,
};
use reqwest::{Client, Method, RequestBuilder, StatusCode, header::HeaderMap};
use serde_json::Value;

use crate::{TestDatabase, kubernetes::FakeKubernetes, llm::MockLlm};

/// What the mock upstream takes as its key; it must appear nowhere else.
pub const UPSTREAM_KEY: &str = "sk-upstream-2b7c94e1d0aa4f5f";

/// How a test wants its server.
#[derive(Default)]
pub struct Setup {
    vars: BTreeMap<String, String>,
    demo: bool,
    logs: bool,
    clock: Option<Clock>,
    cluster: Option<std::sync::Arc<crate::kubernetes::Shared>>,
}

impl Setup {
    /// One more setting; an empty value takes away one that is there by default.
    #[must_use]
    pub fn set(mut self, name: &str, value: impl Into<String>) -> Self {
        self.vars.insert(name.to_owned(), value.into());
        self
    }

    #[must_use]
    pub fn demo(mut self) -> Self {
        self.demo = true;
        self
    }

    /// With the process's log, as the binary has it: all servers of this process share it.
    #[must_use]
    pub fn logs(mut self) -> Self {
        self.logs = true;
        self
    }

    /// With weavers, in this cluster, which then has the server's clock.
    #[must_use]
    pub fn weavers(mut self, cluster: &FakeKubernetes) -> Self {
        self.cluster = Some(std::sync::Arc::clone(&cluster.shared));
        self.set("LOOM_SERVER_WEAVER_ENABLED", "true")
            .set("LOOM_SERVER_WEAVER_KUBECONFIG", cluster.kubeconfig().display().to_string())
    }

    /// A clock that the test moves by hand (`app.clock.advance`).
    #[must_use]
    pub fn manual_clock(self) -> Self {
        self.clock(Clock::manual(DateTime::<Utc>::from_timestamp(1_800_000_000, 0).unwrap()))
    }

    #[must_use]
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = Some(clock);
        self
    }

    pub async fn start(self) -> TestApp {
        self.start_on(TestDatabase::new().await).await
    }

    pub async fn start_on(self, database: TestDatabase) -> TestApp {
        // Large, and in the future of every test.
        Box::pin(TestApp::on(self, database)).await
    }
}

/// A running server. Ends with [`TestApp::stop`], or roughly when dropped.
pub struct TestApp {
    pub running: Running,
    pub database: TestDatabase,
    pub mock: MockLlm,
    pub clock: Clock,
    pub http: Client,
    config: Config,
    data_dir: tempfile::TempDir,
}

impl TestApp {
    /// With defaults: both vendors configured, both at the mock upstream.
    pub async fn start() -> Self {
        Setup::default().start().await
    }

    async fn on(setup: Setup, database: TestDatabase) -> Self {
        install_crypto();
        let data_dir = tempfile::tempdir().unwrap();
        let mock = MockLlm::start(UPSTREAM_KEY);
        let mut vars = BTreeMap::from([
            ("DATABASE_URL".to_owned(), database.url().expose().to_owned()),
            ("LOOM_SERVER_DATABASE_MAX_CONNECTIONS".to_owned(), "10".to_owned()),
            ("LOOM_SERVER_HOST".to_owned(), "127.0.0.1".to_owned()),
            ("LOOM_SERVER_PORT".to_owned(), "0".to_owned()),
            ("LOOM_SERVER_DATA_DIR".to_owned(), data_dir.path().display().to_string()),
            // How full the machine is that runs the tests is not their business.
            ("LOOM_SERVER_HEALTH_DISK_FREE_PERCENT".to_owned(), "0".to_owned()),
            ("LOOM_SERVER_HEALTH_DISK_FREE_MIB".to_owned(), "0".to_owned()),
            ("LOOM_SERVER_HEALTH_MEMORY_PERCENT".to_owned(), "100".to_owned()),
            // What a test's upstream is sent is sent once.
            ("LOOM_SERVER_LLM_RETRIES".to_owned(), "0".to_owned()),
            // Nor is an upstream left alone because many tests of failures are one after the other.
            ("LOOM_SERVER_LLM_CIRCUIT_FAILURES".to_owned(), "1000".to_owned()),
            ("LOOM_SERVER_ANTHROPIC_API_KEY".to_owned(), UPSTREAM_KEY.to_owned()),
            ("LOOM_SERVER_ANTHROPIC_BASE_URL".to_owned(), mock.url()),
            ("LOOM_SERVER_OPENAI_API_KEY".to_owned(), UPSTREAM_KEY.to_owned()),
            ("LOOM_SERVER_OPENAI_BASE_URL".to_owned(), format!("{}/v1", mock.url())),
        ]);
        vars.extend(setup.vars);
        let loaded = config::load(vars, Overrides { demo: setup.demo, stdout_is_terminal: false });
        assert!(loaded.problems.is_empty(), "{:?}", loaded.problems);
        if setup.logs {
            loom_server::logging::start(&loaded.config.log, Stream::Out);
        }
        let clock = setup.clock.clone().unwrap_or_else(Clock::system);
        if let Some(cluster) = &setup.cluster {
            cluster.set_clock(clock.clone());
        }
        let running = app::start(&loaded.config, clock.clone()).await.unwrap();
        if setup.clock.is_some() {
            // Who moves the time by days says when a job runs: `run_now` does.
            let jobs = &running.features.jobs;
            for id in jobs.jobs().map(|job| job.id).collect::<Vec<_>>() {
                jobs.switch(id, false).await.unwrap();
            }
        }
        let http = Client::builder().no_proxy().build().unwrap();
        let config = loaded.config;
        Self { running, database, mock, clock, http, config, data_dir }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.running.address)
    }

    /// What the server keeps on the disk.
    pub fn data_dir(&self) -> &std::path::Path {
        self.data_dir.path()
    }

    /// A further server with the same settings on the same database.
    pub async fn replica(&self) -> Running {
        let running = app::start(&self.config, self.clock.clone()).await.unwrap();
        running.features.hub.connected().await;
        self.running.features.hub.connected().await;
        running
    }

    /// As SIGTERM does: everything is written when it returns.
    pub async fn stop(self) -> TestDatabase {
        self.running.shut_down().await;
        self.database
    }

    /// Somebody without credentials.
    pub fn anonymous(&self) -> Caller {
        Caller { http: self.http.clone(), url: self.url(), key: None, headers: HeaderMap::new() }
    }

    /// A new user with a personal key of every scope.
    pub async fn user(&self, email: &str) -> User {
        let now = self.clock.now();
        let (id, org) = (UserId::new(now), OrgId::new(now));
        let pool = self.database.pool();
        sqlx::query(
            "INSERT INTO organisations (id, slug, name, is_personal, created_at) VALUES ($1, $2, $2, true, now())",
        )
        .bind(org.0)
        .bind(format!("u-{}", id.0.simple()))
        .execute(pool)
        .await
        .unwrap();
        sqlx::query(
            "INSERT INTO users (id, email, personal_org_id, created_at) VALUES ($1, $2, $3, now())",
        )
        .bind(id.0)
        .bind(email)
        .bind(org.0)
        .execute(pool)
        .await
        .unwrap();
        self.join(id, org, OrgRole::Owner).await;
        User {
            id,
            org,
            email: email.to_owned(),
            caller: self.caller_for(email, Scopes::all()).await,
        }
    }

    /// A new user who is a system admin.
    pub async fn admin(&self, email: &str) -> User {
        let user = self.user(email).await;
        sqlx::query("UPDATE users SET is_system_admin = true WHERE id = $1")
            .bind(user.id.0)
            .execute(self.database.pool())
            .await
            .unwrap();
        user
    }

    /// The same user with a further key, of these scopes only.
    pub async fn with_scopes(&self, user: &User, scopes: &[Scope]) -> Caller {
        self.caller_for(&user.email, scopes.iter().copied().collect()).await
    }

    async fn caller_for(&self, email: &str, scopes: Scopes) -> Caller {
        let key = self.running.features.auth.key_for(email, scopes, None).await.unwrap();
        Caller { key: Some(key.secret.expose().to_owned()), ..self.anonymous() }
    }

    /// Makes a user a member of an organisation. Keys that were used in the last ten seconds do not
    /// know of it yet.
    pub async fn join(&self, user: UserId, org: OrgId, role: OrgRole) {
        sqlx::query("INSERT INTO organisation_members (org_id, user_id, role, created_at) VALUES ($1, $2, $3, now())")
            .bind(org.0)
            .bind(user.0)
            .bind(role)
            .execute(self.database.pool())
            .await
            .unwrap();
    }

    /// All rows of a query as JSON objects, for looking behind the API.
    pub async fn rows(&self, query: &str) -> Vec<Value> {
        let wrapped = format!("SELECT to_jsonb(r) FROM ({query}) r");
        sqlx::query_scalar(sqlx::AssertSqlSafe(wrapped))
            .fetch_all(self.database.pool())
            .await
            .unwrap()
    }

    /// The record of a weaver that this user made, and that is over.
    pub async fn weaver_of(&self, user: &User) -> WeaverId {
        let id = WeaverId::new(self.clock.now());
        sqlx::query(
            "INSERT INTO weavers (id, org_id, owner_id, installation, spec, tags, network, cpu_millis, memory_bytes,
                ephemeral_bytes, status, pod_name, created_at, ended_at, expires_at, active_at)
             VALUES ($1, $2, $3, 'none', $4, '{}', 'off', 1, 1, 1, 'deleted', $5, $6, $6, $6, $6)",
        )
        .bind(id.0)
        .bind(user.org.0)
        .bind(user.id.0)
        .bind(serde_json::json!({"image": "agent", "lifetime_hours": 1.0}))
        .bind(format!("weaver-{id}"))
        .bind(self.clock.now())
        .execute(self.database.pool())
        .await
        .unwrap();
        id
    }

    /// The account of requests to models, oldest first, once `count` of them are written.
    pub async fn llm_requests(&self, count: usize) -> Vec<Value> {
        let query = "SELECT * FROM llm_requests ORDER BY started_at, id";
        crate::eventually(async || {
            let rows = self.rows(query).await;
            (rows.len() >= count).then_some(rows)
        })
        .await
    }
}

/// A user and a caller with a key of theirs.
pub struct User {
    pub id: UserId,
    pub org: OrgId,
    pub email: String,
    pub caller: Caller,
}

impl std::ops::Deref for User {
    type Target = Caller;
    fn deref(&self) -> &Caller {
        &self.caller
    }
}

/// Somebody who calls the server.
#[derive(Clone)]
pub struct Caller {
    http: Client,
    pub url: String,
    pub key: Option<String>,
    headers: HeaderMap,
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub text: String,
}

impl Answer {
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The stable code of a problem document.
    #[track_caller]
    pub fn code(&self) -> String {
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        let problem = self.json();
        assert_eq!(problem["status"], self.status.as_u16());
        assert_eq!(problem["request_id"].as_str(), self.header("x-request-id"));
        problem["code"].as_str().unwrap().to_owned()
    }

    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        self
    }
}

impl Caller {
    /// The same with one more header.
    #[must_use]
    pub fn with(&self, name: &'static str, value: &str) -> Self {
        let mut caller = self.clone();
        caller.headers.insert(name, value.parse().unwrap());
        caller
    }

    /// The same with this key.
    #[must_use]
    pub fn with_key(&self, key: &str) -> Self {
        Self { key: Some(key.to_owned()), ..self.clone() }
    }

    /// The same at another server.
    #[must_use]
    pub fn at(&self, server: &Running) -> Self {
        Self { url: format!("http://{}", server.address), ..self.clone() }
    }

    /// The same at a server of which only the URL is known.
    #[must_use]
    pub fn at_url(&self, url: &str) -> Self {
        Self { url: url.to_owned(), ..self.clone() }
    }

    /// A request that the test goes on to build.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request =
            self.http.request(method, format!("{}{path}", self.url)).headers(self.headers.clone());
        match &self.key {
            Some(key) => request.bearer_auth(key),
            None => request,
        }
    }

    pub async fn send(&self, request: RequestBuilder) -> Answer {
        let answer = request.send().await.unwrap();
        let (status, headers) = (answer.status(), answer.headers().clone());
        Answer { status, headers, text: answer.text().await.unwrap() }
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(self.request(Method::GET, path)).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.send(self.request(Method::DELETE, path)).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send(self.request(Method::POST, path).json(body)).await
    }

    pub async fn put(&self, path: &str, body: &Value) -> Answer {
        self.send(self.request(Method::PUT, path).json(body)).await
    }

    pub async fn patch(&self, path: &str, body: &Value) -> Answer {
        self.send(self.request(Method::PATCH, path).json(body)).await
    }
}

/// The TLS provider of this process, as the binary installs it.
pub fn install_crypto() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
}
