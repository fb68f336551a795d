//! The feature's router on a socket, people to ask it, and what they may ask.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, Once},
    time::Duration,
};

use axum::{
    extract::{Request, State},
    middleware::{self, Next},
    response::Response,
};
use chrono::DateTime;
use http::{HeaderMap, Method, StatusCode, request::Parts};
use loom_core::{
    Clock, Principal, Result,
    id::{ApiKeyId, OrgId, ThreadId, UserId, new_uuid},
    port::{Act, Audit, BoxFuture, OrgDirectory, Reauthenticate},
    principal::{Actor, Authentication, OrgRole, RequestInfo, Scope, Scopes, Via},
};
use loom_db::Hub;
use loom_testkit::TestDatabase;
use loom_threads::{Deps, Threads};
use serde_json::{Value, json};
use sqlx::{PgPool, postgres::PgPoolOptions};
use tokio_util::sync::CancellationToken;

const AS: &str = "x-test-as";

type People = Arc<Mutex<HashMap<String, Principal>>>;

pub(crate) struct App {
    url: String,
    client: reqwest::Client,
    people: People,
    pool: PgPool,
    /// Goes away with the test.
    _database: TestDatabase,
    pub(crate) clock: Clock,
}

/// What the feature is given, where nothing is audited and no organisation has a name.
struct Nobody;

impl Audit for Nobody {
    fn record<'a>(
        &'a self,
        _by: Option<&'a Principal>,
        _org: Option<OrgId>,
        _from: Option<&'a RequestInfo>,
        _act: Act,
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(async { Ok(()) })
    }
}

impl OrgDirectory for Nobody {
    fn org_id<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Option<OrgId>>> {
        Box::pin(async { Ok(None) })
    }

    fn acting_in<'a>(
        &'a self,
        principal: &'a Principal,
        _: &'a str,
    ) -> BoxFuture<'a, Result<Principal>> {
        Box::pin(async { Ok(principal.clone()) })
    }

    fn org_slug(&self, org: OrgId) -> BoxFuture<'_, Result<String>> {
        Box::pin(async move { Ok(org.to_string()) })
    }
}

impl Reauthenticate for Nobody {
    fn again<'a>(&'a self, _: &'a Parts) -> BoxFuture<'a, Authentication> {
        Box::pin(std::future::ready(Authentication::Anonymous))
    }

    fn still<'a>(&'a self, _: &'a Principal, _: &'a RequestInfo) -> BoxFuture<'a, Authentication> {
        Box::pin(std::future::ready(Authentication::Anonymous))
    }
}

pub(crate) fn threads(pool: PgPool, clock: Clock) -> Threads {
    let deps = Deps {
        pool,
        clock,
        hub: Hub::silent(&[loom_threads::CHANNEL]),
        audit: Arc::new(Nobody),
        orgs: Arc::new(Nobody),
        who: Arc::new(Nobody),
        stop: CancellationToken::new(),
    };
    let mut config = loom_threads::Config::default();
    config.cache_bytes = 1 << 20;
    Threads::new(deps, config)
}

impl App {
    pub(crate) async fn start() -> Self {
        let database = TestDatabase::new().await;
        let pool = database.pool().clone();
        Self::start_on(database, pool).await
    }

    /// With one connection for everything, whose own statistics can be asked for at any time.
    pub(crate) async fn start_with_one_connection() -> Self {
        let database = TestDatabase::new().await;
        let options = database.pool().connect_options().as_ref().clone();
        let pool = PgPoolOptions::new().max_connections(1).connect_with(options).await.unwrap();
        Self::start_on(database, pool).await
    }

