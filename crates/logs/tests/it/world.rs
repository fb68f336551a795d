//! A layer, its buffer, and the routes over it, for an admin.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex},
};

use axum::{Extension, Router, body::Body};
use http::{Request, request::Parts};
use loom_core::{
    Clock, Principal, Result,
    id::{OrgId, UserId},
    port::{Act, Audit, BoxFuture, Reauthenticate},
    principal::{Actor, Authentication, OrgRole, RequestInfo, Scopes, Via},
};
use loom_logs::{Buffer, Config, Form, LogLayer, Logs};
use serde_json::Value;
use tower::ServiceExt;
use tracing_subscriber::layer::SubscriberExt;

pub(crate) struct World {
    pub(crate) buffer: Buffer,
    out: Arc<Mutex<String>>,
    form: Form,
}

struct Nobody;

/// What becomes of the credential of whoever watches.
pub(crate) struct Again(pub(crate) Authentication);

impl Audit for Nobody {
    fn record<'a>(
        &'a self,
        _: Option<&'a Principal>,
        _: Option<OrgId>,
        _: Option<&'a RequestInfo>,
        _: Act,
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(std::future::ready(Ok(())))
    }
}

impl Reauthenticate for Again {
    fn again<'a>(&'a self, _: &'a Parts) -> BoxFuture<'a, Authentication> {
        Box::pin(std::future::ready(self.0.clone()))
    }

    fn still<'a>(&'a self, _: &'a Principal, _: &'a RequestInfo) -> BoxFuture<'a, Authentication> {
        Box::pin(std::future::ready(self.0.clone()))
    }
}

pub(crate) fn admin() -> Principal {
    let now = Clock::system().now();
    Principal {
        actor: Actor::User(UserId::new(now)),
        via: Via::DevMode,
        org: OrgId::new(now),
        role: OrgRole::Owner,
        scopes: Scopes::all(),
        system_admin: true,
        auditor: false,
        name: "ada@example.com".into(),
    }
}

impl World {
    pub(crate) fn new(form: Form) -> Self {
        Self { buffer: Buffer::new("here:1", 16 << 20), out: Arc::default(), form }
    }

    /// What `log` logs has gone through when it returns.
    pub(crate) fn log(&self, log: impl FnOnce()) {
        let out = Arc::clone(&self.out);
        let put = Box::new(move |lines: &[u8]| {
            out.lock().unwrap().push_str(std::str::from_utf8(lines).unwrap());
        });
        let (layer, flusher) =
            LogLayer::start(self.buffer.clone(), Clock::system(), self.form, put);
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            log();
            flusher.flush();
        });
    }

    pub(crate) fn written(&self) -> String {
        self.out.lock().unwrap().clone()
    }

    /// The routes, for an admin.
    pub(crate) fn app(&self, again: Authentication) -> Router {
        loom_testkit::app::install_crypto();
        let database = loom_db::Database::disconnected();
        let config = Config { buffer_bytes: 16 << 20, peer_url: None };
        let (pool, clock) = (database.pool().clone(), Clock::system());
        let logs = Logs::new(pool, clock, self.buffer.clone(), &config, "key".into()).unwrap();
        let info = RequestInfo { id: "r".into(), ip: IpAddr::from([127, 0, 0, 1]) };
        let routes: Router = logs.routes(Arc::new(Nobody), Arc::new(Again(again))).into();
        routes.layer(Extension(info)).layer(Extension(Authentication::Known(admin())))
    }

    /// `GET /api/admin/logs`
    pub(crate) fn read(&self, query: &str) -> Value {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let request = Request::get(format!("/api/admin/logs{query}")).body(Body::empty());
            let answer =
                self.app(Authentication::Known(admin())).oneshot(request.unwrap()).await.unwrap();
            assert_eq!(answer.status(), 200);
            let body = axum::body::to_bytes(answer.into_body(), usize::MAX).await.unwrap();
            serde_json::from_slice(&body).unwrap()
        })
    }
}
