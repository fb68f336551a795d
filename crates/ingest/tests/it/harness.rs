//! The routes on a real socket, and sinks that write down what they are given.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use async_compression::tokio::bufread::{BrotliEncoder, GzipEncoder, ZlibEncoder, ZstdEncoder};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use loom_core::{
    Clock, Error, Result,
    id::{EventId, OrgId, ProjectId, ProjectKeyId},
    port::{
        Attachment, AttachmentSink, BoxFuture, CheckInSink, Delivery, DsnKey, EventSink, OwnRun,
        Project, ProjectDirectory, RateLimit, SessionSink, Taken,
    },
};
use loom_ingest::{Config, Deps, Gate, Ingest};
use loom_testkit::TestDatabase;
use reqwest::{Client, Method, RequestBuilder};
use serde_json::Value;
use sqlx::{PgPool, postgres::PgPoolOptions};
use tokio::{io::AsyncReadExt, net::TcpListener};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

pub(crate) const KEY: &str = "0123456789abcdef0123456789abcdef";
pub(crate) const DISABLED: &str = "dddddddddddddddddddddddddddddddd";
pub(crate) const PICKY: &str = "cccccccccccccccccccccccccccccccc";
pub(crate) const LIMITED: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";
pub(crate) const EVENT: &str = "9ec79c33ec9942ab8353589fcb2e04dc";

/// Something that a sink was given.
#[derive(Clone, Debug)]
pub(crate) struct Given {
    pub(crate) sink: &'static str,
    pub(crate) delivery: Delivery,
    pub(crate) id: Option<Uuid>,
    pub(crate) content: Bytes,
    pub(crate) attachment: Option<Attachment>,
}

impl Given {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.content).unwrap()
    }
}

/// All sinks, and the directory.
pub(crate) struct World {
    given: Mutex<Vec<Given>>,
    /// What a sink says instead of taking.
    refuses: Mutex<Option<(&'static str, Result<Taken>)>>,
    now: DateTime<Utc>,
}

impl World {
    fn give(
        &self,
        sink: &'static str,
        delivery: &Delivery,
        id: Option<Uuid>,
        content: Bytes,
        attachment: Option<Attachment>,
    ) -> BoxFuture<'static, Result<Taken>> {
        let refuses = self.refuses.lock().unwrap().clone();
        if let Some((of, answer)) = refuses
            && of == sink
        {
            return Box::pin(async { answer });
        }
        let delivery = delivery.clone();
        self.given.lock().unwrap().push(Given { sink, delivery, id, content, attachment });
        Box::pin(async { Ok(Taken::Stored) })
    }
}

impl EventSink for World {
    fn event<'a>(&'a self, d: &'a Delivery, id: EventId, p: Bytes) -> BoxFuture<'a, Result<Taken>> {
        self.give("event", d, Some(id.0), p, None)
    }
    fn feedback<'a>(&'a self, d: &'a Delivery, p: Bytes) -> BoxFuture<'a, Result<Taken>> {
        self.give("feedback", d, None, p, None)
    }
}

impl AttachmentSink for World {
    fn attachment<'a>(&'a self, d: &'a Delivery, a: Attachment) -> BoxFuture<'a, Result<Taken>> {
        self.give("attachment", d, Some(a.event.0), a.content.clone(), Some(a))
    }
}

impl SessionSink for World {
    fn session<'a>(&'a self, d: &'a Delivery, p: Bytes) -> BoxFuture<'a, Result<Taken>> {
        self.give("session", d, None, p, None)
    }
    fn aggregates<'a>(&'a self, d: &'a Delivery, p: Bytes) -> BoxFuture<'a, Result<Taken>> {
        self.give("sessions", d, None, p, None)
    }
    fn crashed<'a>(
        &'a self,
        _: &'a Delivery,
        _: &'a str,
        _: &'a str,
        _: &'a str,
        _: DateTime<Utc>,
    ) -> BoxFuture<'a, Result<Taken>> {
        Box::pin(async { Ok(Taken::Stored) })
    }
}

impl CheckInSink for World {
    fn check_in<'a>(&'a self, d: &'a Delivery, p: Bytes) -> BoxFuture<'a, Result<Taken>> {
        self.give("check_in", d, None, p, None)
    }
    fn own_run(&self, _: OwnRun) {}
}

impl ProjectDirectory for World {
    fn by_key<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Arc<DsnKey>>>> {
        let origins = if key == PICKY { "https://app.example.com" } else { "*" };
        let project = Project {
            id: ProjectId(Uuid::from_u128(42)),
            number: 42,
            org: OrgId(Uuid::from_u128(1)),
            slug: "shop".to_owned(),
            name: "Shop".to_owned(),
            allowed_origins: vec![origins.to_owned()],
        };
        let found = [KEY, DISABLED, PICKY, LIMITED].contains(&key).then(|| {
            let limit =
                (key == LIMITED).then_some(RateLimit { count: 2, window: Duration::from_secs(60) });
            Arc::new(DsnKey {
                id: ProjectKeyId(Uuid::parse_str(key).unwrap()),
                project: Arc::new(project),
                enabled: key != DISABLED,
                limit,
            })
        });
        Box::pin(async { Ok(found) })
    }
    fn find<'a>(&'a self, _: OrgId, _: &'a str) -> BoxFuture<'a, Result<Option<Arc<Project>>>> {
        Box::pin(async { Ok(None) })
    }
}

