//! Release health: sessions of applications, crash-free rates, adoption.

mod alerts;
mod calendar;
mod config;
mod durations;
mod feed;
mod health;
mod http;
mod jobs;
mod overview;
mod rates;
mod session;
mod sink;
mod statistics;
mod store;
mod users;
mod wire;

use std::sync::Arc;

use axum::middleware;
use loom_core::{
    Clock,
    group_commit::{Limits, Writer},
    port::{
        Audit, CrashDirectory, IntakeGate, OrgDirectory, ProjectDirectory, Reauthenticate,
        ThreadDirectory,
    },
    principal,
};
use loom_db::{Announcer, Hub};
use loom_notify::Notify;
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;
use utoipa_axum::{router::OpenApiRouter, routes};

use feed::Feed;
use store::{
    intake::{self, Item},
    names::Names,
};

pub use config::Config;
pub use health::METRICS;

/// What replicas tell each other: `stream …` (what watchers are told, as JSON).
pub const CHANNEL: &str = "loom_app_sessions";

/// What the feature is given.
#[derive(Clone)]
pub struct Deps {
    pub pool: PgPool,
    pub clock: Clock,
    pub hub: Hub,
    pub notify: Notify,
    pub audit: Arc<dyn Audit>,
    pub orgs: Arc<dyn OrgDirectory>,
    /// Asks again who watches.
    pub who: Arc<dyn Reauthenticate>,
    pub projects: Arc<dyn ProjectDirectory>,
    pub crashes: Arc<dyn CrashDirectory>,
    pub threads: Arc<dyn ThreadDirectory>,
    /// What holds for sessions, whichever way they come in.
    pub gate: Arc<dyn IntakeGate>,
    /// Of distinct ids: what is hashed with it cannot be found by trying.
    pub salt: loom_common_secret::SecretString,
    /// Ends all running streams.
    pub stop: CancellationToken,
}

/// The feature, as the server holds it; cheap to clone.
#[derive(Clone)]
pub struct Sessions(Arc<Inner>);

/// What the handle holds.
#[doc(hidden)]
pub struct Inner {
    deps: Deps,
    config: Config,
    announcer: Announcer,
    writer: Writer<Item>,
    /// The writer's one connection.
    own: PgPool,
    feed: Feed,
}

impl std::ops::Deref for Sessions {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl Sessions {
    pub fn new(deps: Deps, config: Config) -> Self {
        let announcer = Announcer::new(deps.pool.clone(), CHANNEL);
        let feed = Feed::new(announcer.clone(), &deps.stop);
        // In the queue for the shared connections a batch would wait behind every request of a busy server.
        let options = deps.pool.connect_options().as_ref().clone();
        let own = deps.pool.options().clone().max_connections(1).connect_lazy_with(options);
        let writer = {
            let (own, feed) = (own.clone(), feed.clone());
            let names = Names::new(config.new_names_per_day);
            Writer::start("app_sessions", Limits::default(), move |items: Arc<[Item]>| {
                let (own, feed, names) = (own.clone(), feed.clone(), names.clone());
                async move {
                    feed.changed(intake::write(&own, &names, &items).await?);
                    Ok(())
                }
            })
        };
        Self(Arc::new(Inner { deps, config, announcer, writer, own, feed }))
    }

    pub fn start(&self) {
        self.announcer.start();
        self.feed.start(&self.deps.hub, CHANNEL);
    }

    /// Says good-bye to all who watch.
    pub fn end_streams(&self) {
        self.feed.leaving.cancel();
    }

    /// Writes what waits.
    pub async fn close(&self) {
        self.writer.close().await;
        self.own.close().await;
        self.announcer.stop().await;
    }

    pub fn jobs(&self) -> Vec<loom_jobs::Job> {
        jobs::all(self)
    }

    /// All native routes that need somebody who is signed in or a key.
    pub fn routes(&self) -> OpenApiRouter {
        OpenApiRouter::new()
            .routes(routes!(http::list::list_app_sessions))
            .routes(routes!(http::series::app_session_series))
            .routes(routes!(http::releases::list_app_session_releases))
            .routes(routes!(http::releases::get_app_session_release))
            .routes(routes!(http::stream::watch_app_sessions))
            .routes(routes!(http::alerts::list_alerts, http::alerts::create_alert))
            .routes(routes!(
                http::alerts::get_alert,
                http::alerts::change_alert,
                http::alerts::delete_alert
            ))
            .route_layer(middleware::from_fn(principal::required))
            .with_state(self.clone())
    }

    /// `start`, `update`, `end`: also with a project's DSN key, from the origins that the project allows.
    pub fn capture_routes(&self) -> OpenApiRouter {
        http::capture::routes(self)
    }

    pub(crate) fn now(&self) -> chrono::DateTime<chrono::Utc> {
        self.deps.clock.now()
    }
}