    async fn start_on(database: TestDatabase, pool: PgPool) -> Self {
        static TLS: Once = Once::new();
        TLS.call_once(|| {
            let _ = rustls::crypto::ring::default_provider().install_default();
        });
        let clock = Clock::manual(DateTime::from_timestamp(1_900_000_000, 0).unwrap());
        let people = People::default();
        let threads = threads(pool.clone(), clock.clone());
        let (router, _) = threads.routes().split_for_parts();
        let router = router.layer(middleware::from_fn_with_state(people.clone(), authenticate));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        let client =
            reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(60)).build().unwrap();
        Self { url, client, people, pool, _database: database, clock }
    }

    pub(crate) fn pool(&self) -> &PgPool {
        &self.pool
    }

    pub(crate) fn advance(&self, millis: u64) {
        self.clock.advance(Duration::from_millis(millis));
    }

    pub(crate) fn new_thread_id(&self) -> String {
        ThreadId(new_uuid(self.clock.now())).to_string()
    }

    pub(crate) async fn organisation(&self) -> OrgId {
        let org = OrgId::new(self.clock.now());
        sqlx::query(
            "INSERT INTO organisations (id, slug, name, created_at) VALUES ($1, $2, '', $3)",
        )
        .bind(org)
        .bind(org.to_string())
        .bind(self.clock.now())
        .execute(self.pool())
        .await
        .unwrap();
        org
    }

    pub(crate) async fn member(&self, org: OrgId, role: OrgRole) -> Person<'_> {
        let user = UserId::new(self.clock.now());
        sqlx::query(
            "INSERT INTO users (id, email, personal_org_id, created_at) VALUES ($1, $2, $3, $4)",
        )
        .bind(user)
        .bind(format!("{user}@example.com"))
        .bind(org)
        .bind(self.clock.now())
        .execute(self.pool())
        .await
        .unwrap();
        self.person(Actor::User(user), org, role, Scopes::all())
    }

    /// A member of a new organisation.
    pub(crate) async fn somebody(&self) -> Person<'_> {
        self.member(self.organisation().await, OrgRole::Member).await
    }

    pub(crate) fn service(&self, org: OrgId) -> Person<'_> {
        let key = ApiKeyId::new(self.clock.now());
        self.person(Actor::Service(key), org, OrgRole::Member, Scopes::all())
    }

    fn person(&self, actor: Actor, org: OrgId, role: OrgRole, scopes: Scopes) -> Person<'_> {
        let name = new_uuid(self.clock.now()).to_string();
        let principal = Principal {
            actor,
            via: Via::DevMode,
            org,
            role,
            scopes,
            system_admin: false,
            auditor: false,
            name: name.as_str().into(),
        };
        self.people.lock().unwrap().insert(name.clone(), principal.clone());
        Person { app: self, name, principal }
    }

    pub(crate) fn anonymous(&self) -> Person<'_> {
        let org = OrgId::new(self.clock.now());
        let user = Actor::User(UserId::new(self.clock.now()));
        let person = self.person(user, org, OrgRole::Member, Scopes::all());
        self.people.lock().unwrap().clear();
        person
    }
}

async fn authenticate(State(people): State<People>, mut request: Request, next: Next) -> Response {
    let name = request.headers().get(AS).and_then(|name| name.to_str().ok()).unwrap_or_default();
    let found = people.lock().unwrap().get(name).cloned();
    request.extensions_mut().insert(RequestInfo { id: "r".into(), ip: [127, 0, 0, 1].into() });
    request.extensions_mut().insert(found.map_or(Authentication::Anonymous, Authentication::Known));
    next.run(request).await
}

/// Somebody with a credential.
pub(crate) struct Person<'a> {
    app: &'a App,
    name: String,
    pub(crate) principal: Principal,
}

impl<'a> Person<'a> {
    pub(crate) fn org(&self) -> OrgId {
        self.principal.org
    }

    pub(crate) fn user_id(&self) -> String {
        self.principal.user_id().unwrap().to_string()
    }

