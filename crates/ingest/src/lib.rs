//! The Sentry envelope protocol: parse, authenticate, hand items on.

mod admission;
mod answer;
mod body;
mod config;
mod credentials;
mod envelope;
mod gate;
mod http;
mod item;
mod jobs;
mod limits;
mod measures;
mod minidump;
mod model;
mod origin;
mod refusal;
mod reports;
mod security;
mod store;
mod take;
mod target;

use std::sync::Arc;

use axum::{Router, extract::DefaultBodyLimit, middleware, routing::any};
use loom_core::{
    Clock,
    health::Check,
    port::{AttachmentSink, CheckInSink, EventSink, ProjectDirectory, SessionSink},
    principal,
};
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;
use utoipa_axum::{router::OpenApiRouter, routes};

pub use config::Config;
pub use gate::Gate;
pub use measures::METRICS;
pub use model::{DiscardedItems, DiscardedPage, DiscardedQuery};

/// What the feature is given.
#[derive(Clone)]
pub struct Deps {
    pub pool: PgPool,
    pub clock: Clock,
    pub projects: Arc<dyn ProjectDirectory>,
    pub events: Arc<dyn EventSink>,
    pub attachments: Arc<dyn AttachmentSink>,
    pub sessions: Arc<dyn SessionSink>,
    pub check_ins: Arc<dyn CheckInSink>,
    pub gate: Gate,
    pub stop: CancellationToken,
}

/// The feature, as the server holds it; cheap to clone.
#[derive(Clone)]
pub struct Ingest(Arc<Inner>);

/// What the handle holds.
#[doc(hidden)]
pub struct Inner {
    deps: Deps,
    config: Config,
    pulse: measures::Pulse,
    reports: reports::Reports,
}

impl std::ops::Deref for Ingest {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

/// Is this route one of Sentry's? Then whatever key a request shows there is for a project, and no
/// credential of Loom's.
pub fn is_sentry_route(route: &str) -> bool {
    route.starts_with("/api/{project}/") || ROUTES_WITHOUT_PROJECT.contains(&route)
}

const ROUTES_WITHOUT_PROJECT: [&str; 4] =
    ["/api/store", "/api/store/", "/api/tunnel", "/api/tunnel/"];

impl Ingest {
    pub fn new(deps: Deps, config: Config) -> Self {
        Self(Arc::new(Inner {
            pulse: measures::Pulse::default(),
            reports: reports::Reports::start(deps.pool.clone()),
            deps,
            config,
        }))
    }

    pub fn health(&self) -> Check {
        self.pulse.health(self.memory(), &self.deps.clock)
    }

    pub(crate) fn memory(&self) -> &body::Memory {
        self.deps.gate.memory()
    }

    /// Writes what is still to be written.
    pub async fn close(&self) {
        self.reports.close().await;
    }

    pub fn jobs(&self) -> Vec<loom_jobs::Job> {
        jobs::all(self)
    }

    /// `/api/{number}/…`: the key is in the request; CORS, errors and slashes are Sentry's.
    pub fn routes(&self) -> Router {
        let project = |path: &str| format!("/api/{{project}}/{path}");
        let both =
            |router: Router<Self>, path: String, handler: axum::routing::MethodRouter<Self>| {
                router.route(&path, handler.clone()).route(&format!("{path}/"), handler)
            };
        [
            (project("envelope"), any(http::envelope::envelope)),
            ("/api/tunnel".to_owned(), any(http::envelope::tunnel)),
            (project("store"), any(http::store::store)),
            ("/api/store".to_owned(), any(http::store::store_without_project)),
            (project("minidump"), any(http::minidump::minidump)),
            (project("security"), any(http::security::security)),
            // An older name of the same.
            (project("csp-report"), any(http::security::security)),
            (project("events/{event}/attachments"), any(http::attachments::attachments)),
            (project("cron/{slug}"), any(http::cron::cron)),
            (project("cron/{slug}/{key}"), any(http::cron::cron)),
        ]
        .into_iter()
        .fold(Router::new(), |router, (path, handler)| both(router, path, handler))
        .layer(middleware::from_fn_with_state(self.clone(), http::around))
        // Bodies have limits of their own.
        .layer(DefaultBodyLimit::disable())
        .with_state(self.clone())
    }

    /// Our own API. It needs an `Authentication` in each request.
    pub fn native_routes(&self) -> OpenApiRouter {
        OpenApiRouter::new()
            .routes(routes!(http::native::list_discarded_items))
            .route_layer(middleware::from_fn(principal::required))
            .with_state(self.clone())
    }
}