/// Ingest by itself.
pub(crate) struct Bare {
    pub(crate) url: String,
    pub(crate) http: Client,
    pub(crate) clock: Clock,
    world: Arc<World>,
    serving: tokio::task::JoinHandle<()>,
    pub(crate) ingest: Ingest,
    _database: Option<TestDatabase>,
}

impl Bare {
    pub(crate) async fn start() -> Self {
        Self::with(Config::default()).await
    }

    /// With a database, for what also says what it did not send.
    pub(crate) async fn start_with_database() -> Self {
        let database = TestDatabase::new().await;
        let mut bare = Self::on(database.pool().clone(), Clock::system(), Config::default()).await;
        bare._database = Some(database);
        bare
    }

    pub(crate) async fn with(config: Config) -> Self {
        let clock = Clock::manual(DateTime::from_timestamp(1_800_000_000, 0).unwrap());
        // Client reports alone go there.
        let pool = PgPoolOptions::new().connect_lazy("postgres://127.0.0.1:1/none").unwrap();
        Self::on(pool, clock, config).await
    }

    async fn on(pool: PgPool, clock: Clock, config: Config) -> Self {
        loom_testkit::app::install_crypto();
        let now = clock.now();
        let world = Arc::new(World { given: Mutex::default(), refuses: Mutex::default(), now });
        let deps = Deps {
            pool,
            clock: clock.clone(),
            projects: world.clone(),
            events: world.clone(),
            attachments: world.clone(),
            sessions: world.clone(),
            check_ins: world.clone(),
            gate: Gate::new(&config),
            stop: CancellationToken::new(),
        };
        let ingest = Ingest::new(deps, config);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let routes = ingest.routes();
        let serving = tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
        let http = Client::builder().no_proxy().build().unwrap();
        Self { url, http, clock, world, serving, ingest, _database: None }
    }

    pub(crate) fn now(&self) -> DateTime<Utc> {
        self.world.now
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.url))
    }

    /// An envelope with a good key.
    pub(crate) async fn envelope(&self, body: impl Into<reqwest::Body>) -> Reply {
        self.envelope_of(KEY, body).await
    }

    pub(crate) async fn envelope_of(&self, key: &str, body: impl Into<reqwest::Body>) -> Reply {
        let path = format!("/api/42/envelope/?sentry_key={key}");
        reply(self.request(Method::POST, &path).body(body)).await
    }

    /// What the sinks were given since this was asked last.
    pub(crate) fn given(&self) -> Vec<Given> {
        std::mem::take(&mut *self.world.given.lock().unwrap())
    }

    /// All that they were given so far.
    pub(crate) fn peek(&self) -> Vec<Given> {
        self.world.given.lock().unwrap().clone()
    }

    pub(crate) fn dsn(&self) -> String {
        self.url.replace("://", &format!("://{KEY}@")) + "/42"
    }

    /// The same, as names of sinks in order of the alphabet.
    pub(crate) fn sinks(&self) -> Vec<&'static str> {
        let mut sinks: Vec<_> = self.given().iter().map(|given| given.sink).collect();
        sinks.sort_unstable();
        sinks
    }

    /// From now on this sink says so.
    pub(crate) fn refuse(&self, sink: &'static str, answer: Result<Taken>) {
        *self.world.refuses.lock().unwrap() = Some((sink, answer));
    }

    pub(crate) fn overload(&self, sink: &'static str) {
        self.refuse(sink, Err(Error::overloaded("the queue")));
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: reqwest::header::HeaderMap,
    pub(crate) text: String,
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap()
    }

    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{self:?}");
        self
    }

    /// A refusal in Sentry's shape.
    #[track_caller]
    pub(crate) fn refused(self, status: u16) -> Self {
        let this = self.expect(status);
        let detail = this.json()["detail"].as_str().unwrap().to_owned();
        assert!(!detail.is_empty() && this.header("x-sentry-error").is_some(), "{this:?}");
        assert_eq!(this.header("access-control-allow-origin"), Some("*"));
        this
    }
}

pub(crate) async fn reply(request: RequestBuilder) -> Reply {
    let response = request.send().await.unwrap();
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    Reply { status, headers, text: response.text().await.unwrap() }
}

/// An envelope of one event.
pub(crate) fn one_event() -> String {
    format!("{{\"event_id\":\"{EVENT}\"}}\n{{\"type\":\"event\"}}\n{{\"message\":\"hello\"}}\n")
}

pub(crate) async fn encoded(encoding: &str, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    match encoding {
        "gzip" | "x-gzip" => GzipEncoder::new(body).read_to_end(&mut out).await,
        "deflate" => ZlibEncoder::new(body).read_to_end(&mut out).await,
        "br" => BrotliEncoder::new(body).read_to_end(&mut out).await,
        "zstd" => ZstdEncoder::new(body).read_to_end(&mut out).await,
        "identity" => {
            out = body.to_vec();
            Ok(out.len())
        }
        other => panic!("{other}"),
    }
    .unwrap();
    out
}