    /// The same actor with a credential for less.
    pub(crate) fn with_scopes(&self, scopes: &[Scope]) -> Self {
        let Principal { actor, org, role, .. } = self.principal;
        self.app.person(actor, org, role, scopes.iter().copied().collect())
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> Call {
        let url = format!("{}{path}", self.app.url);
        Call(self.app.client.request(method, url).header(AS, &self.name))
    }

    pub(crate) fn get(&self, path: &str) -> Call {
        self.request(Method::GET, path)
    }

    pub(crate) fn read(&self, id: &str) -> Call {
        self.get(&format!("/api/threads/{id}"))
    }

    pub(crate) fn put(&self, id: &str, thread: &Value) -> Call {
        self.request(Method::PUT, &format!("/api/threads/{id}")).json(thread)
    }

    pub(crate) fn patch(&self, id: &str, patch: &Value) -> Call {
        self.request(Method::PATCH, &format!("/api/threads/{id}")).json(patch)
    }

    pub(crate) fn delete(&self, id: &str) -> Call {
        self.request(Method::DELETE, &format!("/api/threads/{id}"))
    }

    pub(crate) fn append(&self, id: &str, append: &Value) -> Call {
        self.request(Method::POST, &format!("/api/threads/{id}/messages")).json(append)
    }

    /// Creates a thread and gives its id.
    pub(crate) async fn creates(&self, thread: &Value) -> String {
        let id = self.app.new_thread_id();
        self.put(&id, thread).await.expect(StatusCode::CREATED);
        id
    }

    /// The ids of a list.
    pub(crate) async fn lists(&self, query: &str) -> Vec<String> {
        let page = self.get(&format!("/api/threads{query}")).await.expect(StatusCode::OK);
        let threads = page.body["threads"].as_array().unwrap();
        threads.iter().map(|thread| thread["id"].as_str().unwrap().to_owned()).collect()
    }
}

pub(crate) struct Call(reqwest::RequestBuilder);

impl Call {
    pub(crate) fn header(self, name: &str, value: &str) -> Self {
        Self(self.0.header(name, value))
    }

    pub(crate) fn if_match(self, tag: &str) -> Self {
        self.header("if-match", tag)
    }

    pub(crate) fn json(self, body: &Value) -> Self {
        self.text(body.to_string())
    }

    pub(crate) fn text(self, body: String) -> Self {
        self.text_as("application/json", body)
    }

    pub(crate) fn text_as(self, kind: &str, body: String) -> Self {
        Self(self.0.header("content-type", kind).body(body))
    }
}

impl IntoFuture for Call {
    type Output = Answer;
    type IntoFuture = std::pin::Pin<Box<dyn Future<Output = Answer> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let response = self.0.send().await.unwrap();
            let (status, headers) = (response.status(), response.headers().clone());
            let text = response.text().await.unwrap();
            let body = serde_json::from_str(&text).unwrap_or_default();
            Answer { status, headers, text, body }
        })
    }
}

pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
    pub(crate) body: Value,
}

impl Answer {
    #[track_caller]
    pub(crate) fn expect(self, status: StatusCode) -> Self {
        assert_eq!(self.status, status, "{}", self.text);
        self
    }

    /// A problem document with this code.
    #[track_caller]
    pub(crate) fn expect_problem(self, status: StatusCode, code: &str) -> Self {
        let answer = self.expect(status);
        assert_eq!(answer.header("content-type"), "application/problem+json");
        assert_eq!(answer.body["code"], code, "{}", answer.text);
        answer
    }

    /// A 422 about exactly these fields.
    #[track_caller]
    pub(crate) fn expect_invalid(self, paths: &[&str]) {
        let answer = self.expect_problem(StatusCode::UNPROCESSABLE_ENTITY, "invalid_request");
        let found: Vec<_> =
            answer.body["errors"].as_array().unwrap().iter().map(|e| &e["path"]).collect();
        assert_eq!(found, paths, "{}", answer.text);
    }

    #[track_caller]
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub(crate) fn version(&self) -> i64 {
        self.body["version"].as_i64().unwrap()
    }

    /// The `(id, seq)` of the messages in the body.
    pub(crate) fn places(&self) -> Vec<(String, i64)> {
        let messages = self.body["messages"].as_array().unwrap();
        let place = |m: &Value| (m["id"].as_str().unwrap().to_owned(), m["seq"].as_i64().unwrap());
        messages.iter().map(place).collect()
    }
}

/// A thread of user messages with these ids.
pub(crate) fn thread(ids: &[&str]) -> Value {
    json!({ "messages": ids.iter().map(|id| message(id)).collect::<Vec<_>>() })
}

pub(crate) fn message(id: &str) -> Value {
    json!({ "id": id, "role": "user", "content": format!("text of {id}") })
}

pub(crate) fn places(pairs: &[(&str, i64)]) -> Vec<(String, i64)> {
    pairs.iter().map(|(id, seq)| ((*id).to_owned(), *seq)).collect()
}
